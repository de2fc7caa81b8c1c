"""The web application: routes put together, security headers on every answer, no access log (tags spell addresses)."""

import asyncio
import gc
import os
import re
import socket
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import httpx2
import uvicorn
from fastapi import FastAPI
from fastapi.responses import HTMLResponse, PlainTextResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape
from starlette.responses import Response

from handlers.errors import Unavailable
from worker.ages import spell
from worker.gather import Gatherer
from worker.installation import Installation
from worker.posted_lists import PostedLists
from worker.systemd import Systemd
from worker.web import (
    answers,
    api,
    failure,
    look,
    metrics,
    one_click,
    outgoing,
    preferences,
    sent,
    told,
    v1,
    v3,
    webhooks,
)
from worker.web.api import checks
from worker.web.asker import key_calls
from worker.web.doors import ONE_DOOR, Doors
from worker.web.guard import Guard
from worker.web.guesses import Guesses
from worker.web.ops import console
from worker.web.ops.times import ago
from worker.web.peers import Peers
from worker.web.sns import Sns
from worker.web.v3 import door

_OBJECTS = (
    20_000  # new ones between two looks for garbage: at Python's 700, a check of thousands spent a quarter on looking
)


def pages() -> Environment:
    """Return the templates; an unknown name in one is an error. Filters: `code` shows what stands in backticks so, `ago` a
    time in ms, `spell` a length of time in s.
    """
    found = Environment(loader=PackageLoader("worker.web"), autoescape=select_autoescape(), undefined=StrictUndefined)
    found.filters["code"] = lambda text: Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))
    found.filters["ago"], found.filters["spell"] = ago, spell
    return found


def create_app(
    installation: Installation, aws: httpx2.AsyncBaseTransport | None = None, doors: Doors = ONE_DOOR
) -> FastAPI:
    """Return the application that serves *installation*; *aws*: what reaches Amazon and Mailtrap, for tests (`Sns`)."""
    app = FastAPI(title="unsubd", version="0.1.0", docs_url=None, redoc_url=None, openapi_url="/openapi.json")
    app.state.installation = installation
    app.state.pages = pages()
    app.state.gatherer = Gatherer(installation.intake)
    app.state.key_calls = key_calls(installation)
    app.state.told = answers.told(installation.journal)
    app.state.checks = checks(installation)
    app.state.sns = Sns(aws)
    app.state.posted_lists = PostedLists(installation)
    app.state.peers = Peers(installation.settings.trusted_proxies)
    app.state.guesses = Guesses(app.state.peers)
    app.state.outside = aws
    app.mount("/static", StaticFiles(directory=str(files("worker.web").joinpath("static"))))
    # In the order of use: each is tried until one has the path. `include_router` would build every route a second time (6 MB).
    for part in (api, told, webhooks, one_click, preferences, look, outgoing, sent, v1, v3, metrics, console):
        app.router.routes.extend(part.router.routes)
    failure.explain_failures(app)
    app.add_middleware(door.Door)
    app.add_middleware(Guard, installation=installation, doors=doors)

    @app.get("/", include_in_schema=False)
    async def root() -> Response:
        return RedirectResponse("/ops")

    @app.get("/healthz", include_in_schema=False)
    async def healthz() -> Response:
        return PlainTextResponse("ok\n")

    @app.get("/readyz", include_in_schema=False)
    async def readyz() -> Response:
        """Whether responsibility can be taken now: the queue answers, has room, and is as durable as at the start."""
        try:
            await asyncio.to_thread(installation.require_ready)
        except Unavailable as error:
            return PlainTextResponse(f"{error}\n", status_code=503)
        return PlainTextResponse("ok\n")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        page = app.state.pages.get_template("docs.html")
        return HTMLResponse(page.render(title="API", spec=app.openapi(), operations=_operations(app.openapi())))

    return app


def _operations(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """One row per path and method of an OpenAPI document, as the page of /docs shows them."""
    return [
        {"path": path, "method": method.upper(), **operation}
        for path, methods in sorted(spec["paths"].items())
        for method, operation in methods.items()
    ]


def serve(installation: Installation, listeners: Sequence[socket.socket]) -> None:
    """Serve until SIGTERM or SIGINT; requests in progress get 5 s. A second listener is the operators' own."""
    doors = Doors(listeners[1].getsockname()[:2]) if len(listeners) > 1 else ONE_DOOR
    serving = server(installation, doors=doors)
    gc.freeze()  # what is loaded now stays: looking through it for garbage stopped all requests for 60 ms, about once a second
    gc.set_threshold(_OBJECTS, 10, 10)
    serving.run(sockets=list(listeners))


def server(
    installation: Installation, aws: httpx2.AsyncBaseTransport | None = None, doors: Doors = ONE_DOOR
) -> uvicorn.Server:
    """Return what serves *installation* once it runs; *aws* and *doors* as for `create_app`."""
    config = uvicorn.Config(
        create_app(installation, aws, doors),
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=5,
        callback_notify=Systemd(os.environ).tick,
        timeout_notify=1,
    )
    return uvicorn.Server(config)
