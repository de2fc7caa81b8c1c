"""/v3/asm/suppressions/global and /v3/suppression/unsubscribes: who gets nothing at all from a sender."""

import unicodedata
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse, Response

from handlers.errors import AddressError
from worker import entries
from worker.store.listing import Entry
from worker.web.v3 import reading
from worker.web.v3.group_suppressions import BODY, Recipients
from worker.web.v3.reading import Asking, Email, House, may
from worker.web.v3.shape import documented

router = APIRouter(tags=["global suppressions"])
_PAGE = 500
_REASON = "/v3 global suppressions"


class Suppressed(BaseModel):
    """Empty when the address is not suppressed."""

    recipient_email: str | None = None


class Unsubscribe(BaseModel):
    """An entry of the global list."""

    created: int = Field(description="unix seconds")
    email: str


@router.post("/asm/suppressions/global", status_code=201, response_model=Recipients, summary="Suppress everywhere",
             dependencies=[may("asm.suppressions.global.create")], responses=documented(400, 413, 415),
             openapi_extra=BODY)  # fmt: skip
def add(house: House, asker: Asking, body: reading.Body) -> Response:
    """All or none: one bad address refuses the call."""
    wanted = reading.recipients(body)
    entries.suppress(house, asker.sender, 0, list(wanted), actor=asker.key.name, reason=_REASON)
    return JSONResponse({"recipient_emails": list(wanted.values())}, 201)


@router.get("/asm/suppressions/global/{email:address}", response_model=Suppressed, summary="Is it suppressed everywhere?",
            dependencies=[may("asm.suppressions.global.read")], responses=documented(400))  # fmt: skip
def one(house: House, asker: Asking, email: Email) -> Response:
    """The address, or `{}`: never 404."""
    address = reading.path_address(email)
    row = house.store.row(asker.sender, 0, address)
    return JSONResponse({"recipient_email": address} if row and row.suppressed else {})


@router.delete("/asm/suppressions/global/{email:address}", status_code=204, summary="Lift a global suppression",
               dependencies=[may("asm.suppressions.global.delete")], responses=documented(400))  # fmt: skip
def remove(house: House, asker: Asking, email: Email) -> Response:
    """Safe to repeat; what a recipient left by group is left as it is."""
    address = reading.path_address(email)
    entries.lift(house, asker.sender, 0, [address], actor=asker.key.name, reason=_REASON)
    return Response(status_code=204)


def _number(name: str, description: str, **limits: int) -> dict[str, Any]:
    schema = {"type": "integer", "minimum": 0, "maximum": 10**15 - 1} | limits
    return {"name": name, "in": "query", "description": description, "schema": schema}


_EMAIL = {
    "name": "email",
    "in": "query",
    "description": "begins so; % stands for any characters",
    "schema": {"type": "string"},
}
_QUERY = {
    "parameters": [
        _number("start_time", "from this unix second on"), _number("end_time", "up to this unix second"),
        _number("limit", "how many", minimum=1, maximum=_PAGE), _number("offset", "how many to leave out first"), _EMAIL,
    ]
}  # fmt: skip


@router.get("/suppression/unsubscribes", response_model=list[Unsubscribe], summary="Page through the global list",
            dependencies=[may("suppression.unsubscribes.read")], responses=documented(400), openapi_extra=_QUERY)  # fmt: skip
def unsubscribes(request: Request, house: House, asker: Asking) -> Response:
    """Newest first, ties by address, 500 at most at a time."""
    limit = reading.number(request, "limit", 1, _PAGE) or _PAGE
    offset = reading.number(request, "offset", 0) or 0
    start, end = reading.number(request, "start_time", 0), reading.number(request, "end_time", 0)
    pattern = request.query_params.get("email", "")
    listing = house.listings.of(asker.sender, 0)
    if start is None and end is None and not pattern:
        return _listed(listing.page(offset, limit))
    matches = _matcher(pattern)
    found = (each for each in listing if _is_within(each[1], start, end) and matches(each[0]))
    return _listed(islice(found, offset, offset + limit))


def _listed(found: Iterator[Entry] | list[Entry]) -> Response:
    return JSONResponse([{"created": created, "email": address} for address, created in found])


def _is_within(created: int, start: int | None, end: int | None) -> bool:
    return (start is None or start <= created) and (end is None or created <= end)


def _matcher(pattern: str) -> Callable[[str], bool]:
    """Return what says whether an address begins as *pattern* says, or is the one that it spells in whichever way."""
    first, *others = unicodedata.normalize("NFC", pattern.lower()).split("%")
    exact = _key_form(pattern)

    def matches(address: str) -> bool:
        return address == exact or (address.startswith(first) and _follow(address, len(first), others))

    return matches


def _key_form(pattern: str) -> str | None:
    try:
        return reading.key_form(pattern)
    except AddressError:
        return None


def _follow(address: str, at: int, parts: Sequence[str]) -> bool:
    """Say whether each part stands somewhere behind the one before."""
    for part in parts:
        at = address.find(part, at)
        if at < 0:
            return False
        at += len(part)
    return True
