"""How a request fails: one place turns errors into answers, with the status that `handlers.errors` decides.

Recipients and operators get a page, whatever failed, never a blank one; programs get {"error": code, "detail": text}.
Webhooks answer in their provider's codes instead (`webhooks.py`), /v3 in SendGrid's shape (`v3/shape.py`).
"""

import secrets
import traceback
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from fastapi.routing import iter_route_contexts
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.routing import compile_path

from handlers.errors import UnsubdError, http_status
from worker.web import v3
from worker.web.recipient import Words, page
from worker.web.v3.door import is_ours
from worker.web.v3.shape import Refused

_NOT_DONE = "That was not done"
_REFUSED = {403: "Not allowed", 404: "Not here", 405: "Not this way"}


class Failure(BaseModel):
    """What every answer of 400 and above holds."""

    error: str = Field(description="a stable code, for programs")
    detail: str = Field(description="what happened and what to do, for people")


def explain_failures(app: FastAPI) -> None:
    """Give *app* an answer for every error that it expects; what remains is a bug, see `of_bug`."""
    app.add_exception_handler(UnsubdError, _of_named)
    app.add_exception_handler(RequestValidationError, _of_shape)
    app.add_exception_handler(HTTPException, _of_route)
    app.add_exception_handler(Refused, v3.of_refusal)
    app.add_exception_handler(ClientDisconnect, _of_disconnect)


def of_bug(request: Request, error: Exception) -> Response:
    """Return the answer for an error that nobody expected."""
    return _answer(request, *http_status(error), "a bug of ours; nothing that was accepted is lost")


def place_of(error: Exception) -> str:
    """Return what kind of error it is and the innermost three places it passed, for the journal.

    Why:     an error's text quotes values, and here values are addresses.
    """
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    places = [f"{frame.filename.rpartition('/')[2]}:{frame.lineno}" for frame in reversed(frames)]
    return f"{type(error).__name__} at {' < '.join(places)}"


async def _of_named(request: Request, error: Exception) -> Response:
    return _answer(request, *http_status(error), str(error))


async def _of_shape(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return _answer(request, 422, "invalid", shape_problems(error.errors()))


def shape_problems(errors: Iterable[Any]) -> str:
    """Return where a JSON body has another shape, and why; not what stands there: it may be an address."""
    problems = [f"{'.'.join(map(str, each['loc'])) or 'body'}: {each['msg']}" for each in errors]
    return "; ".join(problems[:5])[:500]


async def _of_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    codes = {401: "unauthorized", 403: "forbidden", 429: "too_many", 404: "not_found", 405: "method_not_allowed"}
    code = codes.get(error.status_code, "refused")
    headers = {"Allow": _allowed(request)} if error.status_code == 405 else error.headers
    return _answer(request, error.status_code, code, error.detail, headers=headers)


def _allowed(request: Request) -> str:
    """The methods of the path that was asked for: the router knows those of one route alone."""
    routes = [(str(each.path or ""), each) for each in iter_route_contexts(request.app.routes)]
    asked = request.scope["path"]
    spelled = next((path for path, each in routes if each.methods and compile_path(path)[0].match(asked)), "")
    same = [each for path, each in routes if path == spelled and each.endpoint is not v3.wrong_method]
    return ", ".join(sorted({method for each in same for method in each.methods or ()}))


async def _of_disconnect(request: Request, error: Exception) -> Response:
    return _answer(request, 400, "disconnected", "the body ended early")


def _answer(request: Request, status: int, code: str, detail: str, **more: Any) -> Response:
    if is_ours(request.scope["path"]):
        return v3.of_failure(status, code, detail, **more)
    path = request.url.path
    if path.startswith("/ops") and status >= 500:
        return _page(request, "ops_away.html", status, title=f"Not now: {code}", detail=detail)
    if path.startswith("/ops"):  # 303: the gate shows the way to the login
        return _page(request, "ops_refused.html", status, title=_REFUSED.get(status, _NOT_DONE), detail=detail, **more)
    if not path.startswith(("/u/", "/p/")):
        return JSONResponse({"error": code, "detail": detail}, status, **more)
    return _for_recipient(request, status, **more)


def _for_recipient(request: Request, status: int, headers: dict[str, str] | None = None) -> Response:
    words = Words(request)
    if status < 500:  # no word on why: a page must not tell whether an address is known
        answer = page(request, "bad_link.html", words, None, status=status if status in (405, 429) else 404)
    else:
        answer = page(request, "away.html", words, None, status=status, **_same_again(request))
    answer.headers.update(headers or {})
    return answer


def _same_again(request: Request) -> dict[str, Any]:
    """What the button of the page asks for: the form that failed, or, where only a look failed, to stop the mail."""
    asked = request.method == "POST"
    nonce = getattr(request.state, "nonce", "") or secrets.token_hex(16)
    if asked and request.url.path.startswith("/p/"):
        form = getattr(request.state, "form", {})
        fields = [(name, value) for name, values in form.items() if name != "nonce" for value in values]
        return {"asked": True, "action": quote(request.url.path), "fields": [("nonce", nonce), *fields]}
    action = "/u/" + quote(request.path_params.get("text", ""), safe="")
    return {"asked": asked, "action": action, "fields": [("nonce", nonce), ("page", "1")]}


def _page(request: Request, name: str, status: int, headers: dict[str, str] | None = None, **facts: Any) -> Response:
    content = request.app.state.pages.get_template(name).render(**facts)
    return HTMLResponse(content, status_code=status, headers=headers)
