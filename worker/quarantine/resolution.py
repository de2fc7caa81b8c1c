"""What an operator decides about entries: a request in his own name, or that there is none.

The order makes a crash harmless: the request takes effect and the ledger tells of it before the entry goes. Repeated,
the request hears its first effect, the ledger knows the resolution, and the entry goes now.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from hashlib import sha256
from typing import Any

from handlers.address import canonical
from handlers.errors import AddressError, UnknownAccount
from handlers.request import Action, DecidedMessage, Effect, Outcome, Request, Suggestion, request_id
from worker.installation import Installation
from worker.quarantine import Quarantine
from worker.quarantine.entry import END_MS, FAILED, Entry
from worker.quarantine.shown import without_addresses

SOURCE = "operator"


class Way(Enum):
    """How an entry is settled."""

    NAMED = "named"
    ACCEPTED = "suggestion-accepted"
    DISMISSED = "dismissed"
    REPLAYED = "replayed"


@dataclass(frozen=True, slots=True)
class Resolution:
    """What an operator decided. named: whom he names himself, with way NAMED. reason: his words."""

    way: Way
    actor: str
    reason: str
    named: Suggestion | None = None


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of an entry: an effect, an outcome, or why nothing; and whether it left the quarantine.

    Shape:   whom: the recipients it was about, for the person who asked.
    """

    entry: Entry
    word: str
    gone: bool = False
    whom: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Done:
    """What was done with an entry and is to be told. first: its first decision. results: as in the ledger."""

    entry: Entry
    first: DecidedMessage
    results: list[dict[str, Any]]
    word: str


def check_named(installation: Installation, sender: str, group: int, recipient: str) -> Suggestion:
    """Return what an operator names, canonical.

    Errors:  AddressError, UnknownAccount  not an address; no such sender, or no such group of his.    permanent
    Why:     a tag's stray group goes to group 0, but a person who mistypes one must hear of it.
    """
    if installation.accounts.group(sender, group).archived:
        raise UnknownAccount(f"group {group}: archived, expected one that is not, or 0 for everything")
    return Suggestion(sender, group, canonical(recipient), "named by an operator")


def decision_of(entry: Entry, resolution: Resolution) -> DecidedMessage | str:
    """Return what *resolution* makes of *entry*, or why it makes nothing of it.

    Repeat:  the same request ids. The event time is the message's own; the source `operator` holds the row (semantics 3).
    """
    if resolution.way is Way.DISMISSED:
        return _decided(entry, ())
    if entry.reason == FAILED:
        return "holds requests: replay it"
    whom = resolution.named if resolution.way is Way.NAMED else entry.suggestion
    if whom is None or not whom.sender:
        return "no suggestion" if whom is None else "suggests no sender"
    try:
        return _decided(entry, (_request(entry, whom, resolution.actor),))
    except AddressError:
        return "suggests no address"


def _decided(entry: Entry, requests: tuple[Request, ...]) -> DecidedMessage:
    outcome = Outcome.COMPLAINT if entry.reason == Outcome.COMPLAINT.value else Outcome.HONOUR
    return DecidedMessage(entry.key, SOURCE, outcome, "resolved by an operator", entry.event_ms, requests)


def _request(entry: Entry, whom: Suggestion, actor: str) -> Request:
    action = Action.COMPLAINT if entry.reason == Outcome.COMPLAINT.value else Action.UNSUBSCRIBE
    recipient = canonical(whom.recipient)
    wish_id = request_id(entry.key, whom.sender, whom.group, recipient, action)
    return Request(wish_id, action, whom.sender, whom.group, recipient, entry.event_ms, SOURCE, entry.key, actor)


def plan(resolution: Resolution, entries: Sequence[Entry]) -> list[Settled]:
    """Say what `resolve` would do, and do nothing."""
    return [_planned(entry, decision_of(entry, resolution)) for entry in entries]


def _planned(entry: Entry, decided: DecidedMessage | str) -> Settled:
    if isinstance(decided, str):
        return Settled(entry, decided)
    word = next((f"{each.action.value} {each.sender} {each.group}" for each in decided.requests), Way.DISMISSED.value)
    return Settled(entry, word, whom=tuple(each.recipient for each in decided.requests))


def resolve(installation: Installation, resolution: Resolution, entries: Sequence[Entry]) -> list[Settled]:
    """Do what *resolution* says with each entry, in order; some hundred at a time are one round trip each.

    Errors:  Unavailable  a server is away: what is not gone can be resolved again.    temporary
    Repeat:  safe: every request takes effect once, the ledger tells of it once.
    """
    plans = [(entry, decision_of(entry, resolution)) for entry in entries]
    able = [(entry, plan) for entry, plan in plans if isinstance(plan, DecidedMessage)]
    first = first_decisions(installation.quarantine, [entry for entry, _ in able])
    installation.ledger.refer([(first[entry.id], plan) for entry, plan in able])
    asked = [plan for _, plan in able if plan.requests]
    results = dict(zip((plan.key for plan in asked), installation.intake.record(asked), strict=True)) if asked else {}
    done = [
        Done(entry, first[entry.id], each, each[0]["effect"] if each else resolution.way.value)
        for entry, plan in able
        if (each := results.get(plan.key, [])) or not plan.requests
    ]
    words = {each.entry.id: each for each in finish(installation, done, resolution)}
    return [words.get(entry.id) or Settled(entry, plan if isinstance(plan, str) else "failed") for entry, plan in plans]


def finish(installation: Installation, done: Sequence[Done], resolution: Resolution) -> list[Settled]:
    """Tell the ledger what was done with each entry, and take it away."""
    if not done:
        return []
    at_ms = time.time_ns() // 1_000_000
    installation.ledger.append([(each.first, _addition(each, resolution, at_ms)) for each in done])
    gone = installation.quarantine.settle([each.entry for each in done])
    way, actor = resolution.way.value, resolution.actor
    installation.journal.service("quarantine", action=way, actor=actor, entries=len(done), gone=sum(gone))
    return [Settled(each.entry, each.word, left) for each, left in zip(done, gone, strict=True)]


def _addition(done: Done, resolution: Resolution, at_ms: int) -> dict[str, Any]:
    parts = [done.entry.id, resolution.way.value, *(result["id"] for result in done.results)]
    return {
        "id": sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:16],
        "action": resolution.way.value,
        "actor": resolution.actor,
        "at_ms": at_ms,
        "reason": without_addresses(resolution.reason),
        "requests": done.results,
    }


def first_decisions(quarantine: Quarantine, entries: Sequence[Entry]) -> dict[str, DecidedMessage]:
    """Return by id how each message was decided first: its ledger record lies accordingly."""
    raws = quarantine.raws([entry.id for entry in entries if entry.reason == FAILED])
    return {entry.id: requests_of(raws.get(entry.id)) or entry.first_decision() for entry in entries}


def requests_of(raw: bytes | None) -> DecidedMessage | None:
    """Return the message that a failed entry's bytes hold; None when they cannot be read."""
    try:
        decided = DecidedMessage.from_wire(json.loads(raw or b""))
        return replace(decided, received_ms=min(max(decided.received_ms, 0), END_MS - 1))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def queued(decided: DecidedMessage, effects: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Return the results of requests that are in the queue, with their effects as far as they are known."""
    known = effects if len(effects) == len(decided.requests) else [Effect.QUEUED.value] * len(decided.requests)
    return [
        {"id": each.id, "sender": each.sender, "group": each.group, "recipient": each.recipient, "effect": effect}
        for each, effect in zip(decided.requests, known, strict=True)
    ]
