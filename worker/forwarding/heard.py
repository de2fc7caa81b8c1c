"""What a provider tells of its own lists becomes our register's, and is not told back.

Where the register knows better (the request is stale, or a tag may not lift the row), or where a call of ours came after
what is told, the far side is made equal again by a job.

Who comes back at a provider lifts what a tag would: the row of that very place's group, if nothing holds it (semantics §3: a
complaint, an import, an API's, operator's or provider's own entry does) and nothing came after, by event time. It is dated by
what happened there, so that an unsubscribe which crosses it on a slower way still wins.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256

from handlers.address import one_address
from handlers.errors import AddressError
from handlers.forwarding.told import Told
from handlers.request import Action, DecidedMessage, Effect, Outcome, Request, request_id
from worker.forwarding import Target
from worker.installation import Installation

_AGREED = (Effect.ADDED.value, Effect.ALREADY_PRESENT.value)


def hear(installation: Installation, target: Target, told: Sequence[Told]) -> int:
    """Record what *target* tells; return how many changes were of a place that it maps.

    Errors:  Unavailable  the store or the queue is away: the provider must come again.    temporary
    Repeat:  safe: an event's id makes the request's.
    """
    messages = _seeing(installation, [found for each in told if (found := _message(target, each))])
    results = installation.intake.record(messages)
    for message, made in zip(messages, results, strict=True):
        (wish,) = message.requests
        is_agreed = bool(made) and _agrees(target, made[0]["effect"])
        _settle(installation, target, wish, is_agreed=is_agreed)
    return len(messages)


def _seeing(installation: Installation, messages: list[DecidedMessage]) -> list[DecidedMessage]:
    """Let each resubscribe name the row that is there now: what changes it meanwhile is not lifted unseen."""
    back = [each.requests[0] for each in messages if each.requests[0].action is Action.RESUBSCRIBE]
    rows = installation.store.rows([(each.sender, each.group, each.recipient) for each in back]) if back else []
    seen = {each.id: replace(each, seen_version=row.version.hex()) for each, row in zip(back, rows, strict=True) if row}
    return [replace(each, requests=(seen.get(each.requests[0].id, each.requests[0]),)) for each in messages]


def _agrees(target: Target, effect: str) -> bool:
    """Say whether the register now has what was told: one place's lift is not all, where it has no list for everything."""
    return effect in _AGREED or (effect == Effect.LIFTED.value and target.has_global)


def _message(target: Target, told: Told) -> DecidedMessage | None:
    groups = {place: group for group, place in target.places.items()}
    group = groups.get(told.place) if told.place else 0
    try:
        recipient = one_address(told.recipient)
    except AddressError:
        return None
    if group is None:
        return None  # a list of theirs that is none of ours
    key = sha256(f"{target.name}\0{told.id}\0{told.place}".encode("utf-8", "surrogatepass")).hexdigest()
    source, at_ms = f"provider:{target.name}", max(0, min(told.at_ms, time.time_ns() // 1_000_000))
    wish_id = request_id(key, target.sender, group, recipient, told.action)
    wish = Request(wish_id, told.action, target.sender, group, recipient, at_ms, source, key)
    outcome = Outcome.COMPLAINT if told.action is Action.COMPLAINT else Outcome.HONOUR
    return DecidedMessage(key, source, outcome, f"told by {target.provider}", at_ms, (wish,))


def _settle(installation: Installation, target: Target, wish: Request, *, is_agreed: bool) -> None:
    """Remember what the far side is; where that is not known, or not what the register has, let a job make it equal."""
    keyed = f"{wish.group}:{installation.pseudonyms.bare(wish.recipient)}"
    # A complaint stops mail there by a list of its own, not by this place.
    state = None if wish.action is Action.COMPLAINT else wish.action is not Action.RESUBSCRIBE
    is_known = installation.forwards.heard(target, keyed, state, wish.at_ms, wish.id[:16])
    if wish.group in target.places and not (is_known and is_agreed):
        installation.forwards.enqueue(target, [(wish.group, wish.recipient)])
