"""/v1/evidence, /v1/suppress, /v1/resubscribe: people, one answer each. Addresses stand in bodies: URLs are logged."""

import asyncio
from typing import Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse, Response

from handlers.address import one_address
from handlers.errors import AddressError
from handlers.request import Effect
from worker import entries
from worker.evidence import Story, for_sender, told
from worker.installation import Installation
from worker.web.asker import Asker, asker_of
from worker.web.v1.reading import GroupId, Question, body_of, documented, house, read, scope

router = APIRouter(tags=["people"])


class Entries(Question):
    """Whom, of which group, and why."""

    group: GroupId = Field(description="id of the group; 0 = global")
    recipients: list[str] = Field(min_length=1, max_length=10_000, description="addresses, any spelling")
    reason: str = Field(min_length=1, max_length=200, description="why, for the ledger")


class Person(Question):
    """Whom."""

    recipient: str = Field(json_schema_extra={"format": "idn-email"}, description="an address, any spelling")


class Stopped(BaseModel):
    """What became of one address."""

    recipient: str = Field(description="as it was sent")
    result: Literal["added", "already", "redirected_to_global", "invalid"]
    reason: str | None = Field(description="why it is invalid, or redirected")


class Lifted(BaseModel):
    """What became of one address."""

    recipient: str = Field(description="as it was sent")
    result: Literal["lifted", "not-lifted", "invalid"]
    reason: str | None = Field(description="why it is invalid")


class StoryAnswer(BaseModel):
    """What counts now, and every message and entry that made it so."""

    sender: str
    recipient: str
    pseudonym: str = Field(description="what stands for the address in ledger and journal")
    forgotten: bool
    made_at: str
    rows: list[dict[str, Any]] = Field(description="one a group: suppressed, held, complaint, first_seen, time, source")
    events: list[dict[str, str]] = Field(description="at, what, message; oldest first")
    records: dict[str, dict[str, Any]] = Field(description="the ledger's records, by message key")
    archived: int = Field(description="how many of them came from the archive")


_EXAMPLE = {"group": 12, "recipients": ["jane@example.com"], "reason": "she called"}


@router.post("/suppress", response_model=list[Stopped], summary="Suppress", responses=documented(422),
             openapi_extra=body_of(Entries, **_EXAMPLE))  # fmt: skip
async def suppress(request: Request) -> Response:
    """One answer per address, in order; what is no address keeps the others from nothing. A missing group: the global list."""
    asker = await asker_of(request)
    wish = await read(request, Entries)
    await asker_of(request, scope(wish.group, "create"))
    return JSONResponse(await asyncio.to_thread(_suppressed, house(request), asker, wish))


@router.post("/resubscribe", response_model=list[Lifted], summary="Resubscribe", responses=documented(404, 422),
             openapi_extra=body_of(Entries, **_EXAMPLE))  # fmt: skip
async def resubscribe(request: Request) -> Response:
    """Let mail of this very group go out again; lifts what a complaint or an import holds, too. One answer per address."""
    asker = await asker_of(request)
    wish = await read(request, Entries)
    await asker_of(request, scope(wish.group, "delete"))
    return JSONResponse(await asyncio.to_thread(_lifted, house(request), asker, wish))


@router.post("/evidence", response_model=StoryAnswer, summary="The story of one recipient", responses=documented(422),
             openapi_extra=body_of(Person, recipient="jane@example.com"))  # fmt: skip
async def evidence(request: Request) -> Response:
    """What counts now, and every message and entry that made it so."""
    asker = await asker_of(request, scope(0, "read"), scope(1, "read"))
    person = await read(request, Person)
    story = await asyncio.to_thread(_story, house(request), asker.sender, person.recipient)
    return JSONResponse(story.as_json())


def _story(installation: Installation, sender: str, recipient: str) -> Story:
    return for_sender(installation, told(installation, sender, recipient))


def _read_addresses(given: list[str]) -> tuple[list[str], list[str | AddressError]]:
    """The canonical addresses, each once, and for each given one its canonical form or why it has none."""
    found: list[str | AddressError] = []
    for each in given:
        try:
            found.append(one_address(each))
        except AddressError as error:
            found.append(error)
    return list(dict.fromkeys(each for each in found if isinstance(each, str))), found


def _suppressed(installation: Installation, asker: Asker, wish: Entries) -> list[dict[str, Any]]:
    recipients, found = _read_addresses(wish.recipients)
    results: list[dict[str, Any]] = []
    if recipients:
        actor = asker.key.name
        results = entries.suppress(installation, asker.sender, wish.group, recipients, actor=actor, reason=wish.reason)
    words = {recipient: _stopped(wish.group, each) for recipient, each in zip(recipients, results, strict=True)}
    return [_answer(given, exact, words) for given, exact in zip(wish.recipients, found, strict=True)]


def _stopped(group: int, result: dict[str, Any]) -> tuple[str, str | None]:
    if result["group"] != group:
        return "redirected_to_global", f"group {group} is deleted, or was never this sender's"
    return ("added" if result["effect"] == Effect.ADDED.value else "already"), None


def _lifted(installation: Installation, asker: Asker, wish: Entries) -> list[dict[str, Any]]:
    recipients, found = _read_addresses(wish.recipients)
    installation.accounts.group(asker.sender, wish.group)
    actor = asker.key.name
    done = entries.lift(installation, asker.sender, wish.group, recipients, actor=actor, reason=wish.reason)
    words = {
        recipient: ("lifted" if was_stopped else "not-lifted", None)
        for recipient, was_stopped in zip(recipients, done, strict=True)
    }
    return [_answer(given, exact, words) for given, exact in zip(wish.recipients, found, strict=True)]


def _answer(given: str, exact: str | AddressError, words: dict[str, Any]) -> dict[str, Any]:
    result, reason = words[exact] if isinstance(exact, str) else ("invalid", str(exact))
    return {"recipient": given, "result": result, "reason": reason}
