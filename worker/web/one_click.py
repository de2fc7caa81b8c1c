"""`/u/{tag}`: the page behind the https link, and RFC 8058's one-click POST, which a mail client sends unseen.

A GET changes nothing: security scanners follow links. Each shown form carries a nonce, so that pressing twice is one
request, while the same person may unsubscribe again through the same link a year later. With the store away the request
is queued; only when that fails too does the page (`failure.py`) say that nothing was done.
"""

import asyncio
import re
import secrets
import time
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from starlette.responses import Response

from handlers import tag
from handlers.address import masked
from handlers.errors import Rejected, StoreUnavailable, Unavailable
from handlers.request import Action, DecidedMessage, Effect, Outcome, request_id
from handlers.request import Request as Wish
from handlers.tag import Tag
from worker.accounts import Accounts
from worker.installation import Installation
from worker.web.body import read_body

router = APIRouter()
_MAX_FORM_BYTES = 4096
_NONCE = re.compile(rb"(?:^|&)nonce=([0-9a-f]{32})(?:&|$)")
_FROM_PAGE = re.compile(rb"(?:^|&)page=1(?:&|$)")


@router.api_route("/u/{text}", methods=["GET", "HEAD"], include_in_schema=False)
async def landing(request: Request, text: str) -> Response:
    """Show what the button will stop. Changes nothing."""
    installation: Installation = request.app.state.installation
    found = await asyncio.to_thread(read_tag, installation, text)
    named = await asyncio.to_thread(_names, installation.accounts, found)
    facts = {"text": text, "nonce": secrets.token_hex(16), **named}
    return _page(request, "landing.html", title=_question(named), **facts)


@router.post(
    "/u/{text}",
    tags=["recipients"],
    summary="Unsubscribe: one-click (RFC 8058) or the page's button",
    response_class=HTMLResponse,
    response_description="stopped, durably",
    responses={"4XX": {"description": "no valid tag"}, 503: {"description": "not done: try again"}},
)
async def unsubscribe(request: Request, text: str) -> Response:
    """Stop the mail that the tag names. Repeat: safe."""
    installation: Installation = request.app.state.installation
    form = await read_body(request, _MAX_FORM_BYTES)
    nonce = match[1].decode() if (match := _NONCE.search(form)) else secrets.token_hex(16)
    request.state.nonce = nonce  # should it fail, the page of `failure.py` asks for the same request again
    found = await asyncio.to_thread(read_tag, installation, text)
    source = "page" if _FROM_PAGE.search(form) else "one-click"
    effect = await asyncio.to_thread(_stop, installation, found, nonce, source)
    named = await asyncio.to_thread(_names_or_ids, installation.accounts, found)
    return _page(request, "done.html", title="You will get no more of these", effect=effect.value, **named)


def read_tag(installation: Installation, text: str) -> Tag:
    """Return what the tag in a link says.

    Errors:  Rejected     it does not verify.    permanent
             Unavailable  a stored tag cannot be looked up.    temporary
    """
    rows = installation.tags.found(tag.stored_refs(text))
    return tag.read(text, installation.keys, rows).tag


def _stop(installation: Installation, found: Tag, nonce: str, source: str) -> Effect:
    at_ms = time.time_ns() // 1_000_000
    action = Action.UNSUBSCRIBE
    wish_id = request_id(nonce, found.sender, found.group, found.recipient, action)
    wish = Wish(wish_id, action, found.sender, found.group, found.recipient, at_ms, source, nonce)
    decided = DecidedMessage(nonce, source, Outcome.HONOUR, "form", at_ms, (wish,))
    try:
        return Effect(installation.intake.record([decided])[0][0]["effect"])
    except StoreUnavailable:
        installation.queue.enqueue(
            [decided], limited=False
        )  # durable elsewhere: the worker applies it when the store is back
        return Effect.QUEUED


def _names(accounts: Accounts, found: Tag) -> dict[str, Any]:
    """What a person recognises. A sender or group that nobody registered is named by its id."""
    try:
        sender = accounts.sender(found.sender).name
    except Rejected:
        sender = found.sender
    try:
        group = accounts.group(found.sender, found.group) if found.group else None
    except Rejected:
        group = None
    return {
        "sender": sender,
        "group": group.name if group else "",
        "description": group.description if group else "",
        "address": masked(found.recipient),
        "everything": found.group == 0,
    }


def _names_or_ids(accounts: Accounts, found: Tag) -> dict[str, Any]:
    try:
        return _names(accounts, found)
    except Unavailable:  # the request is safe already: the page must not call it undone for want of a name
        return {"sender": found.sender, "group": "", "description": "", "address": masked(found.recipient),
                "everything": found.group == 0}  # fmt: skip


def _question(named: dict[str, Any]) -> str:
    if named["everything"] or not named["group"]:
        return f"Stop {'all ' if named['everything'] else 'these '}mails from {named['sender']}?"
    return f"Stop “{named['group']}” from {named['sender']}?"


def _page(request: Request, name: str, **facts: Any) -> Response:
    return HTMLResponse(request.app.state.pages.get_template(name).render(**facts))
