"""What every page of a recipient shares: whose link it is, in which words, and in whose look.

The tag in the path is all that a page believes. There is no cookie and no login, so nothing comes along by itself with a
request that another site makes a browser send (CSRF): a form without the tag can change nothing, and whoever has the tag
holds the very mail that it came in.
"""

import asyncio
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from markupsafe import Markup, escape
from starlette.exceptions import HTTPException
from starlette.responses import Response

from handlers import tag as tags
from handlers import texts
from handlers.address import masked
from handlers.errors import Rejected, TagForged, TagMalformed, Unavailable, UnknownAccount
from handlers.tag import Tag, is_forgotten
from worker.accounts import Group, Sender
from worker.accounts.look import Look
from worker.installation import Installation
from worker.web.form import Form
from worker.web.guesses import WINDOW_S

_NONCE = re.compile("[0-9a-f]{32}")
_NO_LOOK = Look()


@dataclass(frozen=True, slots=True)
class Subject:
    """What a link is about, as people know it.

    Shape:   text: the tag as the link spells it. sender: None where nobody registered it, or it cannot be asked.
             group: None for everything, and for one that cannot be named. groups: those that recipients see.
    """

    text: str
    tag: Tag
    sender: Sender | None = None
    groups: tuple[Group, ...] = ()
    has_essential: bool = False
    look: Look = field(default=_NO_LOOK)

    def group(self, group_id: int) -> Group | None:
        """Return a group that recipients see."""
        return next((each for each in self.groups if each.id == group_id), None)

    @property
    def values(self) -> dict[str, str]:
        """What stands in the places of a text."""
        name = self.sender.name if self.sender else self.tag.sender
        address = "···" if is_forgotten(self.tag.recipient) else masked(self.tag.recipient)
        return {"sender": name, "address": address}

    def kind(self, group_id: int) -> str:
        """Return how a stop of *group_id* is spoken of: "group" by name, "all", or "these" mails.

        Why:     a group that is gone, or essential, stops everything of a registered sender (semantics §4).
        """
        if self.group(group_id):
            return "group"
        return "all" if group_id == 0 or self.sender else "these"


def read_tag(installation: Installation, text: str) -> Tag:
    """Return what the tag in a link says.

    Errors:  Rejected     it does not verify.    permanent
             Unavailable  a stored tag cannot be looked up.    temporary
    """
    try:
        return tags.read(text, installation.keys).tag
    except Rejected:
        refs = tags.stored_refs(text)
        if not refs:
            raise
    return tags.read(text, installation.keys, installation.tags.found(refs)).tag


async def tag_of(request: Request, text: str) -> Tag:
    """Return what the tag in a link says; errors as `read_tag`, and 429 for who sent too many that do not verify."""
    try:
        return await asyncio.to_thread(read_tag, request.app.state.installation, text)
    except (TagForged, TagMalformed):
        if request.app.state.guesses.failed(request):
            raise HTTPException(429, "too many links that do not work", {"Retry-After": str(WINDOW_S)}) from None
        raise


def subject_of(installation: Installation, text: str, tag: Tag) -> Subject:
    """Return what a link is about. Errors: Unavailable  the accounts cannot be asked.    temporary"""
    look = installation.looks.of(tag.sender)
    try:
        sender = installation.accounts.sender(tag.sender)
    except UnknownAccount:
        return Subject(text, tag, look=look)
    groups = installation.accounts.live_groups(tag.sender)
    essential = any(each.essential for each in groups)
    return Subject(text, tag, sender, tuple(each for each in groups if each.visible), essential, look)


def subject_or_ids(installation: Installation, text: str, tag: Tag) -> Subject:
    """Return what a link is about, by its ids where the accounts cannot be asked: what was done must not look undone."""
    try:
        return subject_of(installation, text, tag)
    except Unavailable:
        return Subject(text, tag)


def nonce_of(form: Form) -> str:
    """Return the nonce of a form that we showed, a new one for any other."""
    found = form.get("nonce", [""])[0]
    return found if _NONCE.fullmatch(found) else secrets.token_hex(16)


class Words:
    """The texts of one page, in the language its reader likes best."""

    def __init__(self, request: Request, look: Look = _NO_LOOK, values: Mapping[str, str] | None = None) -> None:
        spoken = texts.spoken(look.texts)
        self.language = texts.choose(request.headers.get("accept-language", ""), spoken)
        self._texts = spoken[self.language]
        self._values = values or {}

    def plain(self, name: str, **more: str) -> str:
        """Return a text without markup: a page's title, a button's name."""
        return texts.filled(self._texts[name], {**self._values, **more})

    def say(self, name: str, **more: str) -> Markup:
        """Return a text as HTML: escaped, names kept apart from the words around them, whichever way they are written."""
        values = {**self._values, **more}
        shown = {each: _shown(each, value) for each, value in values.items()}
        return Markup(texts.filled(str(escape(self._texts[name])), shown))

    def date(self, seconds: int) -> Markup:
        """Return a day as people write it here."""
        at = datetime.fromtimestamp(seconds, UTC)
        day = self.plain("date", year=f"{at:%Y}", month=f"{at:%m}", day=f"{at:%d}")
        return Markup('<time datetime="{}">{}</time>').format(f"{at:%Y-%m-%dT%H:%M:%SZ}", day)


def _shown(name: str, value: str) -> Markup:
    if isinstance(value, Markup):
        return value
    shape = '<strong><bdi dir="ltr">{}</bdi></strong>' if name == "address" else "<bdi>{}</bdi>"
    return Markup(shape).format(value)


def page(
    request: Request, name: str, words: Words, subject: Subject | None, *, status: int = 200, **own: Any
) -> Response:
    """Return a page of a recipient. Shape: own: what its template asks for besides."""
    facts = {**own, "say": words.say, "plain": words.plain, "date": words.date, "subject": subject}
    facts |= {"lang": words.language, "dir": texts.direction(words.language)}
    headers = {"Content-Language": words.language, "Vary": "Accept-Language"}
    content = request.app.state.pages.get_template(name).render(**facts)
    return HTMLResponse(content, status_code=status, headers=headers)
