"""Postmark's suppressions of one server: a place is a message stream; there is none for everything."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from handlers.forwarding.call import Call

BASE = "https://api.postmarkapp.com"
GLOBAL: str | None = None
AT_ONCE = 50


def headers(secret: str) -> dict[str, str]:
    """Return what proves us: the server's token."""
    return {"X-Postmark-Server-Token": secret, "Accept": "application/json"}


def look(account: str, place: str) -> Call | None:
    """Return nothing: an unknown stream is refused by the call itself."""
    return None


def calls(account: str, place: str, added: Sequence[str], lifted: Sequence[str]) -> list[Call]:
    """Return the calls that add and lift."""
    path = f"/message-streams/{quote(place, safe='')}/suppressions"
    found = [(path, added), (f"{path}/delete", lifted)]
    return [
        Call("POST", where, {"Suppressions": [{"EmailAddress": each} for each in who]}) for where, who in found if who
    ]


def failed(answer: Any) -> str:
    """Return why one of the recipients was refused, "" when none was. Postmark answers 200 all the same."""
    rows = answer.get("Suppressions", []) if isinstance(answer, dict) else []
    refused = [each for each in rows if isinstance(each, dict) and each.get("Status") == "Failed"]
    return f"{len(refused)} of {len(rows)} recipients refused" if refused else ""
