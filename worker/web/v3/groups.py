"""/v3/asm/groups: the kinds of mail that a recipient can stop. A deleted group is archived: its suppressions still count."""

from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse, Response

from handlers.errors import Rejected, UnknownAccount
from worker.accounts import Group
from worker.accounts.model import MAX_DESCRIPTION, MAX_NAME
from worker.entries import live_group, live_groups
from worker.installation import Installation
from worker.web.v3 import reading
from worker.web.v3.reading import Asking, Body, GroupId, House, may
from worker.web.v3.shape import described, documented, no_group, wrong

router = APIRouter(prefix="/asm/groups", tags=["groups"])
EXAMPLE = {"name": "Weekly news", "description": "What happened this week", "is_default": False}


class GroupAnswer(BaseModel):
    """A group."""

    id: int
    name: str
    description: str
    is_default: bool = Field(description="always shown on the preferences page")


class CountedGroup(GroupAnswer):
    """A group, and how many left it."""

    unsubscribes: int = Field(description="distinct recipients now")


_FIELDS = {
    "name": {"type": "string", "minLength": 1, "maxLength": MAX_NAME, "description": "unique, recipients read it"},
    "description": {"type": "string", "maxLength": MAX_DESCRIPTION, "description": "recipients read it"},
    "is_default": {"type": "boolean", "description": "always shown on the preferences page; default false"},
}


def _body(*required: str) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object", "properties": _FIELDS, "example": EXAMPLE}
    schema |= {"required": list(required)} if required else {}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


_FILTER = {
    "parameters": [
        {
            "name": "id", "in": "query", "description": "only these; ids that do not exist are left out",
            "schema": {"type": "array", "items": {"type": "integer", "minimum": 0}},
        }
    ]
}  # fmt: skip


@router.post("", status_code=201, response_model=GroupAnswer, summary="Add a group",
             dependencies=[may("asm.groups.create")],
             responses=documented(400, 413, 415) | described(400, "another shape, a name that is taken, or too many groups"),
             openapi_extra=_body("name", "description"))  # fmt: skip
def add(house: House, asker: Asking, body: Body) -> Response:
    """Ids are never used again. Nothing is cut: a name that is too long is refused."""
    given = _given({"name": None, "description": None, "is_default": False} | body)
    try:
        added = house.accounts.add_group(asker.sender, **given)
    except Rejected as error:  # what is left: the name is taken, or there are too many groups
        raise wrong(str(error), "name") from None
    return JSONResponse(_shown(added), 201)


@router.get("", response_model=list[CountedGroup], summary="List the groups",
            dependencies=[may("asm.groups.read")], responses=documented(400), openapi_extra=_FILTER)  # fmt: skip
def list_all(request: Request, house: House, asker: Asking) -> Response:
    """All of them, or those that `id` names."""
    wanted = set(_wanted_ids(request))
    groups = live_groups(house, asker.sender)
    if "id" in request.query_params:
        groups = [each for each in groups if each.id in wanted]
    return JSONResponse(_counted(house, asker.sender, groups))


@router.get("/{group_id}", response_model=CountedGroup, summary="One group",
            dependencies=[may("asm.groups.read")], responses=documented(404))  # fmt: skip
def one(house: House, asker: Asking, group_id: GroupId) -> Response:
    """One group, with how many left it."""
    return JSONResponse(_counted(house, asker.sender, [found(house, asker.sender, group_id)])[0])


@router.patch("/{group_id}", status_code=201, response_model=GroupAnswer, summary="Change a group",
              dependencies=[may("asm.groups.update")],
              responses=documented(400, 404, 413, 415) | described(400, "another shape, or a name that is taken"),
              openapi_extra=_body())  # fmt: skip
def change(house: House, asker: Asking, group_id: GroupId, body: Body) -> Response:
    """What is absent stays; an `id` in the body is ignored. 201, as SendGrid answers."""
    group = found(house, asker.sender, group_id)
    given = _given(body)
    try:
        return JSONResponse(_shown(house.accounts.edit_group(asker.sender, group.id, **given)), 201)
    except Rejected as error:
        raise wrong(str(error), "name") from None


@router.delete("/{group_id}", status_code=204, summary="Delete a group",
               dependencies=[may("asm.groups.delete")], responses=documented(404))  # fmt: skip
def delete(house: House, asker: Asking, group_id: GroupId) -> Response:
    """It is gone from every answer, while a check still says suppressed: mail never resumes by a delete."""
    group = found(house, asker.sender, group_id)
    house.accounts.edit_group(asker.sender, group.id, archived=True)
    house.journal.service("group-archived", sender=asker.sender, group=group.id, actor=asker.key.name)
    return Response(status_code=204)


def found(house: Installation, sender: str, given: str) -> Group:
    """Return the group that a path names. Errors: Refused 404  this sender has none of that id.    permanent"""
    try:
        return live_group(house, sender, reading.group_id(given))
    except UnknownAccount:
        raise no_group() from None


def _given(body: dict[str, Any]) -> dict[str, Any]:
    """The fields of a group that *body* has, checked."""
    given: dict[str, Any] = {}
    if "name" in body:
        given["name"] = reading.text(body, "name", MAX_NAME)
        if not given["name"].strip():
            raise wrong("name is empty", "name")
    if "description" in body:
        given["description"] = reading.text(body, "description", MAX_DESCRIPTION)
    if "is_default" in body:
        given["is_default"] = reading.flag(body, "is_default")
    return given


def _wanted_ids(request: Request) -> list[int]:
    given = request.query_params.getlist("id")
    if not all(each.isascii() and each.isdecimal() for each in given):
        raise wrong("id is not a number", "id")
    return [reading.group_id(each) for each in given]


def _shown(group: Group) -> dict[str, Any]:
    return {name: getattr(group, name) for name in ("id", "name", "description", "is_default")}


def _counted(house: Installation, sender: str, groups: list[Group]) -> list[dict[str, Any]]:
    counts = house.store.counted(sender, [each.id for each in groups])
    return [_shown(each) | {"unsubscribes": count} for each, count in zip(groups, counts, strict=True)]
