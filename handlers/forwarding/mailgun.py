"""Mailgun's unsubscribes of one domain: a place is a tag; `*` is everything. The account is the domain."""

import hmac
from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
from typing import Any
from urllib.parse import quote

from handlers.errors import PayloadInvalid, SignatureInvalid
from handlers.forwarding.call import Call
from handlers.forwarding.told import Told, time_ms
from handlers.providers.webhook import Headers, fresh_ms, read_json, same
from handlers.request import Action

BASE = "https://api.mailgun.net"
GLOBAL: str | None = "*"
AT_ONCE = 1000
_KINDS = {"unsubscribed": Action.UNSUBSCRIBE, "complained": Action.COMPLAINT}
_WINDOW_S = 12 * 3600  # it repeats a webhook for eight hours


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


def verify_told(headers: Headers, body: bytes, proofs: list[str], now_s: float) -> None:
    """Errors: SignatureInvalid  none of *proofs* holds.    permanent"""
    signed = _object(_object(read_json(body)).get("signature"))
    timestamp, token, given = (str(signed.get(name, "")) for name in ("timestamp", "token", "signature"))
    message = (timestamp + token).encode("utf-8", "surrogatepass")
    keys = [proof.encode("utf-8", "surrogateescape") for proof in proofs if proof]
    expected = [hmac.digest(key, message, sha256).hex() for key in keys]
    if not any(same(given, good) for good in expected):
        raise SignatureInvalid("signature matches none of the configured signing keys")
    fresh_ms(timestamp, now_s, _WINDOW_S)


def told(body: bytes) -> list[Told]:
    """Return the change in a post of an event webhook; none for other events. Places: the message's tags.

    Errors:  PayloadInvalid  no object with event-data.    permanent
    """
    event = _object(_object(read_json(body)).get("event-data"))
    action, email, at_ms = _KINDS.get(str(event.get("event"))), event.get("recipient"), time_ms(event.get("timestamp"))
    if action is None or not isinstance(email, str) or at_ms is None or not event.get("id"):
        return []
    tags = event.get("tags")
    places = [each for each in tags if isinstance(each, str)] if isinstance(tags, list) else []
    return [Told(str(event["id"])[:100], email, place, action, at_ms) for place in places or [""]]


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise PayloadInvalid(f"{type(value).__name__}: expected an object with signature and event-data")
    return value
