"""`/ops/quarantine`: what was not understood, by reason; one message beside what each hop made of it; what a person decides."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, urlencode

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse
from starlette.exceptions import HTTPException
from starlette.responses import Response

from handlers.errors import Rejected
from handlers.request import Outcome, Suggestion
from worker.explain import as_json, hops
from worker.quarantine.entry import FAILED, Entry
from worker.quarantine.replay import Replay, decided_today
from worker.quarantine.resolution import Resolution, Settled, Way, check_named, resolve
from worker.quarantine.shelf import Selection
from worker.quarantine.shown import content, printable, row, without_addresses
from worker.web.ops import gate
from worker.web.ops.gate import Visit
from worker.web.ops.paging import PAGE

router = APIRouter(prefix="/quarantine")
_ID = re.compile(r"[0-9a-f]{32}")
_TEN = 10
_NEIGHBOURS = 2000  # more than are kept within one millisecond: a source's batch


def selection_of(reason: str, source: str, suggested: str) -> Selection:
    """Return which entries a list's address means."""
    return Selection(reason, source, bool(suggested))


@router.get("")
async def entries(
    request: Request, reason: str = "", source: str = "", suggested: str = "", until: int = 0, after: str = ""
) -> Response:
    """The list, newest first; *until* and *after*: the last row of the page before, so that any page costs the same."""
    chosen = {"reason": reason, "source": source, "suggested": suggested}
    facts = await gate.done(request.state.visit, _listed, chosen, until or None, after)
    return await gate.page(request, "ops_quarantine.html", "Quarantine", chosen=chosen, **facts)


def _listed(visit: Visit, chosen: dict[str, str], until_ms: int | None, after: str) -> dict[str, Any]:
    quarantine, selection = visit.installation.quarantine, selection_of(**chosen)
    counts = quarantine.counts()
    ids = _following(visit, replace(selection, until_ms=until_ms), after, PAGE + 1)
    rows = list(quarantine.entries(ids[:PAGE]).values())
    last = {"until": str(rows[-1].kept_ms), "after": rows[-1].id} if len(ids) > PAGE and rows else {}
    return {
        "rows": [_shown(entry, full=False) for entry in rows],
        "more": _query({**chosen, **last}) if last else "",
        "first": until_ms is None,
        "total": quarantine.count(selection),
        "counts": sorted(counts.items(), key=lambda each: -each[1]),
        "back": _query(chosen),
    }


def _following(visit: Visit, selection: Selection, after: str, count: int) -> list[str]:
    """The ids of a list behind the entry *after*, which was kept at the list's `until_ms`; "" = from its beginning."""
    quarantine = visit.installation.quarantine
    if not after or selection.until_ms is None:
        return quarantine.ids(selection, count)
    ids = quarantine.ids(replace(selection, since_ms=selection.until_ms), _NEIGHBOURS)  # of the same millisecond
    ids = ids[ids.index(after) + 1 :] if after in ids else ids
    return (ids + quarantine.ids(replace(selection, until_ms=selection.until_ms - 1), count))[:count]


def _query(chosen: dict[str, str]) -> str:
    return urlencode({name: value for name, value in chosen.items() if value})


def _shown(entry: Entry, *, full: bool) -> dict[str, Any]:
    facts = row(entry, full=full)
    facts["kept_ms"] = entry.kept_ms
    return {name: printable(value) if isinstance(value, str) else value for name, value in facts.items()}


@router.get("/{entry_id}")
async def entry(
    request: Request, entry_id: str, reason: str = "", source: str = "", suggested: str = "", full: str = ""
) -> Response:
    """One message, decoded, and why it is here."""
    visit: Visit = request.state.visit
    chosen = {"reason": reason, "source": source, "suggested": suggested}
    facts = await gate.done(visit, _detail, entry_id, chosen, bool(full) and visit.session.may_act)
    return await gate.page(request, "ops_entry.html", "Quarantine", chosen=chosen, back=_query(chosen), **facts)


def _detail(visit: Visit, entry_id: str, chosen: dict[str, str], full: bool) -> dict[str, Any]:
    found = _found(visit, entry_id)
    kept = visit.installation.quarantine.raw(entry_id)
    shown = content(found, kept, full=full)
    if full:
        visit.note("show addresses", f"quarantine {entry_id[:12]}")
    return {
        "entry": _shown(found, full=full),
        "text": [printable(line) for line in shown.pop("text", [])],
        "requests": [printable(line) for line in shown.pop("requests", [])],
        "headers": {name.removesuffix(" header"): [printable(each) for each in values]
                    for name, values in shown.items() if name.endswith(" header") and values},
        "envelope": {name: printable(value) for name, value in shown.get("envelope", {}).items()},
        **_why(visit, found, kept, full=full),
        "kept": kept is not None,
        "failed": found.reason == FAILED,
        "suggestion": found.suggestion,
        "senders": visit.installation.accounts.senders(),
        "full": full,
        "next": _after(visit, found, chosen),
    }  # fmt: skip


def _why(visit: Visit, found: Entry, kept: bytes | None, *, full: bool) -> dict[str, Any]:
    """What `unsubd explain` prints of it, by today's keys and accounts; of a failed or shrunk one what was known then.

    Shape:   today: "understood" where a replay would be honoured; else how today's suggestion stands to the kept one, which
             the button means: same, other, none, or "" where nothing was kept or nothing can be decided. The same one is
             told once.
    """
    shown = str if full else without_addresses
    if kept is None or found.reason == FAILED:
        return {"hops": [("decide", f"{found.reason}: {printable(shown(found.detail))}")], "today": ""}
    decided = decided_today(visit.installation, found, kept)
    today = "understood" if decided.outcome is Outcome.HONOUR else _today(found.suggestion, decided.suggestion)
    told = [(hop, printable(shown(text))) for hop, text in hops(as_json(decided)) if text]
    told = [("suggest today" if hop == "suggest" else hop, text) for hop, text in told]
    is_told = today == "same" and visit.session.may_act
    return {"hops": [each for each in told if not (is_told and each[0] == "suggest today")], "today": today}


def _today(kept: Suggestion | None, today: Suggestion | None) -> str:
    if kept is None:
        return ""
    return "none" if today is None else "same" if today == kept else "other"


def _found(visit: Visit, entry_id: str) -> Entry:
    found = visit.installation.quarantine.entries([entry_id]).get(entry_id) if _ID.fullmatch(entry_id) else None
    if found is None:
        raise HTTPException(404, "this message is not in quarantine: somebody settled it, or it was kept 90 days")
    return found


def _after(visit: Visit, found: Entry, chosen: dict[str, str]) -> str:
    """The id of the next older entry of the list that a person came from, "" after the last."""
    ids = _following(visit, replace(selection_of(**chosen), until_ms=found.kept_ms), found.id, 1)
    return ids[0] if ids else ""


@router.get("/{entry_id}/raw")
async def raw(request: Request, entry_id: str) -> Response:
    """What was fetched, as a file: never shown by the browser, whatever it is."""
    visit: Visit = request.state.visit
    if not visit.session.may_act:
        raise HTTPException(403, "your role is viewer: a message as it came spells addresses")
    kept = await gate.done(visit, _raw, entry_id)
    name = f'attachment; filename="{entry_id[:12]}.eml.txt"'
    return PlainTextResponse(kept, headers={"Content-Disposition": name, "Content-Security-Policy": "sandbox"})


def _raw(visit: Visit, entry_id: str) -> bytes:
    _found(visit, entry_id)
    visit.note("download", f"quarantine {entry_id[:12]}")
    return visit.installation.quarantine.raw(entry_id) or b""


@router.post("/settle")
async def settle(request: Request) -> Response:
    """Resolve, dismiss or replay the entries that the form names, then open the next one, or the list again."""
    visit: Visit = request.state.visit
    ids, way = _ids(visit), visit.field("way")
    if not ids:
        visit.say("Nothing was done: no message was chosen.")
        return gate.to(_list(visit))
    if way == "dismiss" and len(ids) > 1 and not visit.field("confirm"):
        return await _confirm(request, visit, ids)
    return gate.to(await gate.done(visit, _settled, way, ids))


def _ids(visit: Visit) -> list[str]:
    chosen = visit.fields("first") if visit.field("way") == "replay-ten" else visit.fields("id")
    return [each for each in chosen if _ID.fullmatch(each)][: _TEN if visit.field("way") == "replay-ten" else PAGE]


async def _confirm(request: Request, visit: Visit, ids: Sequence[str]) -> Response:
    kept = [("id", each) for each in ids]
    kept += [(name, visit.field(name)) for name in ("way", "reason", "back")]
    return await gate.page(
        request, "ops_confirm.html", "Dismiss", action="/ops/quarantine/settle", fields=kept, back=_list(visit),
        question=f"Dismiss {len(ids)} messages?", button=f"Dismiss {len(ids)} messages",
        means="They leave the quarantine and nobody is suppressed. It cannot be undone here: a sender's mail that comes"
              " again is decided anew after 7 days.",
    )  # fmt: skip


def _settled(visit: Visit, way: str, ids: Sequence[str]) -> str:
    """Do it, and return where to go on."""
    found = list(visit.installation.quarantine.entries(ids).values())
    alone = found[0] if len(ids) == 1 and found and not visit.field("list") else None
    following = _after(visit, alone, _back(visit)) if alone else ""
    settled = _taken(visit, way, found)
    for each in settled:
        visit.note(way, f"quarantine {each.entry.id[:12]}", each.word)
    gone = [each for each in ids if each not in {entry.id for entry in found}]
    for each_id in gone:  # perhaps by this person, whose first try died before it was noted
        visit.note(way, f"quarantine {each_id[:12]}", "settled before")
    visit.say(_told(settled) + (f" {len(gone)} had been settled before." if gone else ""))
    if alone and not (settled and settled[0].gone):
        following = alone.id
    return f"/ops/quarantine/{following}?{_query(_back(visit))}" if following else _list(visit)


def _taken(visit: Visit, way: str, found: Sequence[Entry]) -> list[Settled]:
    """Errors: Rejected  no reason, an unknown way, a sender, group or address that is none.    permanent"""
    installation, actor, reason = visit.installation, visit.session.who, visit.field("reason")
    if way in ("replay", "replay-ten"):
        return Replay(installation, Resolution(Way.REPLAYED, actor, reason)).take(found)
    if not reason:
        raise Rejected("reason: empty, expected why, for the ledger: go back and fill it in")
    if way == "accept":
        return resolve(installation, Resolution(Way.ACCEPTED, actor, reason), found)
    if way == "dismiss":
        return resolve(installation, Resolution(Way.DISMISSED, actor, reason), found)
    if way == "named":
        if not visit.field("sender"):
            raise Rejected("sender: none chosen, expected the one whose mail it was: go back and choose it")
        recipient = visit.field("recipient") or _suggested(found)
        whom = check_named(installation, visit.field("sender"), _group(visit.field("group")), recipient)
        return resolve(installation, Resolution(Way.NAMED, actor, reason, whom), found)
    raise Rejected(f"way {way[:20]!r}: expected accept, named, dismiss or replay")


def _suggested(found: Sequence[Entry]) -> str:
    return found[0].suggestion.recipient if len(found) == 1 and found[0].suggestion else ""


def _group(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise Rejected(f"group {text[:20]!r}: expected a number, 0 = everything")
    return int(text)


def _back(visit: Visit) -> dict[str, str]:
    """The list that a person came from."""
    known = dict(parse_qsl(visit.field("back")))
    return {name: known.get(name, "") for name in ("reason", "source", "suggested")}


def _list(visit: Visit) -> str:
    query = _query(_back(visit))
    return f"/ops/quarantine?{query}" if query else "/ops/quarantine"


def _told(settled: Sequence[Settled]) -> str:
    words = Counter(each.word for each in settled)
    gone = sum(each.gone for each in settled)
    told = ", ".join(f"{count} × {printable(word)}" for word, count in words.most_common())
    noun = "message" if len(settled) == 1 else "messages"
    return f"{len(settled)} {noun}: {told}. {gone} left the quarantine." if settled else "Nothing was left to do."
