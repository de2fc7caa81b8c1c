"""/v1/groups: what /v3 has no words for: essential groups, archived ones, ids of one's own."""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse, Response

from worker.accounts import Group
from worker.accounts.model import MAX_DESCRIPTION, MAX_NAME
from worker.installation import Installation
from worker.web.asker import asker_of
from worker.web.v1.reading import MAX_GROUP_ID, NewGroupId, Question, body_of, documented, house, read

router = APIRouter(prefix="/groups", tags=["groups"])
Id = Annotated[int, Path(ge=1, le=MAX_GROUP_ID, description="id of the group")]


class GroupAnswer(BaseModel):
    """A group, archived or not."""

    id: int
    name: str
    description: str
    archived: bool = Field(description="gone for recipients, while its suppressions still count")
    essential: bool = Field(description="only an entry for this very group stops its mail")
    is_default: bool
    suppressed: int = Field(description="how many recipients, forgotten ones among them")


class NewGroup(Question):
    """A group to add."""

    name: str = Field(min_length=1, max_length=MAX_NAME, description="as recipients read it")
    description: str = Field(default="", max_length=MAX_DESCRIPTION, description="as recipients read it")
    id: NewGroupId | None = Field(default=None, description="a former SendGrid group's; default: the next")
    essential: bool = False
    is_default: bool = False


class GroupChange(Question):
    """What is to be another; the rest stays."""

    name: str | None = Field(default=None, min_length=1, max_length=MAX_NAME)
    description: str | None = Field(default=None, max_length=MAX_DESCRIPTION)
    is_default: bool | None = None
    archived: bool | None = Field(default=None, description="true archives, false restores with id and suppressions")


@router.get("", response_model=list[GroupAnswer], summary="List the groups", responses=documented())
async def list_all(request: Request) -> Response:
    """Defaults first; archived ones included."""
    asker = await asker_of(request, "asm.groups.read")
    return JSONResponse(await asyncio.to_thread(_listed, house(request), asker.sender))


@router.post("", status_code=201, response_model=GroupAnswer, summary="Add a group", responses=documented(409, 422),
             openapi_extra=body_of(NewGroup, name="Weekly news", description="What happened this week"))  # fmt: skip
async def add(request: Request) -> Response:
    """Its id is never used again."""
    asker = await asker_of(request, "asm.groups.create")
    given = (await read(request, NewGroup)).model_dump()
    installation, group_id = house(request), given.pop("id")
    added = await asyncio.to_thread(installation.accounts.add_group, asker.sender, group_id=group_id, **given)
    return JSONResponse(_shown(added, 0), 201)


@router.patch("/{group_id}", response_model=GroupAnswer, summary="Change, archive or restore a group",
              responses=documented(404, 409, 422), openapi_extra=body_of(GroupChange, archived=True))  # fmt: skip
async def change(request: Request, group_id: Id) -> Response:
    """Whether a group is essential is said once, when it is added."""
    asker = await asker_of(request, "asm.groups.update")
    given = (await read(request, GroupChange)).model_dump(exclude_none=True)
    if given.get("archived"):
        await asker_of(request, "asm.groups.delete")
    return JSONResponse(await asyncio.to_thread(_changed, house(request), asker.sender, group_id, given))


def _changed(installation: Installation, sender: str, group_id: int, given: dict[str, Any]) -> dict[str, Any]:
    changed = installation.accounts.edit_group(sender, group_id, **given)
    [suppressed] = installation.store.counted(sender, [group_id])
    return _shown(changed, suppressed)


def _listed(installation: Installation, sender: str) -> list[dict[str, Any]]:
    groups = installation.accounts.groups(sender)
    counts = installation.store.counted(sender, [each.id for each in groups])
    return [_shown(each, suppressed) for each, suppressed in zip(groups, counts, strict=True)]


def _shown(group: Group, suppressed: int) -> dict[str, Any]:
    names = ("id", "name", "description", "archived", "essential", "is_default")
    return {name: getattr(group, name) for name in names} | {"suppressed": suppressed}
