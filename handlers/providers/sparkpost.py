"""SparkPost relay webhooks: a JSON array of `msys.relay_message`, each with its raw message.

Proofs: `token:VALUE` (the relay webhook's auth_token), `header:NAME:VALUE` (one of its custom headers),
`basic:USER:PASSWORD` in the URL, `bearer:TOKEN`.
Envelope: `rcpt_to` and `msg_from`; a hand-made payload may lack the first, then the header names candidates.
Unconfirmed: which answers count as failed.
"""

import base64
import binascii
from typing import Any

from handlers.errors import PayloadInvalid, SignatureInvalid
from handlers.providers import payload
from handlers.providers.webhook import Codes, Headers, ProviderMessage, shared_secret_matches

# https://developers.sparkpost.com/api/relay-webhooks/
CODES = Codes(ack=200, retry=503, drop=200, auth_fail=401)
_TOKEN = "x-messagesystems-webhook-token"


def verify(headers: Headers, body: bytes, proofs: list[str], now_s: float) -> int | None:
    """Return None: no proof of SparkPost's signs a time.

    Errors:  SignatureInvalid  none of *proofs* holds.    permanent
    """
    tokens = [proof.removeprefix("token:") for proof in proofs if proof.startswith("token:")]
    named = [f"header:{_TOKEN}:{token}" for token in tokens]
    if not (shared_secret_matches(headers, proofs) or payload.secret_header_matches(headers, [*proofs, *named])):
        raise SignatureInvalid(f"no proof: expected the header {_TOKEN} that a token: proof names, or Authorization")
    return None


def read(headers: Headers, body: bytes) -> list[ProviderMessage]:
    """Return one message per relayed message and recipient; none for the ping `[{"msys": {}}]`.

    Errors:  PayloadInvalid  no array, or nothing in it is readable mail.    permanent
    """
    batch = payload.read_json(body)
    if not isinstance(batch, list) or not batch:
        raise PayloadInvalid(f"body of {len(body)} octets: expected an array of relayed messages")
    return payload.read_each(batch, _read_one)


def _read_one(element: Any) -> list[ProviderMessage]:
    msys = payload.as_object(element).get("msys")
    if msys == {}:
        return []
    relayed = payload.as_object(msys).get("relay_message")
    if not isinstance(relayed, dict):
        kind = next((name for name in payload.as_object(msys) if name != "relay_message"), None)
        raise payload.other_event(kind, "relay_message; this URL belongs in a relay webhook")
    raw = _raw(payload.as_object(relayed.get("content")))
    return payload.messages(raw, payload.recipients(relayed.get("rcpt_to")), payload.sender(relayed.get("msg_from")))


def _raw(content: dict[str, Any]) -> bytes:
    """The message's octets: base64 is SparkPost's way with a message that is no UTF-8."""
    if content.get("email_rfc822_is_base64") in (True, "true"):
        raw = _from_base64(payload.as_text(content.get("email_rfc822")))
    else:
        raw = payload.octets(content.get("email_rfc822"))
    return raw or payload.parsed(payload.header_pairs(content.get("headers")), content.get("text"), content.get("html"))


def _from_base64(text: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        return b""
