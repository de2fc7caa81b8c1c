"""Subscription tracking settings, as SendGrid's API keeps them: kept and returned byte for byte, used by nobody here.

| key                        | type | holds                                                           | lives    |
|----------------------------|------|-----------------------------------------------------------------|----------|
| `unsubd:tracking:SENDER`   | HASH | enabled, html_content, plain_content, landing, url, replace -> JSON | for good |
"""

import json
from typing import Any, cast

import redis

from handlers.errors import QueueUnavailable
from worker.server import Writer, away_as

_TRACKING = "unsubd:tracking"
DEFAULTS: dict[str, Any] = {
    "enabled": False, "html_content": "", "plain_content": "", "landing": "", "url": "", "replace": "",
}  # fmt: skip


def tracking(client: redis.Redis, sender: str) -> dict[str, Any]:
    """Return the settings of *sender*, all of them. Errors: QueueUnavailable  Redis is away.    temporary"""
    with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
        rows = cast(dict[bytes, bytes], client.hgetall(f"{_TRACKING}:{sender}"))
    return DEFAULTS | {name.decode(): json.loads(row) for name, row in rows.items()}


def change_tracking(
    client: redis.Redis, sender: str, changes: dict[str, Any], *, min_replicas: int = 0
) -> dict[str, Any]:
    """Change what *changes* names, at once, and return all of it. Errors: as `tracking`. Repeat: safe."""
    if changes:
        mapping = {name: json.dumps(value) for name, value in changes.items()}
        Writer(client, min_replicas)(lambda to: to.hset(f"{_TRACKING}:{sender}", mapping=mapping))
    return tracking(client, sender)
