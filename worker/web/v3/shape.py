"""How /v3 says no: SendGrid's `{"errors": [{"field", "message", "help"}]}`, with statuses that its client has a class for."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, Field
from starlette.responses import JSONResponse, Response

NO_GROUP = "group not found"
_WORDS = {
    401: "authorization required",
    403: "access forbidden",
    405: "method not allowed",
    429: "too many requests",
}
_KNOWN = {400, 401, 403, 404, 405, 413, 415, 429, 500, 503}


class Problem(BaseModel):
    """One thing that is wrong."""

    field: str | None = Field(description="which field or parameter, null where it is none of them")
    message: str = Field(description="what is wrong, for people")
    help: dict[str, Any] | None = Field(default=None, description="e.g. the limit that was passed")


class Errors(BaseModel):
    """What every answer of 400 and above holds."""

    errors: list[Problem] = Field(min_length=1)


class Refused(Exception):
    """A request that /v3 answers with a status of its own and what is wrong."""

    def __init__(self, status: int, *problems: Problem) -> None:
        super().__init__(status, *(each.message for each in problems))
        self.status, self.problems = status, problems


def wrong(message: str, field: str | None = None, **help: Any) -> Refused:
    """Return a 400 that names *field*."""
    return Refused(400, Problem(field=field, message=message, help=help or None))


def no_group() -> Refused:
    """Return the 404 of a group that this sender does not have."""
    return Refused(404, Problem(field=None, message=NO_GROUP))


def answer(status: int, *problems: Problem, headers: Mapping[str, str] | None = None) -> Response:
    """Return an answer of 400 and above."""
    content = [each.model_dump(exclude_none=True) | {"field": each.field} for each in problems]
    return JSONResponse({"errors": content}, status, headers)


def answer_words(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return the answer for a failure that the rest of the application names: a status and a text."""
    status = status if status in _KNOWN else 400
    return answer(status, Problem(field=None, message=_WORDS.get(status, detail or "not found")), headers=headers)


def documented(*more: int) -> dict[int | str, dict[str, Any]]:
    """Return the failures of an operation for the OpenAPI document: those that all have, and *more*."""
    told = {400: "something is wrong with it: see field", 401: "no key, or not one of ours", 403: "the key may not do this",
            404: "the group does not exist", 413: "more than we take", 415: "not JSON", 429: "asked too often",
            503: "the store is away: say it again"}  # fmt: skip
    return {status: {"model": Errors, "description": told[status]} for status in sorted({401, 403, 429, 503, *more})}


def described(status: int, what: str) -> dict[int | str, dict[str, Any]]:
    """Return one failure that has more reasons than its status tells, for the OpenAPI document."""
    return {status: {"model": Errors, "description": what}}
