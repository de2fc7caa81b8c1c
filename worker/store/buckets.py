"""The buckets of one server: who writes to them, finds those that a split took elsewhere, and lets them split."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import count, islice
from typing import Any, NamedTuple

import redis

from handlers.errors import StoreUnavailable
from worker.server import check_confirmed, confirmation
from worker.store import layout
from worker.store.forgotten import ForgottenNames
from worker.store.growth import AT_ONCE, Growth
from worker.store.line import Line, Pending
from worker.store.reading import Found, Hints, Reading
from worker.store.script import Command, Script, send

_ROWS_A_CALL = 64  # half a millisecond, in which the server does nothing else


class Write(NamedTuple):
    """What a script is to do in the bucket of one recipient.

    Shape:   arguments: what follows the three that say whose bucket it is (`register.lua`). raises: the field of the
             sender's directory that tells of it; may_do_nothing: only when the row is lifted.
    """

    sender: str
    place: layout.Place
    raises: str
    arguments: tuple[Any, ...] = ()
    may_do_nothing: bool = False


Visit = tuple[Write, int, bool]
"""A write, the bucket that it comes to, and whether that one's parent says that the row is here."""


class Buckets:
    """What the store asks of its servers."""

    def __init__(
        self, client: redis.Redis | redis.RedisCluster, hints: Hints, names: ForgottenNames, *, min_replicas: int
    ) -> None:
        self.line = Line(client)
        self._redis = client
        self._hints = hints
        self._min_replicas = min_replicas
        self._growth = Growth(self.line.ask, names, self._confirmed)
        # A Cluster's nodes do what one pipeline says in no order.
        self._in_order = not isinstance(client, redis.RedisCluster)

    def ask(self, reading: Reading[Found], replies: Any = None) -> Found:
        """Return what *reading* reads. Shape: replies: to what it has yielded already, if it has."""
        try:
            while True:
                replies = self.line.ask(reading.send(replies))
        except StopIteration as stop:
            found: Found = stop.value
            return found

    def ask_each(self, readings: Iterable[Reading[Found]]) -> Iterator[Found]:
        """Yield what each reads, in order: the server works on the next one while one is taken in. None reads nothing."""
        last: tuple[Reading[Found], Pending] | None = None
        try:
            for reading in readings:
                before, last = last, (reading, self.line.begin(next(reading)))
                if before:
                    yield self.ask(before[0], before[1].replies())
            if last:
                yield self.ask(last[0], last[1].replies())
        finally:
            if last:
                last[1].close()

    def write(self, script: Script, writes: Iterable[Write], begin: Sequence[Any] = ()) -> list[Any]:
        """Run *script* for each, in order; return its answers. Durable when it returns. One round trip, while no bucket splits.

        Shape:   begin: the script's arguments for all of them. An answer ["added", size, depth] becomes "added".
        """
        replies: dict[int, Any] = {}
        sizes: dict[tuple[str, int], int] = {}
        numbers: Iterable[int] = count()
        visits: Iterable[Visit] = (
            (each, layout.bucket_of(each.place.hash, self._hints.buckets(each.sender)), False) for each in writes
        )
        while True:
            made, answers = self._written(script, begin, visits)
            later: dict[int, Visit] = {}
            for number, (each, bucket, sure), answer in zip(numbers, made, answers, strict=False):
                if isinstance(answer, int):
                    depth = None if answer < 0 else answer
                    on = self._hints.step(each.sender, bucket, each.place.hash, depth, sure=sure)
                    later[number] = (each, *(on or (0, False)))
                    continue
                if isinstance(answer, list) and answer[:1] == [b"added"]:
                    sizes[each.sender, bucket] = answer[1] << answer[2]
                    answer = answer[0]
                replies[number] = answer
            if not later:
                break
            numbers, visits = later, later.values()
        self._grow(sizes)
        return [replies[number] for number in range(len(replies))]

    def _written(self, script: Script, begin: Sequence[Any], wanted: Iterable[Visit]) -> tuple[list[Visit], list[Any]]:
        """Pay these visits; return them, and the answers."""
        visits: list[Visit] = []
        calls: list[Sequence[int]] = []

        def commands() -> Iterator[Command]:
            for numbers in self._calls(wanted, visits):
                calls.append(numbers)
                yield _command(script, begin, [visits[number] for number in numbers])

        def sure_to_change() -> list[Command]:
            # After the rows: who sees the old number may have seen the old rows, never the other way round.
            return _told(each for each, _, _ in visits if not each.may_do_nothing) if self._in_order else []

        try:
            replies = self._confirmed(commands(), sure_to_change)
        except (redis.RedisError, StoreUnavailable):
            raise
        except BaseException:  # Ctrl-C, a job's time limit: what is written is told of all the same
            with suppress(redis.RedisError):
                send(self._redis, sure_to_change())
            raise
        answers: list[Any] = [None] * len(visits)
        for numbers, reply in zip(calls, replies, strict=False):
            for number, answer in zip(numbers, reply, strict=True):
                answers[number] = answer
        rest = (
            each
            for (each, _, _), answer in zip(visits, answers, strict=True)
            if (answer == b"lifted" if each.may_do_nothing else not self._in_order)
        )
        if told := _told(rest):
            self._confirmed(told)
        return visits, answers

    def _calls(self, wanted: Iterable[Visit], visits: list[Visit]) -> Iterator[Sequence[int]]:
        """Put what is wanted into *visits*; yield which go into one call of a script, by number.

        Shape:   who comes next, as soon as there are enough; on a Cluster those of one bucket.
        """
        if self._in_order:
            rest = iter(wanted)
            while some := list(islice(rest, _ROWS_A_CALL)):
                visits += some
                yield range(len(visits) - len(some), len(visits))
            return
        visits += wanted
        buckets = defaultdict[tuple[str, int], list[int]](list)
        for number, (each, bucket, _) in enumerate(visits):
            buckets[each.sender, bucket].append(number)
        for numbers in buckets.values():
            yield from (numbers[start : start + _ROWS_A_CALL] for start in range(0, len(numbers), _ROWS_A_CALL))

    def _confirmed(self, commands: Iterable[Command], last: Callable[[], Sequence[Command]] = tuple) -> list[Any]:
        """Stream commands, and what *last* returns when they are made; return the replies when the replicas have all."""
        found = self.line.stream(commands, lambda: [*last(), *confirmation(self._min_replicas)])
        return check_confirmed(found, self._min_replicas, StoreUnavailable)

    def _grow(self, sizes: dict[tuple[str, int], int]) -> None:
        """Let buckets split where what new rows came to is too full; each of these says how large all must be."""
        totals: dict[str, list[int]] = {}
        for (sender, _), total in sizes.items():
            totals.setdefault(sender, []).append(total)
        for sender, found in totals.items():
            wanted = sum(found) // len(found) // layout.LOAD
            if wanted > self._hints.buckets(sender):
                self._hints.met(sender, self._growth.grow(sender, wanted) - 1)

    def walk(self, sender: str, command: Callable[[str], Command], *, at_once: int = AT_ONCE) -> Iterator[Any]:
        """Yield what `walk` does for a sender that `Hints.asking` asked for, without the numbers."""
        for _, reply in walk(self._redis, sender, self._hints.buckets(sender), command, at_once=at_once):
            yield reply


def walk(
    client: Any, sender: str, buckets: int, command: Callable[[str], Command], *, at_once: int = AT_ONCE
) -> Iterator[tuple[int, Any]]:
    """Yield number and reply of each bucket of *sender* to what *command* makes of its key: its head's value comes first.

    Shape:   command: HGETALL, or an HMGET that begins with the head. buckets: how many there are, as far as is known.
    Repeat:  a row that does not change is met once, whatever splits meanwhile.
    """
    depths: list[int] = []
    end = max(1, buckets)
    while len(depths) < end:
        # Within one level: a Cluster's nodes answer in no order, and a parent must be read before what it gives up.
        numbers = range(len(depths), min(end, len(depths) + at_once, 1 << len(depths).bit_length()))
        for number, reply in zip(
            numbers, send(client, [command(layout.bucket_key(sender, each)) for each in numbers]), strict=True
        ):
            packed = reply.get(b"") if isinstance(reply, dict) else reply[0]
            if not packed or (number and depths[layout.parent(number)] < number.bit_length()):
                depths.append(-1)  # split off since the rows were met in its parent, and so is all that it gives up
                continue
            depths.append(depth := layout.read_head(packed).depth)
            if depth > number.bit_length():
                end = max(end, number + (1 << depth - 1) + 1)
            yield number, reply


def _command(script: Script, begin: Sequence[Any], visits: Sequence[Visit]) -> Command:
    keys, arguments = [], [*begin]
    for (sender, place, _, rest, _), bucket, sure in visits:
        keys.append(layout.bucket_key(sender, bucket))
        way = 2 if sure else 1 if bucket else 0
        arguments += (way + 4 * (place.hash ^ bucket), place.address, place.name)
        arguments += rest
    return script.on(keys, arguments)


def _told(writes: Iterable[Write]) -> list[Command]:
    raised = Counter((each.sender, each.raises) for each in writes)
    return [("HINCRBY", layout.directory_key(sender), field, by) for (sender, field), by in raised.items()]
