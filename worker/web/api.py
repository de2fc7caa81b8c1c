"""`/v1/check`: ask before each send. More of /v1 follows; what SendGrid has a shape for belongs to /v3."""

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field, ValidationError
from pydantic_core import to_json
from starlette.responses import Response

from handlers.errors import Rejected
from worker.check import BYPASSES, Answer, Check, as_json, check_each
from worker.installation import Installation
from worker.together import Together
from worker.web.asker import BEARER, asker_of
from worker.web.body import read_body
from worker.web.failure import Failure, shape_problems
from worker.web.v1.reading import GroupId, Question

router = APIRouter(prefix="/v1", tags=["check"], dependencies=[BEARER])


class CheckQuestion(Question):
    """Whom do you want to mail, and what for?"""

    group: GroupId = Field(description="id of the group; 0 = global")
    recipients: list[Annotated[str, Field(json_schema_extra={"format": "idn-email"})]] = Field(
        min_length=1, max_length=10_000, description="addresses, any spelling"
    )
    bypass: list[str] = Field(
        default=[],
        max_length=4,
        description="names of SendGrid's mail_settings, e.g. bypass_unsubscribe_management",
        json_schema_extra={"anyOf": [{"items": {"const": BYPASSES[0]}}, {"items": {"enum": [*BYPASSES[1:]]}}]},
    )


class CheckAnswer(BaseModel):
    """May this recipient be mailed?"""

    recipient: str
    suppressed: bool
    scope: str | None = Field(description="group, global, or null when mail is allowed")
    since: str | None = Field(description="when it was first asked for, ISO 8601 UTC")
    source: str | None = Field(description="how it was asked for: imap, relay, one-click, …")
    version: str = Field(description="the same as long as the answer is: ask again at hand-over and compare")
    essential: bool = Field(default=False, description="only an entry for this very group stops its mail")


_FAILURES: dict[int | str, dict[str, Any]] = {
    401: {"model": Failure, "description": "no key, or not one of ours"},
    403: {"model": Failure, "description": "the key may not do this"},
    404: {"model": Failure, "description": "this sender has no such group"},
    422: {"model": Failure, "description": "not an address, or another shape"},
    429: {"model": Failure, "description": "asked too often"},
    503: {"model": Failure, "description": "not known now: do not send"},
}


_BODY = {"required": True, "content": {"application/json": {"schema": CheckQuestion.model_json_schema()}}}
_AT_ONCE = 2_000  # addresses that are asked in one turn: 20 ms of one core, which the others wait
_MAX_QUESTION_BYTES = 4 * 1024 * 1024  # 10,000 addresses of the greatest length


@router.post(
    "/check",
    response_model=list[CheckAnswer],
    response_description="one answer per address, in order",
    responses=_FAILURES,
    openapi_extra={"requestBody": _BODY},
    summary="May these recipients be mailed?",
)
async def check_many(request: Request) -> Response:
    """Answer for each address, in order. Authorization: Bearer with a key of `unsubd sender key`.

    503 means "not known", never "allowed".
    """
    sender = await asking_sender(request)
    asked = _question(await read_body(request, _MAX_QUESTION_BYTES))
    answers = await request.app.state.checks.ask(Check(sender, asked.group, asked.recipients, asked.bypass))
    return Response(to_json([as_json(answer) for answer in answers]), media_type="application/json")


def checks(installation: Installation) -> Together[Check, list[Answer]]:
    """Return what answers checks that come at once, together. One for each event loop."""
    return Together(partial(check_each, installation), lambda each: len(each.recipients), _AT_ONCE)


async def asking_sender(request: Request) -> str:
    """Return the sender whose mail a program is about to send: its key reads who is suppressed. Errors: as `asker_of`."""
    asker = await asker_of(request, "asm.suppressions.global.read", "asm.groups.suppressions.read")
    return asker.sender


def _question(body: bytes) -> CheckQuestion:
    """Errors: Rejected  another shape.    permanent"""
    try:
        return CheckQuestion.model_validate_json(body)
    except ValidationError as error:
        raise Rejected(shape_problems(error.errors(include_url=False, include_input=False))) from None
