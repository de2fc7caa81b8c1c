"""What every call of /v3 passes before its route is looked for: its key, its limit, and a path as the client meant it."""

from fastapi import Request
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from handlers.errors import Unavailable
from worker.web.asker import asker_of, rate_headers
from worker.web.v3.shape import answer_words

PREFIX = "/v3/"


class Door:
    """An ASGI middleware. A client whose host ends in "/" asks for //v3; a "/" at the end is a path that nobody serves.

    Why:     so a stranger learns nothing of paths, and no call is ever redirected: the client repeats a POST as a GET.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a call in, or answer it."""
        if scope["type"] != "http" or not is_ours(path := "/" + scope["path"].lstrip("/")):
            await self._app(scope, receive, send)
            return
        scope["path"] = path
        request = Request(scope, receive, send)
        try:
            await asker_of(request)
            if path.endswith("/"):
                raise HTTPException(404)
        except HTTPException as error:
            refusal = answer_words(error.status_code, str(error.detail))
        except Unavailable as error:
            refusal = answer_words(503, str(error))
        else:
            await self._app(scope, receive, send)
            return
        await refusal(scope, receive, send)


def is_ours(path: str) -> bool:
    """Say whether *path* belongs to /v3."""
    return path.startswith(PREFIX) or path == PREFIX.rstrip("/")


def headers(request: Request) -> dict[str, str]:
    """Return the headers that every answer of an API has: what is left of the key's limit."""
    known: dict[str, str] = getattr(request.state, "rate", {})
    return known or (rate_headers() if is_ours(request.scope["path"]) else {})
