"""`/ops`: is anything owed, the clock, 48 hours, the sources, and what needs a person."""

import time
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from worker import clock, habits
from worker.crew import is_alive
from worker.journal import Journal
from worker.status import status
from worker.web.ops import gate
from worker.web.ops.charts import p99_chart, requests_chart
from worker.web.ops.gate import Visit

router = APIRouter()
_JOURNAL_LINES = 30
_HOURS = 48
_DAY_MS = 86_400_000


@router.get("")
async def overview(request: Request) -> Response:
    """The page itself."""
    return await _shown(request, "ops_overview.html")


@router.get("/live")
async def live(request: Request) -> Response:
    """The part of the page that changes, for the script that refreshes it."""
    return await _shown(request, "ops_overview_live.html")


async def _shown(request: Request, template: str) -> Response:
    facts = await gate.done(request.state.visit, _facts)
    return await gate.page(request, template, "Overview", **facts)


def _facts(visit: Visit) -> dict[str, Any]:
    installation, now = visit.installation, datetime.now(UTC)
    state = status(installation)
    hours = clock.hours(installation.redis, _HOURS)
    midnight_ms = round(time.time() * 1000) // _DAY_MS * _DAY_MS
    return {
        "owed": state["owed"],
        "state": state,
        "alive": {each["name"] for each in state["workers"] if is_alive(each)},
        "today": clock.total(installation.redis, midnight_ms),
        "hours": hours,
        "habits": habits.habits(installation.redis),
        "requests": requests_chart(hours),
        "p99": p99_chart(hours),
        "journal": [_line(line) for line in Journal.lines(installation.redis, _JOURNAL_LINES)],
        "now": now,
    }


def _line(line: dict[str, Any]) -> dict[str, Any]:
    known = ("at_ms", "event", "source", "outcome")
    rest = "  ".join(f"{name}={value}" for name, value in line.items() if name not in known and value != "")
    return {"at_ms": line["at_ms"], "event": line["event"], "source": line.get("source", ""), "rest": rest}
