"""The first layout of the suppressions, and the way out of it. It may go once nobody comes from a version that wrote it.

While a sender has rows here, readers ask here first and in the buckets then, and a writer takes the row along that it
finds here; nothing is written here any more, so what lies in a bucket counts. `migrate` copies, then deletes.

| key                         | type | holds                                                            | lives          |
|-----------------------------|------|------------------------------------------------------------------|----------------|
| `unsubd:supp:{SENDER}:GROUP` | HASH | first layout: canonical recipient, or a name -> row             | until migrated |
| `unsubd:supp:{SENDER}`      | SET  | first layout: the sender's groups that have rows                 | until migrated |
| `unsubd:forgotten:{SENDER}` | SET  | first layout: names of forgotten recipients                      | until migrated |
| `unsubd:counts:{SENDER}`    | HASH | first layout: group -> its suppressed rows                       | until migrated |
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

from worker.store.row import unpack

Command = tuple[Any, ...]


def repacked(packed: bytes) -> bytes:
    """Return a row of the first layout (first seen 4, time 6, flags, source, evidence 8, lifted 6) as it is written now."""
    first, time, rest = packed[:4], packed[4:10], packed[10:]
    same = int.from_bytes(first) == int.from_bytes(time) // 1000
    return time + rest + (b"" if same else first)


class FirstLayout:
    """What is left of it on one server."""

    def __init__(self, client: Any) -> None:
        self._redis = client

    @staticmethod
    def asking(sender: str) -> list[Command]:
        """Return the three commands that say whether the sender has anything here."""
        return [("EXISTS", key(sender)) for key in (_groups_key, _forgotten_key, _counts_key)]

    @staticmethod
    def reading(sender: str, group: int, forms: tuple[str, str]) -> Command:
        """Return the command for the row of a recipient, as (address, name)."""
        return ("HMGET", _rows_key(sender, group), *forms)

    @staticmethod
    def taken(reply: Sequence[bytes | None]) -> bytes:
        """Return what `reading` found as it is written now; empty when there is none."""
        found = [repacked(each) for each in reversed(reply) if each]
        return next((each for each in found if unpack(each).suppressed), found[0] if found else b"")

    @staticmethod
    def marked(sender: str, name: str) -> Command:
        """Return the command that says whether a recipient is forgotten here."""
        return ("SISMEMBER", _forgotten_key(sender), name)

    def groups(self, sender: str) -> list[int]:
        """Return the groups that have rows here."""
        return sorted(int(each) for each in cast(set[bytes], self._redis.smembers(_groups_key(sender))))

    def senders(self) -> Iterator[str]:
        """Yield every sender that has anything here. Looks at every key."""
        for pattern in ("unsubd:supp:{*}", "unsubd:forgotten:{*}"):
            for key in self._redis.scan_iter(pattern, count=1000):
                sender = key.decode().partition("{")[2].removesuffix("}")
                if ":" not in sender:
                    yield sender

    def recipients(self, sender: str, group: int) -> Iterator[str]:
        """Yield whoever has a row of this group here, under whichever form."""
        for field, _ in self._redis.hscan_iter(_rows_key(sender, group), count=500):
            yield field.decode()

    def names(self, sender: str) -> Iterator[str]:
        """Yield the names of forgotten recipients."""
        for name in self._redis.sscan_iter(_forgotten_key(sender), count=500):
            yield name.decode()

    @staticmethod
    def dropping(sender: str, group: int, forms: Iterable[str]) -> Command:
        """Return the command that deletes rows which lie in their buckets."""
        return ("HDEL", _rows_key(sender, group), *forms)

    @staticmethod
    def dropping_names(sender: str, names: Sequence[str]) -> Command:
        """Return the command that deletes marks which lie in their buckets."""
        return ("SREM", _forgotten_key(sender), *names)

    def close(self, sender: str) -> None:
        """End the sender's first layout: nothing lies here any more."""
        for key in (_counts_key(sender), _groups_key(sender)):
            self._redis.delete(key)


def _rows_key(sender: str, group: int) -> str:
    return f"unsubd:supp:{{{sender}}}:{group}"


def _groups_key(sender: str) -> str:
    return f"unsubd:supp:{{{sender}}}"


def _forgotten_key(sender: str) -> str:
    return f"unsubd:forgotten:{{{sender}}}"


def _counts_key(sender: str) -> str:
    return f"unsubd:counts:{{{sender}}}"
