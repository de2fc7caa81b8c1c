"""Ways in: each source hands messages to `intake.accept` and acknowledges only what was accepted.

| key              | type | holds                                                           | lives    |
|------------------|------|-----------------------------------------------------------------|----------|
| `unsubd:sources` | HASH | source -> JSON: state, detail, when, messages taken, held back  | for good |
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from threading import Lock
from typing import Any, cast

import redis

from handlers.errors import QueueUnavailable
from worker.journal import Journal
from worker.server import away_as
from worker.sources.lease import standbys

_STATES = "unsubd:sources"
SILENT_AFTER_S = 180  # without a word, whatever it does
_BEAT_S, _BEATLESS_S = 5.0, 20.0  # a killed or frozen process is told within 30 s
_KEPT = ("held", "left", "unread", "oldest_ms", "clear_ms", "login_ends_ms")


class SourceReport:
    """What one source says of itself, for status, doctor and console; a change of state is also a journal line."""

    def __init__(self, client: redis.Redis, journal: Journal, name: str, where: str = "", by: str = "") -> None:
        """Shape: where: what it polls, for people; in no journal line. by: which of several processes could be this one."""
        self._redis = client
        self._journal = journal
        self._name = name
        self._lock = Lock()  # of the facts: what is said and the beat come from different threads
        self._facts: dict[str, Any] = {"state": "", "detail": "", "messages": 0, "last_ms": 0, "where": where}
        self._facts |= dict.fromkeys(_KEPT, 0) | ({"by": by} if by else {})
        self._told = ("", "")  # by this process
        self._said = False
        self.resume()

    def resume(self) -> str:
        """Go on from what was last said of the source, by whichever process; return its trouble, "" when there was none.

        Errors:  QueueUnavailable  Redis is away.    temporary
        """
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
            row = cast(bytes | None, self._redis.hget(_STATES, self._name))
        self._said = bool(row)  # at any time: before that, a beat would be the first word
        kept = json.loads(row or b"{}")
        trouble, detail = (kept["state"], kept["detail"]) if kept.get("state") in _TROUBLES else ("", "")
        with self._lock:
            self._facts |= {fact: kept.get(fact, 0) for fact in ("messages", "last_ms", *_KEPT)}
            self._facts |= {"state": trouble, "detail": detail}  # it lasts until this process knows better
            self._told = ("", "")
        return str(trouble)

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
        aloud: bool = True,
    ) -> None:
        """Tell the state (`connecting`, `idle`, `working`, `waiting`, `refused`, `stopped`) and what was taken. A process
        on `standby` says so by its lease (`worker/sources/lease.py`).

        Units:   messages. held: older than where work begins. left: looked at, not ours, untouched. unread: cannot be
                 fetched. Idle means: everything else that came until now is taken. oldest_ms: event time of the oldest
                 of what is being taken, 0 = nothing is. login_ends_ms: when somebody must log in anew, 0 = not known. aloud:
                 as `Journal.source`.
        """
        with self._lock:
            now_ms = time.time_ns() // 1_000_000
            if (state, detail) != self._told and {state, self._told[0]} - _ROUTINE:
                self._journal.source(self._name, state, detail, aloud=aloud)
            self._told = (state, detail)
            self._facts |= {"state": state, "detail": detail, "at_ms": now_ms, "oldest_ms": oldest_ms}
            if taken:
                self._facts |= {"messages": self._facts["messages"] + taken, "last_ms": now_ms}
            counts = {"held": held, "left": left, "unread": unread, "clear_ms": now_ms if state == "idle" else None}
            counts["login_ends_ms"] = login_ends_ms
            self._facts |= {name: count for name, count in counts.items() if count is not None}
            self._said = True
            try:
                self._redis.hset(_STATES, self._name, json.dumps(self._facts))
            except redis.RedisError:
                # Telling about the trouble needs what is in trouble; the journal line on stderr has said it.
                self._facts["untold"] = True

    @asynccontextmanager
    async def beating(self, may_beat: Callable[[], bool] = lambda: True) -> AsyncIterator[None]:
        """Say every 5 s of the block that this process lives: one that is killed or hangs is `silent` after 20 s."""
        beats = asyncio.create_task(self._beats(may_beat))
        try:
            yield
        finally:
            beats.cancel()

    async def _beats(self, may_beat: Callable[[], bool]) -> None:
        while True:
            if may_beat():
                await asyncio.to_thread(self._beat)
            await asyncio.sleep(_BEAT_S)

    def _beat(self) -> None:
        now_ms = time.time_ns() // 1_000_000
        with self._lock, suppress(redis.RedisError):  # the next beat tells
            self._facts["beat_ms"] = now_ms
            if self._said:
                facts = {"at_ms": now_ms} | self._facts | {"state": self._facts["state"] or "connecting"}
                self._redis.hset(_STATES, self._name, json.dumps(facts))


_ROUTINE = {"idle", "working"}
_TROUBLES = {"waiting", "refused"}


def source_states(client: redis.Redis) -> list[dict[str, Any]]:
    """Return what each source last said; one that says nothing any more is `silent`; then the processes on `standby`.

    Units:   age_s: since it was last heard from.
    """
    rows = cast(dict[bytes, bytes], client.hgetall(_STATES))
    found = [_state(name.decode(), json.loads(row), time.time() * 1000) for name, row in sorted(rows.items())]
    return found + standbys(client)


def _state(name: str, facts: dict[str, Any], now_ms: float) -> dict[str, Any]:
    beat_ms = facts.get("beat_ms", 0)
    beatless = beat_ms and now_ms - beat_ms > _BEATLESS_S * 1000
    speechless = now_ms - facts["at_ms"] > SILENT_AFTER_S * 1000 and facts["state"] != "refused"
    if facts["state"] != "stopped" and (beatless or speechless):
        facts["state"] = "silent"
    return {"name": name, **facts, "age_s": round((now_ms - max(facts["at_ms"], beat_ms)) / 1000, 1)}
