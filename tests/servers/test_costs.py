"""What the five hottest paths cost at Redis: round trips of the process, and commands that the server runs.

Bounds are what was measured, so that a change which adds a round trip, or a command a message, is seen. No timing.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from redis.connection import AbstractConnection

from handlers import message
from handlers.message import InboundMessage
from tests.harness.growth import grow
from tests.harness.mails import address, mail
from tests.harness.redis_server import RedisServer
from tests.harness.service import MASTERS
from tests.unit.house import decided, now_ms
from worker.accounts.key_calls import KeyCalls
from worker.check import Check, check, check_each
from worker.installation import Installation, open_installation
from worker.reconcile import Report
from worker.reconcile.books import Books
from worker.settings import load_settings
from worker.store.script import send


@dataclass(frozen=True)
class Cost:
    """Shape: trips: times that an answer was waited for. commands: that the server ran, those inside scripts among them."""

    trips: int
    commands: int


@pytest.fixture
def installation(redis_server: RedisServer, tmp_path: Path) -> Iterator[Installation]:
    redis_server.empty()
    environ = {"UNSUBD_REDIS_URL": redis_server.url, "UNSUBD_SECRET_KEYS": MASTERS[0], "UNSUBD_DATA_DIR": str(tmp_path)}
    with open_installation(load_settings(environ)) as installation:
        installation.accounts.add_sender("acme", "Acme")
        installation.accounts.add_group("acme", "News", "", 1)
        yield installation


@pytest.fixture
def cost(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], Cost]:
    """Return a function that runs something twice, the first time unmeasured, and says what the second cost."""

    def measured(work: Callable[[], object]) -> Cost:
        work()
        send, read = AbstractConnection.send_packed_command, AbstractConnection.read_response
        asked, trips = set[AbstractConnection](), []
        before = _commands(installation)

        def sent(self: AbstractConnection, command: object, check_health: bool = True) -> None:
            asked.add(self)
            send(self, command, check_health)

        def answered(self: AbstractConnection, *words: Any, **more: Any) -> object:
            if self in asked:  # the first answer since it was asked; a pipeline's others come along
                asked.remove(self)
                trips.append(self)
            return read(self, *words, **more)

        with monkeypatch.context() as patch:
            patch.setattr(AbstractConnection, "send_packed_command", sent)
            patch.setattr(AbstractConnection, "read_response", answered)
            work()
        return Cost(len(trips), _commands(installation) - before)

    return measured


def _commands(installation: Installation) -> int:
    stats = installation.redis.info("commandstats")
    return sum(each["calls"] for name, each in stats.items() if name != "cmdstat_info")


_Measure = Callable[[Callable[[], object]], Cost]


def test_a_check_is_a_round_trip_for_each_500(installation: Installation, cost: _Measure) -> None:
    people = [f"person{number}@example.com" for number in range(1000)]

    one = cost(lambda: check(installation, "acme", 1, people[:1]))
    many = cost(lambda: check(installation, "acme", 1, people))

    assert (one.trips, many.trips) == (1, 2)
    assert one.commands <= 2
    assert many.commands <= 2 * len(people)


def test_checks_that_come_at_once_share_it(installation: Installation, cost: _Measure) -> None:
    asked = [Check("acme", 1, [f"person{number}@example.com"]) for number in range(32)]
    [key] = installation.accounts.keys.found([installation.accounts.new_api_key("acme")])
    assert key is not None
    calls = KeyCalls(installation.redis)

    assert cost(lambda: check_each(installation, asked)).trips == 1
    assert cost(lambda: calls.count([key] * 32, 0)) == Cost(0, 0)  # told within this second


def test_messages_are_accepted_in_a_handful_of_round_trips(installation: Installation, cost: _Measure) -> None:
    sent = [mail(address(number), f"mail-{number}") for number in range(100)]
    messages = [message.read(raw, source="imap:default", envelope_to=address(nr)) for nr, raw in enumerate(sent)]

    found = cost(lambda: installation.intake.accept(messages))

    assert found.trips <= 4  # first receipts, room in the queue, the job, who used a tag
    assert found.commands <= len(messages) + 15  # one a message: when it first came


def test_a_job_of_500_is_recorded_in_ten_round_trips(installation: Installation, cost: _Measure) -> None:
    numbers = iter(range(10_000))

    def record(count: int) -> None:
        batch = [decided(f"{nr:064x}", recipient=f"p{nr}@example.com", received_ms=now_ms())
                 for nr, _ in zip(numbers, range(count), strict=False)]  # fmt: skip
        installation.intake.record(batch, queued_ms=now_ms())

    record(1)
    grow(lambda commands: send(installation.store_redis, commands), installation.names, "acme", 64)
    # Somebody else split: we learn by the way, a round trip each time, until we came to the last bucket.
    check(installation, "acme", 1, [f"person{number}@example.com" for number in range(1000)])
    small, large = cost(lambda: record(50)), cost(lambda: record(500))

    assert small.trips == large.trips <= 10  # the last: the pace of its source
    assert large.commands <= 500 * 12 + 100


def test_a_gap_is_looked_for_in_every_place_of_its_month_once_in_one_round_trip(
    installation: Installation, cost: _Measure
) -> None:
    numbers = iter(range(10_000))

    def read(count: int) -> list[InboundMessage]:
        sent = [(address(nr), mail(address(nr), f"mail-{nr}")) for nr, _ in zip(numbers, range(count), strict=False)]
        return [message.read(raw, source="imap:default", envelope_to=to, received_ms=now_ms()) for to, raw in sent]

    def compared() -> Cost:
        books = Books(installation, Report(), repair=False)
        return cost(lambda: books.compare(read(20)))  # the first time, places and archive are looked for

    def record(senders: range) -> None:
        installation.intake.record([decided(f"{nr:064x}", sender=f"s{nr}", received_ms=now_ms()) for nr in senders])

    record(range(1))
    few = compared()
    record(range(1, 150))
    many = compared()

    assert few.trips == many.trips
    assert many.commands - few.commands == 149
