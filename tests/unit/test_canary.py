"""The canary: it arrives, its hops are timed, and it means nobody."""

from collections.abc import Iterator
from pathlib import Path

import fakeredis
import pytest

from handlers.canary import canary
from handlers.request import DecidedMessage, Outcome
from tests.unit import house, letters
from tests.unit.house import mail
from worker.canary import seen
from worker.doctor import canary as flights
from worker.doctor.finding import Verdict
from worker.installation import Installation
from worker.sources.maildir import Maildir


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    with house.opened(fakeredis.FakeServer(), maildir=str(tmp_path / "mail")) as installation:
        yield installation


def test_a_canary_is_ignored_and_a_request_beside_it_is_not() -> None:
    address = letters.tagged(canary("k7"))
    alone = letters.decide(f"From: <a@b.example>\r\nTo: <{address}>\r\nSubject: unsubscribe\r\n\r\n")
    both = letters.decide(f"From: <a@b.example>\r\nTo: <{address}>, <TAG>\r\nSubject: unsubscribe\r\n\r\n")

    assert (alone.outcome, alone.requests, alone.evidence["canary"]) == (Outcome.PING, (), "k7")
    assert both.outcome is Outcome.HONOUR
    assert letters.JANE.recipient in [each.recipient for each in both.requests]


def test_each_hop_is_noted_and_nobody_suppressed(installation: Installation) -> None:
    accepted = installation.intake.accept([mail(letters.tagged(canary("k7")))])
    assert set(seen(installation.redis, "k7")) == {"source", "accepted_ms"}

    installation.intake.record([DecidedMessage.from_wire(each.as_wire()) for each in accepted.decided])

    assert set(seen(installation.redis, "k7")) == {"source", "accepted_ms", "recorded_ms"}
    assert installation.store.senders() == []


def test_a_canary_that_is_taken_and_applied_is_timed(
    installation: Installation, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    maildir = Maildir(installation, tmp_path / "mail")

    def work(_: float) -> None:
        maildir.take()
        for job in installation.queue.rq.get_jobs():
            installation.intake.record([DecidedMessage.from_wire(each) for each in job.kwargs["batch"]])

    monkeypatch.setattr(flights.time, "sleep", work)

    (found,) = flights.fly(installation, 30, lambda _: None)

    assert found.verdict is Verdict.OK
    assert found.detail.startswith("maildir: came by maildir:default, accepted after ")


def test_a_canary_that_waits_in_the_queue_says_who_is_missing(
    installation: Installation, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    maildir = Maildir(installation, tmp_path / "mail")
    monkeypatch.setattr(flights.time, "sleep", lambda _: maildir.take())

    (found,) = flights.fly(installation, 0.3, lambda _: None)

    assert (found.verdict, found.remedy) == (Verdict.FAIL, "start unsubd run, or unsubd work: it waits in the queue")


def test_a_way_that_takes_nothing_is_named(installation: Installation) -> None:
    (found,) = flights.fly(installation, 0.1, lambda _: None)  # no folder was made: nobody ever polled it

    assert (found.verdict, found.detail) == (Verdict.FAIL, "maildir: cannot be sent (FileNotFoundError)")
