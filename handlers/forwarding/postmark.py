"""Postmark's suppressions of one server: a place is a message stream; there is none for everything."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote

from handlers.errors import PayloadInvalid
from handlers.forwarding.call import Call
from handlers.forwarding.told import Told
from handlers.providers.webhook import Headers, read_object, require_shared_secret
from handlers.request import Action

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


def verify_told(headers: Headers, body: bytes, proofs: list[str], now_s: float) -> None:
    """Errors: SignatureInvalid  none of *proofs* holds.    permanent"""
    require_shared_secret(headers, proofs)


def told(body: bytes) -> list[Told]:
    """Return the change in a post of the subscription change webhook; none for other records.

    Errors:  PayloadInvalid  no object, or a change without a readable time.    permanent
    """
    post = read_object(body)
    email, stream, at = post.get("Recipient"), post.get("MessageStream"), post.get("ChangedAt")
    if post.get("RecordType") != "SubscriptionChange" or not isinstance(email, str) or not isinstance(stream, str):
        return []
    complained = post.get("SuppressionReason") == "SpamComplaint"
    action = Action.COMPLAINT if complained else Action.UNSUBSCRIBE
    if post.get("SuppressSending") is not True:
        action = Action.RESUBSCRIBE
    elif post.get("SuppressionReason") == "HardBounce":
        return []  # nobody's request
    try:
        at_ms = int(datetime.fromisoformat(str(at)).timestamp() * 1000)
    except ValueError as error:
        raise PayloadInvalid("ChangedAt: expected an ISO 8601 time") from error
    return [Told(f"{stream}:{at}:{email}:{action.value}", email, stream, action, at_ms)]
