"""The quarantine in Redis: an entry, its bytes, its place in an index and the count of bytes change together or not at all.

What only reads, and every rule about what is kept how long, is in `__init__.py`.
"""

import zlib
from collections.abc import Iterator
from importlib.resources import files
from typing import Any, cast

import redis

from worker.quarantine import catalogue
from worker.quarantine.catalogue import Card, drawer_of
from worker.quarantine.entry import Entry, facts_of
from worker.quarantine.shelf import Shelf

ENTRIES, RAW, BYTES = "unsubd:quarantine", "unsubd:quarantine:raw", "unsubd:quarantine:bytes"
_INDEX, _RESOLVED = "unsubd:quarantine:index:", "unsubd:quarantine:resolved:"
ENTRY_BYTES = 550  # what Redis takes for an entry and its cards besides facts and raw: tests/servers/test_quarantine.py
_PLAIN_BYTES = 1024  # zlib gains little below
_ZLIB = b"x"  # how its streams begin; what begins so itself is compressed, whatever its size
_SCAN = 1000
_LUA = files("worker.quarantine")


def index_of(shelf: Shelf) -> str:
    """Return the key of a shelf's index."""
    return _INDEX + shelf.name


def mark_of(entry_id: str) -> str:
    """Return the key that tells of an entry that was resolved."""
    return _RESOLVED + entry_id


class Rack:
    """Writes entries, as commands of a caller's pipeline: each answers 1 when it took effect."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client
        self._keep = client.register_script(_LUA.joinpath("keep.lua").read_text())
        self._change = client.register_script(_LUA.joinpath("change.lua").read_text())

    def add(self, pipeline: Any, entry: Entry, raw: bytes, *, heed_mark: bool) -> None:
        """Keep an entry, unless its id is known; heed_mark: nor was resolved lately."""
        drawers, cards = _columns(catalogue.cards(entry))
        keys = [ENTRIES, RAW, BYTES, index_of(entry.shelf), mark_of(entry.id), *drawers]
        args: list[Any] = [entry.id, facts_of(entry), packed(raw), entry.kept_ms, entry.shelf.name, ENTRY_BYTES]
        self._keep(keys=keys, args=[*args, int(heed_mark), *cards], client=pipeline)

    def replace(self, pipeline: Any, entry: Entry, into: Entry, raw: bytes | None = None) -> None:
        """Put *into* in the place of *entry*, unless that changed since it was read; raw: instead of its bytes."""
        kept: tuple[str, bytes] = ("drop", b"") if into.shrunk else ("", b"") if raw is None else ("set", packed(raw))
        before, after = catalogue.cards(entry), catalogue.cards(into)
        self._change_one(pipeline, entry, into, before - after, after - before, facts_of(into), *kept, 0)

    def remove(self, pipeline: Any, entry: Entry, *, mark_ms: int = 0) -> None:
        """Take an entry away, unless it changed since it was read; mark_ms: so long it is known as resolved."""
        self._change_one(pipeline, entry, entry, catalogue.cards(entry), set(), b"", "drop", b"", mark_ms)

    def _change_one(
        self, pipeline: Any, entry: Entry, into: Entry, go: set[Card], come: set[Card], facts: bytes, *rest: Any
    ) -> None:
        (emptied, going), (filled, coming) = _columns(go), _columns(come)
        keys = [ENTRIES, RAW, BYTES, index_of(entry.shelf), index_of(into.shelf), mark_of(entry.id), *emptied, *filled]
        args: list[Any] = [entry.id, entry.seen, entry.shelf.name, ENTRY_BYTES, facts, into.shelf.name, into.kept_ms]
        self._change(keys=keys, args=[*args, *rest, len(going), *going, *coming], client=pipeline)

    def find(self, word: str) -> Iterator[str]:
        """Yield the ids that have a card of *word*, 12 hex digits: whoever it stands for is to be looked at."""
        cards = self._redis.hscan_iter(drawer_of(word), match=f"{catalogue.beginning(word)}*", count=_SCAN)
        yield from (catalogue.id_on(card.decode()) for card, _ in cards)

    def sizes(self) -> dict[Shelf, int]:
        """Return the bytes of every shelf that holds anything."""
        rows = cast(dict[bytes, bytes], self._redis.hgetall(BYTES))
        return {Shelf.parse(name.decode()): int(size) for name, size in rows.items()}


def _columns(cards: set[Card]) -> tuple[list[str], list[str]]:
    """Their drawers, and what is written on them."""
    ordered = sorted(cards)
    return [drawer for drawer, _ in ordered], [card for _, card in ordered]


def weight(facts: bytes, raw_bytes: int = 0) -> int:
    """Return what an entry is counted with, as the scripts count it."""
    return len(facts) + raw_bytes + raw_bytes // 8 + ENTRY_BYTES


def packed(raw: bytes) -> bytes:
    """Return how *raw* lies in Redis; `unpacked` undoes it."""
    return raw if len(raw) < _PLAIN_BYTES and not raw.startswith(_ZLIB) else zlib.compress(raw)


def unpacked(row: bytes) -> bytes:
    """Return the bytes that were kept."""
    return zlib.decompress(row) if row.startswith(_ZLIB) else row
