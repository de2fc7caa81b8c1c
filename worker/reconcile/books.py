"""One message against the books: ledger, jobs, quarantine, archive and store."""

from collections.abc import Sequence
from functools import cached_property
from typing import Protocol

from handlers.message import InboundMessage
from handlers.request import DecidedMessage, Request
from worker.installation import Installation
from worker.intake import is_foreign
from worker.quarantine.entry import FAILED
from worker.reconcile.jobs import message_keys
from worker.store.archive import Archive
from worker.store.row import Row


class Notes(Protocol):
    """Where gaps are taken down."""

    messages: int

    def note(self, kind: str, names: list[str], *, repaired: bool) -> None:
        """See `Report.note`."""


class Books:
    """The books of one installation, for one comparison."""

    def __init__(self, installation: Installation, notes: Notes, *, repair: bool) -> None:
        self._installation = installation
        self._notes = notes
        self._repair = repair
        self._in_jobs: set[str] = set()
        self.queued_again: set[str] = set()  # message keys that need no second look

    def compare(self, messages: Sequence[InboundMessage], *, marked: bool = True) -> None:
        """Compare messages that were acknowledged, and send those with a gap through the ordinary path again.

        Shape:   marked False: they lie in the folder of handled mail, where people may keep mail that is not ours.
        Errors:  Unavailable  a server is away, or the queue is full.    temporary
        """
        decided = self._installation.intake.decide(messages, remember=False)
        pairs = [pair for pair in zip(messages, decided, strict=True) if marked or not is_foreign(pair[1])]
        self._notes.messages += len(pairs)
        pairs = [pair for pair in pairs if pair[1].key not in self.queued_again]  # a copy, in another folder
        unrecorded = self._unrecorded([each for _, each in pairs])
        ineffective = self._ineffective([each for _, each in pairs if each.key not in unrecorded])
        again = [message for message, each in pairs if each.key in unrecorded | ineffective]
        if again and self._repair:
            leave = self._installation.settings.imap_untagged == "leave"
            self._installation.intake.accept(again, keep_untagged=not leave)
        self.queued_again |= unrecorded | ineffective
        for kind, keys in (("unrecorded", unrecorded), ("ineffective", ineffective)):
            self._notes.note(kind, sorted(key[:12] for key in keys), repaired=self._repair)

    def _unrecorded(self, decided: Sequence[DecidedMessage]) -> set[str]:
        ledger = self._installation.ledger
        missing = ledger.without_record(decided)
        if missing - self._in_jobs:
            self._in_jobs = message_keys(self._installation)
            # A job that ended while we looked has left its record: the ledger is asked last.
            missing = ledger.without_record([each for each in decided if each.key in missing - self._in_jobs])
        if missing := missing - self._in_jobs:
            missing = ledger.nowhere([each for each in decided if each.key in missing], self._homes)
        return self._unfiled(missing - self._kept(missing)) if missing else missing

    @cached_property
    def _homes(self) -> list[str]:
        """Where the ledger may have a record that today would lie elsewhere: looked for once, for all batches."""
        return self._installation.ledger.homes()

    def _kept(self, keys: set[str]) -> set[str]:
        """Those whose requests wait in quarantine, because applying them failed: a replay will write their record."""
        entries = self._installation.quarantine.entries([key[:32] for key in keys])
        return {each.key for each in entries.values() if each.reason == FAILED}

    def _unfiled(self, keys: set[str]) -> set[str]:
        """Those that no file of the archive has: an old mail's record leaves the store within the hour."""
        return {key for key in keys if key not in self._filed}

    @cached_property
    def _filed(self) -> frozenset[str]:
        """Every key of the archive: read once, for all batches."""
        return frozenset(line.key for line in Archive(self._installation.settings.archive).copies())

    def _ineffective(self, decided: Sequence[DecidedMessage]) -> set[str]:
        asked = [(each.key, request) for each in decided for request in each.requests if each.key not in self._in_jobs]
        names = [(each.sender, group, each.recipient) for _, each in asked for group in (each.group, 0)]
        rows = self._installation.store.rows(names) if names else []
        own_and_global = zip(rows[::2], rows[1::2], strict=True)
        return {
            key for (key, request), found in zip(asked, own_and_global, strict=True) if not is_answered(request, found)
        }


def is_answered(request: Request, rows: Sequence[Row | None]) -> bool:
    """Say whether one of *rows*, of the request's group and of group 0, has its effect or is a later decision."""
    return any(row is not None and (row.suppressed or row.time_ms >= request.at_ms) for row in rows)
