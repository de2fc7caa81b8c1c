"""Forwarding by the real workers: a provider that fails a third of the time, and workers that are killed."""

import os
import random
import signal
import time
from pathlib import Path

import pytest
from redis import Redis

from tests.harness.far_side import KEY, far_side
from tests.harness.names import NAMES
from tests.harness.service import MASTERS, Service, children, until
from worker.crew import EVENTS, workers
from worker.store import Store


@pytest.mark.fault
@pytest.mark.timeout(300)
def test_both_sides_end_equal_though_calls_fail_and_workers_die(tmp_path: Path, redis_url: str) -> None:
    service, dice = Service(tmp_path, redis_url=redis_url, secret_keys=",".join(MASTERS)), random.Random(3)
    service.last_line("sender", "add", "acme")
    assert service.last_line("group", "add", "acme", "Weekly news") == "1"
    (tmp_path / "key").write_text(KEY)
    with far_side("sendgrid") as far, service.running("run"), Redis.from_url(redis_url) as client:
        service.last_line("forward", "add", "acme", "sendgrid", "--key-file", str(tmp_path / "key"),
                          "--group", "1=103", "--base", far.url)  # fmt: skip
        far.fails = 0.17  # before and after: 31 % of the calls
        for number in range(24):
            verb = dice.choice(["suppress", "suppress", "resubscribe"])
            who = [f"r{dice.randrange(12)}@example.com" for _ in range(6)]
            done = service.command(verb, "acme", dice.choice("01"), *dict.fromkeys(who), "--reason", "a test")
            assert done.returncode == 0 or "some were not lifted" in done.stderr
            if number % 6 == 3:
                _kill_events_worker(client)
        far.fails = 0.0
        store = Store(client, NAMES)
        until(lambda: far.lists == {"global": _names(store, 0), "103": _names(store, 1)}, 240, "equality")
        time.sleep(1)
        assert far.lists == {"global": _names(store, 0), "103": _names(store, 1)}


def _names(store: Store, group: int) -> set[str]:
    return {name for name, _ in store.listed("acme", group) if name}


def _kill_events_worker(client: Redis) -> None:
    for worker in [each for each in workers(client) if EVENTS in each["queues"]]:
        pid = int(worker["name"].rpartition("-")[2])
        try:
            for each in (pid, *children(pid)):
                os.kill(each, signal.SIGKILL)
        except (FileNotFoundError, ProcessLookupError):
            continue  # one killed before, whose entry has not expired yet
