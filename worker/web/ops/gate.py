"""The gate of the console: who asks, whether the request is his own, and whether he may do that.

Every route of the console lies behind `admit`, whatever its page does: a GET needs a session, anything else an operator's
session, its form token, and an Origin of ours. What a viewer may post (a search, which changes nothing) says so itself.
"""

import asyncio
import hmac
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

from fastapi import Request
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.exceptions import HTTPException
from starlette.responses import Response

from handlers.errors import QueueUnavailable, Rejected
from worker.installation import Installation
from worker.server import away_as
from worker.settings import Settings
from worker.web.body import read_body
from worker.web.ops import session as sessions
from worker.web.ops import trail
from worker.web.ops.session import Session

MAX_FORM_BYTES = 65536  # a page of ids, and a reason
_READERS = "reads_only"
_THREADS = ThreadPoolExecutor(8, "console")  # it starts them one by one, as they are needed
Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Visit:
    """One admitted request: whose it is, and what its form holds."""

    installation: Installation
    session: Session
    form: Mapping[str, list[str]]

    def field(self, name: str) -> str:
        """Return a field of the form, stripped; "" when it is not there."""
        return self.form.get(name, [""])[0].strip()

    def fields(self, name: str) -> list[str]:
        """Return every value of a field, each once."""
        return list(dict.fromkeys(self.form.get(name, [])))

    def note(self, action: str, target: str, outcome: str = "") -> None:
        """Write an action into the audit trail."""
        trail.note(self.installation, self.session, action, target, outcome)

    def say(self, text: str) -> None:
        """Let the next page say what was done."""
        sessions.say(self.installation.redis, self.session, text)


def reads_only(route: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a POST that changes nothing: a viewer may send it."""
    setattr(route, _READERS, True)
    return route


async def admit(request: Request) -> None:
    """Let a request through, as `request.state.visit`.

    Errors:  HTTPException 303  to the login.
             HTTPException 403  a viewer's write, a form of another site's or another session's.
    """
    installation: Installation = request.app.state.installation
    session = await apart(_session, installation, request)
    if session is None:
        raise HTTPException(303, "expected a session", {"Location": "/ops/login"})
    request.state.session = session
    form: Mapping[str, list[str]] = {}
    if request.method not in ("GET", "HEAD"):
        require_own_origin(request)
        if not session.may_act and not getattr(request.scope.get("endpoint"), _READERS, False):
            raise HTTPException(403, "your role is viewer: it may look, but change nothing")
        form = await read_form(request)
        if not hmac.compare_digest(form.get("csrf", [""])[0].encode(), session.csrf.encode()):
            raise HTTPException(403, "this form is older than your login: open its page again")
    request.state.visit = Visit(installation, session, form)


def _session(installation: Installation, request: Request) -> Session | None:
    if user := proxy_user(installation.settings, request):
        return sessions.of_proxy(installation.redis, user)
    return sessions.find(installation.redis, request.cookies.get(sessions.COOKIE))


def proxy_user(settings: Settings, request: Request) -> str:
    """Return whom a trusted proxy let in, "" when the request did not come through one that says so."""
    if not settings.auth_proxy_header or not request.app.state.peers.is_trusted(request):
        return ""
    values = request.headers.getlist(settings.auth_proxy_header)
    return values[0].strip() if len(values) == 1 else ""  # two: one of them the visitor's own


def require_own_origin(request: Request) -> None:
    """Errors: HTTPException 403  a browser says that the request comes from another site."""
    origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site", "none")
    public = request.app.state.installation.settings.public_url or ""
    ours = {request.headers.get("host", ""), urlsplit(public).netloc} - {""}
    if site not in ("same-origin", "none") or (origin is not None and urlsplit(origin).netloc not in ours):
        raise HTTPException(403, "this form was sent from another site: nothing was changed")


async def read_form(request: Request, limit_bytes: int = MAX_FORM_BYTES) -> Mapping[str, list[str]]:
    """Return the fields of a posted form.

    Errors:  Rejected  it is larger, or holds more than 2,000 fields.    permanent
    """
    body = (await read_body(request, limit_bytes)).decode("utf-8", "replace")
    try:
        return parse_qs(body, max_num_fields=2000)
    except ValueError as error:
        raise Rejected(f"form of {len(body)} characters: expected at most 2,000 fields") from error


def reached(call: Callable[..., Found], *args: Any) -> Found:
    """Call what asks Redis itself. Errors: QueueUnavailable  Redis is away.    temporary"""
    with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
        return call(*args)


async def apart(call: Callable[..., Found], *args: Any) -> Found:
    """Call what blocks, as `reached` does, in a thread of the console's own.

    Why:     a Redis that hangs holds every thread for 5 s, and asyncio has six of them on two cores: the operator who asks
             what is wrong would wait behind all that recipients and programs ask meanwhile.
    """
    return await asyncio.get_running_loop().run_in_executor(_THREADS, partial(reached, call, *args))


async def done(visit: Visit, work: Callable[..., Found], *args: Any) -> Found:
    """Do blocking work for a visit in a thread: redis and rq block."""
    return await apart(work, visit, *args)


def to(path: str) -> Response:
    """Send the browser on after a form."""
    return RedirectResponse(path, status_code=303)


async def page(request: Request, template: str, title: str, /, **facts: Any) -> Response:
    """Return a page of the console for the session that asks, with what it has to say."""
    visit: Visit = request.state.visit
    said = "" if template.endswith("_live.html") else await done(visit, _said)
    facts |= {"title": title, "session": visit.session, "said": said, "place": place_of(visit.installation.settings)}
    return HTMLResponse(request.app.state.pages.get_template(template).render(**facts))


def _said(visit: Visit) -> str:
    return sessions.said(visit.installation.redis, visit.session)


def place_of(settings: Settings) -> str:
    """Return the environment's name: the host that recipients see, else the address of the web server."""
    return urlsplit(settings.public_url or "").hostname or settings.http
