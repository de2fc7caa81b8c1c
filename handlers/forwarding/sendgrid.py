"""SendGrid's suppression groups (`/v3/asm`): a place is a group's id, or `global`.

Adding to a group that does not exist adds to the global list there, with the same answer: so a group is looked at first.
"""

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from handlers.forwarding.call import Call

BASE = "https://api.sendgrid.com"
GLOBAL: str | None = "global"
AT_ONCE = 1000


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
