"""Brevo inbound parsing: JSON `items`, headers and text; no raw message and, as a rule, no envelope.

Proofs: `header:NAME:VALUE`, a secret header set on the webhook; `bearer:TOKEN` or `basic:USER:PASSWORD` from its `auth`.
Envelope: none in real posts. One Delivered-To among the headers is taken for it; without one, or with several, the
header names candidates. Bcc'd mail is lost.
Unconfirmed: what a 5xx does. Its documentation has two readings, and 429 is repeated under both, so it is our "try
again", and our answer to a wrong secret, which may be ours.
"""

from typing import Any

from handlers.errors import PayloadInvalid, SignatureInvalid
from handlers.providers import payload
from handlers.providers.webhook import Codes, Headers, ProviderMessage, shared_secret_matches

# https://developers.brevo.com/docs/inbound-parse-webhooks
CODES = Codes(ack=200, retry=429, drop=200, auth_fail=429)


def verify(headers: Headers, body: bytes, proofs: list[str], now_s: float) -> int | None:
    """Return None: nothing is signed.

    Errors:  SignatureInvalid  none of *proofs* holds.    permanent
    """
    if not (shared_secret_matches(headers, proofs) or payload.secret_header_matches(headers, proofs)):
        raise SignatureInvalid("no proof: expected the header that a header: proof names, or Authorization")
    return None


def read(headers: Headers, body: bytes) -> list[ProviderMessage]:
    """Return one message per item.

    Errors:  PayloadInvalid  no items, or none of them is readable mail.    permanent
    """
    posted = payload.as_object(payload.read_json(body))
    if "items" not in posted and "event" in posted:
        raise payload.other_event(posted["event"], "items; this URL belongs in a webhook of type inbound")
    items = posted.get("items")
    if not isinstance(items, list) or not items:
        raise PayloadInvalid(f"items of type {type(items).__name__}: expected an array of mails")
    return payload.read_each(items, _read_one)


def _read_one(element: Any) -> list[ProviderMessage]:
    item = payload.as_object(element)
    pairs = payload.header_pairs(item.get("Headers"))
    told = {"From": _addresses(item.get("From")), "To": _addresses(item.get("To")), "Cc": _addresses(item.get("Cc")),
            "Subject": item.get("Subject"), "Message-ID": item.get("MessageId")}  # fmt: skip
    raw = payload.parsed(payload.with_missing(pairs, told), item.get("RawTextBody"), item.get("RawHtmlBody"))
    delivered = payload.recipients([value for name, value in pairs if name.lower() == "delivered-to"])
    returned = next((value for name, value in pairs if name.lower() == "return-path"), None)
    return payload.messages(raw, delivered if len(delivered) == 1 else [], payload.sender(returned))


def _addresses(told: Any) -> str:
    """The addresses of `{"Name", "Address"}`, one or a list of them, as a header's value; names may hold anything."""
    people = told if isinstance(told, list) else [told]
    each = [payload.as_text(payload.as_object(one).get("Address")) for one in people]
    return ", ".join(f"<{address}>" for address in each if address)
