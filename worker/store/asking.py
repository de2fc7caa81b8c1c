"""What a check asks: of recipients of one sender, the rows of group 0 and of one group. The hottest reads.

Why:     `reading.py` takes any recipients of any senders, and three times as long; it is asked for whoever does not lie where
         the number of buckets says.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from worker.store import layout
from worker.store.forgotten import ForgottenNames
from worker.store.reading import Hints, Reading, either, read
from worker.store.row import Row

Rows = tuple[Row | None, Row | None]
"""Of one recipient: the row of group 0, and that of the group (the same for group 0)."""
_NO_ROWS: Rows = None, None
_NOTHING = None, None, None, None  # under the name and the address, of both groups


def read_many(
    hints: Hints, names: ForgottenNames, sender: str, group: int, recipients: Sequence[str]
) -> Reading[list[Rows]]:
    """Return of each recipient the rows of group 0 and of *group*. One round trip, while no bucket splits."""
    found = [_NO_ROWS] * len(recipients)
    elsewhere: Iterable[int] = range(len(recipients))
    if hints.are_known(sender):
        elsewhere = yield from _read_as_hinted(hints.buckets(sender), names, sender, group, recipients, found)
    if rest := [(sender, (0, group), recipients[number]) for number in elsewhere]:
        rows = yield from read(hints, names, rest)
        for number, (everything, own) in zip(elsewhere, rows, strict=True):
            found[number] = everything, own
    return found


def _read_as_hinted(
    buckets: int, names: ForgottenNames, sender: str, group: int, recipients: Sequence[str], found: list[Rows]
) -> Reading[list[int]]:
    """Put what is found into *found*; return who lies elsewhere, by number."""
    commands: dict[int, list[Any]] = {}
    numbers: dict[int, list[int]] = {}
    ends = layout.ends((0, group))
    for number, recipient in enumerate(recipients):
        hash_, fields = fields_of(names, sender, ends, recipient)
        bucket = layout.bucket_of(hash_, buckets)
        if bucket not in commands:
            commands[bucket], numbers[bucket] = ["HMGET", layout.bucket_key(sender, bucket), b""], []
        commands[bucket] += fields
        numbers[bucket].append(number)
    replies = yield [tuple(each) for each in commands.values()]
    elsewhere: list[int] = []
    for (bucket, here), (head, *cells) in zip(numbers.items(), replies, strict=True):
        if not layout.is_as_hinted(head, bucket, buckets):
            elsewhere += here
            continue
        for number, four in zip(here, zip(*[iter(cells)] * 4, strict=True), strict=True):
            if four != _NOTHING:
                found[number] = either(*four[:2]), either(*four[2:])
    return elsewhere


def fields_of(
    names: ForgottenNames, sender: str, ends: Sequence[bytes], recipient: str
) -> tuple[int, tuple[bytes, bytes, bytes, bytes]]:
    """Return the hash of one recipient, and the fields of his rows of two groups: under his name, and under his address.

    Shape:   ends: `layout.ends` of the groups.
    """
    hash_, address, name = layout.begins(names, sender, recipient)
    first, second = ends
    return hash_, (name + first, address + first, name + second, address + second)
