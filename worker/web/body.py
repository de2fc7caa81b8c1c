"""The body of a request: its exact bytes, and never more of them than are wanted."""

import asyncio
from contextlib import suppress

from fastapi import Request
from starlette.types import Message, Receive, Scope

from handlers.errors import Rejected

_UNREAD_BYTES, _UNREAD_S = 64 << 20, 10.0


class TooLarge(Rejected):
    """A body over its limit."""


async def read_body(request: Request, limit_bytes: int) -> bytes:
    """Return the body's exact bytes; Content-Length may be absent or lie, so they are counted while reading.

    Errors:  TooLarge  more than *limit_bytes*.    permanent
    """
    declared = request.headers.get("content-length", "")
    if len(declared) > 19 or (declared.isdecimal() and int(declared) > limit_bytes):
        raise TooLarge(f"body of more than {limit_bytes} octets, expected no more")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit_bytes:
            raise TooLarge(f"body of more than {limit_bytes} octets, expected no more")
    return bytes(body)


class Incoming:
    """A request's body on its way in, so that a refusal can wait for its end.

    Why:     a connection that is closed before all was sent is reset, and the client loses the answer: the `sendgrid` package,
             which keeps none alive, heard "connection reset by peer" in the place of 413 or 401.
    Limits:  64 MiB or 10 s, unkept: then the client may lose it.
    RFC:     9112 9.6 (close after reading), 9110 10.1.1 (who expects 100-continue has sent nothing yet)
    """

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._receive = receive
        self._begun = not any(name == b"expect" for name, _ in scope["headers"])
        self._ended = False

    async def receive(self) -> Message:
        """Return what the server got next."""
        message = await self._receive()
        self._begun, self._ended = True, not message.get("more_body", False)
        return message

    async def let_end(self) -> None:
        """Read on, for nothing."""
        unread = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(_UNREAD_S):
                while self._begun and not self._ended and unread < _UNREAD_BYTES:
                    unread += len((await self.receive()).get("body", b""))
