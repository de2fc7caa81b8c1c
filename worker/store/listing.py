"""Pages of a group's suppressions, newest first: a sorted copy in memory, good as long as nothing in that group changed.

Why:     a hash has no order, so the first page reads the whole group; each further page then costs one round trip, and no
         row in the store pays for an index that only listing needs.
Limits:  about 70 octets a row; at most MAX_ROWS rows are kept by a process, the group asked for last first.
"""

from collections import OrderedDict
from collections.abc import Iterator
from threading import Lock

from worker.store import Store

MAX_ROWS = 2_000_000
_LAST_S = (1 << 32) - 1  # a row's first seen has 4 octets: what is left to that sorts newest first
Entry = tuple[str, int]
"""A recipient, and when he was first suppressed, in seconds UTC."""


class Listing:
    """The suppressed recipients of a group as they were at one moment; forgotten ones have no name and are left out."""

    def __init__(self, packed: list[bytes]) -> None:
        self._packed = packed

    def __len__(self) -> int:
        return len(self._packed)

    def __iter__(self) -> Iterator[Entry]:
        return map(_unpacked, self._packed)

    def page(self, offset: int, limit: int | None = None) -> list[Entry]:
        """Return at most *limit* entries from *offset* on: newest first, ties by address."""
        return [_unpacked(each) for each in self._packed[offset : None if limit is None else offset + limit]]


class Listings:
    """The listings that one process made last. Threads may share it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = Lock()
        self._known: OrderedDict[tuple[str, int], tuple[int, Listing]] = OrderedDict()

    def of(self, sender: str, group: int) -> Listing:
        """Return who is suppressed in this very group, with every change that was made before the call.

        Errors:  StoreUnavailable  temporary
        """
        changes = self._store.changes(sender, group)  # before reading: what changes meanwhile is read next time
        with self._lock:
            known_changes, listing = self._known.get((sender, group), (-1, None))
        if listing is None or known_changes != changes:
            listing = Listing(sorted({_packed(*each) for each in self._read(sender, group)}))
            self._keep((sender, group), changes, listing)
        return listing

    def _read(self, sender: str, group: int) -> Iterator[Entry]:
        for recipient, row in self._store.listed(sender, group):
            if recipient is not None:
                yield recipient, row.first_seen_s

    def _keep(self, name: tuple[str, int], changes: int, listing: Listing) -> None:
        with self._lock:
            self._known.pop(name, None)
            self._known[name] = changes, listing
            while sum(len(each) for _, each in self._known.values()) > MAX_ROWS or len(self._known) > 1000:
                self._known.popitem(last=False)


def _packed(recipient: str, first_seen_s: int) -> bytes:
    return (_LAST_S - first_seen_s).to_bytes(4) + recipient.encode()


def _unpacked(packed: bytes) -> Entry:
    return packed[4:].decode(), _LAST_S - int.from_bytes(packed[:4])
