"""SendGrid's suppression groups (`/v3/asm`): a place is a group's id, or `global`.

Adding to a group that does not exist adds to the global list there, with the same answer: so a group is looked at first.
"""

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from handlers.errors import PayloadInvalid
from handlers.forwarding.call import Call
from handlers.forwarding.told import Told, time_ms
from handlers.providers import sendgrid as inbound
from handlers.providers.webhook import Headers, read_json
from handlers.request import Action

BASE = "https://api.sendgrid.com"
GLOBAL: str | None = "global"
AT_ONCE = 1000
_KINDS = {
    "unsubscribe": Action.UNSUBSCRIBE, "group_unsubscribe": Action.UNSUBSCRIBE, "group_resubscribe": Action.RESUBSCRIBE,
    "spamreport": Action.COMPLAINT,
}  # fmt: skip


def headers(secret: str) -> dict[str, str]:
    """Return what proves us: an API key."""
    return {"Authorization": f"Bearer {secret}"}


def look(account: str, place: str) -> Call | None:
    """Return the call that finds the group."""
    return None if place == GLOBAL else Call("GET", f"/v3/asm/groups/{quote(place, safe='')}")


def calls(account: str, place: str, added: Sequence[str], lifted: Sequence[str]) -> list[Call]:
    """Return the calls that add and lift."""
    path = "/v3/asm/suppressions/global" if place == GLOBAL else f"/v3/asm/groups/{quote(place, safe='')}/suppressions"
    adding = [Call("POST", path, {"recipient_emails": list(added)})] if added else []
    return adding + [Call("DELETE", f"{path}/{quote(each, safe='@')}", also=(404,)) for each in lifted]


def failed(answer: Any) -> str:
    """Return nothing: an answer is for the whole call."""
    return ""


def verify_told(headers: Headers, body: bytes, proofs: list[str], now_s: float) -> None:
    """Errors: SignatureInvalid  none of *proofs* holds.    permanent"""
    inbound.verify(headers, body, proofs, now_s)


def told(body: bytes) -> list[Told]:
    """Return the changes in a post of the event webhook; deliveries, opens and the like are left out.

    Errors:  PayloadInvalid  no array of events.    permanent
    """
    events = read_json(body)
    if not isinstance(events, list):
        raise PayloadInvalid(f"events of type {type(events).__name__}: expected an array")
    return [found for each in events if isinstance(each, dict) and (found := _told(each))]


def _told(event: dict[str, Any]) -> Told | None:
    action, email, at_ms = _KINDS.get(str(event.get("event"))), event.get("email"), time_ms(event.get("timestamp"))
    if action is None or not isinstance(email, str) or at_ms is None or not event.get("sg_event_id"):
        return None
    place = _place(event.get("asm_group_id"))
    if not place and action is Action.RESUBSCRIBE:
        return None  # of which group? It must not lift what stops everything; who leaves one that cannot be read leaves all
    return Told(str(event["sg_event_id"])[:100], email, place, action, at_ms)


def _place(group: Any) -> str:
    """A group's id, "" where there is none: a number, or its digits as text."""
    if isinstance(group, int) and not isinstance(group, bool):
        return str(group)
    return group.strip() if isinstance(group, str) and group.strip().isdecimal() else ""
