"""One-click while the queue's Redis is away: parked in the store, then queued, then in effect; once."""

import json
from collections.abc import Iterator
from unittest.mock import patch

import fakeredis
import pytest

from handlers.errors import QueueUnavailable, Unavailable
from handlers.request import Effect
from tests.unit import house
from tests.unit.letters import JANE
from worker import installation as installations
from worker import jobs
from worker.installation import Installation, open_installation
from worker.settings import load_settings
from worker.web.wishes import Want, Wishes

SERVERS = ("redis://queue", "redis://store")


@pytest.fixture
def servers() -> dict[str, fakeredis.FakeServer]:
    return {url: fakeredis.FakeServer() for url in SERVERS}


@pytest.fixture
def acme(servers: dict[str, fakeredis.FakeServer], monkeypatch: pytest.MonkeyPatch) -> Iterator[Installation]:
    settings = load_settings(house.ENVIRON | {"UNSUBD_REDIS_URL": SERVERS[0], "UNSUBD_STORE_URL": SERVERS[1]})
    monkeypatch.setattr(jobs, "_settings", settings)
    with (
        patch.object(installations, "connect", autospec=True, side_effect=lambda url: house.client(servers[url])),
        open_installation(settings) as found,
    ):
        found.accounts.add_sender("acme")
        found.accounts.add_group("acme", "Weekly news", "", 12)
        yield found


def _pressed(acme: Installation, nonce: str = "a" * 32) -> Effect | None:
    return Wishes(acme, JANE, nonce, "one-click").make([Want(JANE.group, stop=True)])[0].effect


def _stopped(acme: Installation) -> list[str | None]:
    return [name for name, _ in acme.store.listed("acme", 12)]


def test_it_is_parked_and_takes_effect_when_the_queue_is_back(
    acme: Installation, servers: dict[str, fakeredis.FakeServer]
) -> None:
    servers[SERVERS[0]].connected = False
    assert _pressed(acme) is Effect.QUEUED
    assert _stopped(acme) == []
    with pytest.raises(QueueUnavailable):
        acme.parked.move(acme.queue, acme.quarantine_failed)

    servers[SERVERS[0]].connected = True
    assert acme.parked.move(acme.queue, acme.quarantine_failed) == 1
    assert acme.parked.move(acme.queue, acme.quarantine_failed) == 0
    (job,) = acme.queue.rq.get_jobs()
    assert job.perform() == [["added"]]

    assert _stopped(acme) == [JANE.recipient]
    assert len(list(acme.ledger.records())) == 1


def test_a_crash_between_moving_and_taking_away_repeats_and_changes_nothing(
    acme: Installation, servers: dict[str, fakeredis.FakeServer]
) -> None:
    servers[SERVERS[0]].connected = False
    _pressed(acme)
    servers[SERVERS[0]].connected = True
    with patch.object(acme.store_redis, "pipeline", side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        acme.parked.move(acme.queue, acme.quarantine_failed)

    assert acme.parked.move(acme.queue, acme.quarantine_failed) == 1
    effects = [job.perform() for job in acme.queue.rq.get_jobs()]

    assert effects == [[["added"]], [["added"]]]  # the second is the first one's repeat: the same id, the same answer
    assert len(list(acme.ledger.records())) == 1


def test_with_both_away_nothing_is_called_done(acme: Installation, servers: dict[str, fakeredis.FakeServer]) -> None:
    for server in servers.values():
        server.connected = False

    with pytest.raises(Unavailable):
        _pressed(acme)


def test_a_start_is_never_parked(acme: Installation, servers: dict[str, fakeredis.FakeServer]) -> None:
    _pressed(acme)
    row = Wishes(acme, JANE, "b" * 32).make([Want(12, stop=True)])[0].row
    assert row is not None
    servers[SERVERS[0]].connected = False

    from handlers import undo

    with pytest.raises(QueueUnavailable):
        Wishes(acme, JANE, "c" * 32).make([Want(12, stop=False, seen=undo.version_of(row.version))])
    assert acme.store_redis.llen("unsubd:parked") == 0


def test_a_damaged_row_goes_to_a_person_and_stops_nothing(acme: Installation) -> None:
    acme.store_redis.rpush("unsubd:parked", "x", "[1]", json.dumps(house.decided().as_wire()))

    assert acme.parked.waiting() == (3, 0)
    assert acme.parked.move(acme.queue, acme.quarantine_failed) == 3
    assert (acme.queue.rq.count, acme.quarantine.counts(), acme.parked.waiting()) == (1, {"failed": 2}, (0, 0))


def test_what_was_parked_enters_a_full_queue(acme: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    acme.parked.put([house.decided()])
    monkeypatch.setattr(acme.queue, "_limit", 0)

    assert acme.parked.move(acme.queue, acme.quarantine_failed) == 1
    assert acme.queue.rq.count == 1
