"""The job: a batch of decided messages. What RQ may run of it, and what becomes of one that dies.

RQ's JSON serializer still imports any dotted name, so `UnsubdJob` refuses what is not on its list. A batch that dies
twice is halved, and a half that dies once is halved again, until the culprit stands alone: then its tries count (10, 60,
300 s, or five dead workers) and it fails, for the quarantine. A process that ends while its job waits for an outage, or
because it was told to stop, is excused: that counts for nothing.

Two fields of ours stand in RQ's hash of a job: `deaths` (workers that died with it in hand) and `excused` (why its next
death does not count). RQ keeps fields that it does not know.
"""

import re
import secrets
import zlib
from typing import Any

from redis import RedisError
from rq import Queue, Retry
from rq.exceptions import DeserializationError
from rq.job import Job

from handlers.errors import ConfigError, Rejected
from worker.journal import Journal
from worker.points import point

RECORD = "worker.jobs.record"  # wire format: renaming one strands queued jobs
VERSION = 1  # of what jobs carry: a change that an older program would misread gets the next number
POST_EVENTS, FORWARD = "worker.events.jobs.post", "worker.forwarding.jobs.forward"
DEATHS, EXCUSED = "deaths", "excused"
TRIES = 3
RETRY_AFTER_S = [10, 60, 300]
BATCH_RETRY_AFTER_S = 5  # the first death of a batch may be anybody's: repeated once, whole
OUTGOING_RETRY_AFTER_S = [10, 30, 60, 300, 900, 1800, *[3600] * 25]  # 26 hours
_OUTGOING_TIMEOUT_S = 300
MAX_DEATHS = 5  # of a worker, for a message that stands alone
_FAILURES_TO_HALVE = 2
_ALLOWED = {RECORD, POST_EVENTS, FORWARD}
_RESULT_TTL_S = 300  # finished jobs hold addresses: long enough to look at, no longer
_PREFIX = "unsub-"
_HOLDS = re.compile(r"(?:(\d+) requests? in )?(\d+) messages?")
# Whoever can write Redis can put such a job there, and it must stop nobody.
_UNREADABLE = (DeserializationError, AttributeError, KeyError, TypeError, ValueError)
# An orphan may wait on after its job was halved: a hash that is gone must not come back without its lifetime.
_SET_EXISTING = "if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) end"


class UnsubdJob(Job):
    """An RQ job that runs allow-listed functions only: whoever can write Redis must not run code.

    Errors:  Rejected  any other function, and every callback (none is ours).    permanent
    """

    _is_kept = False

    @property
    def func(self) -> Any:
        if self.func_name not in _ALLOWED or self.instance is not None:
            raise Rejected(f"job function {str(self.func_name)[:60]!r}: not on the allow-list")
        return super().func

    @property
    def success_callback(self) -> Any:
        return self._refuse_callback(self._success_callback_name)

    @property
    def failure_callback(self) -> Any:
        return self._refuse_callback(self._failure_callback_name)

    @property
    def stopped_callback(self) -> Any:
        return self._refuse_callback(self._stopped_callback_name)

    def send_webhooks(self, *_: Any, **__: Any) -> None:
        """Do nothing: RQ 3 would post to any URL that a job names."""

    def _refuse_callback(self, name: str | None) -> None:
        if name:
            raise Rejected(f"job callback {name[:60]!r}: not on the allow-list")

    def batch(self) -> list[Any] | None:
        """Return the messages that the job carries; None for another job and an unreadable one."""
        return self.carried(RECORD)

    def carried(self, *functions: str) -> list[Any] | None:
        """Return the batch of a job of one of *functions* (by default of any of ours); None for others and an unreadable one.

        Shape:   what a newer program enqueued is unreadable: that one works on it.
        """
        try:
            is_ours = self.func_name in (functions or _ALLOWED) and int(self.kwargs.get("version", 1)) <= VERSION
            return list(self.kwargs["batch"]) if is_ours else None
        except _UNREADABLE:
            return None

    def is_newer(self) -> bool:
        """Say whether a newer program enqueued it, so that `carried` does not tell what it holds."""
        try:
            return self.func_name in _ALLOWED and int(self.kwargs.get("version", 1)) > VERSION
        except _UNREADABLE:
            return False

    def restore(self, raw_data: Any) -> Any:
        self._is_kept = True
        return super().restore(raw_data)

    def to_dict(self, include_meta: bool = True, include_result: bool = True) -> dict[str, Any]:
        """What RQ saves of a job. Of one that was read from Redis, never again what it carries: `rewrite` alone changes it.

        Why:     RQ saves the whole job when its run ends, and would bring back what was forgotten meanwhile.
        """
        found = super().to_dict(include_meta=include_meta, include_result=include_result)
        return {name: value for name, value in found.items() if name != "data" or not self._is_kept}

    def rewrite(self, batch: list[Any]) -> None:
        """Put *batch* in the place of what the job carries, wherever it stands; a job that is gone stays so.

        Errors:  redis.RedisError  Redis is away.
        """
        self.kwargs = {**self.kwargs, "batch": batch}
        with point("forget.job"):
            self.connection.eval(_SET_EXISTING, 1, self.key, "data", zlib.compress(self.data))

    def excuse(self, why: str) -> None:
        """From now on the end of this job's process is not the job's fault. Best effort: its Redis may be away too."""
        try:
            self.connection.eval(_SET_EXISTING, 1, self.key, EXCUSED, why)
        except RedisError:
            pass

    def end_excuse(self) -> None:
        """From now on it is again.

        Errors:  redis.RedisError  it cannot be said: do not go on, or a poison would be excused for ever.
        """
        self.connection.hdel(self.key, EXCUSED)

    def is_excused(self) -> bool:
        """Say whether a death now counts for nothing."""
        return bool(self.connection.hexists(self.key, EXCUSED))

    @property
    def should_retry(self) -> bool:
        """RQ asks this when a run has failed."""
        return super().should_retry or self.is_excused()

    def retry(self, queue: Queue, pipeline: Any) -> None:
        """Repeat, halve or give back a run that failed. RQ calls it within the MULTI that ends the run."""
        if self.is_excused():
            queue._enqueue_job(self, pipeline=pipeline, at_front=True)
            pipeline.hdel(self.key, EXCUSED)
        elif self.is_suspect():
            self.halve(queue, pipeline)
        else:
            super().retry(queue, pipeline)

    def deaths(self) -> int:
        """Return how many workers died with this job in hand."""
        found: Any = self.connection.hget(self.key, DEATHS)
        return int(found or 0)

    def is_suspect(self) -> bool:
        """Say whether one more failure means: somebody in this batch is a culprit."""
        if len(self.batch() or ()) < 2:
            return False
        failures = 1 + TRIES - (self.retries_left or 0) + self.deaths()
        is_half = "-" in self.id.removeprefix(_PREFIX)
        return is_half or failures >= _FAILURES_TO_HALVE

    def halve(self, queue: Queue, pipeline: Any) -> None:
        """Put two jobs of half the messages in place of this one, with *pipeline*'s MULTI: all of it or nothing.

        Repeat:  safe: the halves of a job always have the same ids.
        Why:     to the front: these messages have waited already, and an isolation ends after a few levels.
        """
        batch = self.batch() or []
        middle = len(batch) // 2
        for job_id, part in zip(halves(self.id), (batch[:middle], batch[middle:]), strict=True):
            queue._enqueue_job(new_job(queue, part, job_id), pipeline=pipeline, at_front=True)
        pipeline.delete(self.key)
        Journal(self.connection).service("halved", job=self.id, messages=len(batch), why="its process died again")


def new_job(queue: Queue, batch: list[Any], job_id: str = "") -> UnsubdJob:
    """Return a job for *batch* (wire format), not enqueued yet."""
    job = queue.create_job(
        RECORD,
        kwargs={"batch": batch, "version": VERSION},
        job_id=job_id or f"{_PREFIX}{secrets.token_hex(16)}",
        description=describe(_requests_in(batch), len(batch)),  # RQ would print the arguments: addresses
        timeout=-1,  # an outage may last; every call inside is bounded, and the reaper watches heartbeats
        ttl=None,
        result_ttl=_RESULT_TTL_S,
        failure_ttl=-1,
        retry=Retry(max=TRIES, interval=RETRY_AFTER_S if len(batch) == 1 else [BATCH_RETRY_AFTER_S]),
    )
    assert isinstance(job, UnsubdJob)
    return job


def new_outgoing(queue: Queue, function: str, description: str, **arguments: Any) -> UnsubdJob:
    """Return a job for what goes out, not enqueued yet; *description* names no address: RQ shows it."""
    job = queue.create_job(
        function,
        kwargs=arguments | {"version": VERSION},
        description=description,
        timeout=_OUTGOING_TIMEOUT_S,
        ttl=None,
        result_ttl=_RESULT_TTL_S,
        failure_ttl=-1,
        retry=Retry(max=len(OUTGOING_RETRY_AFTER_S), interval=OUTGOING_RETRY_AFTER_S),
    )
    assert isinstance(job, UnsubdJob)
    return job


def require_known(version: int) -> None:
    """Check that a job's version is one that we read. Errors: ConfigError  a newer program enqueued it."""
    if version > VERSION:
        raise ConfigError(
            f"job: version {version}, expected {VERSION} or older: a newer unsubd enqueued it: upgrade this one, or stop it"
        )


def halves(job_id: str) -> tuple[str, str]:
    """Return the ids of a job's halves."""
    return f"{job_id}-0", f"{job_id}-1"


def take_out(queue: Queue, job_id: str, entry: str, pipeline: Any) -> None:
    """Take a run that ended unseen out of RQ's books.

    Shape:   entry: of RQ's started registry, "" when the job was only taken from the queue so far.
    """
    pipeline.lrem(queue.intermediate_queue_key, 0, job_id)
    if entry:
        pipeline.zrem(queue.started_job_registry.key, entry)


def give_back(queue: Queue, job_id: str, pipeline: Any, *, front: bool) -> None:
    """Put a job whose run ended unseen into the queue again."""
    pipeline.hset(UnsubdJob.key_for(job_id), mapping={"status": "queued", "worker_name": ""})
    pipeline.hdel(UnsubdJob.key_for(job_id), EXCUSED)
    (pipeline.lpush if front else pipeline.rpush)(queue.key, job_id)


def _requests_in(batch: list[Any]) -> int:
    found = [each.get("requests") for each in batch if isinstance(each, dict)]
    return sum(len(each) for each in found if isinstance(each, list))


def describe(requests: int, messages: int) -> str:
    """Say what a job holds: its description in RQ, which its counts are read from.

    Example:
        >>> describe(1, 20)
        '1 request in 20 messages'
    """
    nouns = ("request" if requests == 1 else "requests", "message" if messages == 1 else "messages")
    return f"{requests} {nouns[0]} in {messages} {nouns[1]}"


def read_description(text: str) -> tuple[int, int]:
    """Return how many requests and messages a job holds, by its description; none for another's job.

    Example:
        >>> read_description("12 requests in 20 messages"), read_description("3 messages"), read_description("f(x)")
        ((12, 20), (3, 3), (0, 0))
    """
    found = _HOLDS.fullmatch(text)
    if found is None:
        return 0, 0
    messages = int(found[2])
    return int(found[1] or messages), messages  # release 0.1 told messages only
