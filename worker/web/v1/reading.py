"""What a call of /v1 says, and how it fails: `{"error": code, "detail": text}`."""

from typing import Annotated, Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from handlers.errors import Rejected
from worker.installation import Installation
from worker.web.body import read_body
from worker.web.failure import Failure, shape_problems

MAX_BODY_BYTES = 4 * 1024 * 1024  # 10,000 addresses of the greatest length
MAX_GROUP_ID = 4294967295


def _whole(value: Any) -> Any:
    """A whole number as JSON Schema has it: 12.0 is one, "12" and true are none."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


GroupId = Annotated[int, Field(ge=0, le=MAX_GROUP_ID), BeforeValidator(_whole)]
NewGroupId = Annotated[int, Field(ge=1, le=MAX_GROUP_ID), BeforeValidator(_whole)]


class Question(BaseModel):
    """A body: JSON, each value of the very type."""

    model_config = ConfigDict(strict=True)


Asked = TypeVar("Asked", bound=Question)


async def read(request: Request, kind: type[Asked]) -> Asked:
    """Return the body. Errors: Rejected  another shape.    permanent"""
    body = await read_body(request, MAX_BODY_BYTES)
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise Rejected(shape_problems(error.errors(include_url=False, include_input=False))) from None


def house(request: Request) -> Installation:
    """Return the installation that is served."""
    found: Installation = request.app.state.installation
    return found


def scope(group: int, verb: str) -> str:
    """Return the scope that a group's suppressions need; group 0 is the global list."""
    return f"asm.groups.suppressions.{verb}" if group else f"asm.suppressions.global.{verb}"


def body_of(kind: type[Question], **example: Any) -> dict[str, Any]:
    """Return what the OpenAPI document says of a body."""
    schema = kind.model_json_schema() | {"example": example}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def documented(*more: int) -> dict[int | str, dict[str, Any]]:
    """Return the failures of an operation for the OpenAPI document: those that all have, and *more*."""
    told = {401: "no key, or not one of ours", 403: "the key may not do this", 404: "this sender has none of that id",
            409: "the name or id is taken, or there are too many",
            422: "not an address, or another shape", 429: "asked too often", 503: "not now: say it again"}  # fmt: skip
    return {status: {"model": Failure, "description": told[status]} for status in sorted({401, 403, 429, 503, *more})}
