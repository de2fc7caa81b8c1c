"""Who asks: the sender that an API key acts for, what the key may do, and how often it asked in this minute."""

import asyncio
import time
from dataclasses import dataclass

from fastapi import Depends, Request
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException

from handlers.errors import UnknownAccount
from worker.accounts.api_keys import PER_MINUTE, WINDOW_S, ApiKey
from worker.accounts.key_calls import KeyCalls
from worker.installation import Installation
from worker.together import Together

Call = tuple[ApiKey, int, float]  # the key, how many calls it made in this minute, this one among them, and when
_ACCOUNT_ID = "account-id "
BEARER = Depends(HTTPBearer(auto_error=False, description="a key of unsubd sender key"))
"""Says in the OpenAPI document that a route wants a key; `asker_of` asks for it."""


@dataclass(frozen=True, slots=True)
class Asker:
    """Shape: sender: whom the key acts for: its own sender, or a child of it. key: which key."""

    sender: str
    key: ApiKey


async def asker_of(request: Request, *scopes: str) -> Asker:
    """Return who asks, if the key may do all of *scopes*. Ask before the body is read: a stranger's may be endless.

    Errors:  HTTPException 401  no key, or not one of ours.    permanent
             HTTPException 403  the key may not do this, or not for that sender.    permanent
             HTTPException 429  it asked too often in this minute.    temporary
             Unavailable        the accounts cannot be asked.    temporary
    """
    asker: Asker | None = getattr(request.state, "asker", None)
    if asker is None:  # else the door of /v3 asked already
        asker = request.state.asker = await _found(request)
    for scope in scopes:
        if scope not in asker.key.scopes:
            raise HTTPException(403, f"this key may not do that, expected one with the scope {scope}")
    return asker


async def _found(request: Request) -> Asker:
    scheme, _, text = request.headers.get("authorization", "").partition(" ")
    counted = await request.app.state.key_calls.ask(text.strip()) if scheme.lower() == "bearer" else None
    if counted is None:
        raise HTTPException(401, "expected Authorization: Bearer KEY, a key of unsubd sender key")
    key, calls, now_s = counted
    request.state.rate = rate_headers(key.per_minute, key.per_minute - calls, now_s)
    if calls > key.per_minute:
        raise HTTPException(429, f"more than {key.per_minute} calls in a minute, expected fewer", request.state.rate)
    if "on-behalf-of" not in request.headers:
        return Asker(key.sender, key)
    return Asker(await asyncio.to_thread(_acting_for, request, request.app.state.installation, key), key)


def key_calls(installation: Installation) -> Together[str, Call | None]:
    """Return what tells of a key's call, and counts it; None for a key that is not ours. One for each event loop."""
    keys, calls = installation.accounts.keys, KeyCalls(installation.redis)

    def counted(texts: list[str]) -> list[Call | None]:
        found, now_s = keys.found(texts), time.time()
        made = iter(calls.count([key for key in found if key], now_s))
        return [(key, next(made), now_s) if key else None for key in found]

    return Together(counted)


def _acting_for(request: Request, installation: Installation, key: ApiKey) -> str:
    """The sender that is meant. On-Behalf-Of is never ignored: the parent must not get what is meant for its child."""
    named = request.headers.getlist("on-behalf-of")
    child = named[0].strip().removeprefix(_ACCOUNT_ID).strip()
    try:
        if len(named) == 1 and installation.accounts.sender(child).parent == key.sender:
            return child
    except UnknownAccount:
        pass
    raise HTTPException(403, "On-Behalf-Of: expected a sender whose parent is this key's: unsubd sender edit --parent")


def rate_headers(limit: int = PER_MINUTE, remaining: int = PER_MINUTE, now_s: float | None = None) -> dict[str, str]:
    """Return the headers that tell of a limit; without arguments those of somebody whom we do not know."""
    ends_at = int((time.time() if now_s is None else now_s) // WINDOW_S + 1) * WINDOW_S
    return {
        "X-RateLimit-Limit": str(limit),
        "X-RateLimit-Remaining": str(max(0, remaining)),
        "X-RateLimit-Reset": str(ends_at),
    }
