"""What a page has in hand when its process is killed: queued by the reaper, told to whoever wants to hear, once."""

from collections.abc import Iterator
from unittest.mock import patch

import fakeredis
import pytest

from handlers.errors import StoreUnavailable
from tests.unit.house import ENVIRON, decided, now_ms, opened
from tests.unit.letters import JANE
from worker import jobs
from worker.in_hand import LEFT_AFTER_S
from worker.installation import Installation
from worker.settings import load_settings
from worker.web.wishes import Want, Wishes


@pytest.fixture
def server() -> fakeredis.FakeServer:
    return fakeredis.FakeServer()


@pytest.fixture
def acme(server: fakeredis.FakeServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installation]:
    monkeypatch.setattr(jobs, "_settings", load_settings(ENVIRON))
    with opened(server) as found:
        found.accounts.add_sender("acme")
        found.accounts.add_group("acme", "Weekly news", "", 12)
        found.events.configure("acme", "https://example.com/events")
        yield found


def _press(acme: Installation) -> None:
    Wishes(acme, JANE, "a" * 32, "one-click").make([Want(JANE.group, stop=True)])


def _killed_before_the_events(acme: Installation) -> None:
    with (
        patch.object(acme.events, "tell", side_effect=KeyboardInterrupt),
        patch.object(acme.store_redis, "hdel", side_effect=KeyboardInterrupt),  # a kill runs no `finally`
        pytest.raises(KeyboardInterrupt),
    ):
        _press(acme)


def test_what_was_recorded_is_held_no_longer(acme: Installation) -> None:
    _press(acme)

    assert acme.in_hand.left(now_ms=now_ms() + 3_600_000) == {}
    assert acme.events.rq.count == 1


def test_what_a_kill_left_is_told_soon_and_is_one_record(acme: Installation) -> None:
    _killed_before_the_events(acme)
    assert acme.events.rq.count == 0
    later = patch("worker.in_hand.time.time_ns", return_value=(now_ms() + int(LEFT_AFTER_S * 1000) + 1) * 1_000_000)

    assert acme.in_hand.queue_left(acme.queue, acme.quarantine_failed) == 0, "it may still be at work"
    with later:
        assert acme.in_hand.queue_left(acme.queue, acme.quarantine_failed) == 1
        assert acme.in_hand.queue_left(acme.queue, acme.quarantine_failed) == 0
    (job,) = acme.queue.rq.get_jobs()
    assert job.perform() == [["added"]]

    assert acme.events.rq.count == 1
    assert [record["requests"][0]["effect"] for _, record in acme.ledger.records()] == ["added"]


def test_a_failure_leaves_nothing_in_hand(acme: Installation) -> None:
    with pytest.raises(StoreUnavailable), acme.in_hand.held(decided()):
        raise StoreUnavailable("away")

    assert acme.store_redis.hlen("unsubd:in-hand") == 0


def test_what_cannot_be_read_goes_to_a_person(acme: Installation) -> None:
    acme.store_redis.hset("unsubd:in-hand", "k", '{"key": "k", "received_ms": 5}')

    assert acme.in_hand.queue_left(acme.queue, acme.quarantine_failed) == 1

    assert acme.quarantine.counts() == {"failed": 1}
    assert acme.queue.rq.count == 0
