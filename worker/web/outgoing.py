"""`/v1/headers` and `/v1/stamp`: what a mail carries before it is sent, for senders who ask over HTTP."""

import asyncio
import base64
import binascii
from collections.abc import Callable
from typing import Any, TypeVar

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field, ValidationError
from starlette.responses import JSONResponse, Response

from handlers.errors import ConfigError, Rejected, Unavailable
from handlers.headers import Form, shaped
from worker.installation import Installation
from worker.minting import minting_at
from worker.stamping import stamp_with
from worker.web.api import asking_sender
from worker.web.asker import BEARER
from worker.web.body import read_body
from worker.web.failure import Failure, shape_problems

router = APIRouter(prefix="/v1", tags=["sending"], dependencies=[BEARER])
_MAX_RECIPIENTS_BYTES = 4 * 1024 * 1024  # 10,000 addresses of the greatest length
_MAX_MESSAGE_BYTES = 48 * 1024 * 1024  # a mail of 35 MB in base64
_FAILURES: dict[int | str, dict[str, Any]] = {
    401: {"model": Failure, "description": "no key, or not one of ours"},
    403: {"model": Failure, "description": "the key may not do this"},
    404: {"model": Failure, "description": "this sender has no such group"},
    422: {"model": Failure, "description": "not an address, not a mail, or another shape"},
    429: {"model": Failure, "description": "asked too often"},
    503: {"model": Failure, "description": "a server is away, or a setting is missing: ask again"},
}


class HeadersQuestion(BaseModel):
    """Whose headers do you need, and for what?"""

    group: int = Field(ge=0, le=4294967295, description="id of the group; 0 = global")
    recipients: list[str] = Field(min_length=1, max_length=10_000, description="addresses, any spelling")
    format: Form = Field(
        default="json", description="json, plain: one object a recipient; v3, v2, smtpapi: SendGrid's shapes"
    )
    mailto_only: bool = Field(default=False, description="without the https link")


class HeadersAnswer(BaseModel):
    """The headers, each recipient's own."""

    headers: list[dict[str, Any]] = Field(description="in the order of the recipients, shaped as format says")
    warnings: list[str] = Field(description="what the group will mean, where that may surprise")


class StampQuestion(BaseModel):
    """Which mail is to be stamped, and for whom?"""

    group: int = Field(ge=0, le=4294967295, description="id of the group; 0 = global")
    message: str = Field(description="the mail, RFC 5322, in base64")
    recipient: str = Field(default="", description="whom it goes to; default: the one address in To")
    tag: str = Field(default="", max_length=100, description="a substitution tag of your own, besides SendGrid's")
    mailto_only: bool = Field(default=False, description="without the https link")


class StampAnswer(BaseModel):
    """The stamped mail."""

    message: str = Field(description="the mail, in base64: what is not told of below is as it came, byte for byte")
    replaced: int = Field(description="how many substitution tags became links")
    footers: int = Field(description="how many parts got the sender's footer")
    warnings: list[str] = Field(description="what was left alone, and why; what a signature will say")


_Asked = TypeVar("_Asked", bound=BaseModel)


def _body(kind: type[BaseModel]) -> dict[str, Any]:
    content = {"application/json": {"schema": kind.model_json_schema()}}
    return {"requestBody": {"required": True, "content": content}}


@router.post(
    "/headers",
    response_model=HeadersAnswer,
    response_description="the headers of each recipient's mail",
    responses=_FAILURES,
    openapi_extra=_body(HeadersQuestion),
    summary="Headers for these recipients' mails",
)
async def headers(request: Request) -> Response:
    """Mint a tag for each recipient. Authorization: Bearer with a key of `unsubd sender key`. Repeat: the same headers."""
    sender = await asking_sender(request)
    question = _read(HeadersQuestion, await read_body(request, _MAX_RECIPIENTS_BYTES))
    return JSONResponse(await asyncio.to_thread(_configured, _headers, request, sender, question))


@router.post(
    "/stamp",
    response_model=StampAnswer,
    response_description="the mail with headers and links",
    responses=_FAILURES,
    openapi_extra=_body(StampQuestion),
    summary="Stamp one mail: headers, links, footer",
)
async def stamp(request: Request) -> Response:
    """Give one recipient's mail its headers and put its links where substitution tags stand. Repeat: the same mail."""
    sender = await asking_sender(request)
    question = _read(StampQuestion, await read_body(request, _MAX_MESSAGE_BYTES))
    return JSONResponse(await asyncio.to_thread(_configured, _stamp, request, sender, question))


def _headers(installation: Installation, sender: str, question: HeadersQuestion) -> dict[str, Any]:
    found = minting_at(installation, sender, question.group)
    addressed = found.headers(question.group, question.recipients, mailto_only=question.mailto_only)
    return {"headers": shaped(question.format, addressed), "warnings": list(found.warnings)}


def _stamp(installation: Installation, sender: str, question: StampQuestion) -> dict[str, Any]:
    found = minting_at(installation, sender, question.group)
    try:
        raw = base64.b64decode(question.message, validate=True)
    except (binascii.Error, ValueError):
        raise Rejected("message: not base64, expected the mail in base64") from None
    done = stamp_with(
        found, question.group, raw, recipient=question.recipient, custom=question.tag, mailto_only=question.mailto_only
    )
    return {
        "message": base64.b64encode(done.raw).decode(),
        "replaced": done.replaced,
        "footers": done.footers,
        "warnings": [*found.warnings, *done.warnings],
    }


def _configured(
    answer: Callable[[Installation, str, _Asked], dict[str, Any]], request: Request, sender: str, question: _Asked
) -> dict[str, Any]:
    try:
        return answer(request.app.state.installation, sender, question)
    except ConfigError as error:  # the operator's to mend, so whoever asks may ask again
        raise Unavailable(str(error)) from error


def _read(kind: type[_Asked], body: bytes) -> _Asked:
    """Errors: Rejected  another shape.    permanent"""
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise Rejected(shape_problems(error.errors(include_url=False, include_input=False))) from None
