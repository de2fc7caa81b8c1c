"""How many calls each API key made in this minute: counted here, shared with other processes once a second.

| key                          | type   | holds                                                   | lives     |
|------------------------------|--------|---------------------------------------------------------|-----------|
| `unsubd:api-calls:ID:MINUTE` | STRING | how many calls the key with that id made in that minute | 2 minutes |

Why:     a count that was written at each call waited for the disk (fsync always) and cost nine tenths of a check. So a key
         that is used at several processes may pass its limit by what the others took within a second; at one, by nothing.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import redis

from handlers.errors import QueueUnavailable
from worker.accounts.api_keys import WINDOW_S, ApiKey
from worker.server import away_as

_CALLS = "unsubd:api-calls"
_SHARE_EVERY_S = 1.0


@dataclass(slots=True)
class _Count:
    shared: int = 0  # what Redis had when it was last asked, ours among it
    own: int = 0  # since then
    asked_at: float = float("-inf")


class KeyCalls:
    """The calls of one process's askers. Not for several threads at once."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client
        self._minute = -1
        self._counts: dict[str, _Count] = {}

    def count(self, keys: Sequence[ApiKey], now_s: float) -> list[int]:
        """Count a call of each key, and return for each how many its key made in this minute, this one among them.

        Errors:  QueueUnavailable  Redis is away.    temporary
        """
        if (minute := int(now_s // WINDOW_S)) != self._minute:
            self._minute, self._counts = minute, {}
        self._share({key.id for key in keys})
        return [self._one_more(key.id) for key in keys]

    def _one_more(self, key_id: str) -> int:
        count = self._counts[key_id]
        count.own += 1
        return count.shared + count.own

    def _share(self, key_ids: set[str]) -> None:
        """Tell Redis what is new here, and hear what the other processes told."""
        now = time.monotonic()
        counts = {each: self._counts.setdefault(each, _Count()) for each in key_ids}
        stale = {each: count for each, count in counts.items() if now - count.asked_at > _SHARE_EVERY_S}
        if not stale:
            return
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
            pipeline = self._redis.pipeline(transaction=False)
            for key_id, count in stale.items():
                name = f"{_CALLS}:{key_id}:{self._minute}"
                pipeline.incrby(name, count.own)
                pipeline.expire(name, 2 * WINDOW_S)
            totals = pipeline.execute()[::2]
        for count, total in zip(stale.values(), totals, strict=True):
            count.shared, count.own, count.asked_at = int(total), 0, now
