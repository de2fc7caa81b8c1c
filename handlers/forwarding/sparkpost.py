"""SparkPost's suppression list: one place for everything, `non_transactional`; groups it has none."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from handlers.forwarding.call import Call

BASE = "https://api.sparkpost.com"
GLOBAL: str | None = "non_transactional"
AT_ONCE = 1000
_PATH = "/api/v1/suppression-list"


def headers(secret: str) -> dict[str, str]:
    """Return what proves us: an API key."""
    return {"Authorization": secret}


def look(account: str, place: str) -> Call | None:
    """Return nothing: there is one list."""
    return None


def calls(account: str, place: str, added: Sequence[str], lifted: Sequence[str]) -> list[Call]:
    """Return the calls that add and lift."""
    rows = [{"recipient": each, "type": place, "description": "unsubscribed (unsubd)"} for each in added]
    adding = [Call("PUT", _PATH, {"recipients": rows})] if added else []
    return adding + [
        Call("DELETE", f"{_PATH}/{quote(each, safe='@')}", {"type": place}, also=(404,)) for each in lifted
    ]


def failed(answer: Any) -> str:
    """Return nothing: an answer is for the whole call."""
    return ""
