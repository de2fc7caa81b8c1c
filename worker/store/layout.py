"""Where a row lies: which bucket of its sender, under which field. Pure; the rest of the store asks here.

Linear hashing without a directory that must be right. A sender has buckets 0, 1, 2, …; a recipient's bucket is the low
bits of a keyed digest. Bucket b splits at depth d into itself and b + 2**d, in the order of the numbers. Each bucket says
how deep it is, so whoever comes to the wrong one is told, and needs the number of buckets only as a hint: too small costs
a round trip, too large two, neither an answer.

A bucket is one hash, small enough to stay a listpack (`hash-max-listpack-value` 64, `-entries` 512):

    field                value
    (empty)              its head: depth, how often it changed, and "filled" while its rows still count where they came from
    ADDRESS NUL GROUP    row (`row.py`); group 0 is empty
    NUL GROUP            how many rows of the group are suppressed
    ~NAME                mark: the recipient was forgotten, his rows lie under the name
    ~NAME NUL GROUP      row of a forgotten recipient
    =NAME NUL GROUP      row of an address over ADDRESS_OCTETS …
    =NAME.N              … and its N-th 64 octets
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

from worker.store.forgotten import ForgottenNames
from worker.store.row import is_suppressed

LOAD = 120  # rows of a bucket, on average; one that is about to split holds twice as many
ADDRESS_OCTETS = 52  # with NUL and a group of 11 digits a field has 64 octets
_PART = 64
_FILLED = b" filled"


class Place(NamedTuple):
    """One recipient at one sender.

    Shape:   hash: 32 bits. address: how the fields of his rows begin; name: the same once he is forgotten. parts: the
             fields that keep the address when it is long.
    """

    hash: int
    address: bytes
    name: bytes
    parts: tuple[bytes, ...] = ()


class Head(NamedTuple):
    """A bucket about itself. Shape: depth: bits of the hash that its rows share. changes: grows with every write."""

    depth: int
    changes: int
    filled: bool


def bucket_key(sender: str, bucket: int) -> str:
    """Return the key of a bucket: each in a slot of its own."""
    return f"unsubd:supp:{{{sender}:{bucket}}}"


def is_bucket(key: bytes) -> bool:
    """Say whether a key is a bucket's; an older layout has others that begin so."""
    return key.startswith(b"unsubd:supp:{") and b":" in key[13:].partition(b"}")[0]


def directory_key(sender: str) -> str:
    """Return the key of what is known about a sender's buckets."""
    return f"unsubd:buckets:{{{sender}}}"


def begins(names: ForgottenNames, sender: str, recipient: str) -> tuple[int, bytes, bytes]:
    """Return the hash, the address and the name of *recipient*'s `Place`.

    Why:     by the digest of the name, so that both forms lie in one bucket, the bucket tells nothing about a forgotten
             address, and nobody can choose addresses that crowd one.
    """
    address = recipient.encode()
    digest, name = names.both(sender, address)
    return int.from_bytes(digest[:4]), address if len(address) <= ADDRESS_OCTETS else b"=" + name[1:], name


def place(names: ForgottenNames, sender: str, recipient: str) -> Place:
    """Return where *recipient*, an address or a name, lies."""
    hash_, begin, name = begins(names, sender, recipient)
    address = recipient.encode()
    if begin == address:
        return Place(hash_, begin, name)
    parts = [address[start : start + _PART] for start in range(0, len(address), _PART)]
    return Place(
        hash_, begin, name,
        tuple(each for number, part in enumerate(parts) for each in (b"%s.%d" % (begin, number), part)),
    )  # fmt: skip


def field(begin: bytes, group: int) -> bytes:
    """Return the field of a row; with an empty beginning, that of the group's count."""
    return b"%s\0%d" % (begin, group) if group else begin + b"\0"


@lru_cache(1024)
def ends(groups: tuple[int, ...]) -> tuple[bytes, ...]:
    """Return how the fields of these groups' rows end."""
    return tuple(field(b"", group) for group in groups)


def group_of(field_: bytes) -> tuple[bytes, int] | None:
    """Return what `field` was made of, None for a field of another kind."""
    begin, nul, group = field_.rpartition(b"\0")
    return (begin, int(group or 0)) if nul else None


def is_mark(field_: bytes) -> bool:
    """Say whether a field says that somebody was forgotten."""
    return field_[:1] == b"~" and b"\0" not in field_


def recipient_of(begin: bytes, bucket: Mapping[bytes, bytes]) -> str:
    """Return the recipient whose rows begin so in *bucket*."""
    if begin[:1] != b"=" or b"@" in begin:
        return begin.decode()
    parts: list[bytes] = []
    while (part := bucket.get(b"%s.%d" % (begin, len(parts)))) is not None:
        parts.append(part)
    return b"".join(parts).decode()


def hash_of(names: ForgottenNames, sender: str, field_: bytes) -> int:
    """Return the hash of the recipient that a field is about; it is no head and no count."""
    begin = field_.partition(b"\0")[0]
    if begin[:1] == b"=" and b"@" not in begin:
        begin = b"~" + begin[1:].partition(b".")[0]
    return int.from_bytes(names.digest(sender, begin)[:4])


def read_head(packed: bytes) -> Head:
    """Return the head of a bucket."""
    depth, changes, *filled = packed.split(b" ")
    return Head(int(depth), int(changes), bool(filled))


def bucket_of(hash_: int, buckets: int) -> int:
    """Return where a row should lie when its sender has so many buckets."""
    level = buckets.bit_length() - 1
    bucket = hash_ & ((2 << level) - 1)
    return bucket if bucket < buckets else hash_ & ((1 << level) - 1)


def parent(bucket: int) -> int:
    """Return the bucket that a bucket was split off from, or 0's own."""
    return bucket - (1 << bucket.bit_length() - 1) if bucket else 0


def child(bucket: int, hash_: int, depth: int) -> int | None:
    """Return the next bucket on the way to a row that is no longer in *bucket*, which is so deep; None when it is."""
    for bits in range(bucket.bit_length(), depth):
        if (lower := hash_ & ((2 << bits) - 1)) != bucket:
            return lower
    return None


def is_here(head: bytes | None, bucket: int, hash_: int) -> bool:
    """Say whether a bucket with this head answers for a row: it has it, or nobody has. Of a sender without rows there is none."""
    if not head:
        return not bucket
    depth, _, filled = read_head(head)
    return not filled and not (bucket ^ hash_) & ((1 << depth) - 1)


def is_as_hinted(head: bytes | None, bucket: int, buckets: int) -> bool:
    """Say whether a bucket with this head answers for all whom `bucket_of` leads to it, of so many: it has not split since."""
    if not head:
        return not bucket
    depth, _, filled = read_head(head)
    level = buckets.bit_length() - 1
    return not filled and depth <= level + (bucket | 1 << level < buckets)


def counts(rows: Iterable[tuple[bytes, bytes]]) -> dict[bytes, int]:
    """Return for the field of each group's count how many of a bucket's rows are suppressed, by their packed form."""
    found: dict[bytes, int] = {}
    for name, packed in rows:
        begin, nul, group = name.rpartition(b"\0")
        if begin and is_suppressed(packed):
            found[nul + group] = found.get(nul + group, 0) + 1
    return found
