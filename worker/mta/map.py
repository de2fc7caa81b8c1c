"""Which mail is whose: the routes by which a mail server's mail is checked and stamped.

| key              | type | holds                                                                         | lives         |
|------------------|------|-------------------------------------------------------------------------------|---------------|
| `unsubd:mta:map` | HASH | `from:…`, `user:…` or `port:…` -> JSON {sender, group, discard}               | until removed |
"""

import json
from dataclasses import asdict
from typing import cast

import redis

from handlers.errors import QueueUnavailable
from handlers.route import Route, read_key
from worker.server import Writer, away_as

_MAP = "unsubd:mta:map"


class Routes:
    """The routes of one installation.

    Errors:  QueueUnavailable  every method, when Redis is away.    temporary
    """

    def __init__(self, client: redis.Redis, *, min_replicas: int = 0) -> None:
        self._redis = client
        self._confirmed = Writer(client, min_replicas)

    def add(self, key: str, route: Route) -> None:
        """Keep a route, in place of the one the key had. Repeat: safe. Errors: Rejected  not a key.    permanent"""
        self._confirmed(lambda to: to.hset(_MAP, read_key(key), json.dumps(asdict(route))))

    def remove(self, key: str) -> bool:
        """Remove a route; say whether it was there. Errors: Rejected  not a key.    permanent"""
        return bool(self._confirmed(lambda to: to.hdel(_MAP, read_key(key))))

    def every(self) -> dict[str, Route]:
        """Return every route by its key, sorted."""
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
            rows = cast(dict[bytes, bytes], self._redis.hgetall(_MAP))
        return {key.decode(): Route(**json.loads(row)) for key, row in sorted(rows.items())}
