"""Deliveries share jobs: while many jobs wait, a turn waits for more deliveries."""

import asyncio
import threading
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from tests.unit import house
from worker import gather
from worker.gather import Gatherer
from worker.installation import Installation


@pytest.fixture
def pause_by(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[float], object]], None]:
    """Let the module pause by something else; its clock stands still."""

    def by(sleep: Callable[[float], object]) -> None:
        monkeypatch.setattr(gather, "time", SimpleNamespace(monotonic=lambda: 100.0, sleep=sleep))

    return by


async def _deliver(gatherer: Gatherer, *names: str) -> None:
    for each in names:
        await gatherer.accept([house.mail(message_id=each)])


def _many_wait(installation: Installation) -> None:
    installation.redis.rpush(installation.queue.rq.key, *(f"job-{number}" for number in range(11)))


def test_nobody_waits_while_few_jobs_do(acme: Installation, pause_by: Callable) -> None:
    pauses: list[float] = []
    pause_by(pauses.append)

    asyncio.run(_deliver(Gatherer(acme.intake), *(f"mail-{number}" for number in range(11))))

    assert (acme.queue.waiting(), pauses) == (11, [])


def test_while_many_jobs_wait_turns_begin_apart(acme: Installation, pause_by: Callable) -> None:
    pauses: list[float] = []
    pause_by(pauses.append)
    _many_wait(acme)

    asyncio.run(_deliver(Gatherer(acme.intake), "one", "two", "three"))

    assert pauses == [0.0, pytest.approx(gather._TURN_S), pytest.approx(gather._TURN_S)]


def test_a_turn_of_many_deliveries_waits_for_no_more(acme: Installation, pause_by: Callable) -> None:
    pauses: list[float] = []
    pause_by(pauses.append)
    _many_wait(acme)
    mails = [house.mail(message_id=f"mail-{number}") for number in range(gather._SMALL)]
    gatherer = Gatherer(acme.intake)

    async def one_after_the_other() -> None:
        await gatherer.accept(mails)
        await gatherer.accept(mails[1:])

    asyncio.run(one_after_the_other())

    assert pauses == [pytest.approx(gather._TURN_S)], "of the second alone"


def test_who_comes_during_the_pause_shares_a_job(acme: Installation, pause_by: Callable) -> None:
    pausing, everybody_asked = threading.Event(), threading.Event()
    pause_by(lambda _: (pausing.set(), everybody_asked.wait(30)))
    _many_wait(acme)
    gatherer = Gatherer(acme.intake)

    async def many() -> None:
        first = asyncio.create_task(_deliver(gatherer, "first"))
        await asyncio.to_thread(pausing.wait, 30)
        others = [asyncio.create_task(_deliver(gatherer, f"mail-{number}")) for number in range(20)]
        await asyncio.sleep(0)  # each has asked
        everybody_asked.set()
        await asyncio.gather(first, *others)

    asyncio.run(many())

    assert acme.queue.waiting() == 11 + 2
