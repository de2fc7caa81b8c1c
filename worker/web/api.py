"""`/v1/check`: ask before each send. More of /v1 follows; what SendGrid has a shape for belongs to /v3."""

import asyncio

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse, Response

from handlers.errors import Rejected, UnknownAccount
from worker.check import as_json, check
from worker.installation import Installation

router = APIRouter(prefix="/v1", tags=["check"])


class CheckQuestion(BaseModel):
    """Whom do you want to mail, and what for?"""

    group: int = Field(ge=0, le=4294967295, description="id of the group; 0 = global")
    recipients: list[str] = Field(min_length=1, max_length=10_000, description="addresses, any spelling")


class CheckAnswer(BaseModel):
    """May this recipient be mailed?"""

    recipient: str
    suppressed: bool
    scope: str | None = Field(description="group, global, or null when mail is allowed")
    since: str | None = Field(description="when it was first asked for, ISO 8601 UTC")
    source: str | None = Field(description="how it was asked for: imap, relay, one-click, …")


@router.post("/check", response_model=list[CheckAnswer], summary="May these recipients be mailed?")
async def check_many(request: Request, question: CheckQuestion) -> Response:
    """Answer for each address, in order. Authorization: Bearer with a key of `unsubd sender key`.

    503 means "not known", never "allowed".
    """
    installation: Installation = request.app.state.installation
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    sender = (
        await asyncio.to_thread(installation.accounts.sender_of_api_key, key) if scheme.lower() == "bearer" else None
    )
    if sender is None:
        return JSONResponse({"error": "unauthorized", "detail": "expected Authorization: Bearer KEY"}, status_code=401)
    try:
        answers = await asyncio.to_thread(check, installation, sender, question.group, question.recipients)
    except UnknownAccount as error:
        return JSONResponse({"error": "unknown", "detail": str(error)}, status_code=404)
    except Rejected as error:
        return JSONResponse({"error": "invalid", "detail": str(error)}, status_code=422)
    return JSONResponse([as_json(answer) for answer in answers])
