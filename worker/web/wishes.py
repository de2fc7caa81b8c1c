"""What a recipient wants changed, recorded: one form is one message, each group in it one request.

A stop is always taken: into the queue when the store is away, and parked in the store when the queue is. A start is
taken only for the row that its person saw, and never lifts one that is held (`register.lua`): a complaint, an import,
an entry by API or operator stay.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256

from handlers import undo
from handlers.errors import QueueUnavailable, StoreUnavailable, Unavailable
from handlers.request import Action, DecidedMessage, Effect, Outcome, Request, request_id
from handlers.tag import Tag
from handlers.undo import Change, Undo
from worker.installation import Installation
from worker.store.row import Row

_STOPPED = (Effect.ADDED, Effect.ALREADY_PRESENT, Effect.QUEUED)


@dataclass(frozen=True, slots=True)
class Want:
    """One group, to be stopped or started. Shape: seen: version of the row that its person saw (`undo.version_of`)."""

    group: int
    stop: bool
    seen: str = ""


@dataclass(frozen=True, slots=True)
class Made:
    """What became of one want. Shape: group: where it went. effect: None, it was not asked for: its row had changed.
    row: as it is now, None where it cannot be read."""

    want: Want
    group: int
    effect: Effect | None
    row: Row | None = None

    @property
    def holds(self) -> bool:
        """Say whether it is now as wanted."""
        return self.effect in (_STOPPED if self.want.stop else (Effect.LIFTED,))


@dataclass(frozen=True, slots=True)
class Wishes:
    """Who wants it: the holder of *tag*, with one form, by "page" or "one-click"."""

    installation: Installation
    tag: Tag
    nonce: str
    source: str = "page"

    def make(self, wants: Sequence[Want]) -> list[Made]:
        """Record *wants* and return what became of each.

        Errors:  Unavailable  nothing was done: what can wait could not be queued, or nothing of it can wait.    temporary
        Repeat:  by the nonce: the same effects.
        """
        at_ms = time.time_ns() // 1_000_000
        try:
            requests = self._requests(wants, at_ms)
            effects = self._recorded(list(requests.values()), at_ms)
        except (StoreUnavailable, QueueUnavailable) as away:
            requests = {each: self._request(each, at_ms) for each in wants if each.stop}
            if not requests:
                raise
            self._keep(list(requests.values()), at_ms, away)
            effects = {each.id: (each.group, Effect.QUEUED) for each in requests.values()}
        groups = {
            each: effects.get(requests[each].id, _kept(each)) if each in requests else _kept(each) for each in wants
        }
        rows = self._rows({group for group, _ in groups.values()})
        return [Made(want, group, effect, rows.get(group)) for want, (group, effect) in groups.items()]

    def undo_of(self, made: Iterable[Made]) -> str:
        """Return the text that undoes what was changed just now; "" when nothing was."""
        now_ms = time.time_ns() // 1_000_000
        changes = tuple(
            Change(each.group, each.want.stop, undo.version_of(each.row.version))
            for each in made
            if each.row and each.effect in (Effect.ADDED, Effect.LIFTED) and each.row.suppressed == each.want.stop
        )
        return undo.sign(self.installation.keys, self.tag, Undo(now_ms, self.nonce, changes)) if changes else ""

    def _requests(self, wants: Sequence[Want], at_ms: int) -> dict[Want, Request]:
        rows = self._now({each.group for each in wants if not each.stop})
        found = {each: self._request(each, at_ms, rows.get(each.group)) for each in wants}
        return {want: each for want, each in found.items() if want.stop or _is_seen(want, each, rows.get(want.group))}

    def _request(self, want: Want, at_ms: int, row: Row | None = None) -> Request:
        action = Action.UNSUBSCRIBE if want.stop else Action.RESUBSCRIBE
        names = (self.tag.sender, want.group, self.tag.recipient)
        seen = row.version.hex() if row and not want.stop else ""
        return Request(request_id(self.nonce, *names, action), action, *names, at_ms, self.source, self.nonce,
                       seen_version=seen)  # fmt: skip

    def _recorded(self, requests: list[Request], at_ms: int) -> dict[str, tuple[int, Effect]]:
        if not requests:
            return {}
        [results] = self.installation.intake.record_now([self._decided(requests, at_ms)])
        return {each["id"]: (each["group"], Effect(each["effect"])) for each in results}

    def _keep(self, requests: list[Request], at_ms: int, away: Unavailable) -> None:
        """Keep them where one can write: in the queue, or parked in the store. Whoever presses a button does not come again."""
        decided = [self._decided(requests, at_ms)]
        if isinstance(away, StoreUnavailable):
            self.installation.queue.enqueue(decided, limited=False)  # into a full queue, too
        else:
            self.installation.parked.put(decided)

    def _decided(self, requests: list[Request], at_ms: int) -> DecidedMessage:
        # One form may be sent twice with other wishes (a second tab): each has its record.
        key = sha256("\0".join([self.nonce, *sorted(each.id for each in requests)]).encode()).hexdigest()
        return DecidedMessage(key, self.source, Outcome.HONOUR, "form", at_ms, tuple(requests))

    def _rows(self, groups: set[int]) -> dict[int, Row | None]:
        try:
            return self._now(groups)
        except StoreUnavailable:
            return {}  # it is done, or queued: only the undo and the date are missing

    def _now(self, groups: set[int]) -> dict[int, Row | None]:
        ordered = sorted(groups)
        names = [(self.tag.sender, each, self.tag.recipient) for each in ordered]
        return dict(zip(ordered, self.installation.store.rows(names) if names else [], strict=True))


def queue_unread(installation: Installation, refs: Sequence[str], nonce: str) -> None:
    """Take a one-click whose stored tag cannot be looked up: `worker.unread` reads it when the store is back.

    Errors:  QueueUnavailable  the queue is away, or full: such a tag may be a guess, and guesses must not fill it.    temporary
    """
    at_ms = time.time_ns() // 1_000_000
    decided = DecidedMessage(nonce, "one-click", Outcome.HONOUR, "form", at_ms, unread=" ".join(refs))
    installation.queue.enqueue([decided])


def _kept(want: Want) -> tuple[int, Effect | None]:
    """What became of a want without a result: a stop that broke waits in quarantine for a person, a start was not asked for."""
    return want.group, Effect.QUEUED if want.stop else None


def _is_seen(want: Want, request: Request, row: Row | None) -> bool:
    """Say whether a start is for the row that its person saw, or repeats the one that changed it since."""
    if row is None:
        return False
    return undo.version_of(row.version) == want.seen or row.evidence.hex() == request.id[:16]
