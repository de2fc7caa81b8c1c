"""Who works on a mailbox: one process at a time, by a lease in Redis. The others stand by, and look every second.

A lease lives 20 s and is renewed every 5: the server's own expiry ends it, no machine's clock. Each taking has a token of
its own, by which every effect is fenced: what goes to Redis is compared there, in the same step (`worker/fence.py`); what
goes to the mail server, which knows no token, waits until the lease is surely ours, by a clock that also runs while the
machine sleeps, or until Redis says so. A stop gives the lease back at once. One that a kill -9 left behind is taken over at
once by whoever holds the same place (`worker/sources/place.py`), so that a restart waits for nobody; elsewhere it is waited for.

Limits:  a batch that is in the queue and not yet marked, when its holder is frozen or killed, is queued again by the next
         one: once a take-over, for who lost the lease queues nothing any more. The same requests have one effect.
Why:     the token is random and no number that grows: a Redis that failed over may have forgotten the last number.

| key                 | type   | holds                                                           | lives                 |
|---------------------|--------|-----------------------------------------------------------------|-----------------------|
| `unsubd:lease:HASH` | STRING | who works on a mailbox: place, token, process; HASH of where it is | 20 s, renewed every 5 |
| `unsubd:standby`    | ZSET   | `SOURCE@PROCESS` that stands by -> when it last looked, s UTC   | 20 s                  |
"""

import asyncio
import math
import os
import secrets
import socket
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from hashlib import sha256
from typing import Any, TypeVar

import redis

from handlers.errors import MailboxUnavailable, QueueUnavailable
from worker.fence import Fence, LeaseLost
from worker.points import point
from worker.server import away_as, check_confirmed, confirm
from worker.sources.place import Place

_LEASE, _STANDBY = "unsubd:lease:", "unsubd:standby"
LIFE_S = 20
_RENEW_S, _RENEW_AGAIN_S = 5.0, 1.0
_SURE_S = 15.0  # of its life: the rest is for the effect's way to the mail server
_LOOK_S = 1.0
_AWAITED_S = 3  # a standby that looked so lately is there
_T = TypeVar("_T")

# ARGV: value, life in ms, who we are, and our place as the value begins with it ("" = we have none).
_TAKE = """
local held, now_s = redis.call('GET', KEYS[1]), redis.call('TIME')[1]
if held and (ARGV[4] == '' or string.sub(held, 1, #ARGV[4]) ~= ARGV[4]) then
  redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now_s - 20)
  redis.call('ZADD', KEYS[2], now_s, ARGV[3])
  redis.call('EXPIRE', KEYS[2], 20)
  return held
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('ZREM', KEYS[2], ARGV[3])
return ''
"""
_RENEW = "return redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('PEXPIRE', KEYS[1], ARGV[2]) or 0"
_GIVE_BACK = """
redis.call('ZREM', KEYS[2], ARGV[2])
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
"""


class LeaseTaken(MailboxUnavailable):
    """Another living process works on the mailbox."""


def process_name() -> str:
    """Return the name by which people know this process."""
    return f"{socket.gethostname().partition('.')[0]}-{os.getpid()}"


class Lease:
    """One mailbox's lease, as one process sees it.

    Errors:  QueueUnavailable  Redis is away.    temporary
             LeaseLost         it may be another's by now.    temporary
    """

    def __init__(
        self, client: redis.Redis, place: Place, source: str, of: Sequence[str], min_replicas: int = 0
    ) -> None:
        """Shape: of: what tells the mailbox from all others, whatever each process calls it."""
        self._redis = client
        self._place = place
        self._source = source
        self._me = f"{source}@{process_name()}"
        self._min_replicas = min_replicas
        self._key = _LEASE + sha256("\0".join(of).encode()).hexdigest()[:32]
        self._value = ""
        self._sure_until = -math.inf
        # Alone, so that nothing is given back before it was taken, and no slow batch holds up a renewal.
        self._thread = ThreadPoolExecutor(1, "lease")

    def is_sure(self) -> bool:
        """Say whether the lease is ours, and stays so for the next seconds."""
        return _now() < self._sure_until

    @property
    def fence(self) -> Fence:
        """What an effect in Redis is compared with."""
        return Fence(self._key, self._value)

    async def hold(
        self, work: Callable[[], Coroutine[Any, Any, _T]], tell: Callable[[str], None], patience_s: float = math.inf
    ) -> _T:
        """Stand by until the lease is ours, do *work* as long as it is, and give it back. Return what *work* does.

        Shape:   tell: called with the name of who has it, when that changes.
        Errors:  LeaseTaken  somebody still has it after *patience_s*.    temporary
                 LeaseLost   *work* was cancelled, because the lease is gone.    temporary
        """
        try:
            await self._taken(tell, patience_s)
            return await self._during(work())
        finally:
            await self._called(self._give_back)

    async def _taken(self, tell: Callable[[str], None], patience_s: float) -> None:
        ends_at, told = _now() + patience_s, ""
        place = await self._called(self._place.held)
        self._value = f"{place or '-'} {secrets.token_hex(8)} {process_name()}"
        while holder := await self._called(self._take):
            if holder != told:
                tell(holder)
                told = holder
            if _now() > ends_at:
                raise LeaseTaken(f"{self._source}: {holder} works on it, and takes what comes")
            await asyncio.sleep(_LOOK_S)
            if not place and (place := await self._called(self._place.held)):
                self._value = f"{place}{self._value[1:]}"

    async def _during(self, work: Coroutine[Any, Any, _T]) -> _T:
        working, renewing = asyncio.ensure_future(work), asyncio.ensure_future(self._renewing())
        try:
            await asyncio.wait({working, renewing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended = working.done()
            working.cancel()
            renewing.cancel()
            await asyncio.gather(working, renewing, return_exceptions=True)
        return working.result() if ended else renewing.result()

    async def _renewing(self) -> Any:
        wait_s = _RENEW_S
        while True:
            await asyncio.sleep(wait_s)
            try:
                await self._called(self._renew)
                wait_s = _RENEW_S
            except QueueUnavailable:  # until it answers, `require` lets nothing pass
                wait_s = _RENEW_AGAIN_S

    async def require(self) -> None:
        """Return when the lease is ours and stays so for the next seconds; costs a round trip only in doubt."""
        if not self.is_sure():
            await self.ask()

    async def ask(self) -> None:
        """Return when Redis says that the lease is ours."""
        await self._called(self._renew)

    async def is_awaited(self) -> bool:
        """Say whether another process stands by for this source. Errors: none: when Redis is away, nobody can take it."""
        with suppress(QueueUnavailable):
            return await self._called(self._has_standby)
        return False

    async def _called(self, call: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    def _take(self) -> str:
        """Take it; return who has it instead, "" when it is ours."""
        place, begun_at = self._value.partition(" ")[0], _now()
        args = (self._value, LIFE_S * 1000, self._me, "" if place == "-" else f"{place} ")
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.eval(_TAKE, 2, self._key, _STANDBY, *args)
            confirm(pipeline, self._min_replicas)  # or the next master could give it to another one, too
            with point("lease.take"):
                held, *_ = check_confirmed(pipeline.execute(), self._min_replicas, QueueUnavailable)
        if held:
            return str(held.decode().rpartition(" ")[2])
        self._sure_until = begun_at + _SURE_S
        return ""

    def _renew(self) -> None:
        begun_at = _now()
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
            is_ours = self._redis.eval(_RENEW, 1, self._key, self._value, LIFE_S * 1000)
        if not is_ours:
            self._sure_until = -math.inf
            raise LeaseLost(f"{self._source}: its lease ended, or went to another process")
        self._sure_until = begun_at + _SURE_S

    def _give_back(self) -> None:
        self._sure_until = -math.inf
        with suppress(redis.RedisError), point("lease.give-back"):  # else it ends by itself
            self._redis.eval(_GIVE_BACK, 2, self._key, _STANDBY, self._value, self._me)

    def _has_standby(self) -> bool:
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
            found = _standing_by(self._redis, _AWAITED_S)
        return any(name.startswith(f"{self._source}@") for name, _ in found)


def _standing_by(client: redis.Redis, since_s: int) -> list[tuple[str, float]]:
    seconds: Any = client.time()[0]
    rows: Any = client.zrangebyscore(_STANDBY, seconds - since_s, "+inf", withscores=True)
    return [(name.decode(), max(0.0, seconds - at_s)) for name, at_s in rows]


def standbys(client: redis.Redis) -> list[dict[str, Any]]:
    """Return who stands by, with the facts of `worker.sources.source_states`."""
    facts = {"state": "standby", "detail": "takes over when whoever works on it ends", "messages": 0, "last_ms": 0}
    return [{"name": name, **facts, "age_s": age_s} for name, age_s in _standing_by(client, LIFE_S)]


def _now() -> float:
    """Seconds of a clock that nobody sets and that goes on while the machine sleeps (where the system has one)."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
