"""Mandrill (Mailchimp Transactional) inbound: a form whose one field `mandrill_events` is a JSON array of up to 1,000.

Proofs: `KEY@URL`, the webhook's key and the URL exactly as typed at Mandrill, user, password and query included: what
is signed is the URL, and a proxy changes the one that we see. Or `basic:USER:PASSWORD` in the URL.
Envelope: `msg.email`; Mandrill tells no envelope sender. `raw_msg` is JSON text, so octets outside UTF-8 may be damaged.
Unconfirmed: which answers it repeats and for how long. On creation it may post a test that is signed with the key
`test-webhook`: the 401 is fine as long as HEAD answers 200.
"""

import base64
import hmac
from typing import Any

from handlers.errors import PayloadInvalid, SignatureInvalid
from handlers.providers import payload
from handlers.providers.webhook import (
    Codes,
    Headers,
    ProviderMessage,
    same,
    shared_secret_matches,
    signing_keys,
    single,
)

# https://mailchimp.com/developer/transactional/docs/webhooks/
CODES = Codes(ack=200, retry=503, drop=200, auth_fail=401)
_SIGNATURE = "x-mandrill-signature"
_EVENTS = b"mandrill_events"


def verify(headers: Headers, body: bytes, proofs: list[str], now_s: float) -> int | None:
    """Return None: neither proof signs a time.

    Errors:  SignatureInvalid  none of *proofs* holds.    permanent
    """
    if shared_secret_matches(headers, proofs):
        return None
    given = single(headers, _SIGNATURE)
    if not given:
        raise SignatureInvalid(f"no proof: expected the header {_SIGNATURE}, or Authorization")
    signed = _signed_fields(body)
    keys = [proof.partition("@") for proof in signing_keys(proofs)]
    usable = [(key, url) for key, _, url in keys if key and url.startswith(("https://", "http://"))]
    if not any(same(given, _signature(key, url, signed)) for key, url in usable):
        hint = "; another has no URL, expected KEY@https://…" if len(usable) < len(keys) else ""
        raise SignatureInvalid(f"signature matches none of {len(usable)} configured keys and URLs{hint}")
    return None


def _signature(key: str, url: str, signed: bytes) -> str:
    secret, start = (text.encode("utf-8", "surrogateescape") for text in (key, url))
    return base64.b64encode(hmac.digest(secret, start + signed, "sha1")).decode()


def _signed_fields(body: bytes) -> bytes:
    try:
        fields = payload.read_urlencoded(body)
    except PayloadInvalid as error:
        raise SignatureInvalid(str(error)) from error
    return b"".join(name + value for name, value in sorted(fields, key=lambda field: field[0]))


def read(headers: Headers, body: bytes) -> list[ProviderMessage]:
    """Return one message per inbound event; none for the empty array, which is Mandrill's test.

    Errors:  PayloadInvalid  no array of events, or none of them is readable mail.    permanent
    """
    fields = payload.read_urlencoded(body)
    posted = next((value for name, value in fields if name == _EVENTS), None)
    if posted is None:
        raise PayloadInvalid(f"form of {len(fields)} fields: expected mandrill_events")
    events = payload.read_json(posted)
    if not isinstance(events, list):
        raise PayloadInvalid(f"mandrill_events of type {type(events).__name__}: expected an array")
    return payload.read_each(events, _read_one)


def _read_one(element: Any) -> list[ProviderMessage]:
    event = payload.as_object(element)
    if event.get("event") != "inbound":
        kind = event.get("event") or event.get("type")
        raise payload.other_event(kind, "inbound; this URL belongs in an inbound route, not in the webhooks")
    msg = payload.as_object(event.get("msg"))
    raw = payload.octets(msg.get("raw_msg"))
    if not raw:
        raw = payload.parsed(payload.header_pairs(msg.get("headers")), msg.get("text"), msg.get("html"))
    return payload.messages(raw, payload.recipients(msg.get("email")), None)
