"""What belongs to the account: /v3/scopes, /v3/tracking_settings/subscription; and /v3/mail/send, which we do not serve."""

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.responses import JSONResponse, Response

from worker.accounts.tracking import DEFAULTS, change_tracking, tracking
from worker.web.v3 import reading
from worker.web.v3.reading import Asking, Body, House, may
from worker.web.v3.shape import Problem, Refused, documented

router = APIRouter(tags=["account"])
_MAX_TEXT = 100_000
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"]


class Scopes(BaseModel):
    """What a key may do."""

    scopes: list[str]


class Tracking(BaseModel):
    """Texts are kept byte for byte."""

    enabled: bool
    html_content: str
    plain_content: str
    landing: str
    url: str
    replace: str


_TYPES = {name: {"type": "boolean" if name == "enabled" else "string"} for name in DEFAULTS}
_EXAMPLE = {"enabled": True, "plain_content": "Unsubscribe: <% %>", "replace": "[unsubscribe]"}
_SCHEMA = {"type": "object", "properties": _TYPES, "example": _EXAMPLE}
_BODY: dict[str, Any] = {"requestBody": {"required": True, "content": {"application/json": {"schema": _SCHEMA}}}}


@router.get("/scopes", response_model=Scopes, summary="What this key may do", responses=documented())
def scopes(asker: Asking) -> Response:
    """The scopes of the key that asks."""
    return JSONResponse({"scopes": list(asker.key.scopes)})


@router.get("/tracking_settings/subscription", response_model=Tracking, summary="Subscription tracking settings",
            dependencies=[may("tracking_settings.subscription.read")], responses=documented())  # fmt: skip
def settings(house: House, asker: Asking) -> Response:
    """All of them. Nothing here uses them: they are for the mail that SendGrid sends, and we send none.

    Stamping has its own: the sender's footers (`unsubd sender edit --footer-text --footer-html`) and the call's `tag`.
    """
    return JSONResponse(tracking(house.redis, asker.sender))


@router.patch("/tracking_settings/subscription", response_model=Tracking, summary="Change subscription tracking settings",
              dependencies=[may("tracking_settings.subscription.update")], responses=documented(400, 413, 415),
              openapi_extra=_BODY)  # fmt: skip
def change(house: House, asker: Asking, body: Body) -> Response:
    """What is absent keeps its value; the answer is all of it."""
    changes: dict[str, Any] = {
        name: reading.flag(body, name) if name == "enabled" else reading.text(body, name, _MAX_TEXT)
        for name in DEFAULTS
        if name in body
    }
    replicas = house.settings.min_replicas
    return JSONResponse(change_tracking(house.redis, asker.sender, changes, min_replicas=replicas))


@router.api_route("/mail/send", methods=METHODS, include_in_schema=False)
def send_no_mail() -> Response:
    """Say so: a program with one client for both must not believe that its mail left."""
    raise Refused(404, Problem(field=None, message="unsubd does not send; keep a second client for mail"))
