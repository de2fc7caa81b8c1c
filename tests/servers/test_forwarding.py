"""Forwarding by the real workers: a provider that fails a third of the time, and workers that are killed."""

import os
import random
import signal
import time
from pathlib import Path

import pytest
from redis import Redis

from tests.harness.far_side import AWS_ID, AWS_SECRET, KEY, FarSide, far_side
from tests.harness.names import NAMES
from tests.harness.service import MASTERS, Service, children, until
from worker.crew import EVENTS, workers
from worker.store import Store

SES = f"{AWS_ID}:{AWS_SECRET}"


@pytest.mark.fault
@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("provider", "key", "places", "rounds", "people"),
    [("sendgrid", KEY, ("global", "103"), 24, 12), ("ses", SES, ("*", "news"), 8, 4)],
)
def test_both_sides_end_equal_though_calls_fail_and_workers_die(
    provider: str, key: str, places: tuple[str, str], rounds: int, people: int, tmp_path: Path, redis_url: str
) -> None:
    """SES's stand-in takes one call a second of an account, as the real one does."""
    service, dice = Service(tmp_path, redis_url=redis_url, secret_keys=",".join(MASTERS)), random.Random(3)
    service.last_line("sender", "add", "acme")
    assert service.last_line("group", "add", "acme", "Weekly news") == "1"
    (tmp_path / "key").write_text(key)
    with far_side(provider) as far, service.running("run"), Redis.from_url(redis_url) as client:
        account = ["--account", "people"] if provider == "ses" else []
        service.last_line("forward", "add", "acme", provider, "--key-file", str(tmp_path / "key"),
                          "--group", f"1={places[1]}", "--base", far.url, *account)  # fmt: skip
        far.per_s = 1.0 if provider == "ses" else 0.0
        far.fails = 0.17  # before and after: 31 % of the calls
        for number in range(rounds):
            verb = dice.choice(["suppress", "suppress", "resubscribe"])
            who = [f"r{dice.randrange(people)}@example.com" for _ in range(people // 2)]
            done = service.command(verb, "acme", dice.choice("01"), *dict.fromkeys(who), "--reason", "a test")
            assert done.returncode == 0 or "some were not lifted" in done.stderr
            if number % 6 == 3:
                _kill_events_worker(client)
        far.fails = 0.0
        store = Store(client, NAMES)
        until(lambda: _there(far, places) == [_names(store, 0), _names(store, 1)], 300, "equality")
        time.sleep(3)
        assert _there(far, places) == [_names(store, 0), _names(store, 1)]


def _there(far: FarSide, places: tuple[str, str]) -> list[set[str]]:
    return [far.lists.get(each, set()) for each in places]


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
