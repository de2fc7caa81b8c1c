"""`/u/{tag}`: the page behind the https link, and RFC 8058's one-click POST, which a mail client sends unseen.

A GET changes nothing: security scanners follow links. Each shown form carries a nonce, so that pressing twice is one
request, while the same person may unsubscribe again through the same link a year later. With the store away the request
is queued, a stored tag's unread; only when that fails too does the page (`failure.py`) say that nothing was done.
"""

import asyncio
import secrets
import time

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from starlette.responses import Response

from handlers import tag
from handlers.errors import StoreUnavailable
from handlers.request import Effect
from worker.accounts import Group
from worker.accounts.look import REASONS
from worker.installation import Installation
from worker.points import point
from worker.web import recipient
from worker.web.form import read_form
from worker.web.recipient import Subject, Words
from worker.web.wishes import Made, Want, Wishes, queue_unread

router = APIRouter()


@router.api_route("/u/{text}", methods=["GET", "HEAD"], include_in_schema=False)
async def landing(request: Request, text: str) -> Response:
    """Show what the button will stop. Changes nothing."""
    installation: Installation = request.app.state.installation
    found = await recipient.tag_of(request, text)
    subject = await asyncio.to_thread(recipient.subject_of, installation, text, found)
    words, group = _words(request, subject, found.group)
    kind, nonce = subject.kind(found.group), secrets.token_hex(16)
    return recipient.page(request, "landing.html", words, subject, kind=kind, group=group, nonce=nonce)


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
    form = await read_form(request)
    nonce = request.state.nonce = recipient.nonce_of(form)  # should it fail, its page asks for the same request again
    try:
        found = await recipient.tag_of(request, text)
    except StoreUnavailable:
        await asyncio.to_thread(queue_unread, installation, [each.ref for each in tag.stored_refs(text)], nonce)
        return recipient.page(request, "safe.html", Words(request), None)
    wishes = Wishes(installation, found, nonce, "page" if "page" in form else "one-click")
    made = await asyncio.to_thread(_stop, wishes, found.group, request.app.state.peers.source(request))
    with point("page.answer"):
        return await done(request, text, wishes, made)


def _stop(wishes: Wishes, group: int, peer: str) -> Made:
    at_ms = time.time_ns() // 1_000_000
    made = wishes.make([Want(group, stop=True)])[0]
    if made.effect is not Effect.QUEUED:  # else a server is away, and nobody waits for a count
        wishes.installation.intake.anomalies.used(wishes.tag, peer, at_ms)
    return made


async def done(request: Request, text: str, wishes: Wishes, made: Made) -> Response:
    """Show that a group was stopped, or everything."""
    subject = await asyncio.to_thread(recipient.subject_or_ids, wishes.installation, text, wishes.tag)
    words, group = _words(request, subject, made.group)
    return recipient.page(
        request, "done.html", words, subject,
        kind=subject.kind(made.group), group=group, made=made, effect=made.effect.value if made.effect else "stale",
        undo=wishes.undo_of([made]), nonce=secrets.token_hex(16), reasons=REASONS,
    )  # fmt: skip


def _words(request: Request, subject: Subject, group_id: int) -> tuple[Words, Group | None]:
    group = subject.group(group_id)
    return Words(request, subject.look, subject.values | ({"group": group.name} if group else {})), group
