"""What is remembered of a polled folder: where work begins, and the UIDs that need no further look.

| key                       | type | holds                                                              | lives    |
|---------------------------|------|--------------------------------------------------------------------|----------|
| `unsubd:mailbox:NAME`     | HASH | whose UIDs they are, from_uid (older mail is held), first contact   | for good |
| `unsubd:mailbox:NAME:left` | HASH | UIDs that are not ours, a bitmap of 1,024 a field                   | for good |
| `unsubd:mailbox:NAME:done` | HASH | UIDs that are handled but could not be marked, likewise             | for good |
| `unsubd:mailbox:NAME:aside` | HASH | of these, UIDs that kill whoever reads them, likewise               | for good |
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import cast

import redis

from handlers.errors import QueueUnavailable
from worker.points import point
from worker.server import away_as

_PAGE = 1024


class UidSet:
    """A set of UIDs in pages of bits: 0.15 bytes a UID where they are dense, and a batch changes one or two pages.

    Example:
        >>> uids = UidSet()
        >>> sorted(uids.add([1, 1025, 1026])), 1025 in uids, 2 in uids, len(uids)
        ([0, 1], True, False, 3)
    """

    def __init__(self, pages: dict[int, int] | None = None) -> None:
        self.pages = pages or {}

    def add(self, uids: Iterable[int]) -> set[int]:
        """Add *uids* and return the numbers of the pages that this may have changed."""
        touched = set()
        for uid in uids:
            page, bit = divmod(uid, _PAGE)
            self.pages[page] = self.pages.get(page, 0) | 1 << bit
            touched.add(page)
        return touched

    def __contains__(self, uid: int) -> bool:
        page, bit = divmod(uid, _PAGE)
        return bool(self.pages.get(page, 0) >> bit & 1)

    def __len__(self) -> int:
        return sum(bits.bit_count() for bits in self.pages.values())


@dataclass(slots=True)
class Progress:
    """One folder's memory. Shape: of: account, folder and UIDVALIDITY; elsewhere the same UID is another message.

    keys: what `left` was decided with. since: date of the first contact, ISO.
    """

    of: str = ""
    keys: str = ""
    from_uid: int = 0
    since: str = ""
    left: UidSet = field(default_factory=UidSet)
    done: UidSet = field(default_factory=UidSet)
    aside: UidSet = field(default_factory=UidSet)


class ProgressStore:
    """Keeps one folder's `Progress` in Redis.

    Errors:  QueueUnavailable  Redis is away.    temporary
    """

    def __init__(self, client: redis.Redis, name: str) -> None:
        self._redis = client
        self._key = f"unsubd:mailbox:{name}"

    def load(self) -> Progress:
        """Return what is remembered, an empty `Progress` of a folder never seen."""
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
            row = cast(dict[bytes, bytes], self._redis.hgetall(self._key))
            left, done, aside = self._pages("left"), self._pages("done"), self._pages("aside")
        text = {name.decode(): value.decode() for name, value in row.items()}
        return Progress(
            text.get("of", ""),
            text.get("keys", ""),
            int(text.get("from_uid", 0)),
            text.get("since", ""),
            left,
            done,
            aside,
        )

    def _pages(self, which: str) -> UidSet:
        fields = cast(dict[bytes, bytes], self._redis.hgetall(f"{self._key}:{which}"))
        return UidSet({int(page): int.from_bytes(bits, "little") for page, bits in fields.items()})

    def save(self, progress: Progress) -> None:
        """Replace all that is remembered."""
        row = {"of": progress.of, "keys": progress.keys, "from_uid": progress.from_uid, "since": progress.since}
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
            pipeline = self._redis.pipeline(transaction=True)
            pipeline.hset(self._key, mapping=row)  # type: ignore[arg-type]
            for which, uids in (("left", progress.left), ("done", progress.done), ("aside", progress.aside)):
                pipeline.delete(f"{self._key}:{which}")
                self._write(pipeline, which, uids, uids.pages)
            with point("imap.resume"):
                pipeline.execute()

    def add(self, which: str, uids: UidSet, new: Iterable[int]) -> None:
        """Add *new* to *uids*, the set `left`, `done` or `aside`, and keep it. Repeat: safe."""
        pages = uids.add(new)
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"), point("imap.remember"):
            self._write(self._redis, which, uids, pages)

    def _write(self, client: redis.Redis, which: str, uids: UidSet, pages: Iterable[int]) -> None:
        mapping = {str(page): uids.pages[page].to_bytes(_PAGE // 8, "little") for page in pages}
        if mapping:
            client.hset(f"{self._key}:{which}", mapping=mapping)  # type: ignore[arg-type]
