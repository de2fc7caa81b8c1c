"""How evenly a Cluster's shards fill: the real keys of buckets and ledger, by the real slots."""

from collections.abc import Iterable, Iterator

from redis.crc import key_slot

from worker.store import layout
from worker.store.ledger import home_of

_SLOTS = 16384
Weighted = tuple[str, float]


def buckets(sender: str, count: int) -> Iterator[Weighted]:
    """Yield the keys of a sender's buckets, each with its share of the rows: those not yet split have twice as many."""
    level = count.bit_length() - 1
    for bucket in range(count):
        is_split = bucket < count - (1 << level) or bucket >= 1 << level
        yield layout.bucket_key(sender, bucket), 1 if is_split else 2


def homes(sender: str) -> Iterator[Weighted]:
    """Yield the keys of a sender's ledger records of one month."""
    for digits in range(256):
        yield home_of(sender, f"{digits:02x}", "2026-11"), 1


def fullest(keys: Iterable[Weighted], shards: int) -> float:
    """Return what the fullest of so many shards has of the mean, the slots being dealt out in equal ranges."""
    held = [0.0] * shards
    for key, weight in keys:
        held[key_slot(key.encode()) * shards // _SLOTS] += weight
    return max(held) / (sum(held) / shards)
