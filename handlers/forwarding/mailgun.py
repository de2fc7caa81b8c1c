"""Mailgun's unsubscribes of one domain: a place is a tag; `*` is everything. The account is the domain."""

from base64 import b64encode
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from handlers.forwarding.call import Call

BASE = "https://api.mailgun.net"
GLOBAL: str | None = "*"
AT_ONCE = 1000


def headers(secret: str) -> dict[str, str]:
    """Return what proves us: an API key, as the password of "api"."""
    return {"Authorization": "Basic " + b64encode(f"api:{secret}".encode()).decode()}


def look(account: str, place: str) -> Call | None:
    """Return nothing: any tag may be written."""
    return None


def calls(account: str, place: str, added: Sequence[str], lifted: Sequence[str]) -> list[Call]:
    """Return the calls that add and lift."""
    path = f"/v3/{quote(account, safe='')}/unsubscribes"
    adding = [Call("POST", path, [{"address": each, "tags": [place]} for each in added])] if added else []
    tag = f"?tag={quote(place, safe='')}"
    return adding + [Call("DELETE", f"{path}/{quote(each, safe='@')}{tag}", also=(404,)) for each in lifted]


def failed(answer: Any) -> str:
    """Return nothing: an answer is for the whole call."""
    return ""
