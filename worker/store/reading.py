"""The reads of many rows: whoever has a connection sends what a reading yields and sends the replies back in.

Why:     a check is asked by the store, by a client with threads and by one with asyncio; there is one way to read.
"""

from collections.abc import Generator, Sequence
from typing import Any, NamedTuple, TypeVar

from handlers.errors import StoreUnavailable
from worker.store import layout
from worker.store.first_layout import FirstLayout
from worker.store.forgotten import ForgottenNames
from worker.store.row import Row, unpack
from worker.store.script import Command

Found = TypeVar("Found")
Reading = Generator[list[Command], list[Any], Found]
"""Yields commands, is sent their replies, returns what it read."""
Asked = tuple[str, tuple[int, ...], str]
"""A sender, groups, and a canonical recipient."""


class Hints:
    """How many buckets each sender has, as far as this process knows; where it errs, the buckets say so. Threads may share it."""

    def __init__(self) -> None:
        self._buckets: dict[str, int] = {}
        self._in_first_layout: set[str] = set()

    def buckets(self, sender: str) -> int:
        """Return the number of buckets of a sender that `asking` asked for."""
        return self._buckets.get(sender, 1)

    def in_first_layout(self, sender: str) -> bool:
        """Say whether some of the sender's rows may still lie as they once did."""
        return sender in self._in_first_layout

    def are_known(self, sender: str) -> bool:
        """Say whether nothing is to be asked before the buckets of *sender* are."""
        return sender in self._buckets and sender not in self._in_first_layout

    def asking(self, senders: Sequence[str]) -> Reading[None]:
        """Ask for what is not known of *senders*."""
        wanted = dict.fromkeys(senders)
        unknown = [each for each in wanted if not self.are_known(each)]
        if not unknown:
            return
        commands: list[Command] = [("HGET", layout.directory_key(each), "buckets") for each in unknown]
        replies = yield commands + [FirstLayout.asking(each) for each in unknown]
        for sender, buckets, old in zip(unknown, replies, replies[len(unknown) :], strict=False):
            self._buckets[sender] = int(buckets or 1)
            (self._in_first_layout.add if old else self._in_first_layout.discard)(sender)

    def forget(self, sender: str) -> None:
        """Know nothing of *sender*: the next `asking` asks."""
        self._buckets.pop(sender, None)

    def met(self, sender: str, bucket: int) -> None:
        """Remember that the sender has this bucket."""
        self._buckets[sender] = max(bucket + 1, self.buckets(sender))

    def step(self, sender: str, bucket: int, hash_: int, depth: int | None, *, sure: bool) -> tuple[int, bool] | None:
        """Return where to go on from a bucket that is so deep, and whether it is sure that the row is there.

        Shape:   depth None: there is no such bucket, or it does not answer yet. sure: how we came to it. None: the row is
                 here, or nowhere.
        Errors:  StoreUnavailable  its parent gave rows to it, and it is gone: nobody may be told "allowed".
        """
        if depth is None and sure:
            raise StoreUnavailable(
                f"UNSUBD_STORE_URL: bucket {bucket} of {sender} is gone, which had rows: the server lost what it had confirmed:"
                " restore a backup, then unsubd reconcile"
            )
        if depth is None:
            if not bucket:
                return None
            self._buckets.pop(sender, None)  # there once were more: somebody restored an older store
            return layout.parent(bucket), False
        if (lower := layout.child(bucket, hash_, depth)) is None:
            return None
        self.met(sender, lower)
        return lower, True


class Question(NamedTuple):
    """What is wanted of one recipient: these fields of his bucket."""

    sender: str
    hash: int
    fields: Sequence[bytes]


def read(hints: Hints, names: ForgottenNames, asked: Sequence[Asked]) -> Reading[list[list[Row | None]]]:
    """Return the row of each group, of each question. One round trip, while no bucket splits."""
    yield from hints.asking([sender for sender, _, _ in asked])
    old = yield from _in_first_layout(hints, names, asked)
    questions = [question_of(names, *each) for each in asked]
    cells = yield from cells_of(hints, questions)
    found = [_rows(each) for each in cells]
    for (number, place), row in old.items():
        found[number][place] = found[number][place] or row
    return found


def _rows(cells: Sequence[bytes | None]) -> list[Row | None]:
    if not any(cells):  # most people have none
        return [None] * (len(cells) // 2)
    return [either(*pair) for pair in zip(cells[::2], cells[1::2], strict=True)]


def question_of(names: ForgottenNames, sender: str, groups: Sequence[int], recipient: str) -> Question:
    """Return what is wanted of one recipient: of each group the row under his name, and that under his address."""
    hash_, address, name = layout.begins(names, sender, recipient)
    return Question(sender, hash_, [begin + end for end in layout.ends(tuple(groups)) for begin in (name, address)])


def _in_first_layout(
    hints: Hints, names: ForgottenNames, asked: Sequence[Asked]
) -> Reading[dict[tuple[int, int], Row]]:
    """Read before the buckets: a row that is gone from there is in its bucket already."""
    places, commands = [], []
    for number, (sender, groups, recipient) in enumerate(asked):
        if hints.in_first_layout(sender):
            for place, group in enumerate(groups):
                places.append((number, place))
                commands.append(FirstLayout.reading(sender, group, (recipient, names(sender, recipient))))
    if not places:
        return {}
    replies = yield commands
    packed = zip(places, map(FirstLayout.taken, replies), strict=True)
    return {place: unpack(row) for place, row in packed if row}


def cells_of(hints: Hints, questions: Sequence[Question]) -> Reading[list[Sequence[bytes | None]]]:
    """Return the values of each question's fields, wherever its bucket went."""
    found: list[Sequence[bytes | None]] = [[None] * len(each.fields) for each in questions]
    waiting: dict[tuple[str, int, bool], list[int]] = {}
    for number, each in enumerate(questions):
        bucket = layout.bucket_of(each.hash, hints.buckets(each.sender))
        waiting.setdefault((each.sender, bucket, False), []).append(number)
    while waiting:
        visits = list(waiting.items())
        replies = yield [_command(sender, bucket, questions, numbers) for (sender, bucket, _), numbers in visits]
        waiting = {}
        for ((sender, bucket, sure), numbers), reply in zip(visits, replies, strict=True):
            head = layout.read_head(reply[0]) if reply[0] else None
            depth = head.depth if head and (sure or not head.filled) else None
            start = 1
            for number in numbers:
                question = questions[number]
                end = start + len(question.fields)
                if on := hints.step(sender, bucket, question.hash, depth, sure=sure):
                    waiting.setdefault((sender, *on), []).append(number)
                elif depth is not None:
                    found[number] = reply[start:end]
                start = end
    return found


def _command(sender: str, bucket: int, questions: Sequence[Question], numbers: Sequence[int]) -> Command:
    command: list[Any] = ["HMGET", layout.bucket_key(sender, bucket), b""]
    for number in numbers:
        command += questions[number].fields
    return tuple(command)


def either(name: bytes | None, address: bytes | None) -> Row | None:
    """Return the row of a recipient: under the name once the address is forgotten."""
    if not name:
        return unpack(address) if address else None
    if not address:
        return unpack(name)
    under_both = unpack(name), unpack(address)  # for a moment, while he is forgotten
    return next((row for row in under_both if row.suppressed), under_both[0])
