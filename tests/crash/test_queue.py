"""The queue on a real Redis with real workers: what kills them, what stops them, what is away.

The poison is the test's own: a `sitecustomize` of the started processes lets a recipient's name kill whoever applies it.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from handlers.request import DecidedMessage
from tests.harness.names import NAMES
from tests.harness.redis_server import RedisServer
from tests.harness.service import MASTERS, Service, children, until
from tests.unit.house import decided
from worker import batch
from worker.batch import DEATHS, UnsubdJob
from worker.queue import RequestQueue
from worker.store import Store

POISON = """
import os, signal
from worker import batch, crew, reaper, service
from worker.store import Store

real = Store.apply

def apply(self, requests, **named):
    names = {each.recipient.partition("-")[0] for each in requests}
    if "poison" in names:
        os.kill(os.getpid(), signal.SIGKILL)
    if "plague" in names:
        os.kill(os.getppid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self, requests, **named)

Store.apply = apply
batch.RETRY_AFTER_S[:] = [1, 1, 1]
batch.BATCH_RETRY_AFTER_S = 1
crew.HEARTBEAT_S = 1
reaper.HEARTBEAT_S = 0.3
reaper._DEAD_AFTER_S = 1.7
reaper.MAX_DEATHS = 2
service._FAILED_EVERY_S = 0.5
service._REAP_EVERY_S = 0.2
"""


class House:
    """A queue and its store, and the processes that work on them: a worker that dies is started again."""

    def __init__(self, folder: Path, queue_url: str, store_server: RedisServer) -> None:
        (folder / "sitecustomize.py").write_text(POISON)
        self.store_server = store_server
        store_url = store_server.url
        self.service = Service(folder, redis_url=queue_url, store_url=store_url, secret_keys=MASTERS[0])
        self.service.env["PYTHONPATH"] = str(folder)
        self.client = redis.Redis.from_url(queue_url)
        self.rows = redis.Redis.from_url(store_url)
        self.queue = RequestQueue(self.client, limit=100)
        self.store = Store(self.rows, NAMES)
        self._parts: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> subprocess.Popen[bytes]:
        """Start a part, or again what has died."""
        if name not in self._parts or self._parts[name].poll() is not None:
            command = [sys.executable, "-m", "tests.harness.part", name, str(os.getpid())]
            with self.service.log.open("ab") as log:
                self._parts[name] = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stderr=log, env=self.service.env
                )
        return self._parts[name]

    def tend(self, done: Callable[[], object], seconds: float = 60) -> None:
        """Keep worker and reaper running until *done*."""
        until(lambda: all(self.start(name) for name in ("reaper", "worker")) and done(), seconds)

    def start_all(self) -> None:
        """Start worker and reaper, and wait until both work."""
        self.start("reaper")
        self.start("worker")
        until(self.queue.workers)
        lost = "unsub-gone"
        self.client.zadd(self.queue.rq.scheduled_job_registry.key, {lost: 1})
        until(lambda: self.client.zcard(self.queue.rq.scheduled_job_registry.key) == 0)

    def kill_worker(self) -> None:
        """End the worker and the process of its job, as a reboot does."""
        worker = self._parts["worker"]
        for pid in (*children(worker.pid), worker.pid):
            os.kill(pid, signal.SIGKILL)
        worker.wait()

    def job(self, job_id: str) -> dict[str, str]:
        """RQ's hash of a job, its arguments left out."""
        found: Any = self.client.hgetall(UnsubdJob.key_for(job_id))
        return {name.decode(): value.decode() for name, value in found.items() if name not in (b"data", b"meta")}

    def close(self) -> None:
        for part in self._parts.values():
            if part.poll() is None:
                for pid in (*children(part.pid), part.pid):
                    os.kill(pid, signal.SIGKILL)
            part.wait()
        self.client.close()
        self.rows.close()


@pytest.fixture
def house(
    own_redis: Callable[..., RedisServer], redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[House]:
    """A house whose queue is on the common Redis and whose store is on one of its own."""
    monkeypatch.setattr(batch, "RETRY_AFTER_S", [1, 1, 1])
    monkeypatch.setattr(batch, "BATCH_RETRY_AFTER_S", 1)
    found = House(tmp_path, redis_url, own_redis())
    yield found
    found.close()


def messages(count: int, culprit: int, name: str = "poison") -> list[DecidedMessage]:
    """Messages of one request each, one of them deadly."""
    who = [f"{name if number == culprit else 'p'}-{number}@example.com" for number in range(count)]
    return [decided(f"k{number}", sender="nobody", recipient=each) for number, each in enumerate(who)]


def stopped(house: House, batch: list[DecidedMessage]) -> int:
    # Listed, not asked for: the processes have a key of their own, which says in which bucket a recipient lies.
    found = {recipient for recipient, _ in house.store.listed("nobody", 12)}
    return len(found & {message.requests[0].recipient for message in batch})


def quarantined(house: House) -> list[str]:
    """The recipients in quarantine."""
    found: Any = house.client.hvals("unsubd:quarantine:raw")
    return [request["recipient"] for raw in found for request in json.loads(raw)["requests"]]


@pytest.mark.parametrize(("count", "culprit"), [(500, 321), (1, 0)])
def test_a_poison_stands_alone_and_everybody_else_takes_effect(house: House, count: int, culprit: int) -> None:
    given = messages(count, culprit)
    house.tend(lambda: house.queue.workers())
    begun = time.monotonic()

    house.queue.enqueue(given)

    house.tend(lambda: stopped(house, given) == count - 1)
    isolated_s = time.monotonic() - begun
    house.tend(lambda: quarantined(house))
    print(f"{count} messages: all innocents after {isolated_s:.1f} s, quarantined {time.monotonic() - begun:.1f} s")
    assert quarantined(house) == [f"poison-{culprit}@example.com"]
    at_rest = {"queued": 0, "started": 0, "scheduled": 0, "failed": 1, "finished": 0}
    # An effect is seen a moment before its job has ended.
    house.tend(lambda: house.queue.status()["requests"] | {"finished": 0} == at_rest)
    assert isolated_s < 30


def test_a_message_that_kills_whole_workers_stands_alone_too(house: House) -> None:
    given = messages(2, 0, "plague")
    house.queue.enqueue(given)

    house.tend(lambda: stopped(house, given) == 1)
    house.tend(lambda: quarantined(house))

    assert quarantined(house) == ["plague-0@example.com"]
    assert "2 workers died with it in hand" in house.queue.failed()[0]["why"]


def test_no_death_counts_while_a_job_waits_for_the_store(house: House) -> None:
    given = messages(3, -1)
    house.start_all()
    house.store_server.stop()
    (job_id,) = house.queue.enqueue(given)

    for _ in range(4):  # one more than a message alone has tries
        until(lambda: house.job(job_id).get("excused") == "outage")
        [horse] = children(house.start("worker").pid)
        os.kill(horse, signal.SIGKILL)
        until(lambda: children(house.start("worker").pid) not in ([], [horse]))  # noqa: B023  asked at once
    until(lambda: house.job(job_id).get("excused") == "outage")
    house.kill_worker()
    until(lambda: house.job(job_id)["status"] == "queued")

    assert (house.job(job_id)["retries_left"], house.job(job_id).get(DEATHS)) == ("3", None)
    house.store_server.start()
    house.tend(lambda: stopped(house, given) == 3)
    until(lambda: house.job(job_id)["status"] == "finished")
    assert "excused" not in house.job(job_id)


def test_a_worker_that_is_told_to_stop_gives_its_job_back_at_once(house: House) -> None:
    house.start_all()
    worker = house.start("worker")
    house.store_server.stop()
    (job_id,) = house.queue.enqueue(messages(2, -1))
    until(lambda: house.job(job_id).get("excused") == "outage")

    worker.send_signal(signal.SIGTERM)
    until(lambda: any(house.client.hget(key, "shutdown_requested_date") for key in house.client.smembers("rq:workers")))
    time.sleep(1.2)  # RQ takes a second signal within one second for the same
    worker.send_signal(signal.SIGTERM)
    worker.wait(30)

    assert house.queue.rq.get_job_ids() == [job_id]
    assert house.client.zcard(house.queue.rq.started_job_registry.key) == 0
    found = house.job(job_id)
    assert (found["status"], found["retries_left"], found.get(DEATHS)) == ("queued", "3", None)


def test_a_stop_that_reaches_the_process_of_a_job_is_no_try(house: House) -> None:
    worker = house.start("worker")
    until(house.queue.workers)
    house.store_server.stop()
    (job_id,) = house.queue.enqueue(messages(2, -1))
    until(lambda: house.job(job_id).get("excused") == "outage")
    house.client.hdel(UnsubdJob.key_for(job_id), "excused")

    first = children(worker.pid)
    os.kill(first[0], signal.SIGTERM)  # systemd tells them all

    until(lambda: first != children(worker.pid) and house.job(job_id)["status"] == "started")
    assert (house.job(job_id)["retries_left"], house.job(job_id).get(DEATHS)) == ("3", None)


def test_the_doctor_names_a_worker_that_could_lose_our_jobs(house: House) -> None:
    house.start("worker")
    until(house.queue.workers)
    well = house.service.command("doctor").stdout
    rq = Path(sys.executable).parent / "rq"
    url = house.service.env["UNSUBD_REDIS_URL"]
    with house.service.log.open("ab") as log:
        foreign = subprocess.Popen([rq, "worker", "--url", url, "-n", "fleet", "unsubd-events", "other"], stderr=log)
    try:
        until(lambda: len(house.queue.workers()) == 2)
        doctor = house.service.command("doctor")
    finally:
        foreign.terminate()
        foreign.wait()

    assert "1 alive" in well
    assert doctor.returncode == 69
    line = doctor.stdout.partition("worker    ")[2]
    for words in ("'fleet' is not ours", "listens on 2 queues", "RQ's default maintenance", "stop it"):
        assert words in line
