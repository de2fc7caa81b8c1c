"""The queue: what may run, what a job carries, and how nothing in it is lost. RQ's states are made by hand or by RQ."""

import signal
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from unittest.mock import patch

import fakeredis
import pytest
import redis
from rq import Callback, Queue, SimpleWorker, Worker
from rq.serializers import JSONSerializer
from rq.utils import now, utcformat

from handlers.errors import ConfigError, QueueUnavailable, Rejected
from handlers.request import DecidedMessage
from tests.unit.house import decided
from worker import backlog, crew, jobs
from worker.batch import RECORD, VERSION, UnsubdJob
from worker.queue import BATCH, RequestQueue

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


def added(batch: list[dict[str, Any]], version: int = 1) -> list[list[str]]:
    return [["added"] for _ in batch]


def breaks(batch: list[dict[str, Any]], version: int = 1) -> list[list[str]]:
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


def test_a_job_says_its_version_and_a_newer_one_is_not_read(queue: RequestQueue, foreign: Queue) -> None:
    (job_id,) = queue.enqueue([decided(), decided("k2")])
    assert job_of(queue, job_id).kwargs["version"] == VERSION

    newer = job_of(queue, foreign.enqueue(RECORD, batch=[{"key": "of tomorrow"}] * 2, version=VERSION + 1).id)

    assert newer.batch() is None
    assert not newer.is_suspect()  # halves would say that they are of our version


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
    assert (job.retries_left, job.retry_intervals) == (3, [5])
    assert client.ttl(job.key) == -1
    assert job_id.startswith("unsub-")


def test_what_rq_prints_of_a_job_spells_no_address(queue: RequestQueue) -> None:
    (job_id,) = queue.enqueue([decided()])

    assert job_of(queue, job_id).description == "1 request in 1 message"


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


def test_wait_runs_outside_of_the_multi_that_rq_opens(client: redis.Redis) -> None:
    """Within one it would not wait, and count who has the connection's write of before."""
    queue = RequestQueue(client, limit=10, min_replicas=1)

    with (
        patch.object(type(client.pipeline()), "_execute_transaction"),
        pytest.raises(redis.ResponseError, match=r"(?i)'wait'"),
    ):
        queue.enqueue([decided()])  # fakeredis knows no WAIT: it came as a command of its own


ASK: dict[str, Callable[[RequestQueue], Any]] = {
    "enqueue": lambda queue: queue.enqueue([decided()]),
    "wait": lambda queue: queue.wait(["unsub-1"], 1),
    "status": lambda queue: queue.status(),
    "workers": lambda queue: queue.workers(),
    "failed": lambda queue: queue.failed(),
    "reap": lambda queue: queue.reaper.reap({}),
    "enqueue_due": lambda queue: queue.reaper.enqueue_due(),
    "take_failed": lambda queue: queue.reaper.take_failed(set()),
    "mark_kept": lambda queue: queue.reaper.mark_kept("unsub-1"),
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
    assert queue.reaper.enqueue_due() == 0
    client.zadd(queue.rq.scheduled_job_registry.key, {job_ids[0]: 1})  # its time has come

    assert queue.reaper.enqueue_due() == 1

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

    assert queue.reaper.take_failed(set()) == [(job_id, [message.as_wire()], "RuntimeError: no good")]
    assert len(queue.reaper.take_failed(set())) == 1  # nobody has kept it yet
    queue.reaper.mark_kept(job_id)

    assert queue.reaper.take_failed(set()) == []
    assert queue.status()["failed"] == 1
    assert [(row["id"], row["holds"], row["why"]) for row in queue.failed()] == [
        (job_id, "1 request in 1 message", "RuntimeError: no good")
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
    assert [job_id for job_id, _, _ in queue.reaper.take_failed(set())] == [ours]
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
    found = [list(queue.reaper.reap(seen, clock))]
    for seconds in after_s:
        clock.now_s += seconds
        found.append(list(queue.reaper.reap(seen, clock)))
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
    assert queue.reaper.reap(seen, clock) == {}
    beat(queue._redis, 0)
    assert queue.reaper.reap(seen, clock) == {}
    assert seen == {}
    beat(queue._redis, 13)
    clock.now_s += 6

    assert queue.reaper.reap(seen, clock) == {}  # its five seconds begin again


def test_a_job_that_was_finished_meanwhile_is_forgotten(queue: RequestQueue, clock: Clock) -> None:
    job_id = started(queue, None)
    seen: dict[str, float] = {}
    queue.reaper.reap(seen, clock)
    queue._redis.zrem(queue.rq.started_job_registry.key, f"{job_id}:0a1b2c")
    clock.now_s += 6

    assert (queue.reaper.reap(seen, clock), seen) == ({}, {})


@pytest.mark.parametrize("make", [taken, lambda queue: started(queue, None)], ids=["taken", "started"])
def test_a_job_that_somebody_deleted_leaves_nothing(queue: RequestQueue, clock: Clock, make: Any) -> None:
    job_id = make(queue)
    queue._redis.delete(UnsubdJob.key_for(job_id))

    assert reaped(queue, clock, 6, 6) == [[], [], []]

    assert not queue._redis.exists(UnsubdJob.key_for(job_id))
    assert (queue.rq.count, queue.reaper.in_progress()) == (0, {})


def test_a_due_retry_whose_job_is_gone_is_forgotten(queue: RequestQueue, client: redis.Redis) -> None:
    client.zadd(queue.rq.scheduled_job_registry.key, {"unsub-gone": 1})

    assert queue.reaper.enqueue_due() == 1
    assert (queue.reaper.enqueue_due(), queue.rq.count) == (0, 0)


# --- status


def test_status_counts_and_knows_the_oldest(queue: RequestQueue, client: redis.Redis) -> None:
    nothing = {"queued": 0, "started": 0, "scheduled": 0, "failed": 0, "finished": 0}
    assert queue.status() == {**nothing, "requests": nothing, "messages": nothing, "oldest_s": 0.0}
    first, _ = (queue.enqueue([decided(key)])[0] for key in ("k1", "k2"))
    client.hset(UnsubdJob.key_for(first), "enqueued_at", utcformat(now().replace(year=2020)))

    assert queue.status()["queued"] == 2
    assert queue.status()["oldest_s"] > 86400


def test_status_knows_its_workers(queue: RequestQueue) -> None:
    worker = queue.worker(WORKER)
    worker.register_birth()
    worker.set_state("idle")

    (row,) = queue.workers()

    assert {name: row[name] for name in ("name", "state", "job", "queues", "faults")} == {
        "name": WORKER, "state": "idle", "job": "", "queues": ["unsubd"], "faults": [],
    }  # fmt: skip
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

    assert queue.reaper.take_failed(kept) == []
    assert kept == {"unsub-odd"}
    assert queue.reaper.enqueue_due() == 1
    queue.reaper.mark_kept("unsub-gone")


# --- a batch that dies


def ids(queue: RequestQueue) -> list[str]:
    """The queue from its front to its end."""
    return list(queue.rq.get_job_ids())


def carried(queue: RequestQueue, job_id: str) -> list[str]:
    """The keys of a job's messages."""
    return [wire["key"] for wire in job_of(queue, job_id).kwargs["batch"]]


def several(count: int) -> list[DecidedMessage]:
    return [decided(f"k{number}") for number in range(count)]


def come_due(queue: RequestQueue) -> None:
    """Let the time of every retry come."""
    registry = queue.rq.scheduled_job_registry
    for job_id in registry.get_job_ids():
        queue._redis.zadd(registry.key, {job_id: 1})
    queue.reaper.enqueue_due()


def test_a_batch_that_breaks_twice_is_halved_and_the_culprit_fails_alone(queue: RequestQueue, work: Any) -> None:
    done: list[str] = []

    def poisoned(batch: list[dict[str, Any]], version: int = 1) -> list[list[str]]:
        keys = [wire["key"] for wire in batch]
        if "k3" in keys:
            raise RuntimeError("k3")
        done.extend(keys)
        return added(batch)

    messages = several(5)
    (job_id,) = queue.enqueue(messages)
    work(poisoned)
    assert (ids(queue), queue.status()["scheduled"], done) == ([], 1, [])  # once may be bad luck: it is repeated whole
    (at_s,) = (score for _, score in queue._redis.zrange(queue.rq.scheduled_job_registry.key, 0, -1, withscores=True))
    assert 3 < at_s - now().timestamp() < 6
    come_due(queue)

    work(poisoned)

    assert sorted(done) == ["k0", "k1", "k2", "k4"]
    (alone,) = queue.rq.scheduled_job_registry.get_job_ids()
    assert carried(queue, alone) == ["k3"]
    assert (job_of(queue, alone).retries_left, job_of(queue, alone).retry_intervals) == (2, [10, 60, 300])
    assert not queue._redis.exists(UnsubdJob.key_for(job_id))
    for _ in range(3):
        come_due(queue)
        work(poisoned)
    assert [(batch, why) for _, batch, why in queue.reaper.take_failed(set())] == [
        ([messages[3].as_wire()], "RuntimeError: k3")
    ]
    assert sorted(done) == ["k0", "k1", "k2", "k4"]


def test_a_run_that_ends_excused_uses_up_no_try(queue: RequestQueue, work: Any) -> None:
    (job_id,) = queue.enqueue(several(2))
    queue._redis.hset(UnsubdJob.key_for(job_id), "retries_left", 0)
    runs: list[int] = []

    def stopped(batch: list[dict[str, Any]], version: int = 1) -> list[list[str]]:
        runs.append(len(batch))
        if len(runs) > 3:
            return added(batch)
        job_of(queue, job_id).excuse("outage")
        raise RuntimeError("its process was told to stop")

    work(stopped)

    assert (runs, queue.wait([job_id], 0)) == ([2] * 4, [["added"], ["added"]])
    assert (job_of(queue, job_id).retries_left, job_of(queue, job_id).is_excused()) == (0, False)


def test_halving_is_all_or_nothing(queue: RequestQueue, client: redis.Redis) -> None:
    (job_id,) = queue.enqueue(several(4))
    job = job_of(queue, job_id)
    pipeline = client.pipeline(transaction=True)

    job.halve(queue.rq, pipeline)
    assert ids(queue) == [job_id]  # a crash here loses nothing
    assert len(carried(queue, job_id)) == 4
    pipeline.lrem(queue.rq.key, 0, job_id)
    pipeline.execute()

    assert sorted(ids(queue)) == [f"{job_id}-0", f"{job_id}-1"]
    assert [carried(queue, f"{job_id}-{number}") for number in (0, 1)] == [["k0", "k1"], ["k2", "k3"]]
    assert not client.exists(UnsubdJob.key_for(job_id))


def test_the_halves_come_before_what_waits(queue: RequestQueue, work: Any, client: redis.Redis) -> None:
    (job_id,) = queue.enqueue(several(2))
    client.hset(UnsubdJob.key_for(job_id), "retries_left", 2)  # it died before
    (other,) = queue.enqueue([decided("k9")])
    order: list[str] = []

    def breaks_pairs(batch: list[dict[str, Any]], version: int = 1) -> list[list[str]]:
        order.append(" ".join(wire["key"] for wire in batch))
        return breaks(batch) if len(batch) > 1 else added(batch)

    work(breaks_pairs)

    assert (sorted(order[1:3]), order[3:]) == (["k0", "k1"], ["k9"])
    assert queue.wait([job_id, other], 0) == [["added"], ["added"], ["added"]]  # who waits for it finds its halves


# --- a worker that dies


def died(queue: RequestQueue, clock: Clock, job_id: str, **how: Any) -> str:
    """Let a worker take a job and die; return what the reaper makes of it."""
    redis = queue._redis
    redis.lrem(queue.rq.key, 0, job_id)
    redis.zadd(queue.rq.started_job_registry.key, {f"{job_id}:0a1b2c": 9e9})
    redis.hset(UnsubdJob.key_for(job_id), mapping={"status": "started", "worker_name": WORKER})
    seen: dict[str, float] = {}
    queue.reaper.reap(seen, clock)
    clock.now_s += 6
    return queue.reaper.reap(seen, clock, **how).get(job_id, "")


def test_a_batch_that_took_two_workers_is_halved(queue: RequestQueue, clock: Clock) -> None:
    (job_id,) = queue.enqueue(several(4))

    assert died(queue, clock, job_id) == "requeued"
    assert ids(queue) == [job_id]
    assert died(queue, clock, job_id) == "halved"

    assert sorted(ids(queue)) == [f"{job_id}-0", f"{job_id}-1"]
    assert died(queue, clock, f"{job_id}-1") == "halved"
    assert sorted(ids(queue)) == [f"{job_id}-0", f"{job_id}-1-0", f"{job_id}-1-1"]


def test_a_message_alone_that_took_five_workers_fails(queue: RequestQueue, clock: Clock) -> None:
    message = decided()
    (job_id,) = queue.enqueue([message])

    assert [died(queue, clock, job_id) for _ in range(5)] == [*["requeued"] * 4, "failed"]

    assert (ids(queue), queue.reaper.in_progress()) == ([], {})
    assert queue.reaper.take_failed(set()) == [(job_id, [message.as_wire()], "5 workers died with it in hand")]


@pytest.mark.parametrize("excuse", ["the job waited", "redis was away"])
def test_a_death_that_is_excused_counts_for_nothing(queue: RequestQueue, clock: Clock, excuse: str) -> None:
    (job_id,) = queue.enqueue(several(2))

    for _ in range(7):
        if excuse == "the job waited":
            job_of(queue, job_id).excuse("outage")
        assert died(queue, clock, job_id, excused=excuse == "redis was away") == "requeued"

    assert ids(queue) == [job_id]
    assert not job_of(queue, job_id).is_excused()  # for that once
    assert (job_of(queue, job_id).deaths(), job_of(queue, job_id).retries_left) == (0, 3)


def test_two_reapers_count_one_death_once(queue: RequestQueue, clock: Clock, client: redis.Redis) -> None:
    (job_id,) = queue.enqueue([decided()])
    other, found = RequestQueue(client, limit=10).reaper, {}
    real = UnsubdJob.fetch

    def in_between(*arguments: Any, **named: Any) -> Any:
        if not found:
            found[job_id] = "meanwhile"
            found[job_id] = other._settle(job_id, f"{job_id}:0a1b2c", excused=False)
        return real(*arguments, **named)

    with patch.object(UnsubdJob, "fetch", side_effect=in_between):
        mine = died(queue, clock, job_id)

    assert (mine, found[job_id]) == ("", "requeued")
    assert ids(queue) == [job_id]
    assert job_of(queue, job_id).deaths() == 1


def test_a_job_that_no_worker_can_read_does_not_kill_them_for_ever(queue: RequestQueue, clock: Clock) -> None:
    (job_id,) = queue.enqueue([decided()])
    queue._redis.hset(UnsubdJob.key_for(job_id), "created_at", "y")

    assert [died(queue, clock, job_id) for _ in range(5)] == [*["requeued"] * 4, "failed"]
    assert (ids(queue), queue.rq.failed_job_registry.get_job_ids(cleanup=False)) == ([], [job_id])


def test_an_excuse_brings_no_job_back_that_is_gone(queue: RequestQueue, client: redis.Redis) -> None:
    (job_id,) = queue.enqueue([decided()])
    job = job_of(queue, job_id)
    client.delete(job.key)

    job.excuse("outage")

    assert not client.exists(job.key)


# --- workers


def test_a_worker_of_two_queues_is_not_built(queue: RequestQueue, client: redis.Redis) -> None:
    both = [queue.rq, Queue(crew.EVENTS, connection=client, job_class=UnsubdJob, serializer=JSONSerializer)]

    with pytest.raises(ConfigError, match=r"^worker of unsubd, unsubd-events: expected one queue"):
        crew.UnsubdWorker(both, connection=client, job_class=UnsubdJob, serializer=JSONSerializer)


def test_a_worker_outlives_a_server_that_becomes_a_replica(
    queue: RequestQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RQ waits for one that is away and ends for one that says so."""
    worker = queue.worker(WORKER)
    queue.enqueue([decided()])
    answers = iter(["UNBLOCKED force unblock from blocking operation", "READONLY You can't write"])
    taken = worker.queue_class.dequeue_any

    def dequeue(*arguments: Any, **named: Any) -> Any:
        if answer := next(answers, ""):
            raise redis.ResponseError(answer)
        return taken(*arguments, **named)

    monkeypatch.setattr(worker.queue_class, "dequeue_any", dequeue)
    monkeypatch.setattr(crew.time, "sleep", lambda _: None)

    assert worker.dequeue_job_and_maintain_ttl(None)[0].func_name == RECORD


def test_a_worker_that_stops_while_the_server_is_away_says_so_in_one_line(
    queue: RequestQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RQ takes its name off the list at the end."""
    worker = queue.worker(WORKER)

    def away() -> None:
        raise redis.ConnectionError("Connection refused")

    monkeypatch.setattr(worker, "register_death", away)

    with pytest.raises(QueueUnavailable, match=r"^UNSUBD_REDIS_URL: the server does not answer"):
        worker.work(burst=True)


def test_a_worker_ends_for_an_answer_that_is_a_bug(queue: RequestQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = queue.worker(WORKER)
    monkeypatch.setattr(worker, "heartbeat", lambda: queue.rq.connection.execute_command("NOSUCH"))

    with pytest.raises(redis.ResponseError, match="unknown command"):
        worker.dequeue_job_and_maintain_ttl(None)


@pytest.mark.parametrize(
    ("names", "settings", "faults"),
    [
        (["unsubd"], {}, ["is not ours", "default maintenance"]),
        (["unsubd"], {"worker_ttl": 30, "maintenance_interval": 30}, ["is not ours"]),
        (["unsubd", "other"], {"worker_ttl": 30}, ["is not ours", "2 queues"]),
        (["unsubd-events", "other"], {"worker_ttl": 30}, ["is not ours", "2 queues"]),
        (["other"], {}, None),
    ],
)
def test_what_is_wrong_with_a_foreign_worker(
    queue: RequestQueue, client: redis.Redis, names: list[str], settings: dict[str, int], faults: list[str] | None
) -> None:
    Worker(names, name="fleet", connection=client, **settings).register_birth()
    queue.worker(WORKER).register_birth()

    found = {row["name"]: row["faults"] for row in queue.workers()}

    assert found.pop(WORKER) == []
    if faults is None:
        assert found == {}
    else:
        assert len(found["fleet"]) == len(faults)
        assert all(word in fault for word, fault in zip(faults, found["fleet"], strict=True))


def test_a_worker_of_ours_with_rqs_default_times_is_found(queue: RequestQueue, client: redis.Redis) -> None:
    crew.UnsubdWorker([queue.rq], name="slow", connection=client, job_class=UnsubdJob).register_birth()

    ((fault,),) = [row["faults"] for row in queue.workers()]

    assert "RQ's default maintenance" in fault


# --- how much waits


def test_status_counts_requests_and_messages(queue: RequestQueue, client: redis.Redis, clock: Clock) -> None:
    two = decided("k1").requests + decided("k2").requests
    queue.enqueue([decided(requests=two), decided(requests=())])
    queue.enqueue(several(3))
    started(queue, 0)  # takes the first
    failed, due = (queue.enqueue(several(count))[0] for count in (4, 5))
    for job_id, registry in ((failed, queue.rq.failed_job_registry), (due, queue.rq.scheduled_job_registry)):
        client.lrem(queue.rq.key, 0, job_id)
        client.zadd(registry.key, {job_id: 9e9})

    status = queue.status()

    states = ("queued", "started", "scheduled", "failed", "finished")
    assert [status[state] for state in states] == [2, 1, 1, 1, 0]
    assert [status["requests"][state] for state in states] == [4, 2, 5, 4, 0]
    assert [status["messages"][state] for state in states] == [4, 2, 5, 4, 0]


def test_jobs_of_an_older_release_and_of_others_are_counted_too(queue: RequestQueue, foreign: Queue) -> None:
    (old,) = queue.enqueue(several(3))
    queue._redis.hset(UnsubdJob.key_for(old), "description", "3 messages")
    foreign.enqueue("os.getcwd")
    queue._redis.rpush(queue.rq.key, "unsub-gone")

    status = queue.status()

    assert (status["queued"], status["requests"]["queued"], status["messages"]["queued"]) == (3, 3, 3)


def test_what_is_not_read_counts_as_one_each(queue: RequestQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "_READ_JOBS", 2)
    for _ in range(5):
        queue.enqueue(several(2))

    assert queue.status()["requests"]["queued"] == 2 * 2 + 3
