"""Mailtrap inbound: events that only refer to a mail; recipient, headers and body stay behind its Messages API.

Not in `PROVIDERS`: without a recipient there is nothing to decide, and fetching it is not written. What can be done
without the network is here: the proof, and the references that a fetcher needs.

Proofs: the webhook's signing secret (HMAC-SHA256 of the body, lower-case hex).
Unconfirmed: the names of the fields that hold event, inbox and message; so several spellings are read.
"""

from dataclasses import dataclass
from typing import Any

from handlers.errors import PayloadInvalid
from handlers.providers import payload
from handlers.providers.webhook import Codes, Headers, shared_secret_matches

# https://mailtrap.io/inbound-email/
CODES = Codes(ack=200, retry=503, drop=200, auth_fail=401)
_SIGNATURE = "mailtrap-signature"
_RECEIVED = "inbound.message_received"


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
