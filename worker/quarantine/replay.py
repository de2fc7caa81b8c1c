"""Entries again through production's own functions, as after a key or a sender was added.

A mail is read, decided and accepted as when it came, with its first event time; what a failed entry holds is queued
again. What is still not understood stays, with its first date and today's reason.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from handlers import message
from handlers.message import InboundMessage
from handlers.request import DecidedMessage
from worker.installation import Installation
from worker.quarantine.entry import FAILED, Entry, entry_of, needs_a_person
from worker.quarantine.resolution import Done, Resolution, Settled, finish, first_decisions, queued, requests_of

_EFFECT_S = 5.0


@dataclass(slots=True)
class Replay:
    """One operator's replay, some entries at a time.

    Shape:   dry_run: says what would be, and changes nothing. wait_s: for the effects; once nobody works, no more.
    Errors:  Unavailable  a server is away or the queue full: what is not gone can be replayed again.    temporary
    Repeat:  safe: same message, same requests, one effect.
    """

    installation: Installation
    resolution: Resolution
    dry_run: bool = False
    wait_s: float = _EFFECT_S

    def take(self, entries: Sequence[Entry]) -> list[Settled]:
        """Replay *entries* and return what became of each, in order."""
        raws = self.installation.quarantine.raws([entry.id for entry in entries])
        mails = [
            (entry, _read(entry, raws[entry.id])) for entry in entries if entry.reason != FAILED and entry.id in raws
        ]
        failed = [(entry, requests_of(raws.get(entry.id))) for entry in entries if entry.reason == FAILED]
        settled = {each.entry.id: each for each in [*self._mails(mails), *self._failed(failed)]}
        return [settled.get(entry.id) or Settled(entry, "shrunk: its message is gone") for entry in entries]

    def _mails(self, mails: list[tuple[Entry, InboundMessage]]) -> list[Settled]:
        decided = self.installation.intake.decide([inbound for _, inbound in mails], remember=False)
        understood, words = [], []
        for (entry, inbound), each in zip(mails, decided, strict=True):
            if needs_a_person(each):
                words.append(self._still(entry, inbound, each))
            else:
                understood.append((entry, inbound, each))
        if self.dry_run:
            return words + [Settled(entry, each.outcome.value) for entry, _, each in understood]
        return words + self._accept(understood)

    def _still(self, entry: Entry, inbound: InboundMessage, decided: DecidedMessage) -> Settled:
        """Keep an entry with what is known today: another reason, a suggestion."""
        today = replace(entry_of(inbound, decided, entry.kept_ms), source=entry.source, at_ms=entry.at_ms)
        if not self.dry_run and today != entry:
            self.installation.quarantine.change(entry, today)
        return Settled(entry, f"still {decided.outcome.value}")

    def _accept(self, understood: list[tuple[Entry, InboundMessage, DecidedMessage]]) -> list[Settled]:
        if not understood:
            return []
        first = first_decisions(self.installation.quarantine, [entry for entry, _, _ in understood])
        self.installation.ledger.refer([(first[entry.id], each) for entry, _, each in understood])
        accepted = self.installation.intake.accept([inbound for _, inbound, _ in understood])
        effects = self._effects(accepted.job_ids, len(understood))
        rows = list(zip([entry for entry, _, _ in understood], accepted.decided, effects, strict=True))
        still = [(entry, each) for entry, each, _ in rows if needs_a_person(each)]  # a key went in this very moment
        done = [
            Done(entry, first[entry.id], queued(each, known), each.outcome.value)
            for entry, each, known in rows
            if not needs_a_person(each)
        ]
        settled = [Settled(entry, f"still {each.outcome.value}") for entry, each in still]
        return settled + finish(self.installation, done, self.resolution)

    def _failed(self, failed: list[tuple[Entry, DecidedMessage | None]]) -> list[Settled]:
        readable = [(entry, decided) for entry, decided in failed if decided is not None]
        settled = [Settled(entry, "still unreadable") for entry, decided in failed if decided is None]
        if self.dry_run or not readable:
            return settled + [Settled(entry, "queued") for entry, _ in readable]
        job_ids = self.installation.queue.enqueue([decided for _, decided in readable])
        effects = self._effects(job_ids, len(readable))
        # Only now: the job writes the record with its effects, where there is none yet.
        self.installation.ledger.refer([(decided, decided) for _, decided in readable])
        done = [
            Done(entry, decided, queued(decided, known), "queued")
            for (entry, decided), known in zip(readable, effects, strict=True)
        ]
        finished = finish(self.installation, done, self.resolution)
        return settled + [each if each.gone else replace(each, word="failed again") for each in finished]

    def _effects(self, job_ids: Sequence[str], count: int) -> list[list[str]]:
        known = self.installation.queue.wait(job_ids, self.wait_s)
        if known is None or len(known) != count:
            self.wait_s = 0.0
            return [[] for _ in range(count)]
        return known


def asked_for(installation: Installation, entry: Entry, raw: bytes) -> list[dict[str, Any]]:
    """Return the requests that production would make of *entry* today, as (action, sender, group, recipient).

    Errors:  Unavailable  a lookup cannot be answered.    temporary
    """
    return [
        {"action": each.action.value, "sender": each.sender, "group": each.group, "recipient": each.recipient}
        for each in decided_today(installation, entry, raw).requests
    ]


def decided_today(installation: Installation, entry: Entry, raw: bytes) -> DecidedMessage:
    """Return what production would make of *entry* today, with no effect.

    Errors:  Unavailable  a lookup cannot be answered.    temporary
    """
    [decided] = installation.intake.decide([_read(entry, raw)], remember=False)
    return decided


def _read(entry: Entry, raw: bytes) -> InboundMessage:
    """The message as its source handed it over; its key stays, whatever a later release reads in it."""
    inbound = message.read(
        raw, source=entry.source, envelope_to=entry.envelope_to, envelope_from=entry.envelope_from,
        received_ms=entry.event_ms, size_bytes=entry.size_bytes,
    )  # fmt: skip
    return replace(inbound, key=entry.key)
