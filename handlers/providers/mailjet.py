"""Mailjet Parse: one JSON object, headers and text; it keeps no raw message.

Proofs: `basic:USER:PASSWORD` in the URL, there is no other.
Envelope: `Recipient` and `Sender`. Unconfirmed: which answers Mailjet repeats and for how long.
"""

from typing import Any

from handlers.errors import SignatureInvalid
from handlers.providers import payload
from handlers.providers.webhook import Codes, Headers, ProviderMessage, shared_secret_matches

# https://dev.mailjet.com/email/guides/parse-api/
CODES = Codes(ack=200, retry=503, drop=200, auth_fail=401)


def verify(headers: Headers, body: bytes, proofs: list[str], now_s: float) -> int | None:
    """Return None: nothing is signed.

    Errors:  SignatureInvalid  none of *proofs* holds.    permanent
    """
    if not shared_secret_matches(headers, proofs):
        raise SignatureInvalid("no proof: expected Authorization, user and password stand in the URL given to Mailjet")
    return None


def read(headers: Headers, body: bytes) -> list[ProviderMessage]:
    """Return the message, once per recipient.

    Errors:  PayloadInvalid  no object, or no message in it.    permanent
    """
    posted = payload.read_json(body)
    return payload.read_each(posted if isinstance(posted, list) and posted else [posted], _read_one)


def _read_one(posted: Any) -> list[ProviderMessage]:
    mail = payload.as_object(posted)
    if "event" in mail:
        raise payload.other_event(mail["event"], "a parsed mail; this URL belongs in a parse route, not in the events")
    told = {"From": mail.get("From"), "Subject": mail.get("Subject")}
    pairs = payload.with_missing(payload.header_pairs(mail.get("Headers")), told)
    raw = payload.parsed(pairs, mail.get("Text-part"), mail.get("Html-part"))
    return payload.messages(raw, payload.recipients(mail.get("Recipient")), payload.sender(mail.get("Sender")))
