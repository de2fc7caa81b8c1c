"""The pulse: what tells a clean end from a kill, and a Redis that remembers from one that forgot."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import fakeredis
import pytest

from handlers.errors import QueueUnavailable
from tests.unit.house import now_ms, opened
from worker.installation import Installation
from worker.reconcile.pulse import EVERYTHING_MS, Pulse, ended_well

RUNS = {"run_id": "first"}


@pytest.fixture
def server() -> fakeredis.FakeServer:
    return fakeredis.FakeServer()


@pytest.fixture
def installation(
    server: fakeredis.FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Installation]:
    with opened(server, data_dir=str(tmp_path)) as found:
        monkeypatch.setattr(found.redis, "info", lambda _: dict(RUNS))  # fakeredis has none
        yield found


@pytest.fixture
def started(installation: Installation) -> Iterator[Callable[[], Pulse]]:
    """Return a function that begins a run; the one before it has ended by then, one way or the other."""
    pulses: list[Pulse] = []

    def start() -> Pulse:
        for each in pulses:
            each.close()
        pulse = Pulse(installation)
        pulses.append(pulse)
        assert pulse.begin()
        pulse.beat()
        return pulse

    yield start
    for each in pulses:
        each.close()


def _end(installation: Installation, pulse: Pulse) -> None:
    pulse.close()
    ended_well(installation, 0.0)


def test_the_first_run_owes_nothing(started: Callable[[], Pulse]) -> None:
    assert started().last.owed_ms == 0


def test_a_clean_end_owes_nothing(installation: Installation, started: Callable[[], Pulse]) -> None:
    _end(installation, started())

    assert started().last.owed_ms == 0


def test_a_kill_owes_since_the_last_beat(started: Callable[[], Pulse]) -> None:
    killed = started()

    assert started().last.owed_ms == killed.last.at_ms


def test_an_end_that_was_not_ours_does_not_hide_a_kill(
    installation: Installation, started: Callable[[], Pulse]
) -> None:
    killed = started()
    killed.close()
    ended_well(installation, now_ms() / 1000 + 1)  # a run that stopped before its first beat

    assert started().last.owed_ms == killed.last.at_ms


def test_a_redis_that_forgot_everything_is_found(installation: Installation, started: Callable[[], Pulse]) -> None:
    _end(installation, started())
    installation.redis.flushall()

    assert started().last.owed_ms == EVERYTHING_MS


def test_an_older_redis_owes_since_what_it_knows(installation: Installation, started: Callable[[], Pulse]) -> None:
    pulse = started()
    key, known = f"unsubd:pulse:{pulse.last.id}", pulse.last.at_ms
    copy = installation.redis.get(key)
    pulse.beat()
    _end(installation, pulse)
    installation.redis.set(key, copy)  # type: ignore[arg-type]

    assert started().last.owed_ms == known


def test_a_redis_that_forgot_an_hour_owes_everything(installation: Installation, started: Callable[[], Pulse]) -> None:
    pulse = started()
    installation.redis.set(f"unsubd:pulse:{pulse.last.id}", f"0 {pulse.last.at_ms - 3_600_000}")
    pulse.beat()

    assert pulse.last.owed_ms == EVERYTHING_MS


def test_a_redis_that_forgot_while_we_run_is_found(installation: Installation, started: Callable[[], Pulse]) -> None:
    pulse = started()
    installation.redis.flushall()
    pulse.beat()

    assert pulse.last.owed_ms == EVERYTHING_MS


def test_a_restart_of_redis_owes_since_the_last_beat(
    started: Callable[[], Pulse], monkeypatch: pytest.MonkeyPatch
) -> None:
    pulse = started()
    last = pulse.last.at_ms
    monkeypatch.setitem(RUNS, "run_id", "second")
    pulse.beat()

    assert pulse.last.owed_ms == last


def test_redis_knows_before_the_file_does(
    installation: Installation, started: Callable[[], Pulse], tmp_path: Path, server: fakeredis.FakeServer
) -> None:
    pulse = started()
    server.connected = False
    with pytest.raises(QueueUnavailable):
        pulse.beat()

    assert json.loads((tmp_path / "pulse-work.json").read_text())["number"] == 1


def test_what_is_owed_survives_a_kill_until_it_is_settled(
    installation: Installation, started: Callable[[], Pulse]
) -> None:
    first = started()
    second = started()
    third = started()
    assert third.last.owed_ms == second.last.owed_ms == first.last.at_ms
    third.settle(third.losses)
    third.beat()
    _end(installation, third)

    assert started().last.owed_ms == 0


def test_a_loss_during_the_comparison_stays_owed(installation: Installation, started: Callable[[], Pulse]) -> None:
    started()
    pulse = started()
    losses = pulse.losses
    installation.redis.flushall()
    pulse.beat()
    pulse.settle(losses)

    assert pulse.last.owed_ms == EVERYTHING_MS


def test_two_processes_of_one_folder_beat_once(installation: Installation, started: Callable[[], Pulse]) -> None:
    started()

    assert Pulse(installation).begin() is False


def test_a_file_that_is_damaged_is_a_first_run(started: Callable[[], Pulse], tmp_path: Path) -> None:
    started()
    (tmp_path / "pulse-work.json").write_text("{")

    assert started().last.owed_ms == 0
