"""The reaper: brings back what dead workers had in hand, what is due again, and hands over what ran out of tries.

RQ itself recovers a killed worker's job in 60 to 90 s, and again for ever; `reap` does it within 20, and counts: a batch
that took two workers along is halved, a message alone that took five fails. RQ's own scheduler is a process per worker
that outlives a killed one; `enqueue_due` does its work.
"""

import time
from collections.abc import Callable
from typing import Any, cast

from redis import WatchError
from rq import Queue, Worker
from rq.exceptions import DeserializationError, NoSuchJobError
from rq.job import JobStatus
from rq.serializers import JSONSerializer
from rq.utils import now as utc_now
from rq.utils import utcparse

from handlers.errors import QueueUnavailable
from worker.backlog import why_failed
from worker.batch import DEATHS, EXCUSED, MAX_DEATHS, UnsubdJob, give_back, take_out
from worker.crew import HEARTBEAT_S
from worker.points import point
from worker.server import away_as

_DEAD_AFTER_S = 12
_FAILED_AT_ONCE = 20


class Reaper:
    """The reaper of one queue.

    Errors:  QueueUnavailable  every method, when Redis is away.    temporary
    """

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._redis = queue.connection

    def reap(
        self, seen: dict[str, float], now: Callable[[], float] = time.monotonic, *, excused: bool = False
    ) -> dict[str, str]:
        """Settle the jobs of workers that stopped beating: job id -> requeued, halved or failed.

        Shape:   seen: the caller's memory over calls: job id -> when it was first seen without a living worker.
                 excused: Redis was away a moment ago, and no job is to blame for what died meanwhile.
        Repeat:  safe, also side by side: one reaper settles a death; a job that did run is run again, its requests
                 take effect once.
        """
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
            lost = self.lost()
            for job_id in list(seen):
                if job_id not in lost:
                    del seen[job_id]
            ready = [job_id for job_id in lost if now() - seen.setdefault(job_id, now()) >= HEARTBEAT_S]
            for job_id in ready:
                del seen[job_id]
            fates = {job_id: self._settle(job_id, lost[job_id], excused=excused) for job_id in ready}
            return {job_id: fate for job_id, fate in fates.items() if fate}

    def lost(self) -> dict[str, str]:
        """Those in progress whose worker does not beat: job id -> entry. One just taken has no worker yet: look twice."""
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
            return {job_id: entry for job_id, entry in self.in_progress().items() if not self._has_worker(job_id)}

    def in_progress(self) -> dict[str, str]:
        """Job id -> its entry in RQ's started registry, "" when it was only taken from the queue so far."""
        waiting = cast(list[bytes], self._redis.lrange(self._queue.intermediate_queue_key, 0, -1))
        taken = {job_id.decode(): "" for job_id in waiting}
        entries = cast(list[bytes], self._redis.zrange(self._queue.started_job_registry.key, 0, -1))
        started = [entry.decode() for entry in entries]
        return taken | {entry.partition(":")[0]: entry for entry in started}

    def _has_worker(self, job_id: str) -> bool:
        name = cast(bytes | None, self._redis.hget(UnsubdJob.key_for(job_id), "worker_name"))
        if not name:
            return False
        key = Worker.redis_worker_namespace_prefix + name.decode()
        beat = cast(bytes | None, self._redis.hget(key, "last_heartbeat"))
        return beat is not None and time.time() - utcparse(beat.decode()).timestamp() < _DEAD_AFTER_S

    def _settle(self, job_id: str, entry: str, *, excused: bool) -> str:
        """Return what became of a lost job, "" when another reaper was first or the job is gone."""
        with self._redis.pipeline(transaction=True) as pipeline:
            try:
                pipeline.watch(UnsubdJob.key_for(job_id))  # type: ignore[no-untyped-call]
                if self._has_worker(job_id) or self.in_progress().get(job_id) != entry:
                    return ""
                exists = bool(self._redis.exists(UnsubdJob.key_for(job_id)))  # somebody may have deleted it
                job = self.readable(job_id)
                pipeline.multi()
                fate = self._decide(job_id, job, pipeline, excused=excused) if exists else ""
                take_out(self._queue, job_id, entry, pipeline)
                with point("reaper.settle"):
                    pipeline.execute()
            except WatchError:
                return ""
        return fate

    def _decide(self, job_id: str, job: UnsubdJob | None, pipeline: Any, *, excused: bool) -> str:
        """Say what becomes of a lost job, and add it to *pipeline*'s MULTI."""
        key = UnsubdJob.key_for(job_id)
        if not (excused or self._redis.hexists(key, EXCUSED)):
            if job and job.is_suspect():
                job.halve(self._queue, pipeline)
                return "halved"
            pipeline.hincrby(key, DEATHS, 1)
            if (deaths := int(cast(Any, self._redis.hget(key, DEATHS)) or 0) + 1) >= MAX_DEATHS:
                self._fail(job_id, job, f"{deaths} workers died with it in hand", pipeline)
                return "failed"
        give_back(self._queue, job_id, pipeline, front=False)
        return "requeued"

    def _fail(self, job_id: str, job: UnsubdJob | None, why: str, pipeline: Any) -> None:
        """Put a job among RQ's failed ones, as RQ does with one that has no try left."""
        if job is None:  # RQ itself cannot read it: that is what kills its workers
            pipeline.zadd(self._queue.failed_job_registry.key, {job_id: -1})
            return
        job.ended_at = utc_now()
        job.set_status(JobStatus.FAILED, pipeline=pipeline)
        job._handle_failure(why, pipeline=pipeline)

    def enqueue_due(self) -> int:
        """Put retries whose waiting time is over back into the queue; return how many. Repeat: safe, also side by side."""
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
            registry = self._queue.scheduled_job_registry
            due = registry.get_jobs_to_schedule()
            for job_id in due:
                pipeline = self._redis.pipeline(transaction=True)
                if job := self.readable(job_id):
                    self._queue.enqueue_job(job, pipeline=pipeline)
                elif self._redis.exists(UnsubdJob.key_for(job_id)):
                    pipeline.zadd(self._queue.failed_job_registry.key, {job_id: -1})  # RQ cannot read it; a person may
                registry.remove(job_id, pipeline=pipeline)
                with point("reaper.due"):
                    pipeline.execute()
        return len(due)

    def readable(self, job_id: str) -> UnsubdJob | None:
        """The job, None when somebody deleted it or wrote what RQ cannot read: neither may stop the reaper."""
        try:
            return cast(UnsubdJob, UnsubdJob.fetch(job_id, connection=self._redis, serializer=JSONSerializer))
        except (NoSuchJobError, DeserializationError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def take_failed(self, kept: set[str]) -> list[tuple[str, list[Any], str]]:
        """Return (job id, batch, why) of jobs that ran out of tries, some at a time; the caller keeps, then `mark_kept`s.

        Shape:   kept: the caller's memory over calls, the ids that need no further look (a batch may be large).
        """
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
            ids = self._queue.failed_job_registry.get_job_ids(cleanup=False)
            kept &= set(ids)
            lost = []
            for job_id in [each for each in ids if each not in kept][:_FAILED_AT_ONCE]:
                job = self.readable(job_id)
                batch = _lost_messages(job) if job else None
                if job is None or batch is None:
                    kept.add(job_id)
                else:
                    lost.append((job_id, batch, why_failed(job)))
            return lost

    def mark_kept(self, job_id: str) -> None:
        """Remember that a failed job's messages are in quarantine; the job itself stays for RQ's tools."""
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
            if job := self.readable(job_id):
                job.meta["kept"] = True
                with point("reaper.kept"):
                    job.save_meta()  # type: ignore[no-untyped-call]


def _lost_messages(job: UnsubdJob) -> list[Any] | None:
    """What a failed job of ours carries; None for another's job, an unreadable one, and one that is kept already."""
    try:
        return None if job.meta.get("kept") else job.batch()
    except (DeserializationError, AttributeError):
        return None
