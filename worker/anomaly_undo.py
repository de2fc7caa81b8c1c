"""One action against an anomaly: whom it stopped, and nobody else has stopped since, gets mail again.

What others hold (a complaint, an import, an entry by API or operator) stays, and so does whatever changes meanwhile: each
row is lifted only as it was seen. Forgotten people stay stopped: nobody can tell whether it was they. Who asked by another
way and is heard of after the undo is stopped again: see `anomaly_late.py`.
"""

import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from hashlib import sha256
from itertools import chain

from handlers.anomaly import Anomaly, Key, lift_id, stopped_by
from handlers.errors import Rejected
from handlers.request import Action, DecidedMessage, Effect, Outcome, Request
from worker.by_hand import SOURCE
from worker.installation import Installation
from worker.quarantine.shown import without_addresses
from worker.store.row import Row

_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class Undone:
    """What an undo did. Shape: lifted: rows; kept: rows that the anomaly made and somebody else holds or changed."""

    lifted: int
    kept: int

    def __str__(self) -> str:
        people = "1 recipient gets" if self.lifted == 1 else f"{self.lifted:,} recipients get"
        return f"{people} mail again; {self.kept:,} stay stopped, because others stopped them too"


def undo(installation: Installation, anomaly: Anomaly, *, actor: str, reason: str) -> Undone:
    """Resubscribe exactly those whom *anomaly* alone stopped, and settle it.

    Errors:  Rejected     it is settled.    permanent
             Unavailable  a server is away: say it again.    temporary
    Repeat:  safe: what was lifted is not lifted again, nor is whoever left anew.
    """
    if anomaly.state == "undone":
        raise Rejected(f"anomaly {anomaly.id}: undone already ({anomaly.said}), expected an open one")
    rows = list(_rows(installation, stopped_by(anomaly, _records(installation))))
    made = stopped_by(anomaly, _records(installation))  # again: somebody may have asked before the rows were seen
    free = [each for each in rows if (last := made.get(each[0])) is not None and _is_free(each[2], last)]
    lifted = sum(
        _lifted(installation, anomaly, free[start : start + _AT_ONCE], actor, reason)
        for start in range(0, len(free), _AT_ONCE)
    )
    done = Undone(lifted, len(rows) - lifted)
    installation.intake.anomalies.settle(anomaly, "undone", f"{actor}: {done}")
    installation.journal.service("anomaly-undone", anomaly=anomaly.id, lifted=done.lifted, kept=done.kept)
    return done


def _records(installation: Installation) -> Iterator[dict[str, object]]:
    return (record for _, record in installation.ledger.records())


def _rows(installation: Installation, made: Collection[Key]) -> Iterator[tuple[Key, str, Row]]:
    for sender, group in sorted({key[:2] for key in made}):
        for recipient, row in installation.store.listed(sender, group):
            if recipient is not None and (key := (sender, group, installation.pseudonyms.bare(recipient))) in made:
                yield key, recipient, row


def _is_free(row: Row, last_ms: int) -> bool:
    return row.suppressed and not row.held and not row.complaint and row.time_ms <= last_ms


def _lifted(
    installation: Installation, anomaly: Anomaly, rows: list[tuple[Key, str, Row]], actor: str, reason: str
) -> int:
    why = without_addresses(reason) or "anomaly undone"
    # Kept while it is done: said again, the undo finds nothing left to lift, and would tell nobody what it had lifted.
    results = installation.intake.record_now([_lift(anomaly, *each, actor, why) for each in rows]) if rows else []
    return sum(each["effect"] == Effect.LIFTED.value for each in chain.from_iterable(results))


def _lift(anomaly: Anomaly, key: Key, recipient: str, row: Row, actor: str, why: str) -> DecidedMessage:
    """One recipient's resubscribe, a message by itself: an undo that died and is said again has the same one record of it."""
    now_ms, lift = time.time_ns() // 1_000_000, lift_id(anomaly.id, key[0], key[1], recipient)
    message_key = sha256(f"undo\0{lift}".encode()).hexdigest()
    wish = Request(lift, Action.RESUBSCRIBE, key[0], key[1], recipient, now_ms, SOURCE, message_key, actor,
                   row.version.hex())  # fmt: skip
    return DecidedMessage(message_key, SOURCE, Outcome.HONOUR, why, now_ms, (wish,), {"actor": actor})
