"""/v3/asm/groups/{id}/suppressions: who left a group. What is added to a group that is missing goes to the global list."""

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse, Response

from worker import entries
from worker.web.v3 import reading
from worker.web.v3.groups import found
from worker.web.v3.reading import Asking, Body, Email, GroupId, House, may
from worker.web.v3.shape import documented

router = APIRouter(prefix="/asm/groups/{group_id}/suppressions", tags=["group suppressions"])


class Recipients(BaseModel):
    """Addresses."""

    recipient_emails: list[Annotated[str, Field(json_schema_extra={"format": "idn-email"})]] = Field(
        min_length=1, description=f"addresses; more than {reading.MAX_RECIPIENTS:,} are 413"
    )


_SCHEMA = Recipients.model_json_schema() | {"example": {"recipient_emails": ["jane@example.com", "joe@example.org"]}}
BODY: dict[str, Any] = {"requestBody": {"required": True, "content": {"application/json": {"schema": _SCHEMA}}}}


@router.post("", status_code=201, response_model=Recipients, summary="Suppress in a group",
             dependencies=[may("asm.groups.suppressions.create")], responses=documented(400, 404, 413, 415),
             openapi_extra=BODY)  # fmt: skip
def add(house: House, asker: Asking, group_id: GroupId, body: Body) -> Response:
    """All or none: one bad address refuses the call. Of a group that is deleted or unknown, they go to the global list."""
    group = reading.group_id(group_id)
    wanted = reading.recipients(body)
    entries.suppress(house, asker.sender, group, list(wanted), actor=asker.key.name, reason="/v3 group suppressions")
    return JSONResponse({"recipient_emails": list(wanted.values())}, 201)


@router.get("", response_model=list[str], summary="Who left a group",
            dependencies=[may("asm.groups.suppressions.read")], responses=documented(404))  # fmt: skip
def list_all(house: House, asker: Asking, group_id: GroupId) -> Response:
    """The whole group, newest first; forgotten recipients have no name."""
    group = found(house, asker.sender, group_id)
    return JSONResponse([address for address, _ in house.listings.of(asker.sender, group.id)])


@router.post("/search", response_model=list[str], summary="Which of these left a group",
             dependencies=[may("asm.groups.suppressions.read")], responses=documented(400, 404, 413, 415),
             openapi_extra=BODY)  # fmt: skip
def search(house: House, asker: Asking, group_id: GroupId, body: Body) -> Response:
    """Those of the list that are in this very group; the global list does not count."""
    group = found(house, asker.sender, group_id)
    wanted = list(reading.recipients(body))
    rows = house.store.rows([(asker.sender, group.id, each) for each in wanted])
    return JSONResponse([each for each, row in zip(wanted, rows, strict=True) if row and row.suppressed])


@router.delete("/{email:address}", status_code=204, summary="Let a recipient back into a group",
               dependencies=[may("asm.groups.suppressions.delete")], responses=documented(400, 404))  # fmt: skip
def remove(house: House, asker: Asking, group_id: GroupId, email: Email) -> Response:
    """Safe to repeat; the global list is left as it is."""
    group = found(house, asker.sender, group_id)
    address = reading.path_address(email)
    entries.lift(house, asker.sender, group.id, [address], actor=asker.key.name, reason="/v3 group suppressions")
    return Response(status_code=204)
