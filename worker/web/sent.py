"""`POST /v1/sent`: a sender tells whom it mailed, and hears at once whom it should not have."""

import asyncio
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field, ValidationError, WithJsonSchema
from starlette.responses import JSONResponse, Response

from handlers.errors import Rejected
from worker import sent
from worker.check import BYPASSES
from worker.installation import Installation
from worker.web.api import asking_sender
from worker.web.asker import BEARER
from worker.web.body import read_body
from worker.web.failure import Failure, shape_problems

router = APIRouter(prefix="/v1", tags=["sent"], dependencies=[BEARER])
_MAX_REPORT_BYTES = 4 * 1024 * 1024

_Time = Annotated[datetime, WithJsonSchema({"anyOf": [{"type": "string", "format": "date-time"}, {"type": "number"}]})]


class SentMail(BaseModel):
    """One mail that went out."""

    recipient: str = Field(description="address, any spelling")
    group: int = Field(ge=0, le=4294967295, description="id of the group; 0 = none")
    at: _Time = Field(description="when it was sent: ISO 8601 (UTC where it names no zone), or seconds since 1970")
    bypass: list[str] = Field(
        default=[], max_length=4, description="as it was asked for at /v1/check",
        json_schema_extra={"items": {"type": "string", "enum": list(BYPASSES)}},
    )  # fmt: skip


class SentReport(BaseModel):
    """Whom did you mail?"""

    sent: list[SentMail] = Field(min_length=1, max_length=sent.MOST)


class SentViolation(BaseModel):
    """A mail that went out more than an hour after a suppression took effect."""

    number: int = Field(description="of the mail in the report, from 0")
    recipient: str
    group: int
    scope: str = Field(description="group or global: which list stopped it")
    at: str
    since: str = Field(description="when the suppression took effect, ISO 8601 UTC")


class SentAnswer(BaseModel):
    """What came of comparing."""

    compared: int
    violations: list[SentViolation]


_FAILURES: dict[int | str, dict[str, Any]] = {
    401: {"model": Failure, "description": "no key, or not one of ours"},
    403: {"model": Failure, "description": "the key may not do this"},
    404: {"model": Failure, "description": "this sender has no such group"},
    422: {"model": Failure, "description": "not an address, a time to come, or another shape"},
    429: {"model": Failure, "description": "asked too often"},
    503: {"model": Failure, "description": "nothing was compared: send the same again"},
}
_SHAPE = SentReport.model_json_schema()
_SHAPE["properties"]["sent"]["items"] = SentMail.model_json_schema()  # a reference would lead nowhere in the document
del _SHAPE["$defs"]
_BODY = {"required": True, "content": {"application/json": {"schema": _SHAPE}}}


@router.post(
    "/sent",
    response_model=SentAnswer,
    response_description="who should not have been mailed",
    responses=_FAILURES,
    openapi_extra={"requestBody": _BODY},
    summary="Tell whom you mailed",
)
async def report_sent(request: Request) -> Response:
    """Compare with the suppressions in effect. Authorization: Bearer with a key of `unsubd sender key`.

    The same report may come again: every mail counts once.
    """
    installation: Installation = request.app.state.installation
    sender = await asking_sender(request)
    mails = _mails(await read_body(request, _MAX_REPORT_BYTES))
    found = await asyncio.to_thread(sent.reported, installation, sender, mails)
    return JSONResponse({"compared": len(mails), "violations": [as_json(each) for each in found]})


def as_json(found: sent.Violation) -> dict[str, Any]:
    """Return the shape that the API and the command share."""
    return {
        "number": found.number, "recipient": found.recipient, "group": found.group, "scope": found.scope,
        "at": _iso(found.at), "since": _iso(found.since),
    }  # fmt: skip


def _mails(body: bytes) -> list[sent.Sent]:
    """Errors: Rejected  another shape.    permanent"""
    try:
        report = SentReport.model_validate_json(body)
    except ValidationError as error:
        raise Rejected(shape_problems(error.errors(include_url=False, include_input=False))) from None
    return [sent.Sent(each.recipient, each.group, _utc(each.at), frozenset(each.bypass)) for each in report.sent]


def _utc(at: datetime) -> datetime:
    """Errors: Rejected  in UTC it is no time any more.    permanent"""
    try:
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except OverflowError:
        raise Rejected(f"at: {at.isoformat()}: expected a time when mail was sent") from None


def _iso(at: datetime) -> str:
    return at.isoformat(timespec="seconds").replace("+00:00", "Z")
