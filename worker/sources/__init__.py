"""Ways in: each source hands messages to `intake.accept` and acknowledges only what was accepted.

| key              | type | holds                                                           | lives    |
|------------------|------|-----------------------------------------------------------------|----------|
| `unsubd:sources` | HASH | source -> JSON: state, detail, when, messages taken, held back  | for good |
"""

import json
import time
from typing import Any, cast

import redis

from handlers.errors import QueueUnavailable
from worker.journal import Journal
from worker.server import away_as

_STATES = "unsubd:sources"
SILENT_AFTER_S = 180
_KEPT = ("held", "left", "unread", "oldest_ms", "clear_ms", "login_ends_ms")


class SourceReport:
    """What one source says of itself, for status, doctor and console; a change of state is also a journal line."""

    def __init__(self, client: redis.Redis, journal: Journal, name: str) -> None:
        self._redis = client
        self._journal = journal
        self._name = name
        self._facts: dict[str, Any] = {"state": "", "detail": "", "messages": 0, "last_ms": 0} | dict.fromkeys(_KEPT, 0)
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
            kept = cast(bytes | None, client.hget(_STATES, name))
        if kept:
            self._facts |= {fact: json.loads(kept).get(fact, 0) for fact in ("messages", "last_ms", *_KEPT)}

    def say(
        self,
        state: str,
        detail: str = "",
        *,
        taken: int = 0,
        held: int | None = None,
        left: int | None = None,
        unread: int | None = None,
        oldest_ms: int = 0,
        login_ends_ms: int | None = None,
    ) -> None:
        """Tell the state (`connecting`, `idle`, `working`, `waiting`, `refused`, `stopped`) and what was taken.

        Units:   messages. held: older than where work begins. left: looked at, not ours, untouched. unread: cannot be
                 fetched. Idle means: everything else that came until now is taken. oldest_ms: event time of the oldest
                 of what is being taken, 0 = nothing is. login_ends_ms: when somebody must log in anew, 0 = not known.
        """
        now_ms = time.time_ns() // 1_000_000
        if (state, detail) != (self._facts["state"], self._facts["detail"]) and {
            state,
            self._facts["state"],
        } - _ROUTINE:
            self._journal.source(self._name, state, detail)
        self._facts |= {"state": state, "detail": detail, "at_ms": now_ms, "oldest_ms": oldest_ms}
        if taken:
            self._facts |= {"messages": self._facts["messages"] + taken, "last_ms": now_ms}
        counts = {"held": held, "left": left, "unread": unread, "clear_ms": now_ms if state == "idle" else None}
        counts["login_ends_ms"] = login_ends_ms
        self._facts |= {name: count for name, count in counts.items() if count is not None}
        try:
            self._redis.hset(_STATES, self._name, json.dumps(self._facts))
        except redis.RedisError:
            # Telling about the trouble needs what is in trouble; the journal line on stderr has said it.
            self._facts["untold"] = True


_ROUTINE = {"idle", "working"}


def source_states(client: redis.Redis) -> list[dict[str, Any]]:
    """Return what each source last said, with its age; a source that stopped saying anything is `silent`."""
    rows = cast(dict[bytes, bytes], client.hgetall(_STATES))
    states = []
    for name, row in sorted(rows.items()):
        facts = json.loads(row)
        age_s = round(time.time() - facts["at_ms"] / 1000, 1)
        if age_s > SILENT_AFTER_S and facts["state"] not in ("refused", "stopped"):
            facts["state"] = "silent"
        states.append({"name": name.decode(), **facts, "age_s": age_s})
    return states
