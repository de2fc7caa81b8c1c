"""The form of a recipient's page, or of a one-click POST: urlencoded or multipart, read under a limit."""

from starlette.requests import Request

from handlers.errors import PayloadInvalid
from handlers.providers.form import read_form as fields_of

MAX_BYTES = 64 * 1024  # the choices of 200 groups, and an undo of them all
_MAX_DROPPED_BYTES = 4 * 1024 * 1024
Form = dict[str, list[str]]


async def read_form(request: Request) -> Form:
    """Return the values of each field. What cannot be a form of ours says nothing: one that is broken, or too long.

    Why:     the tag in the path is what asks. A one-click must not fail for what some client adds to it; the rest of a
             long body is read and dropped, because many clients hear no answer before they have said everything.
    """
    kept, length = bytearray(), 0
    async for chunk in request.stream():
        length += len(chunk)
        kept += chunk[: max(0, MAX_BYTES - len(kept))]
        if length > _MAX_DROPPED_BYTES:
            break
    form: Form = {}
    for name, value in _fields(request, bytes(kept)) if length <= MAX_BYTES else ():
        form.setdefault(name, []).append(value.decode("utf-8", "replace"))
    request.state.form = form  # should it fail, the page of `failure.py` offers the same again
    return form


def _fields(request: Request, body: bytes) -> list[tuple[str, bytes]]:
    try:
        return fields_of({"content-type": request.headers.getlist("content-type")}, body)
    except PayloadInvalid:
        return []
