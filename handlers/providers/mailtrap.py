"""Mailtrap inbound: events that only refer to a mail; recipient, headers and text are fetched by its Messages API.

Proofs: the webhook's signing secret (HMAC-SHA256 of the body, lower-case hex), and beside it `api:TOKEN`, which proves
nothing: it is what `worker.web.mailtrap` fetches with.
Envelope: none. One Delivered-To among the headers is taken for it; else To, Cc and Bcc are candidates.
Experimental: no account was at hand. Its documentation has the fields event_id, inbox_id and message_id; the test button
of its console is said to post others, so several spellings are read.
"""

from dataclasses import dataclass
from typing import Any

from handlers.errors import PayloadInvalid
from handlers.providers import payload
from handlers.providers.webhook import Codes, Headers, ProviderMessage, shared_secret_matches

# https://mailtrap.io/inbound-email/
CODES = Codes(ack=200, retry=503, drop=200, auth_fail=401)
API = "api:"
_SIGNATURE = "mailtrap-signature"
_RECEIVED = "inbound.message_received"
_WHOM = ("to", "cc", "delivered-to", "apparently-to")


@dataclass(frozen=True, slots=True)
class Reference:
    """A mail that has to be fetched before it means anything.

    Shape:   event_id: stable over repeats, the key against duplicates. inbox_id, message_id: "" = not told.
    """

    event_id: str
    inbox_id: str
    message_id: str


def verify(headers: Headers, body: bytes, proofs: list[str], now_s: float) -> int | None:
    """Return None: neither proof signs a time.

    Errors:  SignatureInvalid  none of *proofs* holds.    permanent
    """
    if not shared_secret_matches(headers, proofs):
        payload.verify_body_hmac(headers, _SIGNATURE, body, proofs)
    return None


def references(headers: Headers, body: bytes) -> list[Reference]:
    """Return one reference per received mail; other events and unreadable ones beside them are left out.

    Errors:  PayloadInvalid  no array of events, or none of them refers to a mail.    permanent
    """
    events = payload.as_object(payload.read_json(body)).get("events")
    if not isinstance(events, list):
        raise PayloadInvalid(f"events of type {type(events).__name__}: expected an array")
    found = [each for each in map(_reference, events) if each]
    if events and not found:
        raise payload.other_event(payload.as_object(events[0]).get("event"), f"{_RECEIVED} with an event id")
    return found


def read(headers: Headers, body: bytes) -> list[ProviderMessage]:
    """Return the mail of one answer of the Messages API, once per envelope recipient.

    Errors:  PayloadInvalid  no such answer, or nobody in it received the mail.    permanent
    """
    told = payload.as_object(payload.read_json(body))
    if "events" in told:
        raise PayloadInvalid("events: expected the mail that one refers to, as the Messages API answers")
    pairs = payload.header_pairs(told.get("headers"))
    delivered = payload.recipients([value for name, value in pairs if name.lower() == "delivered-to"])
    named: dict[str, Any] = {name: _listed(told.get(name.lower())) for name in ("To", "Cc")}
    # Apparently-To is the old header for whom To and Cc do not name: a Bcc line itself names nobody here.
    named |= {"Apparently-To": _listed(told.get("bcc")), "From": told.get("from"), "Subject": told.get("subject"),
              "Message-ID": told.get("rfc_message_id")}  # fmt: skip
    complete = payload.with_missing(pairs, named)
    if not any(name.lower() in _WHOM for name, _ in complete):
        raise PayloadInvalid("message without to, cc, bcc and such headers: expected a recipient somewhere")
    raw = payload.parsed(complete, told.get("text_body"), told.get("html_body"))
    return payload.messages(raw, delivered if len(delivered) == 1 else [], None)


def _listed(value: Any) -> str:
    return ", ".join(filter(None, map(payload.as_text, value if isinstance(value, list) else [value])))


def _reference(element: Any) -> Reference | None:
    event = payload.as_object(element)
    event_id = _id(event, "event_id", "id")
    if event.get("event") != _RECEIVED or not event_id:
        return None
    return Reference(event_id, _id(event, "inbox_id", "inboxId"), _id(event, "message_id", "messageId"))


def _id(event: dict[str, Any], *names: str) -> str:
    for name in names:
        value = event.get(name)
        if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
            return str(value)
    return ""
