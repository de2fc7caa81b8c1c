"""Deliveries that are durable already: the provider's repeat of one needs no new work.

A delivery is remembered only after its mail is safe; remembered before, the retry of a post that failed half-way would
be a silent loss. Losing this memory costs nothing but work: a request is idempotent anyway. So it is bounded: by time,
and by a number of deliveries per endpoint, beyond which new ones are not remembered until older ones are forgotten.

| key                                 | type | holds                                 | lives                       |
|-------------------------------------|------|---------------------------------------|-----------------------------|
| `unsubd:deliveries:PROVIDER:NAME:N` | HASH | digest of a name -> that of a content | twice the provider's window |
"""

import time
from hashlib import sha256
from typing import cast

import redis

from handlers.errors import PayloadInvalid, QueueUnavailable
from handlers.providers.delivery import Delivery
from worker.points import point
from worker.server import away_as

_KEY = "unsubd:deliveries:"
_KEPT_COUNT = 200_000  # of about 80 octets, in each of two periods
_DIGEST_BYTES = 16


class DeliveryForged(PayloadInvalid):
    """A captured signature with a body of somebody else's."""


class Deliveries:
    """What each endpoint took already.

    Errors:  QueueUnavailable  both methods, when Redis is away.    temporary
    """

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client

    def is_known(self, source: str, delivery: Delivery) -> bool:
        """Say whether *source* took *delivery*.

        Shape:   source: provider:name.
        Errors:  DeliveryForged  it took another content under this name: a forgery.    permanent
        """
        field, content = _digest(delivery.name), bytes.fromhex(delivery.content)[:_DIGEST_BYTES]
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"), self._redis.pipeline(transaction=False) as pipeline:
            for key in _keys(source, delivery.kept_s, time.time()):
                pipeline.hget(key, field)
            taken = [each for each in cast(list[bytes | None], pipeline.execute()) if each is not None]
        if any(each != content for each in taken):
            raise DeliveryForged(
                "a delivery of this signature was taken with another body: expected the same one again"
            )
        return bool(taken)

    def remember(self, source: str, delivery: Delivery) -> None:
        """Remember that *source*'s *delivery* is durable.

        Repeat:  the first content stays.
        """
        now, _ = _keys(source, delivery.kept_s, time.time())
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
            if self._redis.hlen(now) >= _KEPT_COUNT:
                return
            with self._redis.pipeline(transaction=False) as pipeline:
                pipeline.hsetnx(now, _digest(delivery.name), bytes.fromhex(delivery.content)[:_DIGEST_BYTES])
                pipeline.expire(now, 2 * delivery.kept_s)
                with point("webhook.remember"):
                    pipeline.execute()


def _digest(name: str) -> bytes:
    return sha256(name.encode("utf-8", "surrogatepass")).digest()[:_DIGEST_BYTES]


def _keys(source: str, period_s: int, now_s: float) -> tuple[str, str]:
    """The keys of this period and of the one before it: together they go back a whole period at least."""
    period = int(now_s) // period_s
    return f"{_KEY}{source}:{period}", f"{_KEY}{source}:{period - 1}"
