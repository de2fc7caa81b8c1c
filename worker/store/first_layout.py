"""The first layout of the suppressions, and the way out of it. It may go once nobody comes from a version that wrote it.

The first program that knows buckets puts its keys aside (`shut`), so that an older one that still runs, or is started again,
fails instead of answering from what is left. While a sender has rows here, readers ask here first and in the buckets then,
and a writer takes the row along that it finds here; nothing is written here any more, so what lies in a bucket counts.
`Store.migrate` copies, then deletes.

| key                               | type   | holds                                                   | lives          |
|-----------------------------------|--------|---------------------------------------------------------|----------------|
| `unsubd:first:{SENDER}:GROUP`     | HASH   | first layout: canonical recipient, or a name -> row     | until migrated |
| `unsubd:first:{SENDER}`           | SET    | first layout: the sender's groups                       | until migrated |
| `unsubd:first:{SENDER}:forgotten` | SET    | first layout: names of forgotten recipients             | until migrated |
| `unsubd:supp:{SENDER}:GROUP`      | STRING | a word on which programs of the first layout fail       | for good       |
| `unsubd:supp:{SENDER}`            | STRING | a word on which programs of the first layout fail       | for good       |
| `unsubd:forgotten:{SENDER}`       | STRING | a word on which programs of the first layout fail       | for good       |
| `unsubd:counts:{SENDER}`          | STRING | a word on which programs of the first layout fail       | for good       |
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

from handlers.errors import StoreUnavailable
from worker.points import point
from worker.server import check_confirmed, confirmation
from worker.store.row import unpack
from worker.store.script import Script, send

Command = tuple[Any, ...]
_WORD = "moved: this needs an unsubd that knows buckets"
# All keys of a sender at once. SADD comes first: a full server refuses it before anything was moved.
_SHUT = Script("""
if type(redis.pcall('GET', KEYS[1])) == 'string' then return 0 end
local alone = redis.call('SADD', KEYS[1], 0) == 1
local sender, word = '{' .. ARGV[1] .. '}', ARGV[2]
local function shut(old, new)
  if redis.call('EXISTS', old) == 1 then redis.call('RENAME', old, new) end
  redis.call('SET', old, word)
end
for _, group in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  shut('unsubd:supp:' .. sender .. ':' .. group, 'unsubd:first:' .. sender .. ':' .. group)
end
shut('unsubd:forgotten:' .. sender, 'unsubd:first:' .. sender .. ':forgotten')
redis.call('SET', 'unsubd:counts:' .. sender, word)
if alone then redis.call('SREM', KEYS[1], 0) end
shut(KEYS[1], 'unsubd:first:' .. sender)
return 1
""")
_AT_ONCE = 100


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
    def asking(sender: str) -> Command:
        """Return the command that says whether the sender has anything here: a number, 0 for nothing."""
        return ("EXISTS", _groups_key(sender), _forgotten_key(sender))

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
        for pattern in (_groups_key("*"), _forgotten_key("*")):
            yield from map(_sender, self._redis.scan_iter(pattern, count=1000))

    def waiting(self) -> dict[str, int]:
        """Return how many rows each sender has here, put aside or not. Looks at every key."""
        found: Counter[str] = Counter()
        for pattern in (f"{_groups_key('*')}:*", "unsubd:supp:{*}:*"):
            for key in self._redis.scan_iter(pattern, count=1000, _type="hash"):
                found[_sender(key)] += self._redis.hlen(key)
        return dict(found)

    def shut(self, registered: Iterable[str], *, min_replicas: int = 0) -> None:
        """Put aside what programs of the first layout wrote, of every sender that is *registered* or has rows.

        Why:     such a program would mail whoever lies in a bucket; so its every read and write of these senders fails.
        Repeat:  safe. Looks at every key.
        """
        found = {*registered}
        for pattern in ("unsubd:supp:{*}", "unsubd:forgotten:{*}"):
            found.update(map(_sender, self._redis.scan_iter(pattern, count=1000, _type="set")))
        senders = sorted(found)
        for start in range(0, len(senders), _AT_ONCE):
            some = senders[start : start + _AT_ONCE]
            with point("store.shut"):
                shut = [_SHUT(f"unsubd:supp:{{{each}}}", each, _WORD) for each in some]
                check_confirmed(send(self._redis, shut, confirmation(min_replicas)), min_replicas, StoreUnavailable)

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
        with point("store.close"):
            self._redis.delete(_groups_key(sender))


def _sender(key: bytes) -> str:
    return key.decode().partition("{")[2].partition("}")[0]


def _rows_key(sender: str, group: int) -> str:
    return f"unsubd:first:{{{sender}}}:{group}"


def _groups_key(sender: str) -> str:
    return f"unsubd:first:{{{sender}}}"


def _forgotten_key(sender: str) -> str:
    return f"unsubd:first:{{{sender}}}:forgotten"
