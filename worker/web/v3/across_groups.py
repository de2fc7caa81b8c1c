"""/v3/asm/suppressions: the suppressions of all groups, and those of one recipient."""

from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse, Response

from worker.accounts import Group
from worker.entries import live_groups
from worker.installation import Installation
from worker.web.v3 import reading
from worker.web.v3.groups import GroupAnswer
from worker.web.v3.reading import Asking, Email, House, may
from worker.web.v3.shape import documented

router = APIRouter(prefix="/asm/suppressions", tags=["suppressions of all groups"])


class Suppression(BaseModel):
    """One recipient who left one group."""

    email: str
    group_id: int
    group_name: str = Field(description="its name now")
    created_at: int = Field(description="unix seconds")


class FlaggedGroup(GroupAnswer):
    """A group, and whether the recipient left it."""

    suppressed: bool


class GroupsOfRecipient(BaseModel):
    """Every group of the account."""

    suppressions: list[FlaggedGroup]


_PAGING = {
    "parameters": [
        {
            "name": name, "in": "query", "description": f"{what}; default: all",
            "schema": {"type": "integer", "minimum": least, "maximum": 10**15 - 1},
        }
        for name, what, least in (("limit", "how many", 1), ("offset", "how many to leave out first", 0))
    ]
}  # fmt: skip


@router.get("", response_model=list[Suppression], summary="The suppressions of all groups",
            dependencies=[may("asm.groups.suppressions.read")], responses=documented(400), openapi_extra=_PAGING)  # fmt: skip
def list_all(request: Request, house: House, asker: Asking) -> Response:
    """A row for each recipient of each group, group by group; the global list has none."""
    limit, offset = reading.number(request, "limit", 1), reading.number(request, "offset", 0) or 0
    found: list[dict[str, Any]] = []
    for group in sorted(live_groups(house, asker.sender), key=lambda each: each.id):
        listing = house.listings.of(asker.sender, group.id)
        rest = None if limit is None else limit - len(found)
        found += [_row(group, *each) for each in listing.page(offset, rest)] if rest != 0 else []
        offset = max(0, offset - len(listing))
    return JSONResponse(found)


def _row(group: Group, address: str, created: int) -> dict[str, Any]:
    return {"email": address, "group_id": group.id, "group_name": group.name, "created_at": created}


@router.get("/{email:address}", response_model=GroupsOfRecipient, summary="The groups of a recipient",
            dependencies=[may("asm.groups.suppressions.read")], responses=documented(400))  # fmt: skip
def of_recipient(house: House, asker: Asking, email: Email) -> Response:
    """All groups of the account, each with whether this recipient left it; a global entry turns none on."""
    return JSONResponse({"suppressions": _flagged(house, asker.sender, reading.path_address(email))})


def _flagged(house: Installation, sender: str, address: str) -> list[dict[str, Any]]:
    groups = live_groups(house, sender)
    rows = house.store.rows([(sender, each.id, address) for each in groups])
    names = ("id", "name", "description", "is_default")
    return [
        {name: getattr(group, name) for name in names} | {"suppressed": bool(row and row.suppressed)}
        for group, row in zip(groups, rows, strict=True)
    ]
