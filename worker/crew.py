"""The workers: what ours are, and what is wrong with others that take our jobs.

RQ's worker registers a hash `rq:worker:NAME`. Ours adds one field, `unsubd_maintenance_s`: nothing else there tells
whose class it runs. A worker that is not ours runs any function that a job names; one with two queues fetches by BLPOP,
and a kill loses the job; one with RQ's default times brings a killed worker's job back after minutes.

| key          | type   | holds                                               | lives    |
|--------------|--------|-----------------------------------------------------|----------|
| `unsubd:ran` | STRING | when a part of the service first started, ms UTC    | for good |
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, cast

from redis import Redis, RedisError, ResponseError
from rq import Queue, Worker
from rq.serializers import JSONSerializer
from rq.worker_registration import WORKERS_BY_QUEUE_KEY

from handlers.errors import ConfigError, QueueUnavailable
from worker.batch import UnsubdJob, give_back, take_out
from worker.server import away_as, word_of

REQUESTS = "unsubd"
EVENTS = "unsubd-events"  # what goes out; each queue has worker processes of its own
HEARTBEAT_S = 5
_WORKER_TTL_S = 30
_MAINTENANCE_S = 30
_SILENT_S = _WORKER_TTL_S - 15 + 7.0  # an idle worker beats every ttl - 15 s (RQ), and wakes late on a busy machine
_RQ_GRACE_S = 60  # RQ lets a worker's key live so much longer than worker_ttl
_OURS = "unsubd_maintenance_s"
_RAN = "unsubd:ran"


class UnsubdWorker(Worker):
    """An RQ worker of one queue that comes back soon after Redis does, and gives its job back when told to stop.

    Errors:  ConfigError  more than one queue.
    """

    max_connection_wait_time = 5.0

    def validate_queues(self) -> None:
        super().validate_queues()  # type: ignore[no-untyped-call]
        if len(self.queues) > 1:
            names = ", ".join(queue.name for queue in self.queues)
            raise ConfigError(f"worker of {names}: expected one queue, a kill would lose the job in hand")

    def procline(self, message: str) -> None:
        """Keep the title that the part has in `ps`; RQ would write its own over it, and what it does says `unsubd status`."""

    def serialize(self) -> dict[str, Any]:
        """What RQ writes into the worker's hash, and says again when that expired."""
        return {**super().serialize(), _OURS: self.maintenance_interval}

    def handle_work_horse_killed(self, job: Any, retpid: Any, ret_val: Any, rusage: Any) -> None:
        """RQ calls this before it counts the death of a job's process."""
        if ret_val and os.WIFSIGNALED(ret_val) and os.WTERMSIG(ret_val) == signal.SIGTERM:
            job.excuse("stopped")  # systemd tells every process of a service to stop, not only the first
        super().handle_work_horse_killed(job, retpid, ret_val, rusage)  # type: ignore[no-untyped-call]

    def dequeue_job_and_maintain_ttl(self, *arguments: Any, **named: Any) -> Any:
        """Wait for a job; RQ waits for a server that is away, and would end for one that became a replica."""
        while True:
            try:
                return super().dequeue_job_and_maintain_ttl(*arguments, **named)
            except ResponseError as error:
                if not word_of(error):
                    raise
                time.sleep(1.0)

    def work(self, *arguments: Any, **named: Any) -> bool:
        """Work until stopped; the second SIGTERM kills the job's process and gives the job back, which counts nothing.

        Errors:  QueueUnavailable  the server is away as the worker comes or goes; in between, it waits.    temporary
        """
        try:
            with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
                return super().work(*arguments, **named)
        except SystemExit:
            with suppress(RedisError):  # the reaper finds it as well, later
                self._give_back()
            raise

    def _give_back(self) -> None:
        queue, execution = self.queues[0], self.execution
        if execution is None or self.connection.zscore(queue.started_job_registry.key, execution.composite_key) is None:
            return
        pipeline = self.connection.pipeline(transaction=True)
        take_out(queue, execution.job_id, execution.composite_key, pipeline)
        give_back(queue, execution.job_id, pipeline, front=True)
        pipeline.execute()


def new_worker(queue: Queue, name: str) -> UnsubdWorker:
    """Return a worker for *queue* alone."""
    return UnsubdWorker(
        [queue],
        name=name,
        connection=queue.connection,
        job_class=UnsubdJob,
        serializer=JSONSerializer,
        worker_ttl=_WORKER_TTL_S,
        maintenance_interval=_MAINTENANCE_S,
        job_monitoring_interval=HEARTBEAT_S,
        log_job_description=False,
    )


def note_run(client: Redis) -> None:
    """Note that a part of the service started: from then on a missing worker is a failure. Repeat: the first stays."""
    with suppress(RedisError):  # a full server must not keep a part from starting: the next start notes it
        client.set(_RAN, str(time.time_ns() // 1_000_000), nx=True)


def has_run(client: Redis) -> bool:
    """Say whether any part ever ran on this Redis.

    Errors:  QueueUnavailable  Redis is away.    temporary
    """
    with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
        return bool(client.exists(_RAN))


def workers(client: Redis) -> list[dict[str, Any]]:
    """Return the workers of our queues that RQ knows; `is_alive` says which were not killed.

    Shape:   name, state, job in hand, seconds since the last heartbeat, queues, and faults: what is wrong with it.
    """
    names = {
        key for queue in (REQUESTS, EVENTS) for key in cast(set[bytes], client.smembers(WORKERS_BY_QUEUE_KEY % queue))
    }
    found = [_described(client, key.decode()) for key in sorted(names)]
    return [row for row in found if row]


def is_alive(worker: dict[str, Any]) -> bool:
    """Say whether a row of `workers` beat lately; RQ forgets a killed one only after 90 s."""
    return 0.0 <= float(worker["heartbeat_s"]) < _SILENT_S


def _described(client: Redis, key: str) -> dict[str, Any]:
    worker = Worker.find_by_key(key, connection=client, job_class=UnsubdJob, serializer=JSONSerializer)
    if worker is None:
        return {}
    state, beat = worker.get_state(), worker.last_heartbeat
    beat_s = round(time.time() - beat.timestamp(), 1) if beat else -1.0
    maintenance, ttl_s = client.hget(key, _OURS), client.ttl(key)
    lease_s = ttl_s + max(0.0, beat_s) - _RQ_GRACE_S if ttl_s > 0 else 0.0
    return {
        "name": worker.name,
        "state": str(getattr(state, "value", state)),
        "job": worker.get_current_job_id() or "",
        "heartbeat_s": beat_s,
        "queues": worker.queue_names(),
        "faults": list(_faults(worker.queue_names(), cast(bytes | None, maintenance), lease_s)),
    }


def _faults(queues: list[str], maintenance: bytes | None, lease_s: float) -> Iterator[str]:
    if maintenance is None:
        yield "is not ours: it runs whatever function a job names"
    if len(queues) > 1:
        yield f"listens on {len(queues)} queues: a kill loses the job in its hand"
    if lease_s > 2 * _WORKER_TTL_S or (maintenance and float(maintenance) > 2 * _MAINTENANCE_S):
        yield "runs RQ's default maintenance: a killed worker's job comes back after minutes"
