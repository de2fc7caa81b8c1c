"""`unsubd reconcile`: does everything that was acknowledged have its record, its effect and its place?

Mailbox and Maildir, queue, ledger and store are compared, and each gap is closed by the path that every message takes:
the same message makes the same requests with the same ids, so that a repair too many changes nothing. `watch.py` runs it
after an unclean start. What came by webhook, LMTP or a page left no copy with us: of that, only what the ledger says can
be compared, and what is missing is told, not repaired.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from worker.installation import Installation
from worker.reconcile import effects, jobs, mail
from worker.reconcile.books import Books
from worker.reconcile.mail import Scope

KINDS = {
    "unrecorded": "acknowledged, but in neither ledger, job nor quarantine",
    "ineffective": "in the ledger, but its suppression is not in the store, and nothing lifted it later",
    "unrestorable": "the same, and no mail of it is here: restore the store from a backup, then run this again",
    "jobless": "decided, but its job stands in no queue",
    "abandoned": "a job in the hand of a worker that is dead",
    "unkept": "a job that ran out of tries, and its messages are not in quarantine",
    "untold": "a page recorded it and was killed: events and forwarders may not know",
}
Progress = Callable[[int, str], None]


@dataclass(slots=True)
class Report:
    """What was compared and found. Shape: found, repaired: how many by KINDS; messages, of jobs the jobs."""

    messages: int = 0
    records: int = 0
    found: Counter[str] = field(default_factory=Counter)
    repaired: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def note(self, kind: str, names: list[str], *, repaired: bool) -> None:
        """Take down gaps by what names them: message digests, job ids; no address."""
        if names:
            self.found[kind] += len(names)
            self.repaired[kind] += len(names) * repaired
            self.examples.setdefault(kind, names[0])

    @property
    def left(self) -> int:
        """How many gaps are as they were."""
        return self.found.total() - self.repaired.total()

    def as_json(self) -> dict[str, Any]:
        """Return JSON values."""
        gaps = {
            kind: {"found": self.found[kind], "repaired": self.repaired[kind], "example": self.examples.get(kind, "")}
            for kind in KINDS
        }
        return {"messages": self.messages, "records": self.records, "left": self.left, "gaps": gaps}


def reconcile(
    installation: Installation,
    scope: Scope,
    *,
    repair: bool = True,
    every_record: bool = True,
    progress: Progress = lambda _, __: None,
) -> Report:
    """Compare everything in *scope* and repair what can be; return what was found.

    Shape:   every_record: also compare the ledger's records of what left no mail, which reads all rows of their senders.
    Errors:  Unavailable  Redis or a mailbox is away; what was repaired by then stays so.    temporary
             ConfigError  a mailbox refuses us.
    Repeat:  safe: what was repaired is no gap any more once its job has run.
    """
    report = Report()
    progress(0, "queue")
    jobs.compare(installation, report.note, repair=repair)
    books = Books(installation, report, repair=repair)
    asyncio.run(mail.compare(installation, scope, books, progress))
    if every_record:
        progress(report.messages, "ledger")
        report.records = effects.compare(installation, scope.since_ms, books.queued_again, report.note)
    return report
