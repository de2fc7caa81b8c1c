"""Buckets that split while everybody works: no lock, no pause, and a kill between any two steps leaves every answer right.

Bucket t is split off its parent s in four steps, each in one slot: (1) t is *filled* with a copy of what s will give up; s still
answers for it. (2) s *leaves* it, deeper by one, if nothing in it changed since it was read; else (1) again. From now on t
answers: who comes to s is sent to t, who comes to t early is sent to s, and back. (3) t is *opened*. (4) The sender's number
of buckets, a hint, is raised.

A fill that comes late, of who was overtaken, is older than what t has, and is refused.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from worker.points import point
from worker.store import layout
from worker.store.forgotten import ForgottenNames
from worker.store.script import Command, Script

SPLIT = Script(files("worker.store").joinpath("split.lua").read_text())
# Several processes may count at the same time: the number only grows.
RAISE = Script("""
local known = redis.call('HGET', KEYS[1], 'buckets')
if tonumber(known or '1') < tonumber(ARGV[1]) then redis.call('HSET', KEYS[1], 'buckets', ARGV[1]) end
return 1
""")
AT_ONCE = 64  # and so many beyond the known number may be there
_PASSES = 5  # for buckets in which others write at the same time
_ALONE_MS = 2000
Send = Callable[[Sequence[Command]], list[Any]]
"""Sends commands, `Script` calls among them, in one round trip, and returns their replies."""
Stream = Callable[[Iterable[Command]], list[Any]]
"""As `Send`, each while the next is made; durable when it returns."""


@dataclass(frozen=True, slots=True)
class Halves:
    """What a bucket keeps and what it gives up, as fields and values in turn."""

    stays: list[bytes]
    goes: list[bytes]


class Growth:
    """The splits of one server's buckets.

    Shape:   write: for what must not be taken back: each step rests on the one before, in another slot.
    """

    def __init__(self, send: Send, names: ForgottenNames, write: Stream) -> None:
        self._send = send
        self._send_kept = write
        self._names = names

    def grow(self, sender: str, wanted: int) -> int:
        """Split buckets of *sender* until there are as many as wanted, and return how many there are.

        Repeat:  safe; from several processes, too, of which the later ones leave it to the first.
        """
        directory = layout.directory_key(sender)
        key = f"unsubd:growing:{{{sender}}}"
        [lease, found] = self._send(
            [("SET", key, "1", "NX", "PX", _ALONE_MS), ("HGET", directory, "buckets")]
        )  # a courtesy: two who grow the same get in each other's way, no more
        buckets = int(found or 1)
        if not lease:
            return buckets
        while buckets < wanted:
            # Within one level: no bucket of a round is another one's parent.
            done = self._split(sender, range(buckets, min(wanted, buckets + AT_ONCE, 1 << buckets.bit_length())))
            if not done:
                break
            buckets += done
            with point("store.count"):
                self._send_kept([RAISE(directory, buckets)])
            self._send([("SET", key, "1", "PX", _ALONE_MS)])
        self._send([("DEL", key)])
        return buckets

    def _split(self, sender: str, new: range) -> int:
        """Split these off; return how many of them, from the first on, are done."""
        waiting, done = list(new), set[int]()
        for _ in range(_PASSES):
            if not waiting:
                break
            done.update(self._tried(sender, waiting))
            waiting = [each for each in new if each not in done]
        return next((number for number, each in enumerate(new) if each not in done), len(new))

    def _tried(self, sender: str, waiting: Sequence[int]) -> list[int]:
        read = self._send([("HGETALL", layout.bucket_key(sender, layout.parent(each))) for each in waiting])
        is_worth_it = _are_full(read)
        full: list[tuple[int, dict[bytes, bytes]]] = []
        left: list[int] = []
        for each, bucket in zip(waiting, read, strict=True):
            if not bucket:
                continue  # its rows are gone: nothing to split
            if layout.read_head(bucket[b""]).depth >= each.bit_length():
                left.append(each)  # who began this was killed before he opened it
            elif is_worth_it:
                full.append((each, bucket))
        leaves: list[Command] = []
        with point("store.fill"):
            filled = self._send_kept(self._fills(sender, full, leaves)) if full else []
        sure = [number for number, answer in enumerate(filled) if answer]
        with point("store.leave"):
            answers = self._send_kept([leaves[number] for number in sure]) if sure else []
        left += [full[number][0] for number, answer in zip(sure, answers, strict=True) if answer]
        with point("store.open"):
            if left:
                self._send_kept([SPLIT(layout.bucket_key(sender, each), "open") for each in left])
        return left

    def _fills(
        self, sender: str, full: Sequence[tuple[int, dict[bytes, bytes]]], leaves: list[Command]
    ) -> Iterator[Command]:
        """Yield what fills each new bucket from its parent, as that was read; put what leaves it there into *leaves*."""
        for each, bucket in full:
            deeper = f"{each.bit_length()} {layout.read_head(bucket[b'']).changes + 1}"
            halves = self._halves(sender, bucket, each)
            parent = layout.bucket_key(sender, layout.parent(each))
            leaves.append(SPLIT(parent, "leave", bucket[b""], deeper, *halves.stays))
            yield SPLIT(layout.bucket_key(sender, each), "fill", deeper, *halves.goes)

    def _halves(self, sender: str, bucket: dict[bytes, bytes], new: int) -> Halves:
        mask = (1 << new.bit_length()) - 1
        sides: tuple[list[tuple[bytes, bytes]], list[tuple[bytes, bytes]]] = ([], [])
        for field, value in bucket.items():
            if field and field[:1] != b"\0":
                sides[layout.hash_of(self._names, sender, field) & mask == new].append((field, value))
        return Halves(*(_flat(side) for side in sides))


def _are_full(buckets: Sequence[dict[bytes, bytes]]) -> bool:
    """Say whether buckets are full on average: one recipient in many groups fills one that no split makes smaller."""
    return sum(map(len, buckets)) >= layout.LOAD * len(buckets)


def _flat(rows: list[tuple[bytes, bytes]]) -> list[bytes]:
    counted = [(field, b"%d" % count) for field, count in layout.counts(rows).items()]
    # What each write looks up comes first: it is found soonest.
    return [each for pair in counted + rows for each in pair]
