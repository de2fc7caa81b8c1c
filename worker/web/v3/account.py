"""What belongs to the account: /v3/scopes, /v3/tracking_settings/subscription, the key that events are verified with; and
/v3/mail/send, which we do not serve.
"""

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.responses import JSONResponse, Response

from worker.accounts.tracking import DEFAULTS, change_tracking, tracking
from worker.web.v3 import reading
from worker.web.v3.reading import Asking, Body, House, may
from worker.web.v3.shape import Problem, Refused, documented, wrong

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


class Signed(BaseModel):
    """What a post of ours is verified with."""

    public_key: str


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


_SIGNED: dict[str, Any] = {
    "type": "object",
    "properties": {"enabled": {"type": "boolean", "enum": [True]}},
    "required": ["enabled"],
}
_SIGNED_BODY = {"requestBody": {"required": True, "content": {"application/json": {"schema": _SIGNED}}}}


@router.get("/user/webhooks/event/settings/signed", response_model=Signed, summary="The key of our events' signatures",
            dependencies=[may("user.webhooks.event.settings.read")], responses=documented(404))  # fmt: skip
def signed(house: House, asker: Asking) -> Response:
    """ECDSA P-256: base64 of the DER SubjectPublicKeyInfo, as SendGrid's verifiers take it. It stays the same."""
    if (hook := house.events.find(asker.sender)) is None:
        raise Refused(404, Problem(field=None, message="no event webhook: unsubd sender events SENDER URL makes one"))
    return JSONResponse({"public_key": hook.public_key})


@router.patch("/user/webhooks/event/settings/signed", response_model=Signed, summary="Ask for signatures",
              dependencies=[may("user.webhooks.event.settings.update")], responses=documented(400, 404, 413, 415),
              openapi_extra=_SIGNED_BODY)  # fmt: skip
def sign(house: House, asker: Asking, body: Body) -> Response:
    """Every post is signed, so there is only one thing to ask for."""
    if "enabled" not in body or not reading.flag(body, "enabled"):
        raise wrong("every post is signed: expected true", "enabled")
    return signed(house, asker)


@router.api_route("/mail/send", methods=METHODS, include_in_schema=False)
def send_no_mail() -> Response:
    """Say so: a program with one client for both must not believe that its mail left."""
    raise Refused(404, Problem(field=None, message="unsubd does not send; keep a second client for mail"))
