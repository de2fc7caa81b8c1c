"""Which hop a canary has reached, and when.

| key                   | type | holds                                                                | lives  |
|-----------------------|------|----------------------------------------------------------------------|--------|
| `unsubd:canary:NONCE` | HASH | a canary's source, and when it was accepted and recorded, ms UTC     | 1 hour |
"""

import time
from collections.abc import Iterable
from contextlib import suppress
from typing import cast

import redis

from handlers.errors import QueueUnavailable
from handlers.request import DecidedMessage
from worker.server import away_as

_LIFE_S = 3600
ACCEPTED, RECORDED = "accepted_ms", "recorded_ms"


def note(client: redis.Redis, messages: Iterable[DecidedMessage], hop: str) -> None:
    """Note that those of *messages* that are canaries have reached *hop*. Repeat: the first time stays. Never fails."""
    for message in messages:
        if nonce := message.evidence.get("canary"):
            key = f"unsubd:canary:{nonce}"
            with suppress(redis.RedisError):  # whoever waits for it says that it did not arrive
                client.hset(key, "source", message.source)
                client.hsetnx(key, hop, str(time.time_ns() // 1_000_000))
                client.expire(key, _LIFE_S)


def seen(client: redis.Redis, nonce: str) -> dict[str, str]:
    """Return what is noted of a canary.

    Errors:  QueueUnavailable  Redis is away.    temporary
    """
    with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
        row = cast(dict[bytes, bytes], client.hgetall(f"unsubd:canary:{nonce}"))
    return {name.decode(): value.decode() for name, value in row.items()}
