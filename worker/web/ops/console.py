"""The console's first page: is anything owed, what waits, who works, what happened last. Read-only."""

import asyncio
import time
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.responses import Response

from handlers.errors import QueueUnavailable
from worker.batch import describe
from worker.installation import Installation
from worker.journal import Journal
from worker.server import away_as
from worker.status import status
from worker.web.body import read_body
from worker.web.ops import session

router = APIRouter(prefix="/ops", include_in_schema=False)
_JOURNAL_LINES = 50


@router.get("")
async def overview(request: Request) -> Response:
    """The page itself, or the login."""
    return await _guarded(request, "ops.html")


@router.get("/live")
async def live(request: Request) -> Response:
    """The part of the page that changes, for the script that refreshes it."""
    return await _guarded(request, "ops_live.html")


async def _guarded(request: Request, template: str) -> Response:
    installation: Installation = request.app.state.installation
    if not await asyncio.to_thread(_is_open, installation, request):
        return RedirectResponse("/ops/login", status_code=303)
    facts = await asyncio.to_thread(_facts, installation)
    return _page(request, template, 200, title="Overview", **facts)


def _is_open(installation: Installation, request: Request) -> bool:
    with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
        return session.is_open(installation.redis, request.cookies.get(session.COOKIE))


def _facts(installation: Installation) -> dict[str, Any]:
    state = status(installation)
    with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
        lines = Journal.lines(installation.redis, _JOURNAL_LINES)
    return {
        "state": state,
        "failed_jobs": installation.queue.failed(),
        "journal": [_shown(line) for line in lines],
        "now": datetime.now(UTC),
        "verdict": _verdict(state),
    }


def _verdict(state: dict[str, Any]) -> dict[str, str]:
    """One sentence and one colour: is anything owed to anyone?"""
    refused = [each for each in state["sources"] if each["state"] in ("refused", "silent", "waiting")]
    if refused:
        worst = refused[0]
        return {"colour": "bad", "text": f"Source {worst['name']} is {worst['state']}: {worst['detail'] or 'no word'}"}
    if state["queue"]["failed"]:
        held = describe(state["queue"]["requests"]["failed"], state["queue"]["messages"]["failed"])
        return {"colour": "bad", "text": f"{held} ran out of tries: see the failed jobs"}
    if faulty := [each for each in state["workers"] if each["faults"]]:
        return {"colour": "bad", "text": f"Worker {faulty[0]['name']} {faulty[0]['faults'][0]}"}
    if not state["workers"]:
        return {"colour": "bad", "text": "No worker is alive: start one with unsubd work"}
    if held := sum(each.get("held", 0) for each in state["sources"]):
        return {"colour": "warn", "text": f"{held} older messages are held back: see the sources"}
    if state["queue"]["oldest_s"] > 60:
        return {"colour": "warn", "text": f"The oldest request waits for {state['queue']['oldest_s']:.0f} s"}
    return {"colour": "good", "text": "Nothing is waiting longer than a minute"}


def _shown(line: dict[str, Any]) -> dict[str, Any]:
    at = datetime.fromtimestamp(line["at_ms"] / 1000, UTC)
    known = ("at_ms", "event", "source", "outcome")
    rest = "  ".join(f"{name}={value}" for name, value in line.items() if name not in known and value != "")
    age_s = max(0, round(time.time() - line["at_ms"] / 1000))
    return {"at": at, "age": _age(age_s), "event": line["event"], "source": line.get("source", ""), "rest": rest}


def _age(seconds: int) -> str:
    """A relative time as people say it. Example: _age(130) is "2 min"."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


@router.get("/login")
async def login_page(request: Request, once: str = "") -> Response:
    """Ask for the token; a one-time link needs none."""
    installation: Installation = request.app.state.installation
    if once and await asyncio.to_thread(_try, installation, session.use_login_link, once):
        return await _welcome(installation)
    problem = "This link was used already, or is older than 15 minutes." if once else ""
    return _login(request, 200, problem)


@router.post("/login")
async def login(request: Request) -> Response:
    """Open a session for whoever knows the token."""
    installation: Installation = request.app.state.installation
    form = parse_qs((await read_body(request, 4096)).decode("utf-8", "replace"))
    if not session.token_matches(installation, form.get("token", [""])[0]):
        await asyncio.sleep(0.5)  # slows guessing, and a person hardly notices
        return _login(request, 403, "That is not the token.")
    return await _welcome(installation)


@router.post("/logout")
async def logout(request: Request) -> Response:
    """End the session."""
    installation: Installation = request.app.state.installation
    if cookie := request.cookies.get(session.COOKIE):
        await asyncio.to_thread(_try, installation, session.close_session, cookie)
    response = RedirectResponse("/ops/login", status_code=303)
    response.delete_cookie(session.COOKIE, path="/ops")
    return response


def _try(installation: Installation, action: Any, secret: str) -> Any:
    with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
        return action(installation.redis, secret)


async def _welcome(installation: Installation) -> Response:
    with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
        cookie = await asyncio.to_thread(session.open_session, installation.redis)
    response = RedirectResponse("/ops", status_code=303)
    secure = (installation.settings.public_url or "").startswith("https")
    response.set_cookie(
        session.COOKIE, cookie, max_age=session.SESSION_S, path="/ops", httponly=True, samesite="lax", secure=secure
    )
    return response


def _login(request: Request, status_code: int, problem: str) -> Response:
    installation: Installation = request.app.state.installation
    closed = not installation.settings.admin_token.get_secret_value()
    return _page(request, "ops_login.html", status_code, title="Log in", problem=problem, closed=closed)


def _page(request: Request, name: str, status_code: int, **facts: Any) -> Response:
    return HTMLResponse(request.app.state.pages.get_template(name).render(**facts), status_code=status_code)
