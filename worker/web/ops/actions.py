"""`/ops/audit`: who did what, and when."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from worker.web.ops import gate, trail
from worker.web.ops.gate import Visit
from worker.web.ops.paging import PAGE, page_of

router = APIRouter()


@router.get("/audit")
async def audit(request: Request, page: int = 1) -> Response:
    """Every action of the console, newest first."""
    facts = await gate.done(request.state.visit, _listed, page)
    return await gate.page(request, "ops_audit.html", "Audit trail", **facts)


def _listed(visit: Visit, number: int) -> dict[str, Any]:
    page = page_of("/ops/audit", {}, number, trail.count(visit.installation))
    return {"page": page, "rows": trail.actions(visit.installation, page.start, PAGE)}
