"""`/p/{tag}`: what a sender sends, each kind on or off; stop everything, undo, and, after the effect, why.

A tag may always stop mail. It lifts what its recipient stopped by mail, one-click or page; a held row is shown with whom to
ask. Every form is bound to the tag in its path and to nothing else, see `recipient.py` on CSRF.
"""

import asyncio
import secrets
import time
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from handlers import undo
from handlers.errors import Rejected
from worker.accounts import Group
from worker.installation import Installation
from worker.store.row import Row
from worker.web import one_click, recipient
from worker.web.form import Form, read_form
from worker.web.recipient import Subject, Words
from worker.web.wishes import Made, Want, Wishes

router = APIRouter(prefix="/p", include_in_schema=False)
_MAX_CHOICES = 1000


@dataclass(frozen=True, slots=True)
class Choice:
    """One group as its recipient has it. Shape: row: of this very group, None where there is none."""

    group: Group
    row: Row | None

    @property
    def on(self) -> bool:
        """Say whether its mail comes, as far as the group goes."""
        return not (self.row and self.row.suppressed)

    @property
    def held_by(self) -> str:
        """Return what keeps a tag from starting it again: "complaint", "sender", or "" for nothing."""
        if self.on or not self.row or not self.row.held:
            return ""
        return "complaint" if self.row.complaint else "sender"

    @property
    def seen(self) -> str:
        """Return what its form tells of it: the group, whether it was on, and the version of its row."""
        return f"{self.group.id}:{int(self.on)}:{undo.version_of(self.row.version if self.row else None)}"


@router.api_route("/{text}", methods=["GET", "HEAD"])
async def preferences(request: Request, text: str) -> Response:
    """Show the choices. Changes nothing."""
    installation: Installation = request.app.state.installation
    found = await recipient.tag_of(request, text)
    subject = await asyncio.to_thread(recipient.subject_of, installation, text, found)
    everything, *choices = await asyncio.to_thread(_choices, installation, subject)
    words, nonce = Words(request, subject.look, subject.values), secrets.token_hex(16)
    return recipient.page(
        request, "preferences.html", words, subject, everything=everything, choices=choices, nonce=nonce
    )


@router.post("/{text}")
async def save(request: Request, text: str) -> Response:
    """Make the changes of one form: what was chosen anew, everything stopped, or mail allowed again. Repeat: safe."""
    installation: Installation = request.app.state.installation
    form = await read_form(request)
    nonce = request.state.nonce = recipient.nonce_of(form)
    found = await recipient.tag_of(request, text)
    subject = await asyncio.to_thread(recipient.subject_of, installation, text, found)
    wishes = Wishes(installation, found, nonce)
    wanted = [each for each in _wanted(form) if each.group in {group.id for group in _groups(subject)}]
    made = await asyncio.to_thread(wishes.make, wanted) if wanted else []
    if form.get("do") == ["everything"]:
        return await one_click.done(request, text, wishes, made[0])
    return await _saved(request, text, wishes, made)


@router.post("/{text}/undo")
async def undo_change(request: Request, text: str) -> Response:
    """Undo a change just made. Repeat: safe."""
    installation: Installation = request.app.state.installation
    signed = (await read_form(request)).get("undo", [""])[0]
    found = await recipient.tag_of(request, text)
    try:
        changes = undo.read(installation.keys, found, signed, time.time_ns() // 1_000_000).changes
    except Rejected:
        return await _answer(request, text, "late.html", Wishes(installation, found, ""), status=410)
    wishes = Wishes(installation, found, sha256(signed.encode()).hexdigest()[:32])
    made = await asyncio.to_thread(wishes.make, [Want(each.group, not each.stopped, each.version) for each in changes])
    done = [each.holds for each in made]
    if all(done):
        return await _answer(request, text, "undone.html", wishes)
    if any(done):
        return await _saved(request, text, wishes, made)
    return await _answer(request, text, "late.html", wishes, status=409)


@router.post("/{text}/reason")
async def reason(request: Request, text: str) -> Response:
    """Count why somebody left, if it is a reason that we offer."""
    installation: Installation = request.app.state.installation
    given = (await read_form(request)).get("reason", [""])[0]
    found = await recipient.tag_of(request, text)
    try:
        await asyncio.to_thread(installation.looks.count_reason, found.sender, given)
    except Rejected:
        pass  # nobody's button: there is nothing to count, and nothing that its person could mend
    return await _answer(request, text, "thanks.html", Wishes(installation, found, ""))


def _groups(subject: Subject) -> list[Group]:
    """Everything first, then each group that recipients see; of a sender nobody registered, the tag's own."""
    tag = subject.tag
    own = [tag.group] if subject.sender is None and tag.group else []
    return [Group(0, tag.sender, "", ""), *subject.groups, *(Group(each, tag.sender, "", "") for each in own)]


def _choices(installation: Installation, subject: Subject) -> list[Choice]:
    tag, groups = subject.tag, _groups(subject)
    rows = installation.store.rows([(tag.sender, each.id, tag.recipient) for each in groups])
    return [Choice(group, row) for group, row in zip(groups, rows, strict=True)]


def _wanted(form: Form) -> list[Want]:
    """Return what a form changes: the boxes that stand otherwise than they were shown."""
    do, on = form.get("do", [""])[0], set(form.get("on", []))
    if do == "everything":
        return [Want(0, stop=True)]
    wanted = []
    for text in form.get("seen", [])[:_MAX_CHOICES]:
        group, was_on, version = [*text.split(":"), "", ""][:3]
        is_on = do == "resume" or group in on
        if group.isascii() and group.isdecimal() and len(group) <= 10 and is_on != (was_on == "1"):
            wanted.append(Want(int(group), not is_on, version))
    return list(dict.fromkeys(wanted))


async def _saved(request: Request, text: str, wishes: Wishes, made: list[Made]) -> Response:
    kept = [each for each in made if not each.holds]
    stopped, started = ([each for each in made if each.holds and each.want.stop == stop] for stop in (True, False))
    undoing = wishes.undo_of(made)
    return await _answer(request, text, "saved.html", wishes, stopped=stopped, started=started, kept=kept, undo=undoing)


async def _answer(request: Request, text: str, name: str, wishes: Wishes, *, status: int = 200, **own: Any) -> Response:
    subject = await asyncio.to_thread(recipient.subject_or_ids, wishes.installation, text, wishes.tag)
    return recipient.page(request, name, Words(request, subject.look, subject.values), subject, status=status, **own)
