"""One key of Redis as lines that any server takes, whatever version wrote them.

DUMP would be shorter, but its payload is bound to the server: what Valkey 9 wrote, Redis 7 refuses. A line is
{key, type, part, value, expires_ms}, its octets spelled as Latin-1. A long hash or set has several lines; the first one
takes the place of whatever was there, so that a key may be written again.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

import redis

from worker.store import layout
from worker.store.buckets import walk

_FIELDS, _OCTETS = 200, 1 << 20  # a line, but for its last value: those of a quarantined mail are 256 KB
_LINES = 500
_KEPT_MS = 86_400_000
Line = dict[str, Any]


def lines(client: redis.Redis, keys: Sequence[bytes]) -> Iterator[Line]:
    """Yield the lines of each key that is to be kept: a key that has gone meanwhile, or ends within a day, is not.

    Why:     sessions, locks, limits and finished jobs end by themselves; none of them must come back from a copy.
    """
    asking: Any = client.pipeline(transaction=False)
    for key in keys:
        asking.type(key)
        asking.pexpiretime(key)
        asking.time()
    replies = asking.execute()
    for key, kind, expires_ms, (seconds, _) in zip(keys, replies[::3], replies[1::3], replies[2::3], strict=True):
        if kind == b"none" or -1 < expires_ms < seconds * 1000 + _KEPT_MS:
            continue
        life = {"expires_ms": expires_ms} if expires_ms >= 0 else {}
        for part, value in enumerate(_values(client, key, kind.decode())):
            yield _line(key, kind.decode(), part, value) | life


def of_buckets(client: redis.Redis, sender: str) -> Iterator[Line]:
    """Yield the lines of a sender's buckets. Every row that was there before is in them, whatever splits meanwhile.

    Why:     a bucket that is read after it gave rows up, and the one that got them is not met any more: a scan would lose them.
    """
    found = cast(bytes | None, client.hget(layout.directory_key(sender), "buckets"))
    for number, rows in walk(client, sender, int(found or 1), lambda key: ("HGETALL", key)):
        yield _line(
            layout.bucket_key(sender, number).encode(), "hash", 0, [each for pair in rows.items() for each in pair]
        )


def _line(key: bytes, kind: str, part: int, value: Sequence[bytes]) -> Line:
    return {"key": _text(key), "type": kind, "part": part, "value": [_text(each) for each in value]}


def _values(client: redis.Redis, key: bytes, kind: str) -> Iterator[list[bytes]]:
    """What the key holds, in parts: fields and values, or members and scores, one after the other."""
    if kind == "string":
        value = cast(bytes | None, client.get(key))
        yield from () if value is None else ([value],)
    elif kind == "list":  # whole: written twice, a list would have everything twice
        yield cast(list[bytes], client.lrange(key, 0, -1))
    elif kind == "hash":
        yield from _flat(client.hscan_iter(key, count=_FIELDS))
    elif kind == "zset":
        yield from _flat((member, repr(score).encode()) for member, score in client.zscan_iter(key, count=_FIELDS))
    else:
        yield from _flat((member,) for member in client.sscan_iter(key, count=_FIELDS))


def _flat(pairs: Iterable[Sequence[bytes]]) -> Iterator[list[bytes]]:
    part: list[bytes] = []
    octets = 0
    for pair in pairs:
        part += pair
        octets += sum(map(len, pair))
        if len(part) >= 2 * _FIELDS or octets >= _OCTETS:
            yield part
            part, octets = [], 0
    if part:
        yield part


def together(some: Iterator[Line]) -> Iterator[list[Line]]:
    """Yield *some* lines, as many at a time as are one write: 500, or 4 MB."""
    batch: list[Line] = []
    octets = 0
    for line in some:
        batch.append(line)
        octets += sum(map(len, line["value"]))
        if len(batch) >= _LINES or octets >= 4 * _OCTETS:
            yield batch
            batch, octets = [], 0
    if batch:
        yield batch


def write(client: redis.Redis, some: Iterable[Line]) -> int:
    """Write lines, and return how many keys began with them. Repeat: safe, from any line that is a key's first."""
    pipeline = client.pipeline(transaction=False)
    begun = 0
    for line in some:
        key, value = _octets(line["key"]), [_octets(each) for each in line["value"]]
        if line["part"] == 0:
            pipeline.delete(key)
            begun += 1
        _write_one(pipeline, line["type"], key, value)
        if "expires_ms" in line:
            pipeline.pexpireat(key, line["expires_ms"])
    pipeline.execute()
    return begun


def _write_one(pipeline: Any, kind: str, key: bytes, value: list[bytes]) -> None:
    if kind == "string":
        pipeline.set(key, value[0])
    elif kind == "list":
        pipeline.rpush(key, *value)
    elif kind == "hash":
        pipeline.hset(key, items=value)
    elif kind == "zset":
        pipeline.execute_command(
            "ZADD", key, *(each for pair in zip(value[1::2], value[::2], strict=True) for each in pair)
        )
    else:
        pipeline.sadd(key, *value)


def _text(octets: bytes) -> str:
    return octets.decode("latin-1")


def _octets(text: str) -> bytes:
    return text.encode("latin-1")
