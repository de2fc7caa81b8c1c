"""What a provider tells of its own lists becomes our register's, and is not told back.

Where the register knows better (the request is stale, or a tag may not lift the row), or where a call of ours came after
what is told, the far side is made equal again by a job.
"""

import time
from collections.abc import Sequence
from hashlib import sha256

from handlers.address import one_address
from handlers.errors import AddressError
from handlers.forwarding.told import Told
from handlers.request import Action, DecidedMessage, Effect, Outcome, Request, request_id
from worker.forwarding import Target
from worker.installation import Installation

_AGREED = (Effect.ADDED.value, Effect.ALREADY_PRESENT.value, Effect.LIFTED.value)


def hear(installation: Installation, target: Target, told: Sequence[Told]) -> int:
    """Record what *target* tells; return how many changes were of a place that it maps.

    Errors:  Unavailable  the store or the queue is away: the provider must come again.    temporary
    Repeat:  safe: an event's id makes the request's.
    """
    messages = [found for each in told if (found := _message(target, each))]
    results = installation.intake.record(messages)
    for message, made in zip(messages, results, strict=True):
        (wish,) = message.requests
        is_agreed = bool(made) and made[0]["effect"] in _AGREED
        _settle(installation, target, wish, is_agreed=is_agreed)
    return len(messages)


def _message(target: Target, told: Told) -> DecidedMessage | None:
    groups = {place: group for group, place in target.places.items()}
    group = groups.get(told.place) if told.place else 0
    try:
        recipient = one_address(told.recipient)
    except AddressError:
        return None
    if group is None:
        return None  # a list of theirs that is none of ours
    key = sha256(f"{target.name}\0{told.id}\0{told.place}".encode("utf-8", "surrogateescape")).hexdigest()
    source, at_ms = f"provider:{target.name}", min(told.at_ms, time.time_ns() // 1_000_000)
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
