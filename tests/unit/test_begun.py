"""What a page or the API records at once: whoever dies on the way leaves it to the reaper."""

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import fakeredis
import pytest
from redis.client import Pipeline

from handlers.errors import QueueUnavailable
from tests.unit.house import decided, opened
from worker.installation import Installation

BEGUN = "unsubd:begun"


class Killed(BaseException):
    """Stands for kill -9: nobody catches it."""


@pytest.fixture
def house() -> Iterator[Installation]:
    with opened(fakeredis.FakeServer()) as found:
        yield found


def _move(house: Installation, monkeypatch: pytest.MonkeyPatch, after_s: float = -1.0) -> int:
    monkeypatch.setattr("worker.begun._LEFT_AFTER_S", after_s)
    return house.intake.begun.move(house.queue, house.quarantine_failed)


def test_what_is_done_is_kept_no_longer(house: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    [[result]] = house.intake.record_now([decided()])

    assert result["effect"] == "added"
    assert not house.redis.exists(BEGUN)
    assert _move(house, monkeypatch) == 0


def test_what_a_death_left_is_queued_and_has_its_effect_once(
    house: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = decided()
    with monkeypatch.context() as broken:
        broken.setattr("worker.store.ledger.Ledger.write", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            house.intake.record_now([message])

    assert _move(house, monkeypatch, after_s=30.0) == 0, "it may be in hand still"
    assert _move(house, monkeypatch) == 1
    assert _move(house, monkeypatch) == 0
    [job] = house.queue.rq.get_jobs()
    assert job.kwargs["batch"] == [message.as_wire()]
    [[again]] = house.intake.record([message])
    assert again["effect"] == "added", "the same id hears its first effect"


def test_it_enters_a_full_queue(house: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    house.redis.hset(BEGUN, "1", json.dumps({"at_ms": 0, "message": decided().as_wire()}))
    monkeypatch.setattr(house.queue, "_limit", 0)

    assert _move(house, monkeypatch) == 1
    assert house.queue.rq.count == 1


def test_what_cannot_be_read_waits_for_a_person(house: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    house.redis.hset(BEGUN, "1", json.dumps({"at_ms": 0, "message": {"key": "k9", "received_ms": 5}}))

    assert _move(house, monkeypatch) == 1
    assert house.quarantine.entries(["k9"])
    assert house.queue.rq.count == 0


@pytest.mark.parametrize(("confirmed", "done"), [(0, []), (1, []), (2, ["added"])])
def test_nothing_is_begun_that_too_few_replicas_keep(
    monkeypatch: pytest.MonkeyPatch, confirmed: int, done: list[str]
) -> None:
    """WAIT says how many replicas have it. fakeredis knows no WAIT, so it is answered here."""

    def answered(pipeline: Any, *command: Any, **options: Any) -> Any:
        return execute(pipeline, *(("ECHO", confirmed) if command[0] == "WAIT" else command), **options)

    execute = Pipeline.execute_command
    monkeypatch.setattr(Pipeline, "execute_command", answered)
    found, message, server = [], decided(), fakeredis.FakeServer()
    with opened(server):
        pass  # the pseudonym key is made, and was confirmed
    with opened(server, min_replicas="2") as house:
        with suppress(QueueUnavailable):
            found = [each["effect"] for each in house.intake.record_now([message])[0]]
        (wish,) = message.requests
        row = house.store.row(wish.sender, wish.group, wish.recipient)

    assert (found, row is not None) == (done, bool(done))


def test_what_is_done_while_it_is_rewritten_does_not_come_back(house: Installation) -> None:
    house.redis.hset(BEGUN, "1", json.dumps({"at_ms": 0, "message": decided().as_wire()}))

    def changed(message: dict[str, Any]) -> dict[str, Any]:
        house.redis.hdel(BEGUN, "1")
        return message | {"reason": "another"}

    assert house.intake.begun.rewrite(changed) == 1
    assert not house.redis.exists(BEGUN)


@pytest.mark.parametrize("row", ['{"at_ms": 0}', "[1]", "x", '{"at_ms": "soon", "message": {}}'])
def test_a_damaged_row_goes_to_a_person_and_stops_nothing(
    house: Installation, monkeypatch: pytest.MonkeyPatch, row: str
) -> None:
    house.redis.hset(BEGUN, "1", row)
    house.redis.hset(BEGUN, "2", json.dumps({"at_ms": 0, "message": decided().as_wire()}))

    assert house.intake.begun.left() == ["1", "2"]
    assert _move(house, monkeypatch) == 2
    assert (house.queue.rq.count, house.quarantine.counts(), house.redis.exists(BEGUN)) == (1, {"failed": 1}, 0)
