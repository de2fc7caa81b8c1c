"""The body of a request: its exact bytes, and never more of them than are wanted."""

from fastapi import Request

from handlers.errors import Rejected


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
