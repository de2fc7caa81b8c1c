"""What the console, the metrics and the doctor say of the queue: requests, not jobs."""

import io
from collections.abc import Iterator
from typing import Any

import fakeredis
import pytest
from rich.console import Console, Group
from rq import Queue, Worker
from rq.serializers import JSONSerializer

from tests.unit import house
from tests.unit.house import decided
from worker import crew
from worker.batch import UnsubdJob
from worker.cli.screen import screen
from worker.doctor import Verdict, processes
from worker.installation import Installation
from worker.owed import Alarm, owed
from worker.sources import SourceReport
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


def test_whoever_stands_by_is_shown_and_is_no_trouble(installation: Installation) -> None:
    redis = installation.redis
    SourceReport(redis, installation.journal, "imap:news", by="box-7").say("idle")
    redis.zadd("unsubd:standby", {"imap:news@box-8": redis.time()[0], "imap:news@gone-9": redis.time()[0] - 30})

    state = status(installation)
    assert [(each["name"], each["state"]) for each in state["sources"]] == [
        ("imap:news", "idle"),
        ("imap:news@box-8", "standby"),
    ]
    assert state["sources"][0]["by"] == "box-7"
    assert [each.what for each in _alarms_of_sources(installation, state)] == []
    assert [each.verdict for each in processes.sources(installation)] == [Verdict.OK, Verdict.OK]
    assert "box-8" not in exposition(installation).decode()
    assert "standby" in _shown(screen(state, 0.0))


def _alarms_of_sources(installation: Installation, state: dict[str, Any]) -> list[Alarm]:
    """The alarms about sources."""
    return [each for each in owed(installation, state).alarms if each.link == "/ops/sources"]


def _shown(group: Group) -> str:
    """What a terminal shows of it."""
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(group)
    return console.export_text()


def test_a_new_process_goes_on_from_anothers_trouble_until_it_knows_better(installation: Installation) -> None:
    """Or whoever takes over would seem well for as long as its first try lasts."""
    old, new = (SourceReport(installation.redis, installation.journal, "imap:news", by=by) for by in ("a-1", "b-2"))
    old.say("waiting", "no answer")

    assert new.resume() == "waiting"
    new._beat()
    (source,) = status(installation)["sources"]
    assert (source["state"], source["detail"], source["by"]) == ("waiting", "no answer", "b-2")
    new.say("idle")
    assert new.resume() == ""
