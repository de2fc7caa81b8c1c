"""`/ops/anomalies`: bursts and shared tags, each undone or dismissed in one action."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from worker.anomalies import described
from worker.anomaly_undo import undo
from worker.web.ops import gate
from worker.web.ops.gate import Visit

router = APIRouter()


@router.get("/anomalies")
async def anomalies(request: Request) -> Response:
    """All of the last 30 days, the newest first."""
    facts = await gate.done(request.state.visit, _facts)
    return await gate.page(request, "ops_anomalies.html", "Anomalies", **facts)


def _facts(visit: Visit) -> dict[str, Any]:
    every = visit.installation.intake.anomalies.every()
    return {
        "open": [(each, described(each)) for each in every if each.state == "open"],
        "settled": [(each, described(each)) for each in every if each.state != "open"],
    }


@router.post("/anomalies/{anomaly_id}/undo")
async def undo_anomaly(request: Request, anomaly_id: str) -> Response:
    """Resubscribe whom it alone stopped."""
    return await _settled(request, _undo, anomaly_id)


def _undo(visit: Visit, anomaly_id: str) -> str:
    found = visit.installation.intake.anomalies.find(anomaly_id)
    if found.state == "undone":
        visit.note("undo anomaly", anomaly_id, "undone before")  # perhaps by this person, whose first try died untold
    done = undo(visit.installation, found, actor=visit.session.who, reason=visit.field("reason"))
    visit.note("undo anomaly", anomaly_id, f"{done.lifted} lifted, {done.kept} kept")
    return f"Undone: {done}."


@router.post("/anomalies/{anomaly_id}/dismiss")
async def dismiss_anomaly(request: Request, anomaly_id: str) -> Response:
    """Say no more of it; nothing is changed."""
    return await _settled(request, _dismiss, anomaly_id)


def _dismiss(visit: Visit, anomaly_id: str) -> str:
    found = visit.installation.intake.anomalies.find(anomaly_id)
    visit.installation.intake.anomalies.settle(found, "dismissed", visit.session.who)
    visit.note("dismiss anomaly", anomaly_id)
    return "Dismissed: nothing was changed."


async def _settled(request: Request, work: Any, anomaly_id: str) -> Response:
    visit: Visit = request.state.visit
    visit.say(await gate.done(visit, work, anomaly_id))
    return gate.to("/ops/anomalies")
