"""What the console, the metrics and the doctor say of the queue: requests, not jobs."""

from collections.abc import Iterator

import fakeredis
import pytest
from rq import Queue, Worker
from rq.serializers import JSONSerializer

from tests.unit import house
from tests.unit.house import decided
from worker import crew
from worker.batch import UnsubdJob
from worker.doctor import Verdict, processes
from worker.installation import Installation
from worker.owed import owed
from worker.status import status
from worker.web.metrics import exposition


@pytest.fixture
def installation() -> Iterator[Installation]:
    with house.opened(fakeredis.FakeServer()) as installation:
        yield installation


@pytest.fixture
def failed(installation: Installation) -> Installation:
    """An installation with three requests in two messages that wait, and one that failed for good."""
    installation.queue.worker("box-1").register_birth()
    both = decided("k1").requests + decided("k2").requests
    installation.queue.enqueue([decided(requests=both), decided("k3")])
    (job_id,) = installation.queue.enqueue([decided("k4")])
    installation.redis.lrem(installation.queue.rq.key, 0, job_id)
    installation.redis.zadd(installation.queue.rq.failed_job_registry.key, {job_id: -1})
    return installation


def test_status_has_requests_and_messages_beside_the_jobs(failed: Installation) -> None:
    queue = status(failed)["queue"]

    assert [queue["queued"], queue["requests"]["queued"], queue["messages"]["queued"]] == [1, 3, 2]
    assert [queue["failed"], queue["requests"]["failed"], queue["messages"]["failed"]] == [1, 1, 1]


def test_the_metrics_count_requests(failed: Installation) -> None:
    lines = exposition(failed).decode().splitlines()

    assert 'unsubd_queue_requests{state="queued"} 3.0' in lines
    assert 'unsubd_queue_messages{state="queued"} 2.0' in lines
    assert 'unsubd_queue_jobs{state="queued"} 1.0' in lines


def test_the_verdict_counts_requests(failed: Installation) -> None:
    assert "1 request in 1 message ran out of tries" in [each.what for each in owed(failed, status(failed)).alarms]


def test_a_foreign_worker_is_bad_news(installation: Installation) -> None:
    installation.queue.worker("box-1").register_birth()
    assert next(processes.workers(installation)).detail.startswith("1 alive, last heartbeat ")
    Worker(["unsubd"], name="fleet", connection=installation.redis).register_birth()

    assert any(
        each.what.startswith("Worker fleet is not ours") for each in owed(installation, status(installation)).alarms
    )
    found = next(processes.workers(installation))
    assert (found.verdict, found.detail.startswith("worker 'fleet' is not ours: ")) == (Verdict.FAIL, True)
    assert found.remedy.startswith("stop it, and start unsubd")


def test_a_worker_of_the_events_alone_does_not_work_on_requests(installation: Installation) -> None:
    events = Queue(crew.EVENTS, connection=installation.redis, job_class=UnsubdJob, serializer=JSONSerializer)
    crew.new_worker(events, "events-1").register_birth()

    (found,) = processes.workers(installation)
    assert (found.verdict, found.detail) == (Verdict.FAIL, "no worker is alive, expected at least one")
