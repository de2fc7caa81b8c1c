"""The clock: its arithmetic against plain Python, and that what it counts is counted once, in bounded space."""

from collections import Counter
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import fakeredis
import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from handlers.request import Outcome
from tests.unit import house
from tests.unit.house import decided, now_ms
from worker import clock
from worker.ages import Figures, figures_of, step_end_s, step_of
from worker.installation import Installation

HOUR_MS = 3_600_000


@pytest.fixture
def server() -> fakeredis.FakeServer:
    return fakeredis.FakeServer()


@pytest.fixture
def installation(server: fakeredis.FakeServer) -> Iterator[Installation]:
    with house.opened(server) as installation:
        yield installation


@pytest.fixture
def client(installation: Installation) -> redis.Redis:
    return installation.redis


def record(installation: Installation, *messages: Any, queued_ms: int | None = None) -> None:
    installation.intake.record(messages, queued_ms=queued_ms)


@given(st.lists(st.integers(0, 10**11), min_size=1, max_size=200))
def test_percentiles_are_those_of_plain_python_and_at_most_a_step_above(ages_ms: list[int]) -> None:
    found = figures_of(Counter(map(step_of, ages_ms)), max(ages_ms))

    ordered = sorted(ages_ms)
    assert (found.count, found.max_s) == (len(ages_ms), ordered[-1] / 1000)
    for percent, got_s in ((50, found.p50_s), (99, found.p99_s)):
        true_s = ordered[-(-len(ordered) * percent // 100) - 1] / 1000
        assert true_s - 0.0006 <= got_s <= max(true_s * 2**0.25, 0.001) + 0.0006


@given(st.integers(0, 10**12))
def test_an_age_is_within_its_step(age_ms: int) -> None:
    step = step_of(age_ms)

    assert age_ms / 1000 <= step_end_s(step) * (1 + 1e-9)
    assert step == 0 or step_end_s(step - 1) * (1 - 1e-9) < age_ms / 1000


def test_nothing_has_no_figures(client: redis.Redis) -> None:
    assert clock.total(client, 0) == Figures()
    assert clock.figures(client, 0) == {}
    assert [hour.honoured for hour in clock.hours(client, 3)] == [0, 0, 0]


def test_ages_are_kept_by_source_and_sender(installation: Installation, client: redis.Redis) -> None:
    old_ms = now_ms() - HOUR_MS
    record(
        installation, decided("k1"), decided("k2", received_ms=old_ms), decided("k3", sender="other", source="relay:x")
    )

    found = clock.figures(client, now_ms() - HOUR_MS)

    assert {names: each.count for names, each in found.items()} == {("imap:INBOX", "acme"): 2, ("relay:x", "other"): 1}
    assert found["imap:INBOX", "acme"].max_s == pytest.approx(3600, abs=5)
    assert found["imap:INBOX", "acme"].p50_s < 5
    assert clock.total(client, now_ms()).count == 3


def test_an_hour_has_its_messages_by_outcome_and_ages(installation: Installation, client: redis.Redis) -> None:
    bounce = decided("k2", outcome=Outcome.BOUNCE, requests=())
    unknown = decided("k3", outcome=Outcome.NO_TAG, requests=())
    record(installation, decided("k1", received_ms=now_ms() - 10_000), bounce, unknown)

    *earlier, now = clock.hours(client, 48)

    assert len(earlier) == 47
    assert (now.honoured, now.complaint, now.ignored, now.quarantined) == (1, 0, 1, 1)
    assert 10 <= now.p50_s <= now.p99_s <= now.max_s < 15
    assert now.start_s % 3600 == 0


def test_a_mail_that_comes_again_is_counted_once(installation: Installation, client: redis.Redis) -> None:
    for _ in range(3):
        record(installation, decided("k1", received_ms=now_ms() - 86_400_000))

    assert clock.total(client, 0).count == 1
    assert clock.hours(client, 1)[0].honoured == 1


def test_what_a_person_made_of_a_quarantined_mail_counts_from_the_mails_time(
    installation: Installation, client: redis.Redis
) -> None:
    at_ms = now_ms() - 50 * HOUR_MS
    first = decided("k1", outcome=Outcome.NO_TAG, requests=(), received_ms=at_ms)
    later = decided("k1", source="operator", received_ms=at_ms)
    record(installation, first)
    installation.ledger.refer([(first, later)])
    record(installation, later)

    assert clock.figures(client, 0)["operator", "acme"].max_s == pytest.approx(50 * 3600, abs=5)
    assert clock.hours(client, 1)[0].honoured == 0  # the message is one, and was quarantined


def test_a_month_has_its_worst_and_where_they_waited(installation: Installation, client: redis.Redis) -> None:
    at_ms = 1_793_620_800_000  # 2 November 2026, 12:00 UTC
    late = [decided(f"{number:064x}", received_ms=at_ms + number * 1000) for number in range(30)]
    with patch("time.time_ns", return_value=(at_ms + 2 * HOUR_MS) * 1_000_000):
        record(installation, *late, queued_ms=at_ms + HOUR_MS)

    found = clock.month(client, "2026-11")

    assert found.total.count == 30
    assert found.by["imap:INBOX", "acme"] == found.total
    assert [len(found.worst), found.worst[0].message, found.worst[0].age_s] == [20, "0" * 12, 7200.0]
    assert found.worst[0].why == "1 h until we had it, 1 h in the queue"
    assert clock.month(client, "2026-10") == clock.Month(Figures(), {}, [])


def test_many_senders_take_bounded_space(installation: Installation, client: redis.Redis) -> None:
    with patch.object(clock, "_MANY", 50):
        for start in range(0, 200, 50):
            record(installation, *(decided(f"k{each}", sender=f"s{each}") for each in range(start, start + 50)))

    found = clock.figures(client, 0)
    assert client.hlen(f"unsubd:clock:h:{now_ms() // HOUR_MS}:by") < 80
    assert sum(each.count for each in found.values()) == 200
    assert found["imap:INBOX", "other"].count > 100


def test_every_key_but_the_totals_expires(installation: Installation, client: redis.Redis) -> None:
    record(installation, decided("k1"))

    lives = {key.decode(): client.ttl(key) for key in client.scan_iter("unsubd:clock:*")}

    assert {name.split(":")[2] for name, life in lives.items() if life == -1} == {"totals"}
    assert len(lives) > 8


def test_trouble_with_the_clock_undoes_nothing(installation: Installation, client: redis.Redis) -> None:
    with patch.object(clock.Clock, "_write", side_effect=redis.ConnectionError):
        results = installation.intake.record([decided("k1")])

    assert results[0][0]["effect"] == "added"
    assert installation.journal.counters(client)["unsubd_failures_total", "clock"] == 1


def test_a_source_named_with_our_separator_stays_one_name(installation: Installation, client: redis.Redis) -> None:
    record(installation, decided("k1", source="imap:a|b|<script>"))

    assert list(clock.figures(client, 0)) == [("imap:a/b/<script>", "acme")]


def test_totals_count_by_source_and_hop(installation: Installation, client: redis.Redis) -> None:
    now = now_ms()
    record(installation, decided("k1", received_ms=now - 100_000), queued_ms=now - 45_000)

    assert clock.totals(client, "source") == {("imap:INBOX", "honour"): 1}
    assert clock.totals(client, "sender") == {("acme", "added"): 1}
    assert clock.totals(client, "reason") == {("honour", "valid tag"): 1}
    hops = clock.totals(client, "hop")
    assert hops["arrival", "3"] == hops["queue", "3"] == 1  # up to 60 s
    assert clock.totals(client, "age")["imap:INBOX", "4"] == 1
    assert clock.totals(client, "age")["imap:INBOX", "sum"] == pytest.approx(100_000, abs=3000)
