"""`/ops/queue`: what waits, who works on it, what failed and why; failed jobs again, or gone."""

import re
from typing import Any

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from worker import joblist
from worker.backlog import STATES
from worker.forwarding.state import forwards_state
from worker.web.ops import gate
from worker.web.ops.gate import Visit
from worker.web.ops.paging import PAGE, page_of

router = APIRouter(prefix="/queue")
_JOB_ID = re.compile(r"[A-Za-z0-9_-]{1,200}")


@router.get("")
async def queue(request: Request, state: str = "", page: int = 1) -> Response:
    """Counts by state, the workers, and the jobs of one state."""
    facts = await gate.done(request.state.visit, _listed, state, page)
    return await gate.page(request, "ops_queue.html", "Queue", **facts)


def _listed(visit: Visit, state: str, number: int) -> dict[str, Any]:
    counts = visit.installation.queue.status()
    if state not in STATES:
        state = next((each for each in ("failed", "started", "queued", "scheduled") if counts[each]), "finished")
    page = page_of("/ops/queue", {"state": state}, number, counts[state])
    rows = joblist.page(visit.installation, state, page.start, PAGE)
    forwards = forwards_state(visit.installation)
    workers = visit.installation.queue.workers()
    return {"counts": counts, "state": state, "rows": rows, "page": page, "workers": workers, "forwards": forwards}


@router.get("/{job_id}")
async def job(request: Request, job_id: str) -> Response:
    """One job: what it holds, how often it was tried, and the whole traceback, folded."""
    found = await gate.done(request.state.visit, _detail, job_id)
    return await gate.page(request, "ops_job.html", "Job", job=found)


def _detail(visit: Visit, job_id: str) -> joblist.JobDetail:
    found = joblist.detail(visit.installation, job_id) if _JOB_ID.fullmatch(job_id) else None
    if found is None:
        raise HTTPException(404, "this job is not here: finished ones are shown for 5 minutes")
    return found


@router.post("/requeue")
async def requeue(request: Request) -> Response:
    """Try failed jobs again. Repeat: safe, their requests take effect once."""
    visit: Visit = request.state.visit
    count = await gate.done(visit, _each, "requeue", joblist.requeue)
    visit.say(f"{count} of {len(_ids(visit))} jobs are in the queue again.")
    return gate.to("/ops/queue")


@router.post("/delete")
async def delete(request: Request) -> Response:
    """Delete failed jobs, once a person confirmed how many."""
    visit: Visit = request.state.visit
    ids = _ids(visit)
    if ids and not visit.field("confirm"):
        noun = "1 failed job" if len(ids) == 1 else f"{len(ids)} failed jobs"
        return await gate.page(
            request, "ops_confirm.html", "Delete", action="/ops/queue/delete", back="/ops/queue?state=failed",
            fields=[("id", each) for each in ids], question=f"Delete {noun}?", button=f"Delete {noun}",
            means="The requests in hand are not lost: they are in quarantine, reason failed, where you can replay them.",
        )  # fmt: skip
    count = await gate.done(visit, _each, "delete", joblist.drop)
    visit.say(f"{count} of {len(ids)} jobs were deleted; what they held is in quarantine, reason failed.")
    return gate.to("/ops/queue")


def _ids(visit: Visit) -> list[str]:
    return [each for each in visit.fields("id") if _JOB_ID.fullmatch(each)][:PAGE]


def _each(visit: Visit, action: str, work: Any) -> int:
    count = 0
    for job_id in _ids(visit):
        took = work(visit.installation, job_id)
        visit.note(f"{action} job", job_id, "done" if took else "is no failed job")
        count += took
    return count
