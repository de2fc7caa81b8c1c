"""What a page, the API or a command records at once, without a job: kept until it is done.

A job that dies is repeated by RQ; whoever records at once has nobody to repeat it, and might leave a suppression without its
ledger record, its event and its forward. So it says first what it begins. What is not done after 30 s is put into the queue by
the reaper: the same requests have the same ids, and take effect once.

| key            | type | holds                                                           | lives            |
|----------------|------|-----------------------------------------------------------------|------------------|
| `unsubd:begun` | HASH | random id -> JSON {at_ms, message: as jobs carry it}            | until it is done |
"""

import json
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, cast

import redis

from handlers.errors import QueueUnavailable
from handlers.request import DecidedMessage
from worker.points import point
from worker.queue import RequestQueue
from worker.server import away_as, check_confirmed, confirm

_BEGUN = "unsubd:begun"
_SWAP = """
if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then redis.call('HSET', KEYS[1], ARGV[1], ARGV[3]) end
"""
_LEFT_AFTER_S = 30.0  # a request to the web server ends before


class Begun:
    """Errors: QueueUnavailable  every method, when Redis is away.    temporary"""

    def __init__(self, client: redis.Redis, *, min_replicas: int = 0) -> None:
        self._redis = client
        self._min_replicas = min_replicas
        self._swap = client.register_script(_SWAP)

    @contextmanager
    def kept(self, messages: Sequence[DecidedMessage]) -> Iterator[None]:
        """Keep *messages*, durably, while the block records them; a block that raises or dies leaves them to the reaper."""
        at_ms = time.time_ns() // 1_000_000
        rows = {secrets.token_hex(8): json.dumps({"at_ms": at_ms, "message": each.as_wire()}) for each in messages}
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.hset(_BEGUN, mapping=cast(Any, rows))
            confirm(pipeline, self._min_replicas)
            with point("begun.put"):
                check_confirmed(pipeline.execute(), self._min_replicas, QueueUnavailable)
        yield
        with suppress(redis.RedisError), point("begun.drop"):  # it is done; the reaper repeats it to no effect
            self._redis.hdel(_BEGUN, *rows)

    def move(self, queue: RequestQueue, quarantine: Callable[[Any, str], None]) -> int:
        """Put what was left undone into *queue*, and what cannot be read to *quarantine*; return how many.

        Repeat:  safe, also side by side.
        """
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
            left = self._left()
            if left:
                queue.take(list(left.values()), quarantine)
                with point("begun.take"):
                    self._redis.hdel(_BEGUN, *left)
        return len(left)

    def rewrite(self, change: Callable[[Any], Any]) -> int:
        """Put *change* of each message in its place, whoever records it meanwhile; return how many differ.

        Repeat:  safe. What is done in this moment stays gone: only what is kept is changed.
        """
        count = 0
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
            for key, row in cast(dict[bytes, bytes], self._redis.hgetall(_BEGUN)).items():
                at_ms, message = _opened(row)
                if (changed := change(message)) != message:
                    with point("forget.begun"):
                        self._swap(keys=[_BEGUN], args=[key, row, json.dumps({"at_ms": at_ms, "message": changed})])
                    count += 1
        return count

    def left(self) -> list[str]:
        """Return the ids of what was begun and is not done after 30 s."""
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
            return sorted(each.decode() for each in self._left())

    def _left(self) -> dict[bytes, Any]:
        before_ms = time.time_ns() // 1_000_000 - _LEFT_AFTER_S * 1000
        rows = cast(dict[bytes, bytes], self._redis.hgetall(_BEGUN))
        found = {key: _opened(row) for key, row in rows.items()}
        return {key: message for key, (at_ms, message) in found.items() if at_ms < before_ms}


def _opened(row: bytes) -> tuple[int, Any]:
    """When it was begun, and the message; what cannot be opened was begun long ago, and a person gets it as it is."""
    try:
        kept = json.loads(row)
        return int(kept["at_ms"]), kept["message"]
    except (KeyError, TypeError, ValueError):
        return 0, row.decode("utf-8", "replace")
