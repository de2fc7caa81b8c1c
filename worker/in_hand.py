"""What a recipient pressed and a process of ours has in hand: written down before the register has it.

Whoever presses a button does not come again. A process that is killed between the register, the ledger and what tells
senders and forwarders would leave a suppression that nobody hears of; the reaper queues what it left here, and the same
requests have the same ids.

| key              | type | holds                                               | lives                           |
|------------------|------|-----------------------------------------------------|---------------------------------|
| `unsubd:in-hand` | HASH | message key -> decided message of a page, as JSON   | until recorded, else 20 s        |
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, cast

import redis

from handlers.errors import StoreUnavailable
from handlers.request import DecidedMessage
from worker.queue import BATCH, RequestQueue
from worker.server import away_as, check_confirmed, confirm

_IN_HAND = "unsubd:in-hand"
LEFT_AFTER_S = 20.0  # most calls of a page are bounded by less; one that still runs is repeated, to no effect


class InHand:
    """Errors: StoreUnavailable  every method, when the store is away.    temporary"""

    def __init__(self, store: redis.Redis, *, min_replicas: int = 0) -> None:
        self._redis = store
        self._min_replicas = min_replicas

    @contextmanager
    def held(self, message: DecidedMessage) -> Iterator[None]:
        """Hold *message* while the block records it: only a process that ends within the block leaves it here.

        Why:     a block that fails says so to a person, who decides anew; a start that was refused must not happen later.
        """
        with away_as(StoreUnavailable, "UNSUBD_STORE_URL"):
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.hset(_IN_HAND, message.key, json.dumps(message.as_wire()))
            confirm(pipeline, self._min_replicas)
            check_confirmed(pipeline.execute(), self._min_replicas, StoreUnavailable)
        try:
            yield
        finally:
            # Where that fails, what is left is recorded once more: the same ids, and a start only for the row it was made for.
            with suppress(StoreUnavailable), away_as(StoreUnavailable, "UNSUBD_STORE_URL"):
                self._redis.hdel(_IN_HAND, message.key)

    def left(self, *, now_ms: int | None = None) -> dict[str, Any]:
        """Return by message key, as JSON values, what is held for longer than its process can have needed."""
        until_ms = (time.time_ns() // 1_000_000 if now_ms is None else now_ms) - LEFT_AFTER_S * 1000
        with away_as(StoreUnavailable, "UNSUBD_STORE_URL"):
            rows = cast(dict[bytes, bytes], self._redis.hgetall(_IN_HAND))
        found = {key.decode(): json.loads(row) for key, row in rows.items()}
        return {key: wire for key, wire in found.items() if wire.get("received_ms", 0) <= until_ms}

    def queue_left(self, queue: RequestQueue, quarantine: Callable[[Any, str], None]) -> int:
        """Queue what was left, and what cannot be read for a person; return how many. Repeat: safe, also side by side.

        Errors:  QueueUnavailable  the queue is away: all stays held.    temporary
        """
        left = list(self.left().items())
        for start in range(0, len(left), BATCH):
            part = left[start : start + BATCH]
            queue.enqueue(_readable([wire for _, wire in part], quarantine), limited=False)
            with away_as(StoreUnavailable, "UNSUBD_STORE_URL"):
                self._redis.hdel(_IN_HAND, *[key for key, _ in part])
        return len(left)


def _readable(wires: Sequence[Any], quarantine: Callable[[Any, str], None]) -> list[DecidedMessage]:
    found = []
    for wire in wires:
        try:
            found.append(DecidedMessage.from_wire(wire))
        except (KeyError, TypeError, ValueError) as error:  # another release wrote it: a person may read it
            quarantine(wire, f"a request in hand: {type(error).__name__}")
    return found
