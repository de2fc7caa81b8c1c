"""The queue job by job, for a person: what each holds and why it failed, and to try a failed one again or drop it.

Only failed jobs can be dropped: what they hold is in quarantine first, so that no request goes with them.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from redis import WatchError
from rq.job import JobStatus
from rq.results import Result

from handlers.errors import QueueUnavailable
from worker.backlog import STATES, why_failed
from worker.batch import TRIES, UnsubdJob
from worker.installation import Installation
from worker.points import point
from worker.quarantine.shown import without_addresses
from worker.server import away_as

_MAX_TRACE = 20_000


@dataclass(frozen=True, slots=True)
class JobRow:
    """One job as a list shows it.

    Shape:   state: one of `STATES`. senders: of its requests. tries: runs that failed. why: last line of the trace.
    Units:   age_s: since it was made. next_s: until it is tried again, None when nothing is planned.
    """

    id: str
    state: str
    holds: str
    senders: tuple[str, ...]
    age_s: float
    tries: int
    next_s: float | None
    why: str


@dataclass(frozen=True, slots=True)
class JobDetail:
    """One job as its page shows it. Shape: kept: its messages are in quarantine. trace: addresses masked."""

    row: JobRow
    kept: bool
    trace: str
    worker: str
    messages: tuple[str, ...]


def page(installation: Installation, state: str, start: int, count: int) -> list[JobRow]:
    """Return *count* jobs of a state from number *start*: the next to run first, of ended ones the newest.

    Errors:  QueueUnavailable  Redis is away.    temporary
    """
    with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
        due = _ids(installation, state, start, count)
        readable = [(job_id, installation.queue.reaper.readable(job_id)) for job_id in due]
        return [_row(job, state, due[job_id]) if job else _unread(job_id, state) for job_id, job in readable]


def _ids(installation: Installation, state: str, start: int, count: int) -> dict[str, float | None]:
    """The ids, and when each runs next (seconds, UTC)."""
    queue, last = installation.queue.rq, start + count - 1
    if state == "queued":
        return dict.fromkeys(_text(cast(list[bytes], queue.connection.lrange(queue.key, start, last))))
    if state == "started":
        return dict.fromkeys(list(installation.queue.reaper.in_progress())[start : start + count])
    if state == "scheduled":
        found = queue.connection.zrange(queue.scheduled_job_registry.key, start, last, withscores=True)
        return {job_id.decode(): at_s for job_id, at_s in cast(list[tuple[bytes, float]], found)}
    registry = queue.failed_job_registry if state == "failed" else queue.finished_job_registry
    return dict.fromkeys(registry.get_job_ids(start, last, desc=True, cleanup=False))


def _text(ids: Sequence[bytes]) -> list[str]:
    return [each.decode() for each in ids]


def _row(job: UnsubdJob, state: str, at_s: float | None) -> JobRow:
    now_s = time.time()
    return JobRow(
        id=job.id,
        state=state,
        holds=job.description or "",
        senders=_senders(job),
        age_s=now_s - job.created_at.timestamp() if job.created_at else 0.0,
        tries=TRIES - (job.retries_left or 0) + (state == "failed") + job.deaths(),
        next_s=None if at_s is None else max(0.0, at_s - now_s),
        why=without_addresses(why_failed(job)) if state in ("failed", "scheduled") else "",
    )


def _unread(job_id: str, state: str) -> JobRow:
    return JobRow(job_id, state, "unreadable: not one of ours", (), 0.0, 0, None, "")


def _senders(job: UnsubdJob) -> tuple[str, ...]:
    wires = [each for each in job.batch() or () if isinstance(each, dict)]
    requests = [each for wire in wires for each in wire.get("requests") or () if isinstance(each, dict)]
    return tuple(sorted({str(each.get("sender", ""))[:20] for each in requests}))


def detail(installation: Installation, job_id: str) -> JobDetail | None:
    """Return a job, None when it is not here (done more than 5 minutes ago, or never).

    Errors:  QueueUnavailable  Redis is away.    temporary
    """
    with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
        job = installation.queue.reaper.readable(job_id)
        if job is None:
            return None
        state = _state(job)
        due = installation.redis.zscore(installation.queue.rq.scheduled_job_registry.key, job_id)
        wires = [each for each in job.batch() or () if isinstance(each, dict)]
        return JobDetail(
            row=_row(job, state, due),
            kept=bool(job.meta.get("kept")),
            trace=masked_lines(_trace(job)) if state in ("failed", "scheduled") else "",
            worker=job.worker_name or "",
            messages=tuple(str(each.get("key", ""))[:12] for each in wires[:50]),
        )


def _state(job: UnsubdJob) -> str:
    found = job.get_status(refresh=False)
    word = str(getattr(found, "value", found))
    return word if word in STATES else "queued"


def _trace(job: UnsubdJob) -> str:
    result = job.latest_result()
    return str((result.exc_string if result else None) or job.exc_info or "")[-_MAX_TRACE:]


def masked_lines(text: str) -> str:
    """Return a trace with every address masked, its lines kept."""
    return "\n".join(without_addresses(line) for line in text.splitlines())


def requeue(installation: Installation, job_id: str) -> bool:
    """Put a failed job into the queue again; False: it is no failed job (any more).

    Errors:  QueueUnavailable  Redis is away.    temporary
    Repeat:  safe, also side by side: one of them queues it.
    Why:     RQ's own takes the job out of its books first, and a crash then would leave it in none.
    """
    with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
        queue = installation.queue.rq
        with queue.connection.pipeline(transaction=True) as pipeline:
            pipeline.watch(UnsubdJob.key_for(job_id))  # type: ignore[no-untyped-call]
            job = installation.queue.reaper.readable(job_id)
            if job is None or queue.connection.zscore(queue.failed_job_registry.key, job_id) is None:
                return False
            pipeline.multi()
            job.started_at = job.ended_at = None
            pipeline.zrem(queue.failed_job_registry.key, job_id)
            queue.enqueue_job(job, pipeline=pipeline)
            try:
                with point("queue.requeue"):
                    pipeline.execute()
            except WatchError:
                return False
    return True


def drop(installation: Installation, job_id: str) -> bool:
    """Delete a failed job once what it holds is in quarantine; False: it is no failed job of requests. Repeat: safe.

    Errors:  QueueUnavailable  Redis is away.    temporary
    """
    with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
        job = installation.queue.reaper.readable(job_id)
        if job is None or job.batch() is None or job.get_status() is not JobStatus.FAILED:
            return False
        if not job.meta.get("kept"):
            for wire in job.batch() or ():
                installation.quarantine_failed(wire, f"job {job_id} ran out of tries: {why_failed(job)}")
        pipeline = installation.redis.pipeline(transaction=True)  # its hash has no lifetime of its own
        job.delete(pipeline=pipeline)
        pipeline.delete(Result.get_key(job_id))  # type: ignore[no-untyped-call]  # RQ 2.12 leaves it
        with point("queue.drop"):
            pipeline.execute()
    return True
