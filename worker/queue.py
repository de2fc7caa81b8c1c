"""The queue of requests: batches of decided messages, as RQ jobs, durably on Redis.

RQ costs 18 round trips a job, so a job carries up to 500 messages. `worker/batch.py` is the job, `worker/crew.py` the
workers, `worker/reaper.py` brings back what they lost, `worker/backlog.py` counts.
"""

import time
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import redis
from rq import Queue
from rq.serializers import JSONSerializer

from handlers.errors import QueueUnavailable
from handlers.request import DecidedMessage
from worker import backlog, crew
from worker.batch import UnsubdJob, halves, new_job
from worker.fence import Fence
from worker.points import point
from worker.reaper import Reaper
from worker.server import away_as, check_confirmed, confirm

BATCH = 500


class RequestQueue:
    """The queue of decided messages.

    Errors:  QueueUnavailable  Redis is away, or the queue is full.    temporary
    """

    def __init__(self, client: redis.Redis, *, limit: int, min_replicas: int = 0) -> None:
        self._redis = client
        self._limit = limit
        self._min_replicas = min_replicas
        self.rq = Queue(crew.REQUESTS, connection=client, job_class=UnsubdJob, serializer=JSONSerializer)
        self.reaper = Reaper(self.rq)

    def enqueue(
        self, decided: Sequence[DecidedMessage], *, limited: bool = True, fence: Fence | None = None
    ) -> list[str]:
        """Put messages into the queue, durably, and return the job ids.

        Shape:   limited False: also into a full queue, for whoever does not come again (a one-click).
        Errors:  LeaseLost  *fence* is another's by now: nothing was queued.    temporary
        Repeat:  queues again: the same requests have the same ids and take effect once.
        """
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
            if limited:
                self.require_room()
            pipeline = collected = self._redis.pipeline(transaction=False)
            ids = [self._push(decided[start : start + BATCH], collected) for start in range(0, len(decided), BATCH)]
            if fence:
                pipeline = self._redis.pipeline(transaction=False)
                fence.around(collected, pipeline)
            confirm(pipeline, self._min_replicas)
            with point("queue.enqueue"):
                replies = pipeline.execute()
            if fence:
                fence.check(replies[0])
            with point("queue.confirm"):
                check_confirmed(replies, self._min_replicas, QueueUnavailable)
        return ids

    def take(self, wires: Sequence[Any], quarantine: Callable[[Any, str], None]) -> None:
        """Put what was kept as jobs carry it into the queue, a full one too; what cannot be read goes to *quarantine*.

        Why:     another release may have written it: a person may read what we cannot.
        """
        self.enqueue([each for each in (_read(wire, quarantine) for wire in wires) if each], limited=False)

    def require_room(self) -> None:
        """Errors: QueueUnavailable  Redis is away, or the queue is full.    temporary"""
        if (depth := self.waiting()) >= self._limit:
            raise QueueUnavailable(f"UNSUBD_QUEUE_LIMIT: {depth} jobs wait, expected fewer than {self._limit}")

    def waiting(self) -> int:
        """Return how many jobs no worker has begun. Errors: QueueUnavailable  Redis is away.    temporary"""
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
            return int(self._redis.llen(self.rq.key))

    def _push(self, batch: Sequence[DecidedMessage], pipeline: Any) -> str:
        job = new_job(self.rq, [message.as_wire() for message in batch])
        # The job's hash is written before its id is pushed, on one connection: a crash between leaves no empty id.
        self.rq.enqueue_job(job, pipeline=pipeline)
        return str(job.id)

    def wait(self, job_ids: Sequence[str], seconds: float) -> list[list[str]] | None:
        """Return the effects that these jobs had, message by message; None when they are not done after *seconds*."""
        deadline = time.monotonic() + seconds
        while True:
            with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
                done = self._effects(job_ids)
            if done is not None:
                return done
            if time.monotonic() >= deadline:
                return None
            time.sleep(0.05)

    def _effects(self, job_ids: Sequence[str]) -> list[list[str]] | None:
        jobs = UnsubdJob.fetch_many(job_ids, connection=self._redis, serializer=JSONSerializer)
        found = [self._effects_of(job_id, job) for job_id, job in zip(job_ids, jobs, strict=True)]
        done = [effects for effects in found if effects is not None]
        return list(chain.from_iterable(done)) if len(done) == len(found) else None

    def _effects_of(self, job_id: str, job: Any) -> list[list[str]] | None:
        if job is None:
            parts = halves(job_id)
            exists = any(UnsubdJob.fetch_many(parts, connection=self._redis, serializer=JSONSerializer))
            return self._effects(parts) if exists else None
        result = job.latest_result()
        return result.return_value if result else None

    def worker(self, name: str) -> crew.UnsubdWorker:
        """Return an RQ worker for this queue alone."""
        return crew.new_worker(self.rq, name)

    def status(self) -> dict[str, Any]:
        """Return what waits, is in hand, is to be repeated and failed: see `backlog.counts`."""
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
            return backlog.counts(self.rq)

    def oldest_ms(self) -> int:
        """Return the event time of the oldest message that waits: see `backlog.oldest_ms`."""
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
            return backlog.oldest_ms(self.rq)

    def workers(self) -> list[dict[str, Any]]:
        """Return the living workers of our queues: see `crew.workers`."""
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
            return crew.workers(self._redis)

    def failed(self, count: int = 20) -> list[dict[str, Any]]:
        """Return the failed jobs: see `backlog.failed_jobs`."""
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
            return backlog.failed_jobs(self.rq, count)


def _read(wire: Any, quarantine: Callable[[Any, str], None]) -> DecidedMessage | None:
    try:
        return DecidedMessage.from_wire(wire)
    except (KeyError, TypeError, ValueError) as error:
        quarantine(wire, f"a kept request: {type(error).__name__}")
        return None
