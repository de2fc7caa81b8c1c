"""What was not understood: the message and why, kept for a person, within bounds and for some time.

`keep` never refuses: a full quarantine makes room by shrinking its oldest and least worth, see `shelf.py`. What a person
settled leaves, and is known for a week more, so that the same mail, read again, does not come back as new.

| key                             | type   | holds                                                        | lives   |
|---------------------------------|--------|--------------------------------------------------------------|---------|
| `unsubd:quarantine`             | HASH   | id -> JSON {reason, source, at_ms, size_bytes, …}            | 90 days |
| `unsubd:quarantine:raw`         | HASH   | id -> what was fetched (256 KB at most), zlib from 1 KB on   | 90 days |
| `unsubd:quarantine:index:SHELF` | ZSET   | ids by the time they were kept; SHELF: reason, marks, source | 90 days |
| `unsubd:quarantine:bytes`       | HASH   | shelf -> bytes of its entries                                | 90 days |
| `unsubd:quarantine:find:DIGITS` | HASH   | what an entry is found by, and its id (`catalogue.py`)       | 90 days |
| `unsubd:quarantine:resolved:ID` | STRING | since when a resolved entry was kept, ms UTC                 | 7 days  |
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, cast

import redis

from handlers.errors import QueueUnavailable
from handlers.message import InboundMessage
from handlers.request import DecidedMessage
from worker.points import point
from worker.quarantine.catalogue import DIGITS, names, word_of
from worker.quarantine.entry import FAILED, Entry, digest_of, entry_of, facts_of, failed_entry, read_facts, shrunk
from worker.quarantine.rack import ENTRIES, RAW, Rack, index_of, mark_of, unpacked, weight
from worker.quarantine.shelf import Selection, Shelf, overfull
from worker.server import away_as, check_confirmed, confirm

DAYS, LIMIT_BYTES = 90, 268_435_456
_DAY_MS = 86_400_000
_MARK_MS = 7 * _DAY_MS  # longer than any provider retries (three days)
_RAWS = 100  # in one pipeline
_FACTS = 500


class Quarantine:
    """Errors: QueueUnavailable  every method, when Redis is away.    temporary"""

    def __init__(
        self, client: redis.Redis, *, min_replicas: int = 0, days: int = DAYS, limit_bytes: int = LIMIT_BYTES
    ) -> None:
        self._redis = client
        self._min_replicas = min_replicas
        self._life_ms = days * _DAY_MS
        self._limit_bytes = limit_bytes
        self._rack = Rack(client)

    # --- what comes in

    def keep(self, kept: Sequence[tuple[InboundMessage, DecidedMessage]], *, now_ms: int | None = None) -> None:
        """Keep messages with the reason, durably; never refuse one for want of room.

        Repeat:  by message key; the first entry stays, and a resolved one does not come back for 7 days.
        """
        now_ms = _now_ms() if now_ms is None else now_ms
        for start in range(0, len(kept), _RAWS):
            pipeline = self._redis.pipeline(transaction=False)
            for mail, decided in kept[start : start + _RAWS]:
                self._rack.add(pipeline, entry_of(mail, decided, now_ms), mail.raw, heed_mark=True)
            self._written(pipeline)
        if kept:
            self._make_room()

    def keep_failed(self, entry_id: str, detail: str, wire: dict[str, Any], at_ms: int) -> None:
        """Keep requests that could not be applied, as they came, so that a person can replay them.

        Repeat:  by id; the first date stays. Requests take the place of the message that they were made from.
        """
        raw = json.dumps(wire).encode()
        entry = failed_entry(entry_id, detail, wire, at_ms, _now_ms())
        while not self._keep_failed(entry, raw, replaces=bool(wire.get("requests"))):
            pass  # somebody changed it in between: look again
        self._make_room()

    def _keep_failed(self, entry: Entry, raw: bytes, *, replaces: bool) -> bool:
        known = self.entries([entry.id]).get(entry.id)
        if known is None:
            entry = replace(entry, kept_ms=self._resolved_since_ms(entry.id) or entry.kept_ms)
            pipeline = self._redis.pipeline(transaction=False)
            self._rack.add(pipeline, entry, raw, heed_mark=False)
            return self._written(pipeline) == [True]
        if known.reason != FAILED and not replaces:
            return True
        # A change even when it failed as before: who is replaying this entry must not take it away now.
        return self.change(known, replace(entry, kept_ms=known.kept_ms, failures=known.failures + 1), raw)

    def _resolved_since_ms(self, entry_id: str) -> int:
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
            return int(cast(bytes, self._redis.get(mark_of(entry_id))) or 0)

    def _written(self, pipeline: Any) -> list[bool]:
        """Do, durably, what *pipeline* holds; say of each whether it took effect."""
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
            confirm(pipeline, self._min_replicas)
            with point("quarantine.write"):
                replies = check_confirmed(pipeline.execute(), self._min_replicas, QueueUnavailable)
        return [reply == 1 for reply in replies]

    # --- what is there

    def counts(self) -> dict[str, int]:
        """Return how many entries wait, by reason."""
        counts: Counter[str] = Counter()
        for shelf, count in self._counts(Selection()).items():
            counts[shelf.reason] += count
        return dict(counts)

    def count(self, selection: Selection) -> int:
        """Return how many entries are meant."""
        return sum(self._counts(selection).values())

    def needing(self) -> tuple[int, int]:
        """Return how many entries need a person, and the event time of the oldest, ms; (0, 0) when none does.

        Why:     mail without a tag and without a suggestion is mostly not ours: it may be looked at, nobody must.
        """
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
            shelves = [shelf for shelf in self._rack.sizes() if shelf.needs_a_person]
            pipeline = self._redis.pipeline(transaction=False)
            for shelf in shelves:
                pipeline.zcard(index_of(shelf))
                pipeline.zrange(index_of(shelf), 0, 0)
            replies = pipeline.execute()
        oldest = self.entries([each.decode() for ids in replies[1::2] for each in ids])
        return sum(replies[::2]), min((each.event_ms for each in oldest.values()), default=0)

    def _counts(self, selection: Selection) -> dict[Shelf, int]:
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
            shelves = [shelf for shelf in self._rack.sizes() if selection.takes(shelf)]
            pipeline = self._redis.pipeline(transaction=False)
            for shelf in shelves:
                pipeline.zcount(index_of(shelf), selection.since_ms, _until(selection))
            return dict(zip(shelves, pipeline.execute(), strict=True))

    def size_bytes(self) -> int:
        """Return how many bytes of Redis the entries take, about."""
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
            return sum(self._rack.sizes().values())

    def ids(self, selection: Selection, limit: int | None = None) -> list[str]:
        """Return the ids that are meant, newest first, at most *limit*. Reads an index, never the entries."""
        window: dict[str, Any] = {} if limit is None else {"start": 0, "num": limit}
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
            pipeline = self._redis.pipeline(transaction=False)
            for shelf in self._rack.sizes():
                if selection.takes(shelf):
                    since_ms = selection.since_ms
                    pipeline.zrevrangebyscore(index_of(shelf), _until(selection), since_ms, withscores=True, **window)
            found = [row for rows in pipeline.execute() for row in rows]
        newest = sorted(found, key=lambda row: (row[1], row[0]), reverse=True)
        return [entry_id.decode() for entry_id, _ in newest[:limit]]

    def beginning(self, digits: str, limit: int) -> list[str]:
        """Return at most *limit* ids that begin with *digits*, 12 or more."""
        return self._found(digits[:DIGITS], limit, lambda entry: entry.id.startswith(digits))

    def with_message_id(self, message_id: str, limit: int) -> list[str]:
        """Return at most *limit* ids of mails with that Message-ID, whatever their age."""
        digest = digest_of(message_id)
        return self._found(digest, limit, lambda entry: entry.message_id == digest) if digest else []

    def naming(self, address: str, limit: int) -> list[str]:
        """Return at most *limit* ids of entries whose author, subject, envelope or suggestion has *address*."""
        word = word_of(address)
        return self._found(word, limit, lambda entry: word in names(entry)) if word else []

    def _found(self, word: str, limit: int, is_meant: Callable[[Entry], bool]) -> list[str]:
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
            ids = list(dict.fromkeys(islice(self._rack.find(word), limit)))
        return [entry_id for entry_id, entry in self.entries(ids).items() if is_meant(entry)]

    def entries(self, ids: Sequence[str]) -> dict[str, Entry]:
        """Return those of *ids* that are here."""
        return {entry_id: read_facts(entry_id, row) for entry_id, row in self._fields(ENTRIES, ids).items()}

    def raw(self, entry_id: str) -> bytes | None:
        """Return what was kept of an entry: the beginning of a message, or a job's element as JSON; None once shrunk."""
        return self.raws([entry_id]).get(entry_id)

    def raws(self, ids: Sequence[str]) -> dict[str, bytes]:
        """Return what was kept of those of *ids* that are here and not shrunk."""
        return {entry_id: unpacked(row) for entry_id, row in self._fields(RAW, ids).items()}

    def _fields(self, key: str, ids: Sequence[str]) -> dict[str, bytes]:
        if not ids:
            return {}
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
            rows = cast(list[bytes | None], self._redis.hmget(key, list(ids)))
        return {entry_id: row for entry_id, row in zip(ids, rows, strict=True) if row is not None}

    def every(self) -> Iterator[tuple[list[Entry], dict[str, bytes]]]:
        """Yield all entries with their bytes, some at a time: for rare work that must see everything."""
        ids = self.ids(Selection())
        for start in range(0, len(ids), _FACTS):
            part = ids[start : start + _FACTS]
            yield list(self.entries(part).values()), self.raws(part)

    # --- what changes and goes

    def change(self, entry: Entry, into: Entry, raw: bytes | None = None) -> bool:
        """Put *into* in the place of *entry*, with *raw* in that of its bytes; False: somebody changed it before."""
        pipeline = self._redis.pipeline(transaction=False)
        self._rack.replace(pipeline, entry, into, raw)
        return self._written(pipeline) == [True]

    def settle(self, entries: Sequence[Entry]) -> list[bool]:
        """Take resolved entries away, durably; False where somebody changed one since it was read: it stays.

        Repeat:  safe; the same mail, read again within 7 days, is not kept again.
        """
        return self._removed(entries, _MARK_MS)

    def _removed(self, entries: Sequence[Entry], mark_ms: int = 0) -> list[bool]:
        pipeline = self._redis.pipeline(transaction=False)
        for entry in entries:
            self._rack.remove(pipeline, entry, mark_ms=mark_ms)
        return self._written(pipeline)

    def expire(self, now_ms: int | None = None) -> int:
        """Remove what was kept longer than the retention, and return how many. Repeat: safe, also side by side."""
        until_ms = (_now_ms() if now_ms is None else now_ms) - self._life_ms
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
            shelves = list(self._rack.sizes())
        return sum(sum(self._removed(part)) for shelf in shelves for part in self._oldest(shelf, until_ms))

    def _oldest(self, shelf: Shelf, until_ms: float = float("inf")) -> Iterator[list[Entry]]:
        """Yield the entries of *shelf*, oldest first, some at a time; the caller takes them away from it."""
        seen: list[bytes] = []
        while True:
            with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
                ids: Any = self._redis.zrangebyscore(index_of(shelf), "-inf", until_ms, start=0, num=_FACTS)
            if not ids or ids == seen:
                return
            seen = ids
            yield list(self.entries([each.decode() for each in ids]).values())

    def _make_room(self) -> None:
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
            while (full := overfull(self._rack.sizes(), self._limit_bytes)) and self._gave_way(*full):
                pass

    def _gave_way(self, shelf: Shelf, excess_bytes: int) -> bool:
        """Shrink the oldest entries of *shelf*, or remove them when they are shrunk; False: there was none."""
        entries: list[Entry] = next(self._oldest(shelf), [])
        pipeline = self._redis.pipeline(transaction=False)
        for entry, size in self._sized(entries):
            if excess_bytes <= 0:
                break
            if shelf.shrunk:
                self._rack.remove(pipeline, entry)
                excess_bytes -= size
            else:
                small = shrunk(entry)
                self._rack.replace(pipeline, entry, small)
                excess_bytes -= size - weight(facts_of(small))
        return any(pipeline.execute())

    def _sized(self, entries: Sequence[Entry]) -> list[tuple[Entry, int]]:
        pipeline = self._redis.pipeline(transaction=False)
        for entry in entries:
            pipeline.hstrlen(RAW, entry.id)
        sizes = pipeline.execute()
        return [(entry, weight(entry.seen, size)) for entry, size in zip(entries, sizes, strict=True)]


def _until(selection: Selection) -> int | str:
    return "+inf" if selection.until_ms is None else selection.until_ms


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
