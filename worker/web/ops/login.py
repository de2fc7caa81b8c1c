"""Logging in and out: a token or a one-time link becomes a session with a cookie that nobody chose beforehand."""

import asyncio

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.responses import Response

from worker.installation import Installation
from worker.web.ops import gate, trail
from worker.web.ops import session as sessions
from worker.web.ops.session import Role

router = APIRouter()


@router.get("/login")
async def login_page(request: Request, once: str = "") -> Response:
    """Ask for the token; a one-time link needs none."""
    installation: Installation = request.app.state.installation
    fresh = await gate.apart(sessions.use_login_link, installation.redis, once) if once else False
    if fresh:
        return await _welcome(request, Role.OPERATOR, "")
    problem = "This link was used already, or is older than 15 minutes." if once else ""
    return _login(request, 200, problem)


@router.post("/login")
async def login(request: Request) -> Response:
    """Open a session for whoever knows a token."""
    installation: Installation = request.app.state.installation
    gate.require_own_origin(request)
    form = await gate.read_form(request, 4096)
    source = request.app.state.peers.source(request)
    if await gate.apart(sessions.is_locked, installation.redis, source):
        return _login(request, 429, "Too many wrong tokens came from your address: try again in 15 minutes.")
    role = sessions.role_of(installation.settings, form.get("token", [""])[0])
    if role is None:
        await gate.apart(sessions.note_failure, installation.redis, source)
        await asyncio.sleep(0.5)  # slows guessing, and a person hardly notices
        return _login(request, 403, "That is not the token.")
    return await _welcome(request, role, form.get("name", [""])[0])


@router.post("/logout")
async def logout(request: Request) -> Response:
    """End the session. It needs no form token: whoever holds the cookie may give it up, and a strange site may not send it."""
    gate.require_own_origin(request)
    installation: Installation = request.app.state.installation
    if cookie := request.cookies.get(sessions.COOKIE):
        await gate.apart(sessions.close_session, installation.redis, cookie)
    response = RedirectResponse("/ops/login", status_code=303)
    response.delete_cookie(sessions.COOKIE, path="/ops")
    return response


async def _welcome(request: Request, role: Role, who: str) -> Response:
    """Open a session, whatever cookie came along; that one's session ends."""
    installation: Installation = request.app.state.installation
    cookie = await gate.apart(_opened, installation, request.cookies.get(sessions.COOKIE), role, who)
    response = RedirectResponse("/ops", status_code=303)
    secure = (installation.settings.public_url or "").startswith("https")
    response.set_cookie(
        sessions.COOKIE, cookie, max_age=sessions.SESSION_S, path="/ops", httponly=True, samesite="lax", secure=secure
    )
    return response


def _opened(installation: Installation, before: str | None, role: Role, who: str) -> str:
    if before:
        sessions.close_session(installation.redis, before)
    cookie = sessions.open_session(installation.redis, role, who)
    if found := sessions.find(installation.redis, cookie):
        trail.note(installation, found, "log in", "")
    return cookie


def _login(request: Request, status_code: int, problem: str) -> Response:
    settings = request.app.state.installation.settings
    closed = not (settings.admin_token.get_secret_value() or settings.viewer_token.get_secret_value())
    facts = {"title": "Log in", "problem": problem, "closed": closed, "place": gate.place_of(settings)}
    content = request.app.state.pages.get_template("ops_login.html").render(**facts)
    return HTMLResponse(content, status_code=status_code)
