"""Webhook endpoints as sources: when each last took a delivery and last turned one away, and how it is now.

Only configured endpoints are in it, so that nobody fills it by making up names; a process writes one at most every second.

| key                | type | holds                                                            | lives    |
|--------------------|------|------------------------------------------------------------------|----------|
| `unsubd:endpoints` | HASH | PROVIDER:NAME, and `refused` or `taken` -> when last, ms UTC     | for good |
"""

import time
from typing import Any, cast

import redis

from handlers.errors import QueueUnavailable
from worker import habits
from worker.hooks import Hook, Hooks
from worker.server import away_as

TAKEN, REFUSED = "taken", "refused"
UNPROVED_POSTS = 10  # in two hours: one is a scanner, ten are a secret that was changed on one side
_ENDPOINTS = "unsubd:endpoints"
_EVERY_S = 1.0


class Endpoints:
    """Notes what one process hears at its endpoints."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client
        self._noted: dict[str, float] = {}

    def note(self, endpoint: str, what: str) -> None:
        """Note that a configured *endpoint* ("relay:default") took a delivery or refused one: TAKEN or REFUSED, now.

        Errors:  none: the post's work is done, and Redis being away is told elsewhere.
        """
        field, now_s = f"{endpoint} {what}", time.monotonic()
        if now_s - self._noted.get(field, -_EVERY_S) < _EVERY_S:
            return
        try:
            self._redis.hset(_ENDPOINTS, field, time.time_ns() // 1_000_000)
        except redis.RedisError:
            return
        self._noted[field] = now_s


def endpoint_states(client: redis.Redis, hooks: Hooks) -> list[dict[str, Any]]:
    """Return every configured endpoint, with the facts of `worker.sources.source_states`, by name.

    Shape:   state: `listening`, or `unproved` while its posts do not prove themselves and none since did. messages: those
             with a record. last_ms: its last delivery. unproved: posts of two hours with a wrong signature or none.
             age_s: since anything was posted, 0.0 where nothing ever was.
    Errors:  QueueUnavailable  Redis is away.    temporary
    """
    with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
        rows = cast(dict[bytes, bytes], client.hgetall(_ENDPOINTS))
    times = {field.decode(): int(at_ms) for field, at_ms in rows.items()}
    known, unproved = habits.habits(client), habits.unproved_posts(client)
    found = []
    for hook in hooks.every():
        name = hook.source
        count = known[name].count if name in known else 0
        found.append(_state(hook, name, times, messages=count, unproved=unproved.get(name[:60], 0)))
    return found


def _state(hook: Hook, name: str, times: dict[str, int], *, messages: int, unproved: int) -> dict[str, Any]:
    taken_ms, refused_ms = times.get(f"{name} {TAKEN}", 0), times.get(f"{name} {REFUSED}", 0)
    heard_ms = max(taken_ms, refused_ms)
    detail = f"{unproved} posts in two hours do not prove themselves" if unproved else ""
    if not hook.proofs:
        detail = f"no secret is set, every post is refused: unsubd hook add {hook.provider}"
    bad = not hook.proofs or (unproved >= UNPROVED_POSTS and refused_ms > taken_ms)
    return {
        "name": name, "kind": "webhook", "state": "unproved" if bad else "listening", "detail": detail,
        "messages": messages, "last_ms": taken_ms, "unproved": unproved, "held": 0, "left": 0,
        "age_s": round(max(0.0, time.time() - heard_ms / 1000), 1) if heard_ms else 0.0,
    }  # fmt: skip
