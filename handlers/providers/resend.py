"""Resend inbound: an event with metadata only; body and headers stay behind its API.

Proofs: the webhook's `whsec_…` secret (Svix), or `basic:USER:PASSWORD` in the URL.
Envelope: `data.received_for`. With a tag in it nothing more is needed, so nothing is fetched.
Limits:  the mail's own headers are not in the event: an automatic reply is told by From and Subject at most, and the
         null sender is never told.
Unconfirmed: `received_for` is in recorded events, not in the documentation; without it To, Cc and Bcc are candidates.
"""

from typing import Any

from handlers.errors import PayloadInvalid, SignatureInvalid
from handlers.providers import payload
from handlers.providers.standard_webhook import verify_signed
from handlers.providers.webhook import Codes, Headers, ProviderMessage, shared_secret_matches

# https://resend.com/docs/dashboard/receiving/introduction
CODES = Codes(ack=200, retry=503, drop=200, auth_fail=401)
_WINDOW_S = 300  # each retry is signed anew
_PREFIXES = ("svix", "webhook")


def verify(headers: Headers, body: bytes, proofs: list[str], now_s: float) -> int | None:
    """Return the signed time in ms, None for a proof without one.

    Errors:  SignatureInvalid  none of *proofs* holds.    permanent
    """
    if shared_secret_matches(headers, proofs):
        return None
    prefix = next((each for each in _PREFIXES if headers.get(f"{each}-signature")), "")
    if not prefix:
        raise SignatureInvalid(
            "no proof: expected the headers svix-id, svix-timestamp, svix-signature, or Authorization"
        )
    return verify_signed(headers, body, proofs, now_s, prefix=prefix, window_s=_WINDOW_S)


def read(headers: Headers, body: bytes) -> list[ProviderMessage]:
    """Return the mail's metadata as a header block, once per envelope recipient; once without one when none was told.

    Errors:  PayloadInvalid  no email.received, or nobody received it.    permanent
    """
    event = payload.as_object(payload.read_json(body))
    if event.get("type") != "email.received":
        expected = "email.received; leave the other events of this webhook off"
        raise payload.other_event(event.get("type"), expected)
    data = payload.as_object(event.get("data"))
    envelope_to, candidates = _received_for(data), _candidates(data)
    if not envelope_to and not candidates:
        raise PayloadInvalid("email.received without received_for, to, cc and bcc: expected a recipient somewhere")
    names = {"From": "from", "Subject": "subject", "Message-ID": "message_id"}
    told = payload.with_missing([], {name: data.get(key) for name, key in names.items()})
    return payload.messages(payload.parsed(told + candidates, ""), envelope_to, None)


def _received_for(data: dict[str, Any]) -> list[str]:
    """Of an unconfirmed field another shape is as good as none: the candidates are still there."""
    try:
        return payload.recipients(data.get("received_for"))
    except PayloadInvalid:
        return []


def _candidates(data: dict[str, Any]) -> list[tuple[str, str]]:
    """Apparently-To is the old header for whom To and Cc do not name: a Bcc line itself names nobody here."""
    found: list[tuple[str, str]] = []
    for name, key in (("To", "to"), ("Cc", "cc"), ("Apparently-To", "bcc")):
        value = data.get(key)
        texts = map(payload.as_text, value if isinstance(value, list) else [value])
        found += [(name, text) for text in texts if text]
    return found
