"""The ledger's old months go from the store into the archive's files: first durably there, then away here.

One process of an installation does it at a time; a crash in between leaves records in both, and readers take the first.

| key                | type   | holds                                              | lives  |
|--------------------|--------|----------------------------------------------------|--------|
| `unsubd:archiving` | STRING | "1" while a process moves old months into the files | 1 hour |
"""

import json
from collections.abc import Iterator
from datetime import UTC, datetime

from handlers.errors import QueueUnavailable
from worker.installation import Installation
from worker.points import point
from worker.server import away_as
from worker.store.archive import Archive, Line

_LEASE = "unsubd:archiving"
_LEASE_S = 3600


def archive_ended(installation: Installation, now: datetime | None = None) -> int:
    """Move every month that ended UNSUBD_LEDGER_DAYS ago into the files; return how many records.

    Errors:  ConfigError  the folder cannot be used.
             Rejected     the last file is damaged.    permanent
             Unavailable  a server, or the disk, is in the way.    temporary
    Repeat:  safe; a record that came to a month after that is moved the next time.
    """
    months = installation.ledger.ended_months(now or datetime.now(UTC))
    if not months:
        return 0
    with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"), point("archive.lease"):
        if not installation.redis.set(_LEASE, "1", nx=True, ex=_LEASE_S):
            return 0
    try:
        return sum(_move(installation, month) for month in months)
    finally:
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"), point("archive.release"):
            installation.redis.delete(_LEASE)


def _move(installation: Installation, month: str) -> int:
    moved: list[tuple[str, str, int]] = []

    def lines() -> Iterator[Line]:
        for home, key, content in installation.ledger.month(month):
            moved.append((home, key, len(content)))
            if "see" not in (record := json.loads(content)):  # the record names everybody whom a pointer leads to it
                yield Line(home.partition("{")[2].partition("}")[0], key, record)

    count = Archive(installation.settings.archive).append(lines())
    installation.ledger.drop(month, moved)
    return count
