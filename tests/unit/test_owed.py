"""Is anything owed: the oldest of what waits anywhere, in one sentence, and every alarm with its remedy."""

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import fakeredis
import pytest

from handlers.errors import StoreUnavailable
from tests.unit import house
from tests.unit.house import decided, mail, now_ms
from worker import habits, sent
from worker.endpoints import TAKEN
from worker.habits import Habit
from worker.hooks import Hook
from worker.installation import Installation
from worker.owed import Alarm, owed
from worker.parked import Parked
from worker.sent import Sent
from worker.status import status
from worker.web.metrics import _up, exposition

HOUR_MS = 3_600_000
FORGED = "u+aaaaaaaaaaaaaa-acme-12-jane_example.com@unsub.example.com"


@pytest.fixture
def installation() -> Iterator[Installation]:
    with house.opened(fakeredis.FakeServer()) as installation:
        installation.queue.worker("box-1").register_birth()
        yield installation


def source(installation: Installation, name: str = "imap:news", **facts: Any) -> None:
    known = {"state": "idle", "detail": "", "at_ms": now_ms(), "messages": 5, "last_ms": 0, "held": 0, "left": 0}
    installation.redis.hset("unsubd:sources", name, json.dumps(known | facts))


def whats(installation: Installation) -> list[tuple[str, str]]:
    return [(each.level, each.what) for each in owed(installation, status(installation)).alarms]


def test_nothing_is_owed(installation: Installation) -> None:
    source(installation)

    found = owed(installation, status(installation))

    assert (found.level, found.text, found.oldest_s, found.alarms) == (
        "good", "Nothing is waiting longer than 1 s.", 0.0, [],
    )  # fmt: skip


def test_a_store_that_is_away_is_an_alarm(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(_: Parked) -> tuple[int, int]:
        raise StoreUnavailable("UNSUBD_STORE_URL: the server does not answer (TimeoutError)")

    monkeypatch.setattr(Parked, "waiting", away)

    assert whats(installation) == [("alarm", "UNSUBD_STORE_URL: the server does not answer (TimeoutError)")]


def test_what_waits_in_the_queue_counts_from_its_event(installation: Installation) -> None:
    installation.queue.enqueue([decided("k1", received_ms=now_ms() - 12_000)])

    found = owed(installation, status(installation))

    assert (found.level, found.text) == ("good", "Nothing is waiting longer than 13 s.")


@pytest.mark.parametrize(
    ("hours", "level"), [(0.5, "late"), (1.01, "alarm"), (12.01, "page"), (36.01, "red")]
)  # fmt: skip
def test_the_level_is_that_of_the_oldest(installation: Installation, hours: float, level: str) -> None:
    late_ms = now_ms() - int(hours * HOUR_MS)
    installation.queue.enqueue([decided("k1"), decided("k2", received_ms=late_ms)])

    found = owed(installation, status(installation))

    assert found.level == level
    assert found.oldest_s == pytest.approx(hours * 3600, abs=3)
    assert found.text.startswith("2 requests wait since ")


def test_a_mailbox_that_refuses_us_owes_since_it_was_last_empty(installation: Installation) -> None:
    source(
        installation, state="refused", detail="mailbox 'news': the login is refused", clear_ms=now_ms() - 130 * 60_000
    )

    found = owed(installation, status(installation))

    assert found.text == (
        "Requests may wait since 2 h 10 min: imap:news is refused: mailbox 'news': the login is refused."
    )
    assert found.level == found.alarms[0].level == "alarm"
    assert found.alarms[0].link == "/ops/sources"


def test_what_needs_a_person_is_owed_and_what_is_mostly_not_ours_is_not(installation: Installation) -> None:
    old_ms = now_ms() - 13 * HOUR_MS
    installation.intake.accept([mail("info@elsewhere.example", "a", "Hello", received_ms=old_ms)])
    installation.redis.delete(installation.queue.rq.key)
    assert owed(installation, status(installation)).level == "good"

    installation.intake.accept([mail(FORGED, "b", received_ms=old_ms)])
    installation.redis.delete(installation.queue.rq.key)

    assert owed(installation, status(installation)).text == "1 request waits since 13 h: in quarantine, for a person."


def test_a_mailbox_being_read_owes_its_oldest(installation: Installation) -> None:
    source(installation, state="working", oldest_ms=now_ms() - 2 * HOUR_MS)

    assert owed(installation, status(installation)).text == "Requests may wait since 2 h: imap:news is being read."


def test_sources_in_trouble_and_what_they_hold_are_alarms(installation: Installation) -> None:
    source(installation, "imap:a", at_ms=now_ms() - HOUR_MS)
    source(installation, "imap:b", held=1200)
    source(installation, "imap:c", unread=2)
    source(installation, "imap:d", login_ends_ms=now_ms() + HOUR_MS)
    source(installation, "imap:e", state="waiting", detail="no answer", clear_ms=now_ms() - 5000)

    assert set(whats(installation)) == {
        ("alarm", "imap:a is silent"),
        ("late", "1,200 older messages of imap:b are held"),
        ("alarm", "2 messages of imap:c cannot be fetched"),
        ("alarm", "The login of imap:d ends in 59 min"),
        ("late", "imap:e is waiting: no answer"),
    }
    assert all(each.remedy for each in owed(installation, status(installation)).alarms)


def test_no_worker_and_failed_jobs_are_alarms(installation: Installation) -> None:
    (job_id,) = installation.queue.enqueue([decided("k4")])
    installation.redis.lrem(installation.queue.rq.key, 0, job_id)
    installation.redis.zadd(installation.queue.rq.failed_job_registry.key, {job_id: -1})
    installation.queue.worker("box-1").register_death()

    assert whats(installation) == [
        ("alarm", "1 request in 1 message ran out of tries"), ("alarm", "No worker is alive"),
    ]  # fmt: skip


def test_a_mailbox_silent_far_longer_than_its_habit_is_an_alarm(installation: Installation) -> None:
    source(installation)
    start_ms = now_ms() - 100 * HOUR_MS
    for number in range(60):  # every 6 minutes, until 94 hours ago
        at_ms = start_ms + number * 360_000
        installation.intake.record([decided(f"k{number}", source="imap:news", received_ms=at_ms)])

    assert whats(installation) == [
        ("alarm", "imap:news brought nothing for 3 d 22 h, usually something every 6 min")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("habit", "silent"),
    [
        (Habit(0, 240, 300, 1000), True), (Habit(0, 240, 300, 20), False),
        (Habit(0, 240, 2 * 3600, 1000), False), (Habit(0, 900, 900, 1000), False),
    ],
)  # fmt: skip
def test_a_silence_needs_enough_history_and_is_measured_by_gaps_there_were(habit: Habit, silent: bool) -> None:
    assert bool(habit.silent_s(3 * HOUR_MS)) is silent


def test_arrivals_near_googles_limit_are_an_alarm(installation: Installation) -> None:
    minute_ms = now_ms() // 60_000 * 60_000
    for name, count in (("imap:news", 45), ("relay:default", 100), ("imap:b", 44)):
        installation.intake.record(
            [decided(f"{name}{each}", source=name, received_ms=minute_ms) for each in range(count)]
        )

    assert habits.busiest_minutes(installation.redis) == {"imap:news": 45, "relay:default": 100, "imap:b": 44}
    assert [what for _, what in whats(installation)] == [
        "45 messages came to imap:news within a minute; Google sends mail away above 60"
    ]


def test_posts_that_do_not_prove_themselves_are_an_alarm(installation: Installation) -> None:
    for _ in range(9):
        habits.unproved(installation.redis, "relay:default")
    assert whats(installation) == []

    habits.unproved(installation.redis, "relay:default")

    assert whats(installation) == [("alarm", "10 posts to relay:default in two hours do not prove themselves")]


def test_whoever_was_mailed_after_all_is_an_alarm(installation: Installation) -> None:
    installation.accounts.add_sender("acme")
    installation.accounts.add_group("acme", "Weekly news", "", 12)
    installation.intake.record([decided("k1", received_ms=now_ms() - 5 * HOUR_MS)])
    now = datetime.fromtimestamp(time.time(), UTC)

    sent.reported(installation, "acme", [Sent("jane@example.com", 12, now)])

    assert owed(installation, status(installation)).alarms == [
        Alarm(
            "alarm", "1 mail was sent this month to recipients of acme after their suppression took effect",
            "ask acme to check before it sends; who: unsubd report --sender acme", "/ops/senders",
        )
    ]  # fmt: skip


def endpoint(installation: Installation) -> dict[str, Any]:
    (found,) = [each for each in status(installation)["sources"] if each["name"] == "relay:eu"]
    return found


def test_a_webhook_is_a_source_with_its_last_delivery_and_its_failures(installation: Installation) -> None:
    installation.hooks.add(Hook("relay", "eu", ("bearer:a",)))
    assert (endpoint(installation)["state"], endpoint(installation)["last_ms"]) == ("listening", 0)
    installation.intake.record([decided("k1", source="relay:eu")])
    installation.endpoints.note("relay:eu", TAKEN)

    assert (endpoint(installation)["messages"], endpoint(installation)["last_ms"] > 0) == (1, True)
    for _ in range(10):
        habits.unproved(installation.redis, "relay:eu")
    assert endpoint(installation)["state"] == "listening"  # somebody else's posts: a delivery came since
    installation.redis.hset("unsubd:endpoints", "relay:eu refused", now_ms() + 1000)

    assert (endpoint(installation)["state"], endpoint(installation)["unproved"]) == ("unproved", 10)
    assert 'unsubd_source_up{source="relay:eu"} 0.0' in exposition(installation).decode().splitlines()


def test_of_many_sources_the_metrics_name_those_that_do_not_work() -> None:
    sources = [{"name": f"relay:{number}", "state": "listening"} for number in range(300)]

    found = _up([*sources, {"name": "imap:news", "state": "refused"}])

    assert (len(found), found["imap:news"]) == (200, False)


@pytest.mark.parametrize(("count", "hours", "known"), [(3, 5, False), (25, 0.01, False), (25, 2, True)])
def test_a_habit_needs_evidence(installation: Installation, count: int, hours: float, known: bool) -> None:
    start_ms = now_ms() - 6 * HOUR_MS
    for number in range(count):
        at_ms = start_ms + round(number * hours * HOUR_MS / (count - 1))
        installation.intake.record([decided(f"k{number}", received_ms=at_ms, source="imap:news")])

    habit = habits.habits(installation.redis)["imap:news"]

    assert (habit.count, habit.is_known) == (count, known)


def test_a_habit_that_an_older_release_wrote_goes_on(installation: Installation) -> None:
    installation.redis.hset("unsubd:habit", "imap:news", f"{now_ms() - 60_000} 240000 300000 1000")
    installation.intake.record([decided("k1", source="imap:news")])

    habit = habits.habits(installation.redis)["imap:news"]

    assert (habit.count, habit.is_known) == (1001, False)
