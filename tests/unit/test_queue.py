"""The queue: what may run, what a job carries, and how nothing in it is lost. RQ's states are made by hand or by RQ."""

import signal
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from unittest.mock import patch

import fakeredis
import pytest
import redis
from rq import Callback, Queue, SimpleWorker
from rq.serializers import JSONSerializer
from rq.utils import now, utcformat

from handlers.errors import QueueUnavailable, Rejected
from handlers.request import DecidedMessage
from tests.unit.house import decided
from worker import jobs
from worker.queue import BATCH, RECORD, RequestQueue, UnsubdJob

WORKER = "box-1"


@pytest.fixture
def server() -> fakeredis.FakeServer:
    return fakeredis.FakeServer()


@pytest.fixture
def client(server: fakeredis.FakeServer) -> redis.Redis:
    return fakeredis.FakeRedis(server=server)


@pytest.fixture
def queue(client: redis.Redis) -> RequestQueue:
    return RequestQueue(client, limit=10)


@pytest.fixture
def foreign(client: redis.Redis) -> Queue:
    """The same queue as anybody who can write Redis sees it."""
    return Queue("unsubd", connection=client, serializer=JSONSerializer)


@pytest.fixture
def work(queue: RequestQueue, client: redis.Redis) -> Iterator[Callable[[Any], None]]:
    """A function that runs the queue empty; it takes what `record` does."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def run(record: Any) -> None:
        worker = SimpleWorker([queue.rq], connection=client, job_class=UnsubdJob, serializer=JSONSerializer)
        with patch.object(jobs, "record", autospec=True, side_effect=record):
            worker.work(burst=True, logging_level="CRITICAL")

    yield run
    for number, handler in before.items():
        signal.signal(number, handler)


def job_of(queue: RequestQueue, job_id: str) -> UnsubdJob:
    return UnsubdJob.fetch(job_id, connection=queue._redis, serializer=JSONSerializer)


def added(batch: list[dict[str, Any]]) -> list[list[str]]:
    return [["added"] for _ in batch]


def breaks(batch: list[dict[str, Any]]) -> list[list[str]]:
    raise RuntimeError("no good")


# --- what may run


@pytest.mark.parametrize("name", ["os.system", "worker.jobs.configure", "worker.jobs.record.x", "", "record"])
def test_a_function_that_is_not_listed_is_refused(client: redis.Redis, name: str) -> None:
    job = UnsubdJob.create(name or "x", connection=client, serializer=JSONSerializer)
    job.func_name = name

    with pytest.raises(Rejected, match="not on the allow-list"):
        _ = job.func


def test_a_method_of_an_instance_is_refused(client: redis.Redis) -> None:
    job = UnsubdJob.create(RECORD, connection=client, serializer=JSONSerializer)
    job.instance = object()

    with pytest.raises(Rejected, match="not on the allow-list"):
        _ = job.func


def test_record_is_what_the_listed_name_says(client: redis.Redis) -> None:
    assert UnsubdJob.create(RECORD, connection=client, serializer=JSONSerializer).func is jobs.record


@pytest.mark.parametrize("kind", ["success", "failure", "stopped"])
def test_every_callback_is_refused(foreign: Queue, queue: RequestQueue, kind: str) -> None:
    callback = {f"on_{kind}": Callback("os.getcwd")}
    job_id = foreign.enqueue(RECORD, batch=[], **callback).id

    with pytest.raises(Rejected, match=r"job callback 'os\.getcwd': not on the allow-list"):
        getattr(job_of(queue, job_id), f"{kind}_callback")


def test_a_job_of_ours_has_no_callback(queue: RequestQueue) -> None:
    (job_id,) = queue.enqueue([decided()])
    job = job_of(queue, job_id)

    assert (job.success_callback, job.failure_callback, job.stopped_callback) == (None, None, None)


def test_injected_jobs_fail_and_the_worker_goes_on(queue: RequestQueue, foreign: Queue, work: Any) -> None:
    ran: list[Any] = []
    foreign.enqueue("os.putenv", "OWNED", "1")
    foreign.enqueue(RECORD, batch=[], on_success=Callback("os.getcwd"))
    Queue("unsubd", connection=foreign.connection).enqueue("os.getcwd")  # pickled: what `rq enqueue` does by default
    queue.enqueue([decided()])

    with patch("os.putenv", autospec=True, side_effect=ran.append), patch("os.getcwd", autospec=True) as getcwd:
        work(added)

    assert ran == []
    assert not getcwd.called
    assert {name: queue.status()[name] for name in ("queued", "failed", "finished")} == {
        "queued": 0, "failed": 3, "finished": 1,
    }  # fmt: skip
    assert any("os.putenv" in row["why"] and "allow-list" in row["why"] for row in queue.failed())


# --- enqueue


def test_a_job_carries_its_messages_as_json_and_never_expires(queue: RequestQueue, client: redis.Redis) -> None:
    messages = [decided("k1"), decided("k2", requests=())]

    (job_id,) = queue.enqueue(messages)

    job = job_of(queue, job_id)
    assert [DecidedMessage.from_wire(wire) for wire in job.kwargs["batch"]] == messages
    assert (job.func_name, job.timeout, job.ttl, job.result_ttl, job.failure_ttl) == (RECORD, -1, None, 300, -1)
    assert (job.retries_left, job.retry_intervals) == (3, [10, 60, 300])
    assert client.ttl(job.key) == -1
    assert job_id.startswith("unsub-")


def test_what_rq_prints_of_a_job_spells_no_address(queue: RequestQueue) -> None:
    (job_id,) = queue.enqueue([decided()])

    assert job_of(queue, job_id).description == "1 messages"


@pytest.mark.parametrize(("count", "sizes"), [(0, []), (1, [1]), (BATCH, [BATCH]), (2 * BATCH + 1, [BATCH, BATCH, 1])])
def test_messages_travel_in_batches(queue: RequestQueue, count: int, sizes: list[int]) -> None:
    job_ids = queue.enqueue([decided(f"k{number}", requests=()) for number in range(count)])

    assert queue.rq.get_job_ids() == job_ids
    assert [len(job_of(queue, job_id).kwargs["batch"]) for job_id in job_ids] == sizes


def test_a_full_queue_is_unavailable_and_takes_nothing(client: redis.Redis) -> None:
    queue = RequestQueue(client, limit=2)
    for number in range(2):
        queue.enqueue([decided(f"k{number}")])

    with pytest.raises(QueueUnavailable, match=r"^UNSUBD_QUEUE_LIMIT: 2 jobs wait, expected fewer than 2"):
        queue.enqueue([decided("k3")])

    assert queue.rq.count == 2


def test_too_few_replicas_are_unavailable(client: redis.Redis) -> None:
    queue = RequestQueue(client, limit=10, min_replicas=2)

    with (
        patch.object(type(client.pipeline()), "execute", autospec=True, return_value=[1, 1]),
        pytest.raises(QueueUnavailable, match=r"^UNSUBD_MIN_REPLICAS: 1 of 2 replicas confirmed"),
    ):
        queue.enqueue([decided()])


ASK: dict[str, Callable[[RequestQueue], Any]] = {
    "enqueue": lambda queue: queue.enqueue([decided()]),
    "wait": lambda queue: queue.wait(["unsub-1"], 1),
    "status": lambda queue: queue.status(),
    "workers": lambda queue: queue.workers(),
    "failed": lambda queue: queue.failed(),
    "reap": lambda queue: queue.reap({}),
    "enqueue_due": lambda queue: queue.enqueue_due(),
    "take_failed": lambda queue: queue.take_failed(set()),
    "mark_kept": lambda queue: queue.mark_kept("unsub-1"),
}


@pytest.mark.parametrize("method", ASK)
def test_redis_away_is_unavailable(queue: RequestQueue, server: fakeredis.FakeServer, method: str) -> None:
    server.connected = False
    with pytest.raises(QueueUnavailable, match=r"^UNSUBD_REDIS_URL: the server does not answer"):
        ASK[method](queue)
    server.connected = True

    assert queue.rq.count == 0


# --- wait


def test_wait_tells_the_effects_message_by_message(queue: RequestQueue, work: Any) -> None:
    job_ids = [*queue.enqueue([decided("k1"), decided("k2")]), *queue.enqueue([decided("k3")])]
    assert queue.wait(job_ids, 0) is None

    work(added)

    assert queue.wait(job_ids, 0) == [["added"], ["added"], ["added"]]


def test_wait_for_a_job_that_failed_or_is_gone_ends(queue: RequestQueue, work: Any) -> None:
    job_ids = queue.enqueue([decided()])
    work(breaks)

    assert queue.wait(job_ids, 0) is None
    assert queue.wait(["unsub-gone"], 0) is None
    assert queue.wait([], 0) == []


# --- tries


def test_a_job_that_breaks_waits_and_comes_back(queue: RequestQueue, client: redis.Redis, work: Any) -> None:
    job_ids = queue.enqueue([decided()])
    work(breaks)
    assert (queue.status()["scheduled"], queue.status()["failed"]) == (1, 0)
    assert queue.enqueue_due() == 0
    client.zadd(queue.rq.scheduled_job_registry.key, {job_ids[0]: 1})  # its time has come

    assert queue.enqueue_due() == 1

    assert queue.rq.get_job_ids() == job_ids
    assert queue.status()["scheduled"] == 0
    work(added)
    assert queue.wait(job_ids, 0) == [["added"]]


def out_of_tries(queue: RequestQueue, work: Any, *messages: DecidedMessage) -> str:
    """Let a job of *messages* fail for the last time and return its id."""
    (job_id,) = queue.enqueue(messages)
    queue._redis.hset(UnsubdJob.key_for(job_id), "retries_left", 0)
    work(breaks)
    return job_id


def test_a_job_out_of_tries_is_taken_once_and_stays_for_rqs_tools(queue: RequestQueue, work: Any) -> None:
    message = decided()
    job_id = out_of_tries(queue, work, message)

    assert queue.take_failed(set()) == [(job_id, [message.as_wire()], "RuntimeError: no good")]
    assert len(queue.take_failed(set())) == 1  # nobody has kept it yet
    queue.mark_kept(job_id)

    assert queue.take_failed(set()) == []
    assert queue.status()["failed"] == 1
    assert [(row["id"], row["messages"], row["why"]) for row in queue.failed()] == [
        (job_id, "1 messages", "RuntimeError: no good")
    ]


def test_failed_jobs_that_are_not_ours_do_not_stop_the_reaper(queue: RequestQueue, foreign: Queue, work: Any) -> None:
    ours = out_of_tries(queue, work, decided())
    foreign.enqueue("os.getcwd")
    foreign.enqueue(RECORD)
    foreign.enqueue(RECORD, batch=5)
    foreign.enqueue(RECORD, kwargs=None, args=([],))
    foreign.enqueue(RECORD, batch=[], meta=["no", "object"])
    Queue("unsubd", connection=foreign.connection).enqueue("os.getcwd")
    work(breaks)

    assert queue.status()["failed"] == 7
    assert [job_id for job_id, _, _ in queue.take_failed(set())] == [ours]
    assert len(queue.failed()) == 7


# --- the reaper


class Clock:
    """A clock that moves when told."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def taken(queue: RequestQueue) -> str:
    """A job that a worker has moved off the queue, as BLMOVE does, and nothing more."""
    queue.enqueue([decided()])
    job_id = queue._redis.lmove(queue.rq.key, queue.rq.intermediate_queue_key, "LEFT", "RIGHT")
    assert isinstance(job_id, bytes)
    return job_id.decode()


def started(queue: RequestQueue, heartbeat_ago_s: float | None) -> str:
    """A job that `box-1` has begun; its last heartbeat is so long ago (None: RQ has forgotten the worker)."""
    job_id = taken(queue)
    redis = queue._redis
    redis.lrem(queue.rq.intermediate_queue_key, 1, job_id)
    redis.zadd(queue.rq.started_job_registry.key, {f"{job_id}:0a1b2c": 9e9})
    redis.hset(UnsubdJob.key_for(job_id), mapping={"status": "started", "worker_name": WORKER})
    beat(redis, heartbeat_ago_s)
    return job_id


def beat(redis: redis.Redis, ago_s: float | None) -> None:
    """Give the worker's last heartbeat."""
    redis.delete(f"rq:worker:{WORKER}")
    if ago_s is not None:
        redis.hset(f"rq:worker:{WORKER}", "last_heartbeat", utcformat(now() - timedelta(seconds=ago_s)))


def reaped(queue: RequestQueue, clock: Clock, *after_s: float) -> list[list[str]]:
    """What each call of the reaper returns, the first one now."""
    seen: dict[str, float] = {}
    found = [queue.reap(seen, clock)]
    for seconds in after_s:
        clock.now_s += seconds
        found.append(queue.reap(seen, clock))
    return found


@pytest.mark.parametrize("heartbeat_ago_s", [None, 13.0, 900.0])
def test_the_job_of_a_dead_worker_comes_back_within_20_seconds(
    queue: RequestQueue, clock: Clock, heartbeat_ago_s: float | None
) -> None:
    job_id = started(queue, heartbeat_ago_s)

    assert reaped(queue, clock, 4.9, 0.2, 1) == [[], [], [job_id], []]

    assert queue.rq.get_job_ids() == [job_id]
    assert queue._redis.zcard(queue.rq.started_job_registry.key) == 0
    assert queue._redis.hget(UnsubdJob.key_for(job_id), "worker_name") == b""


def test_a_job_taken_and_never_begun_comes_back(queue: RequestQueue, clock: Clock) -> None:
    job_id = taken(queue)

    assert reaped(queue, clock, 4.9, 0.2) == [[], [], [job_id]]

    assert queue.rq.get_job_ids() == [job_id]
    assert queue._redis.llen(queue.rq.intermediate_queue_key) == 0


def test_a_job_that_came_back_runs(queue: RequestQueue, clock: Clock, work: Any) -> None:
    job_id = started(queue, None)
    reaped(queue, clock, 6)

    work(added)

    assert queue.wait([job_id], 0) == [["added"]]
    assert queue.status()["started"] == 0


@pytest.mark.parametrize("heartbeat_ago_s", [0.0, 11.0, -5.0])
def test_a_living_worker_keeps_its_job(queue: RequestQueue, clock: Clock, heartbeat_ago_s: float) -> None:
    started(queue, heartbeat_ago_s)

    assert reaped(queue, clock, 6, 600) == [[], [], []]
    assert queue.rq.count == 0


def test_a_worker_that_was_only_slow_keeps_its_job(queue: RequestQueue, clock: Clock) -> None:
    started(queue, 13)
    seen: dict[str, float] = {}
    assert queue.reap(seen, clock) == []
    beat(queue._redis, 0)
    assert queue.reap(seen, clock) == []
    assert seen == {}
    beat(queue._redis, 13)
    clock.now_s += 6

    assert queue.reap(seen, clock) == []  # its five seconds begin again


def test_a_job_that_was_finished_meanwhile_is_forgotten(queue: RequestQueue, clock: Clock) -> None:
    job_id = started(queue, None)
    seen: dict[str, float] = {}
    queue.reap(seen, clock)
    queue._redis.zrem(queue.rq.started_job_registry.key, f"{job_id}:0a1b2c")
    clock.now_s += 6

    assert (queue.reap(seen, clock), seen) == ([], {})


@pytest.mark.parametrize("make", [taken, lambda queue: started(queue, None)], ids=["taken", "started"])
def test_a_job_that_somebody_deleted_leaves_nothing(queue: RequestQueue, clock: Clock, make: Any) -> None:
    job_id = make(queue)
    queue._redis.delete(UnsubdJob.key_for(job_id))

    assert reaped(queue, clock, 6, 6) == [[], [], []]

    assert not queue._redis.exists(UnsubdJob.key_for(job_id))
    assert (queue.rq.count, queue._in_progress()) == (0, {})


def test_a_due_retry_whose_job_is_gone_is_forgotten(queue: RequestQueue, client: redis.Redis) -> None:
    client.zadd(queue.rq.scheduled_job_registry.key, {"unsub-gone": 1})

    assert queue.enqueue_due() == 1
    assert (queue.enqueue_due(), queue.rq.count) == (0, 0)


# --- status


def test_status_counts_and_knows_the_oldest(queue: RequestQueue, client: redis.Redis) -> None:
    assert queue.status() == {
        "queued": 0, "started": 0, "scheduled": 0, "failed": 0, "finished": 0, "oldest_s": 0.0,
    }  # fmt: skip
    first, _ = (queue.enqueue([decided(key)])[0] for key in ("k1", "k2"))
    client.hset(UnsubdJob.key_for(first), "enqueued_at", utcformat(now().replace(year=2020)))

    assert queue.status()["queued"] == 2
    assert queue.status()["oldest_s"] > 86400


def test_status_knows_its_workers(queue: RequestQueue) -> None:
    worker = queue.worker(WORKER)
    worker.register_birth()
    worker.set_state("idle")

    (row,) = queue.workers()

    assert {name: row[name] for name in ("name", "state", "job")} == {"name": WORKER, "state": "idle", "job": ""}
    assert 0 <= row["heartbeat_s"] < 5


def test_a_one_click_enters_a_full_queue(client: redis.Redis) -> None:
    full = RequestQueue(client, limit=1)
    full.enqueue([decided("k1")])

    with pytest.raises(QueueUnavailable):
        full.enqueue([decided("k2")])
    full.enqueue([decided("k3")], limited=False)

    assert full.rq.count == 2


def test_what_cannot_be_read_does_not_stop_the_reaper(queue: RequestQueue, client: redis.Redis) -> None:
    client.hset(UnsubdJob.key_for("unsub-odd"), mapping={"status": "no such status", "data": "x", "created_at": "y"})
    for registry in (queue.rq.failed_job_registry, queue.rq.scheduled_job_registry):
        client.zadd(registry.key, {"unsub-odd": 1})
    kept: set[str] = set()

    assert queue.take_failed(kept) == []
    assert kept == {"unsub-odd"}
    assert queue.enqueue_due() == 1
    queue.mark_kept("unsub-gone")
