"""Forwarders: each change is also written to the provider that sends, for it keeps sending by its own lists.

A job names only (sender, group, recipient). When it runs it reads the register and makes the far side equal, one job a
target at a time, so that two changes cannot cross on their way. What the far side was last made, or told us, is known for a
week, and spares the call.

| key                         | type   | holds                                                        | lives         |
|-----------------------------|--------|--------------------------------------------------------------|---------------|
| `unsubd:forwards`           | HASH   | target -> JSON {sender, provider, base, account, places, …} | until removed |
| `unsubd:far:TARGET:KEYED`   | STRING | 1 suppressed there, 0 not, ? unknown; since when, by what    | 7 days        |
| `unsubd:forwarding:TARGET`  | STRING | token of the job that works on it                            | 30 s          |
"""

import json
import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import urlsplit

import redis
from rq import Queue
from rq.serializers import JSONSerializer

from handlers.errors import ConfigError, QueueUnavailable, Rejected, Unavailable
from handlers.events import changes
from handlers.forwarding import JOB_SIZE, check_places, forwarder, groups_told, ses
from handlers.request import DecidedMessage
from handlers.tag import Keyring
from worker.batch import FORWARD, UnsubdJob, new_outgoing
from worker.forwarding import owing
from worker.forwarding.owing import TARGETS
from worker.journal import Journal
from worker.keys import seal, unseal
from worker.points import point
from worker.server import Writer, away_as

_FAR, _LEASE = "unsubd:far:", "unsubd:forwarding:"
_PURPOSE = b"unsubd-forward-1"
_NAME = re.compile(r"[a-z0-9-]{1,40}")
_FRESH_S = 5.0
_KNOWN_S = 7 * 86400
# A call takes 20 s at most; the lease of a job that was killed runs out while the next one waits.
_LEASE_S, _LEASE_WAIT_S = 30, 60.0
AT_ONCE = 500
_CLOCKS_MS = 5000  # so far may the provider's clock and ours be apart
_RENEW = "return redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('EXPIRE', KEYS[1], ARGV[2]) or 0"
_GIVE_UP = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end"


@dataclass(frozen=True, slots=True)
class Target:
    """A provider's lists that follow a sender's suppressions.

    Shape:   places: our group -> its place there. account: Mailgun's domain, SES's contact list, else "". base: where the API is.
             told_by: the proof that the provider's own event webhook brings, "" = it tells us nothing.
    """

    name: str
    sender: str
    provider: str
    secret: str = field(repr=False)
    places: dict[int, str]
    account: str = ""
    base: str = ""
    told_by: str = field(default="", repr=False)

    @property
    def has_global(self) -> bool:
        """Say whether the provider has a place for what stops everything."""
        return forwarder(self.provider).GLOBAL is not None


class Forwards:
    """The targets of one installation, as one process knows them: at most 5 s old.

    Errors:  QueueUnavailable  every method, when Redis is away.    temporary
    """

    def __init__(self, client: redis.Redis, queue: Queue, keys: Keyring, *, min_replicas: int = 0) -> None:
        self._redis = client
        self._confirmed = Writer(client, min_replicas)
        self._queue = queue
        self._keys = keys
        self._known: tuple[float, list[Target]] | None = None

    def tell(self, entries: Iterable[tuple[DecidedMessage, Sequence[dict[str, Any]]]]) -> None:
        """Enqueue what changed, for each target of its sender; one that told us of a change itself does not hear it."""
        changed = [each for message, results in entries for each in changes(message, results)]
        for target in self._fresh() if changed else []:
            times: dict[tuple[int, str], int] = {}
            for each in changed:
                if each["sender"] == target.sender and each["source"] != f"provider:{target.name}":
                    for group in groups_told(target.places, each["group"], has_global=target.has_global):
                        item = (group, each["recipient"])
                        times[item] = min(each["at_ms"], times.get(item, each["at_ms"]))
            self.enqueue(target, times, times)

    def enqueue(
        self, target: Target, items: Iterable[tuple[int, str]], times: Mapping[tuple[int, str], int] | None = None
    ) -> int:
        """Enqueue (group, recipient)s to be made equal at *target*; return how many. Repeat: one call at most.

        Units:   times: of their events, ms UTC; None = now.
        """
        found, times, now_ms = list(dict.fromkeys(items)), times or {}, time.time_ns() // 1_000_000
        size = JOB_SIZE.get(target.provider, AT_ONCE)
        for start in range(0, len(found), size):
            batch = [
                {"sender": target.sender, "group": group, "recipient": each, "at_ms": times.get((group, each), now_ms)}
                for group, each in found[start : start + size]
            ]
            self._enqueue(target, batch)
        return len(found)

    def _enqueue(self, target: Target, batch: list[dict[str, Any]]) -> None:
        entry, about = owing.new_entry(len(batch)), f"{len(batch)} of {target.name}"
        job = new_outgoing(self._queue, FORWARD, about, target=target.name, batch=batch, owed=entry)
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"), self._redis.pipeline() as pipeline:
            self._queue.enqueue_job(job, pipeline=pipeline)
            owing.note(pipeline, target.name, entry, min(each["at_ms"] for each in batch))
            with point("forward.enqueue"):
                pipeline.execute()

    def again(self, target: Target) -> int:
        """Take up again what ran out of tries; return how many recipients. Repeat: one call at most."""
        registry, count = self._queue.failed_job_registry, 0
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
            found = UnsubdJob.fetch_many(registry.get_job_ids(cleanup=False), self._redis, JSONSerializer)
            for job in found:
                batch = job.carried(FORWARD) if isinstance(job, UnsubdJob) else None
                if job is None or not batch or job.kwargs.get("target") != target.name:
                    continue
                self._enqueue(target, [{"at_ms": time.time_ns() // 1_000_000, **each} for each in batch])
                owing.settle(self._redis, target.name, str(job.kwargs.get("owed", "")))
                registry.remove(job, delete_job=True)
                count += len(batch)
        return count

    def _fresh(self) -> list[Target]:
        if self._known is None or time.monotonic() - self._known[0] > _FRESH_S:
            self._known = time.monotonic(), self._readable()
        return self._known[1]

    def _readable(self) -> list[Target]:
        """The targets, without those that no active key opens: they must stop nobody's request."""
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
            rows = cast(dict[bytes, bytes], self._redis.hgetall(TARGETS))
        found = []
        for name, row in sorted(rows.items()):
            try:
                found.append(self._read(name.decode(), json.loads(row)))
            except (ConfigError, KeyError, ValueError) as error:
                Journal(self._redis).failed(
                    "forward", f"{name.decode()}: {type(error).__name__}: unsubd forward add it again"
                )
        return found

    def every(self) -> list[Target]:
        """Return every target, by name."""
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
            rows = cast(dict[bytes, bytes], self._redis.hgetall(TARGETS))
        return [self._read(name.decode(), json.loads(row)) for name, row in sorted(rows.items())]

    def find(self, name: str) -> Target | None:
        """Return a target, None when there is none of that name."""
        return next((each for each in self.every() if each.name == name), None)

    def add(self, target: Target) -> Target:
        """Keep a target, in the place of one of that name; return it as it is kept.

        Errors:  Rejected  an unknown provider, a name or URL that cannot be, no place at all.    permanent
        """
        kept = _checked(target)
        row = {
            "sender": kept.sender, "provider": kept.provider, "base": kept.base, "account": kept.account,
            "places": {str(group): place for group, place in kept.places.items()},
            "sealed": seal(json.dumps([kept.secret, kept.told_by]).encode(), self._keys.masters, _PURPOSE),
        }  # fmt: skip
        self._known = None
        self._confirmed(lambda to: to.hset(TARGETS, kept.name, json.dumps(row)))
        return kept

    def remove(self, name: str) -> bool:
        """Forward no more; say whether there was such a target. Jobs that wait end with nothing said."""
        self._known = None
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
            owing.end(self._redis, name)
        return bool(self._confirmed(lambda to: to.hdel(TARGETS, name)))

    def _read(self, name: str, row: dict[str, Any]) -> Target:
        secret, complete = unseal(row["sealed"], self._keys.masters, _PURPOSE)
        places = {int(group): place for group, place in row["places"].items()}
        key, told_by = json.loads(secret)
        target = Target(name, row["sender"], row["provider"], key, places, row["account"], row["base"], told_by)
        if not complete:
            self.add(target)  # under a master that came since: the old one may go
        return target

    @contextmanager
    def alone(self, target: Target) -> Iterator[Callable[[], None]]:
        """Work on *target* alone; yields what renews that, to be called before each call.

        Errors:  Unavailable  another job works on it, or took it over.    temporary
        """
        token, deadline = secrets.token_hex(8), time.monotonic() + _LEASE_WAIT_S
        key = _LEASE + target.name
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
            while not self._redis.set(key, token, nx=True, ex=_LEASE_S):
                if time.monotonic() > deadline:
                    raise Unavailable(
                        f"forwarding to {target.name}: another job works on it, expected it to end in 60 s"
                    )
                time.sleep(0.2)
        try:
            yield lambda: self._renew(target, token)
        finally:
            with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
                self._redis.eval(_GIVE_UP, 1, key, token)

    def _renew(self, target: Target, token: str) -> None:
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
            if not self._redis.eval(_RENEW, 1, _LEASE + target.name, token, str(_LEASE_S)):
                raise Unavailable(f"forwarding to {target.name}: another job took it over, expected a call within 30 s")

    def known(self, target: Target, names: Sequence[str]) -> list[bool | None]:
        """Return what each keyed name is at *target*: suppressed, not, or None for unknown."""
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
            found = cast(list[bytes | None], self._redis.mget([_far(target, each) for each in names]))
        return [_KNOWN.get(each[:1]) if each else None for each in found]

    def wrote(self, target: Target, names: Sequence[str], suppressed: bool | None) -> None:
        """Remember what a call of ours made the far side; None while the call is on its way: its answer may be lost."""
        value = f"{_flag(suppressed)}:{time.time_ns() // 1_000_000}:"
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
            pipeline = self._redis.pipeline(transaction=False)
            for each in names:
                pipeline.set(_far(target, each), value, ex=_KNOWN_S)
            with point("forward.remember"):
                pipeline.execute()

    def heard(self, target: Target, name: str, suppressed: bool | None, at_ms: int, event: str) -> bool:
        """Remember what *target* told of a keyed name; say whether it is known from now on what the far side is.

        Why:     events come late, twice and out of order: one that a call of ours or a later event came after tells nothing.
        """
        key = _far(target, name)
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"), self._redis.pipeline() as pipeline:
            while True:
                try:
                    pipeline.watch(key)  # type: ignore[no-untyped-call]
                    before = cast(bytes | None, cast(Any, pipeline.get(key))) or b"?:0:"
                    _, time_of, by = before.decode().split(":", 2)
                    if by == event:
                        return True
                    is_late = int(time_of) >= (at_ms if by else at_ms - _CLOCKS_MS)
                    found = "?" if is_late else _flag(suppressed)
                    pipeline.multi()
                    pipeline.set(key, f"{found}:{max(at_ms, int(time_of))}:{event}", ex=_KNOWN_S)
                    with point("forward.hear"):
                        pipeline.execute()
                except redis.WatchError:
                    continue
                return not is_late


_KNOWN = {b"1": True, b"0": False}


def _flag(suppressed: bool | None) -> str:
    return "?" if suppressed is None else str(int(suppressed))


def _far(target: Target, name: str) -> str:
    return f"{_FAR}{target.name}:{name}"


def _checked(target: Target) -> Target:
    module = forwarder(target.provider)
    name = target.name or f"{target.sender}-{target.provider}"
    base = (target.base or module.BASE).rstrip("/")
    parts = urlsplit(base)
    if not _NAME.fullmatch(name):
        raise Rejected(f"name {name[:40]!r}: expected 1 to 40 of a-z, 0-9 and -")
    local = parts.hostname in ("localhost", "127.0.0.1", "::1")
    if not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and local)):
        raise Rejected(f"base {base[:80]!r}: expected https://…, or http:// on this machine")
    if target.provider == "ses":
        ses.key_pair(target.secret)
    places = {**({0: module.GLOBAL} if module.GLOBAL else {}), **target.places}
    check_places(target.provider, target.account, places)
    return Target(name, target.sender, target.provider, target.secret, places, target.account, base, target.told_by)
