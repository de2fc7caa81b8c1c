"""What each target has not been told yet: since when, how many changes, and why the last try failed.

A job's entry is written in the transaction that enqueues it and ends when the provider knows, or the target is removed. So a
job that ran out of tries still counts; `forward sync` takes it up again.

| key                          | type | holds                                                               | lives         |
|------------------------------|------|---------------------------------------------------------------------|---------------|
| `unsubd:forward:owed:TARGET` | ZSET | `TOKEN:CHANGES` of each job that is not done, by its oldest event, ms | until done    |
| `unsubd:forward:woe:TARGET`  | HASH | since_ms, at_ms and why of the tries that failed since one succeeded | until it does |
"""

import json
import secrets
import time
from dataclasses import dataclass
from typing import Any, cast

import redis

from handlers.errors import QueueUnavailable
from handlers.forwarding import remedy
from worker.points import point
from worker.server import away_as

TARGETS = "unsubd:forwards"
_OWED, _WOE = "unsubd:forward:owed:", "unsubd:forward:woe:"
_WHY_LENGTH = 200


@dataclass(frozen=True, slots=True)
class Owing:
    """One target's changes that wait. Shape: why, remedy: "" unless the last try failed. Units: 0 = nothing, ms UTC."""

    target: str
    sender: str
    provider: str
    changes: int
    oldest_ms: int
    failing_ms: int
    why: str
    remedy: str


def new_entry(changes: int) -> str:
    """Return the entry of a job that carries so many changes."""
    return f"{secrets.token_hex(8)}:{changes}"


def note(pipeline: Any, target: str, entry: str, oldest_ms: int) -> None:
    """Count a job's changes from now on, by a command of the transaction that enqueues it."""
    pipeline.zadd(f"{_OWED}{target}", {entry: oldest_ms})


def settle(client: redis.Redis, target: str, entry: str) -> None:
    """Count a job's changes no more: the provider knows. Errors: QueueUnavailable  Redis is away.    temporary"""
    with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
        pipeline = client.pipeline()
        pipeline.zrem(f"{_OWED}{target}", entry)
        pipeline.delete(f"{_WOE}{target}")
        with point("forward.settle"):
            pipeline.execute()


def failed(client: redis.Redis, target: str, why: str) -> None:
    """Remember why a try failed. Errors: QueueUnavailable  Redis is away.    temporary"""
    now_ms = time.time_ns() // 1_000_000
    with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
        pipeline = client.pipeline()
        pipeline.hsetnx(f"{_WOE}{target}", "since_ms", str(now_ms))
        pipeline.hset(
            f"{_WOE}{target}", mapping={"at_ms": now_ms, "why": why.removeprefix(f"{target}: ")[:_WHY_LENGTH]}
        )
        pipeline.execute()


def end(client: redis.Redis, target: str) -> None:
    """Owe a target nothing: it was removed."""
    client.delete(f"{_OWED}{target}", f"{_WOE}{target}")


def every(client: redis.Redis) -> list[Owing]:
    """Return what each target is owed, by name; three commands for each. Errors: QueueUnavailable  Redis is away.    temporary"""
    with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
        rows = sorted(cast(dict[bytes, bytes], client.hgetall(TARGETS)).items())
        pipeline = client.pipeline(transaction=False)
        for name, _ in rows:
            pipeline.zrange(f"{_OWED}{name.decode()}", 0, -1, withscores=True)
            pipeline.hgetall(f"{_WOE}{name.decode()}")
        replies = iter(pipeline.execute())
    return [_owing(name.decode(), json.loads(row), next(replies), next(replies)) for name, row in rows]


def _owing(name: str, row: dict[str, Any], jobs: list[tuple[bytes, float]], woe: dict[bytes, bytes]) -> Owing:
    changes = sum(int(member.rpartition(b":")[2]) for member, _ in jobs)
    why = woe.get(b"why", b"").decode("utf-8", "replace")
    return Owing(
        name, str(row.get("sender", "")), str(row.get("provider", "")), changes, int(jobs[0][1]) if jobs else 0,
        int(woe.get(b"since_ms", 0)), why, remedy(name, why) if why else "",
    )  # fmt: skip
