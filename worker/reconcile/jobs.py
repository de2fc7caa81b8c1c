"""The queue against itself: jobs that stand nowhere, in dead hands, out of tries; and what was begun and left undone."""

import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, cast

from rq.serializers import JSONSerializer

from handlers.errors import QueueUnavailable
from worker.batch import UnsubdJob, give_back
from worker.crew import HEARTBEAT_S
from worker.installation import Installation
from worker.server import away_as

_AT_ONCE = 100
_MOMENT_S = 1.0  # a job is written before it is pushed, and taken before it is begun: one look is none
Note = Callable[..., None]


def compare(installation: Installation, note: Note, *, repair: bool) -> None:
    """Find jobs that nobody will run, and give them back. Errors: Unavailable  Redis is away.    temporary"""
    queue, reaper = installation.queue.rq, installation.queue.reaper
    if jobless := _twice(lambda: _jobless(installation), _MOMENT_S):
        if repair:
            with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
                pipeline = queue.connection.pipeline(transaction=True)
                for job_id in jobless:
                    give_back(queue, job_id, pipeline, front=False)
                pipeline.execute()
        note("jobless", jobless, repaired=repair)
    if abandoned := _twice(lambda: set(reaper.lost()), HEARTBEAT_S):
        if repair:
            reaper.reap(dict.fromkeys(abandoned, float("-inf")), excused=True)  # Redis forgot; no job is to blame
        note("abandoned", abandoned, repaired=repair)
    note("unkept", _unkept(installation, repair=repair), repaired=repair)
    note("untold", installation.intake.begun.left(), repaired=repair)
    if repair:
        installation.intake.begun.move(installation.queue, installation.quarantine_failed)


def _twice(look: Callable[[], set[str]], pause_s: float) -> list[str]:
    """What is there at two looks: whatever is on its way is found once only."""
    found = look()
    if found:
        time.sleep(pause_s)
        found &= look()
    return sorted(found)


def _unkept(installation: Installation, *, repair: bool) -> list[str]:
    kept: set[str] = set()
    names = []
    while lost := installation.queue.reaper.take_failed(kept):
        for job_id, batch, why in lost:
            names.append(job_id)
            if repair:
                keep_failed(installation, job_id, batch, why)
            kept.add(job_id)
    return names


def keep_failed(installation: Installation, job_id: str, batch: list[Any], why: str) -> None:
    """Put what a job that ran out of tries carries into quarantine. Repeat: safe."""
    for wire in batch:
        installation.quarantine_failed(wire, f"job {job_id} ran out of tries: {why}")
    installation.queue.reaper.mark_kept(job_id)


def _jobless(installation: Installation) -> set[str]:
    """Ids of request jobs that say they wait or run, and stand in no list that anybody reads."""
    redis = installation.redis
    with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
        ids = [key.decode().removeprefix("rq:job:") for key in redis.scan_iter("rq:job:unsub-*", count=1000)]
        waiting = set()
        for part in _parts(ids):
            pipeline = redis.pipeline(transaction=False)
            for job_id in part:
                pipeline.hget(UnsubdJob.key_for(job_id), "status")
            waiting |= {each for each, state in zip(part, pipeline.execute(), strict=True) if state in _EXPECTED}
        done = installation.queue.rq.finished_job_registry.key
        return waiting - {*_listed(installation), *_entries(installation, done)}


_EXPECTED = (b"queued", b"started", b"scheduled", None)


def _listed(installation: Installation) -> Iterator[str]:
    """Every id that is not done, in the order in which jobs go through RQ's lists: one that moves on is met again."""
    queue = installation.queue.rq
    for key in (queue.key, queue.intermediate_queue_key):
        yield from (each.decode() for each in cast(list[bytes], installation.redis.lrange(key, 0, -1)))
    for registry in (queue.started_job_registry, queue.scheduled_job_registry, queue.failed_job_registry):
        yield from _entries(installation, registry.key)
    yield from (each.decode() for each in cast(list[bytes], installation.redis.lrange(queue.key, 0, -1)))


def _entries(installation: Installation, registry_key: str) -> Iterator[str]:
    entries = cast(list[bytes], installation.redis.zrange(registry_key, 0, -1))
    return (each.decode().partition(":")[0] for each in entries)


def message_keys(installation: Installation) -> set[str]:
    """Return the keys of all messages that a job of ours carries and is not done with.

    Errors:  QueueUnavailable  Redis is away.    temporary
    """
    found: set[str] = set()
    with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
        for part in _parts(dict.fromkeys(_listed(installation))):
            jobs: Any = UnsubdJob.fetch_many(part, connection=installation.redis, serializer=JSONSerializer)
            for job in jobs:
                batch = (job.batch() or []) if job is not None else []
                found |= {str(wire["key"]) for wire in batch if isinstance(wire, dict) and "key" in wire}
    return found


def _parts(ids: Iterable[str]) -> Iterator[list[str]]:
    stream = iter(ids)
    while part := list(islice(stream, _AT_ONCE)):
        yield part
