"""What stands around every request: its door, headers that keep a page harmless, and an answer when we have a bug."""

import asyncio

from fastapi import Request
from starlette.datastructures import MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from worker.installation import Installation
from worker.web import failure
from worker.web.body import Incoming
from worker.web.doors import Doors
from worker.web.v3 import door

_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self';"
    " frame-ancestors 'none'; base-uri 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",  # the path of /u is a tag: it must not travel
    "Cache-Control": "no-store",
    "X-Robots-Tag": "noindex",
}
_CONSOLE_HEADERS = {**_HEADERS, "Referrer-Policy": "same-origin"}  # else a browser hides the Origin of our own forms


class Guard:
    """An ASGI middleware. Why: Starlette's own kind for functions costs more than a whole check."""

    def __init__(self, app: ASGIApp, installation: Installation, doors: Doors) -> None:
        self._app, self._installation, self._doors = app, installation, doors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in by its door, and see its answer off."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, incoming = False, Incoming(scope, receive)

        async def dressed(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                _dress(scope, message)
                if message["status"] >= 400:
                    await incoming.let_end()
            await send(message)

        app = self._app if self._doors.admit(scope) else _not_here
        try:
            await app(scope, incoming.receive, dressed)
        except Exception as error:  # noqa: BLE001  a bug: the asker hears so, the journal says where
            await asyncio.to_thread(self._installation.journal.failed, "web", failure.place_of(error))
            if not begun:
                await failure.of_bug(Request(scope), error)(scope, incoming.receive, dressed)


def _dress(scope: Scope, message: Message) -> None:
    headers = MutableHeaders(raw=message["headers"])
    general = _CONSOLE_HEADERS if scope["path"].startswith("/ops") else _HEADERS
    for name, value in {**general, **door.headers(Request(scope))}.items():
        headers.setdefault(name, value)


_not_here = JSONResponse({"error": "not_found", "detail": "Not Found"}, 404)
