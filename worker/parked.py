"""What recipients ask for while the queue's Redis is away and the store's is not: parked in the store, then queued.

Only for who does not come again, a one-click or a page. The reaper moves it when the queue is back, and a crash in between
moves it again: the same requests have the same ids.

| key             | type | holds                                        | lives                    |
|-----------------|------|----------------------------------------------|--------------------------|
| `unsubd:parked` | LIST | decided messages, as jobs carry them, as JSON | until the queue is back |
"""

import json
from collections.abc import Callable, Sequence
from typing import Any, cast

import redis

from handlers.errors import StoreUnavailable
from handlers.request import DecidedMessage
from worker.points import point
from worker.queue import BATCH, RequestQueue
from worker.server import away_as, check_confirmed, confirm

_PARKED = "unsubd:parked"
_MOST = 1_000_000  # some 500 MB; beyond, a page says that nothing was done


class Parked:
    """Errors: StoreUnavailable  both methods, when the store is away.    temporary"""

    def __init__(self, store: redis.Redis, *, min_replicas: int = 0) -> None:
        self._redis = store
        self._min_replicas = min_replicas

    def put(self, messages: Sequence[DecidedMessage]) -> None:
        """Take responsibility for *messages*: durable when it returns. Repeat: parks again, one effect."""
        with away_as(StoreUnavailable, "UNSUBD_STORE_URL"):
            if self._redis.llen(_PARKED) >= _MOST:
                raise StoreUnavailable(f"{_MOST:,} messages are parked: expected the queue's Redis back by now")
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.rpush(_PARKED, *[json.dumps(each.as_wire()) for each in messages])
            confirm(pipeline, self._min_replicas)
            with point("parked.put"):
                check_confirmed(pipeline.execute(), self._min_replicas, StoreUnavailable)

    def waiting(self) -> tuple[int, int]:
        """Return how many are parked, and since when the oldest is, ms UTC (0: none is)."""
        with away_as(StoreUnavailable, "UNSUBD_STORE_URL"):
            first = cast(bytes | None, self._redis.lindex(_PARKED, 0))
            opened = _opened(first) if first else None
            at_ms = opened.get("received_ms", 0) if isinstance(opened, dict) else 0
            return self._redis.llen(_PARKED), at_ms

    def move(self, queue: RequestQueue, quarantine: Callable[[Any, str], None]) -> int:
        """Move some of what is parked into *queue*, and what cannot be read to *quarantine*; return how many.

        Errors:  QueueUnavailable  it is still away: all stays parked.    temporary
        """
        with away_as(StoreUnavailable, "UNSUBD_STORE_URL"):
            found = cast(list[bytes], self._redis.lrange(_PARKED, 0, BATCH - 1))
        if found:
            queue.take([_opened(row) for row in found], quarantine)
            with away_as(StoreUnavailable, "UNSUBD_STORE_URL"):
                pipeline = self._redis.pipeline(transaction=True)
                for each in found:
                    pipeline.lrem(_PARKED, 1, each.decode())
                with point("parked.take"):
                    pipeline.execute()
        return len(found)


def _opened(row: bytes) -> Any:
    try:
        return json.loads(row)
    except ValueError:
        return row.decode("utf-8", "replace")  # a person gets it as it is
