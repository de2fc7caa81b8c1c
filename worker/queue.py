"""The queue: RQ with JSON jobs of an allow-listed class, batches, retries, and a reaper for killed workers.

RQ costs 18 round trips a job, so a job carries up to 500 messages. RQ's JSON serializer still imports any dotted name,
so `UnsubdJob` refuses what is not on its list. A worker process serves one queue only: with two, RQ uses BLPOP and a
kill loses a job. RQ itself recovers a killed worker's job in 60 to 90 s; `reap` does it within 20.
"""

import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

import redis
from rq import Queue, Retry, Worker
from rq.exceptions import DeserializationError, NoSuchJobError
from rq.job import Job
from rq.serializers import JSONSerializer

from handlers.errors import QueueUnavailable, Rejected
from handlers.request import DecidedMessage
from worker.server import away_as, check_confirmed, confirm

REQUESTS = "unsubd"
BATCH = 500
RECORD = "worker.jobs.record"  # wire format: renaming it strands queued jobs
_ALLOWED = {RECORD}
_TRIES = 3
_RETRY_AFTER_S = [10, 60, 300]
_RESULT_TTL_S = 300  # finished jobs hold addresses: long enough to look at, no longer
_WORKER_TTL_S = 30
_HEARTBEAT_S = 5
_DEAD_AFTER_S = 12
_FAILED_AT_ONCE = 20


class UnsubdJob(Job):
    """An RQ job that runs allow-listed functions only: whoever can write Redis must not run code.

    Errors:  Rejected  any other function, and every callback (none is ours).    permanent
    """

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


class UnsubdWorker(Worker):
    """An RQ worker that comes back soon after Redis does."""

    max_connection_wait_time = 5.0


class RequestQueue:
    """The queue of decided messages.

    Errors:  QueueUnavailable  Redis is away, or the queue is full.    temporary
    """

    def __init__(self, client: redis.Redis, *, limit: int, min_replicas: int = 0) -> None:
        self._redis = client
        self._limit = limit
        self._min_replicas = min_replicas
        self.rq = Queue(REQUESTS, connection=client, job_class=UnsubdJob, serializer=JSONSerializer)

    def enqueue(self, decided: Sequence[DecidedMessage], *, limited: bool = True) -> list[str]:
        """Put messages into the queue, durably, and return the job ids.

        Shape:   limited False: also into a full queue, for whoever does not come again (a one-click).
        Repeat:  queues again: the same requests have the same ids and take effect once.
        """
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
            if limited and (depth := int(self._redis.llen(self.rq.key))) >= self._limit:
                raise QueueUnavailable(f"UNSUBD_QUEUE_LIMIT: {depth} jobs wait, expected fewer than {self._limit}")
            pipeline = self._redis.pipeline(transaction=False)
            ids = [self._push(decided[start : start + BATCH], pipeline) for start in range(0, len(decided), BATCH)]
            confirm(pipeline, self._min_replicas)
            check_confirmed(pipeline.execute(), self._min_replicas, QueueUnavailable)
        return ids

    def _push(self, batch: Sequence[DecidedMessage], pipeline: Any) -> str:
        job = self.rq.create_job(
            RECORD,
            kwargs={"batch": [message.as_wire() for message in batch]},
            job_id=f"unsub-{secrets.token_hex(16)}",
            description=f"{len(batch)} messages",  # RQ would print the arguments: addresses
            timeout=-1,  # an outage may last; every call inside is bounded, and the reaper watches heartbeats
            ttl=None,
            result_ttl=_RESULT_TTL_S,
            failure_ttl=-1,
            retry=Retry(max=_TRIES, interval=_RETRY_AFTER_S),
        )
        # The job's hash is written before its id is pushed, on one connection: a crash between leaves no empty id.
        self.rq.enqueue_job(job, pipeline=pipeline)
        return str(job.id)

    def wait(self, job_ids: Sequence[str], seconds: float) -> list[list[str]] | None:
        """Return the effects that these jobs had, message by message; None when they are not done after *seconds*."""
        deadline = time.monotonic() + seconds
        while True:
            with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
                jobs = UnsubdJob.fetch_many(job_ids, connection=self._redis, serializer=JSONSerializer)
                results = [job.latest_result() if job else None for job in jobs]
            done = [result.return_value for result in results if result and result.return_value is not None]
            if len(done) == len(job_ids):
                return [effects for each in done for effects in each]
            if time.monotonic() >= deadline:
                return None
            time.sleep(0.05)

    def worker(self, name: str) -> UnsubdWorker:
        """Return an RQ worker for this queue alone."""
        return UnsubdWorker(
            [self.rq],
            name=name,
            connection=self._redis,
            job_class=UnsubdJob,
            serializer=JSONSerializer,
            worker_ttl=_WORKER_TTL_S,
            maintenance_interval=30,
            job_monitoring_interval=_HEARTBEAT_S,
            log_job_description=False,
        )

    def status(self) -> dict[str, Any]:
        """Return the counts of every RQ state, and the age of the job that waits longest."""
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
            counts = {
                "queued": self.rq.count,
                "started": self.rq.started_job_registry.get_job_count(cleanup=False),
                "scheduled": self.rq.scheduled_job_registry.get_job_count(cleanup=False),
                "failed": self.rq.failed_job_registry.get_job_count(cleanup=False),
                "finished": self.rq.finished_job_registry.get_job_count(cleanup=False),
            }
            oldest = self.rq.fetch_job(ids[0]) if (ids := self.rq.get_job_ids(0, 1)) else None
            age_s = time.time() - oldest.enqueued_at.timestamp() if oldest and oldest.enqueued_at else 0.0
            return {**counts, "oldest_s": round(age_s, 1)}

    def workers(self) -> list[dict[str, Any]]:
        """Return the living workers: name, state, job in hand, seconds since the last heartbeat."""
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
            workers = Worker.all(connection=self._redis, queue=self.rq, job_class=UnsubdJob, serializer=JSONSerializer)
            return [_described(worker) for worker in workers]

    def failed(self, count: int = 20) -> list[dict[str, Any]]:
        """Return the failed jobs, newest first, with the first and last line of why."""
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
            ids = self.rq.failed_job_registry.get_job_ids(0, count - 1, desc=True, cleanup=False)
            jobs = UnsubdJob.fetch_many(ids, connection=self._redis, serializer=JSONSerializer)
        return [
            {"id": job.id, "messages": job.description or "", "failed_at": str(job.ended_at or ""), "why": _why(job)}
            for job in jobs
            if job is not None
        ]

    def reap(self, seen: dict[str, float], now: Callable[[], float] = time.monotonic) -> list[str]:
        """Re-queue the jobs of workers that stopped beating, and return their ids.

        Shape:   seen: the caller's memory over calls: job id -> when it was first seen without a living worker.
        Repeat:  safe: a job that did run is run again, and its requests take effect once.
        """
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
            lost = {job_id: entry for job_id, entry in self._in_progress().items() if not self._has_worker(job_id)}
            for job_id in list(seen):
                if job_id not in lost:
                    del seen[job_id]
            ready = [job_id for job_id in lost if now() - seen.setdefault(job_id, now()) >= _HEARTBEAT_S]
            for job_id in ready:
                del seen[job_id]
            return [job_id for job_id in ready if self._requeue(job_id, lost[job_id])]

    def enqueue_due(self) -> int:
        """Put retries whose waiting time is over back into the queue; return how many. Repeat: safe, also side by side.

        Why:     RQ's own scheduler is a process per worker that outlives a killed one.
        """
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
            registry = self.rq.scheduled_job_registry
            due = registry.get_jobs_to_schedule()
            for job_id in due:
                pipeline = self._redis.pipeline(transaction=True)
                if job := self._readable(job_id):
                    self.rq.enqueue_job(job, pipeline=pipeline)
                registry.remove(job_id, pipeline=pipeline)
                pipeline.execute()
        return len(due)

    def _in_progress(self) -> dict[str, str]:
        """Job id -> its entry in RQ's started registry, "" when it was only taken from the queue so far."""
        waiting = cast(list[bytes], self._redis.lrange(self.rq.intermediate_queue_key, 0, -1))
        taken = {job_id.decode(): "" for job_id in waiting}
        entries = cast(list[bytes], self._redis.zrange(self.rq.started_job_registry.key, 0, -1))
        started = [entry.decode() for entry in entries]
        return taken | {entry.partition(":")[0]: entry for entry in started}

    def _has_worker(self, job_id: str) -> bool:
        name = cast(bytes | None, self._redis.hget(UnsubdJob.key_for(job_id), "worker_name"))
        if not name:
            return False
        key = Worker.redis_worker_namespace_prefix + name.decode()
        beat = cast(bytes | None, self._redis.hget(key, "last_heartbeat"))
        return beat is not None and time.time() - _timestamp(beat.decode()) < _DEAD_AFTER_S

    def _requeue(self, job_id: str, entry: str) -> bool:
        exists = bool(self._redis.exists(UnsubdJob.key_for(job_id)))  # somebody may have deleted the job itself
        pipeline = self._redis.pipeline(transaction=True)
        pipeline.lrem(self.rq.intermediate_queue_key, 0, job_id)
        if entry:
            pipeline.zrem(self.rq.started_job_registry.key, entry)
        if exists:
            pipeline.hset(UnsubdJob.key_for(job_id), mapping={"status": "queued", "worker_name": ""})
            pipeline.rpush(self.rq.key, job_id)
        pipeline.execute()
        return exists

    def _readable(self, job_id: str) -> Job | None:
        """The job, None when somebody deleted it or wrote what RQ cannot read: neither may stop the reaper."""
        try:
            return UnsubdJob.fetch(job_id, connection=self._redis, serializer=JSONSerializer)
        except (NoSuchJobError, DeserializationError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def take_failed(self, kept: set[str]) -> list[tuple[str, list[Any], str]]:
        """Return (job id, batch, why) of jobs that ran out of tries, some at a time; the caller keeps, then `mark_kept`s.

        Shape:   kept: the caller's memory over calls, the ids that need no further look (a batch may be large).
        """
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
            ids = self.rq.failed_job_registry.get_job_ids(cleanup=False)
            kept &= set(ids)
            lost = []
            for job_id in [each for each in ids if each not in kept][:_FAILED_AT_ONCE]:
                job = self._readable(job_id)
                batch = _lost_messages(job) if job else None
                if job is None or batch is None:
                    kept.add(job_id)
                else:
                    lost.append((job_id, batch, _why(job)))
            return lost

    def mark_kept(self, job_id: str) -> None:
        """Remember that a failed job's messages are in quarantine; the job itself stays for RQ's tools."""
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
            if job := self._readable(job_id):
                job.meta["kept"] = True
                job.save_meta()  # type: ignore[no-untyped-call]


def _described(worker: Any) -> dict[str, Any]:
    state, beat = worker.get_state(), worker.last_heartbeat
    return {
        "name": worker.name,
        "state": str(getattr(state, "value", state)),
        "job": worker.get_current_job_id() or "",
        "heartbeat_s": round(time.time() - beat.timestamp(), 1) if beat else -1,
    }


def _lost_messages(job: Job) -> list[Any] | None:
    """What a failed job of ours carries; None for another's job, an unreadable one, and one that is kept already."""
    try:
        return list(job.kwargs["batch"]) if job.func_name == RECORD and not job.meta.get("kept") else None
    except (DeserializationError, AttributeError, KeyError, TypeError):
        return None  # whoever can write Redis can put it there, and it must not stop the reaper


def _why(job: Job) -> str:
    result = job.latest_result()
    text = (result.exc_string if result else None) or job.exc_info or ""
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1][:200] if lines else ""


def _timestamp(text: str) -> float:
    from rq.utils import utcparse

    return float(utcparse(text).timestamp())
