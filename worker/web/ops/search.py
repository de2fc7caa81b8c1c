"""`/ops/search`: one field for an address, a tag, a message or a job; for an address the whole story, sender by sender.

An address never stands in a URL, where proxies and browsers would keep it: a person's page is named by the address
sealed under the master key.
"""

import re
from typing import Any

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from handlers.address import one_address
from handlers.errors import AddressError, ConfigError, Rejected
from handlers.request import Action, Effect
from handlers.tag import fingerprint
from worker import by_hand
from worker.accounts import Sender
from worker.check import Answer, check
from worker.evidence import Story, told
from worker.journal import Journal
from worker.keys import seal, unseal
from worker.quarantine.shown import printable
from worker.web.ops import gate
from worker.web.ops.gate import Visit
from worker.web.recipient import read_tag

router = APIRouter()
_PURPOSE = b"unsubd-console-person-1"
_VERSION = re.compile(r"(?:[0-9a-f]{2}){16,26}")  # of a row, `worker.store.row`
_JOB = re.compile(r"unsub-[0-9a-f]{32}(?:-[01])*")
_DIGEST = re.compile(r"[0-9a-f]{12,64}")
_SEALED = re.compile(r"[0-9a-f]{58,1500}")
_LINK = re.compile(r"https?://\S+/[up]/(\S+)")
_JOURNAL = 1000
_SENDERS = 50
_SHOWN = 10


@router.get("/search")
async def field(request: Request) -> Response:
    """The field."""
    return await gate.page(request, "ops_search.html", "Search", asked="", found=None)


@router.post("/search")
@gate.reads_only
async def search(request: Request) -> Response:
    """Go where the answer is; without one, say where was looked."""
    visit: Visit = request.state.visit
    asked = visit.field("q")[:1000]
    found = await gate.done(visit, _place, asked) if asked else ""
    if isinstance(found, str) and found:
        return gate.to(found)
    return await gate.page(request, "ops_search.html", "Search", asked=asked, found=found or None)


def _place(visit: Visit, asked: str) -> str | dict[str, Any]:
    """The path of the answer, or what several places hold."""
    if _JOB.fullmatch(asked):
        return f"/ops/queue/{asked}"
    if asked in (each.id for each in visit.installation.accounts.senders()):
        return f"/ops/senders/{asked}"
    person = "" if _DIGEST.fullmatch(asked) else _person(visit, asked)
    return person or _messages(visit, asked)


def _person(visit: Visit, asked: str) -> str:
    """The page of whom a tag or an address names, "" for neither."""
    text = match[1] if (match := _LINK.search(asked)) else asked.removeprefix("mailto:")
    try:
        return f"/ops/person/{sealed(visit, read_tag(visit.installation, text).recipient)}"
    except Rejected:
        pass  # no tag of ours: an address, perhaps
    if asked.startswith("<") or asked.count("@") != 1:
        return ""
    try:
        return f"/ops/person/{sealed(visit, one_address(asked))}"
    except AddressError:
        return ""


def _messages(visit: Visit, asked: str) -> dict[str, Any]:
    """Where a message is known: by its digest, as the journal has it, or by its Message-ID."""
    quarantine = visit.installation.quarantine
    if _DIGEST.fullmatch(asked):
        ids = quarantine.beginning(asked[:32], _SHOWN)
        lines = [
            line for line in Journal.lines(visit.installation.redis, _JOURNAL) if line.get("message") == asked[:12]
        ]
    else:
        ids, lines = quarantine.with_message_id(asked, _SHOWN), []
    return {"entries": list(quarantine.entries(ids).values()), "lines": lines}


def sealed(visit: Visit, address: str) -> str:
    """Return the name of a person's page: 58 hex digits and more, another each time."""
    masters = visit.installation.keys.masters[:1]
    return next(iter(seal(address.encode("utf-8", "surrogateescape"), masters, _PURPOSE).values()))


def unsealed(visit: Visit, name: str) -> str:
    """Undo `sealed`. Errors: HTTPException 404  no name of ours."""
    if _SEALED.fullmatch(name) and len(name) % 2 == 0:
        masters = visit.installation.keys.masters
        try:
            return unseal({fingerprint(each): name for each in masters}, masters, _PURPOSE)[0].decode(
                "utf-8", "surrogateescape"
            )
        except ConfigError:
            pass  # changed, cut, or sealed under a key that was retired
    raise HTTPException(404, "this link is cut or of another installation: search again")


@router.get("/person/{name}")
async def person(request: Request, name: str, archived: str = "") -> Response:
    """One recipient's story, sender by sender, and what a check says now."""
    facts = await gate.done(request.state.visit, _stories, name, bool(archived))
    return await gate.page(request, "ops_person.html", "Recipient", name=name, **facts)


def _stories(visit: Visit, name: str, archived: bool) -> dict[str, Any]:
    address = unsealed(visit, name)
    every = visit.installation.accounts.senders()
    stories = [(each, told(visit.installation, each.id, address, archived=archived)) for each in every[:_SENDERS]]
    known = [(each, story, _states(visit, each, story)) for each, story in stories if story.rows or story.events]
    silent = [(each, _states(visit, each, story)) for each, story in stories if not (story.rows or story.events)]
    pseudonym = visit.installation.pseudonyms.bare(address)
    choices = [(each, rows) for each, _, rows in known] + silent
    return {
        "address": printable(address), "pseudonym": pseudonym, "known": known, "silent": silent, "known_first": choices,
        "archived": archived, "beyond": max(0, len(every) - _SENDERS),
    }  # fmt: skip


def _states(visit: Visit, sender: Sender, story: Story) -> list[dict[str, Any]]:
    """What a check says now of everything, and of each group."""
    rows = {row["group"]: row for row in story.rows}
    groups = visit.installation.accounts.groups(sender.id)
    named = [(0, f"Everything from {sender.name}", False, False)]
    named += [
        (each.id, each.name, each.archived, each.essential) for each in groups if not each.archived or each.id in rows
    ]
    recipient = story.recipient
    now = visit.installation.store.rows([(sender.id, group, recipient) for group, *_ in named])
    versions = {group: row.version.hex() if row else "" for (group, *_), row in zip(named, now, strict=True)}
    return [
        {"group": group, "name": name, "version": versions[group],
         "archived": archived, "essential": essential, "row": rows.get(group),
         "answer": _answer(visit, sender.id, group, story.recipient)}
        for group, name, archived, essential in named
    ]  # fmt: skip


def _answer(visit: Visit, sender: str, group: int, recipient: str) -> Answer:
    return check(visit.installation, sender, group, [recipient])[0]


@router.post("/person/{name}")
async def act(request: Request, name: str) -> Response:
    """Suppress or resubscribe in the operator's own name, with a reason."""
    visit: Visit = request.state.visit
    visit.say(await gate.done(visit, _act, name))
    return gate.to(f"/ops/person/{name}")


def _act(visit: Visit, name: str) -> str:
    address, action = unsealed(visit, name), _action(visit.field("action"))
    sender, _, rest = visit.field("where").partition("/")
    group, _, version = rest.partition("/")
    if not (group.isascii() and group.isdigit()):
        raise Rejected("group: expected one of the list")
    if not visit.field("reason"):
        raise Rejected("reason: empty, expected why, for the ledger: go back and fill it in")
    if action is Action.RESUBSCRIBE and not _VERSION.fullmatch(version):
        return f"Nothing was changed: nothing was suppressed for group {group} of {sender} itself."
    installation, actor = visit.installation, visit.session.who
    [result] = by_hand.enter(
        installation,
        action,
        sender,
        int(group),
        [address],
        actor=actor,
        reason=visit.field("reason"),
        seen_version=version,
    )
    target = f"{sender} {group} {installation.pseudonyms.bare(one_address(address))}"
    visit.note(action.value, target, result["effect"])
    if result["effect"] == Effect.NOT_LIFTED.value:
        return f"Nothing was changed: group {group} of {sender} is not suppressed, or changed since you looked. Look again."
    return f"{action.value}: group {group} of {sender} is {result['effect']}."


def _action(word: str) -> Action:
    found = {Action.UNSUBSCRIBE.value: Action.UNSUBSCRIBE, Action.RESUBSCRIBE.value: Action.RESUBSCRIBE}.get(word)
    if found is None:
        raise Rejected(f"action {word[:20]!r}: expected {Action.UNSUBSCRIBE.value} or {Action.RESUBSCRIBE.value}")
    return found
