"""`/v3/…`: SendGrid's API for suppressions, so that a program with the `sendgrid` client runs with another host.

The contract's traps decide the shape: literal names stand before addresses, an address takes the rest of the path, nothing
is redirected, every failure has SendGrid's shape (`shape.py`), every answer tells of the limit (`door.py`).
"""

from collections.abc import Mapping

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from worker.web.asker import BEARER
from worker.web.v3 import account, across_groups, global_suppressions, group_suppressions, groups
from worker.web.v3.shape import NO_GROUP, Refused, answer, answer_words

router = APIRouter(prefix="/v3", dependencies=[BEARER])


@router.get("/asm/suppressions/global", include_in_schema=False)
@router.delete("/asm/groups/{group_id}/suppressions/search", include_in_schema=False)
async def wrong_method() -> Response:
    """Keep a literal name from being taken for an address."""
    raise HTTPException(405)


for _part in (global_suppressions, group_suppressions, across_groups, groups, account):
    router.include_router(_part.router)


async def of_refusal(request: Request, error: Exception) -> Response:
    """Return the answer to what a route refuses."""
    assert isinstance(error, Refused)
    return answer(error.status, *error.problems)


def of_failure(status: int, code: str, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return the answer for a failure that the rest of the application named."""
    if code == "unknown":
        return answer_words(status, NO_GROUP, headers)
    return answer_words(status, detail, headers)
