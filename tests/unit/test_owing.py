"""What a target was not told yet: counted until the provider knows, an alarm by its age, and timed when it is done."""

import pytest

from handlers import forwarding
from handlers.errors import Unavailable
from handlers.request import Action
from tests.harness.far_side import KEY, FarSide
from tests.unit import house
from worker import by_hand, clock, forget
from worker.forwarding import Target, owing
from worker.installation import Installation
from worker.owed import owed
from worker.status import status
from worker.web.metrics import exposition

HOUR_MS = 3_600_000


def _target(acme: Installation, far: FarSide, key: str = KEY) -> Target:
    return acme.forwards.add(Target("", "acme", "sendgrid", key, {12: "103"}, "", far.url))


def _suppress(acme: Installation, *who: str, hours_ago: float = 0.0) -> None:
    at_ms = house.now_ms() - round(hours_ago * HOUR_MS)
    by_hand.enter(acme, Action.UNSUBSCRIBE, "acme", 12, who, actor="ops", reason="a test", at_ms=at_ms)


def _run(acme: Installation) -> None:
    for job in acme.events.rq.get_jobs():
        job.perform()
        job.delete()


def test_a_change_is_owed_until_the_provider_knows_and_then_timed(acme: Installation, far: FarSide) -> None:
    _target(acme, far)
    _suppress(acme, "a@example.com", "b@example.com", hours_ago=13)
    _suppress(acme, "c@example.com")

    (waiting,) = status(acme)["forwards"]
    assert (waiting["target"], waiting["changes"], waiting["level"]) == ("acme-sendgrid", 3, "page")
    assert waiting["age_s"] == pytest.approx(13 * 3600, abs=60)

    _run(acme)
    (done,) = status(acme)["forwards"]
    assert (done["changes"], done["age_s"], done["level"]) == (0, 0.0, "good")
    assert done["told"] == {"good": 1, "late": 0, "alarm": 0, "page": 2, "red": 0}


@pytest.mark.parametrize(("hours", "level"), [(0.5, "late"), (2, "alarm"), (13, "page"), (40, "red")])
def test_what_waits_is_an_alarm_by_its_age(hours: float, level: str, acme: Installation, far: FarSide) -> None:
    _target(acme, far)
    _suppress(acme, "a@example.com", hours_ago=hours)

    found = [each for each in owed(acme, status(acme)).alarms if "acme-sendgrid" in each.what]

    assert [(each.level, each.link) for each in found] == [(level, "/ops/senders/acme")]
    assert found[0].what.startswith("1 change waits for acme-sendgrid, the oldest since")


def test_why_it_fails_and_what_to_do_are_said_until_it_succeeds(acme: Installation, far: FarSide) -> None:
    _target(acme, far, key="wrong")
    _suppress(acme, "a@example.com", hours_ago=2)
    with pytest.raises(Unavailable):
        _run(acme)

    (alarm,) = [each for each in owed(acme, status(acme)).alarms if "acme-sendgrid" in each.what]
    assert "answered 401" in alarm.what
    assert "unsubd forward add it again" in alarm.remedy
    assert "a@example.com" not in str(acme.redis.hgetall("unsubd:forward:woe:acme-sendgrid"))

    _target(acme, far)
    _run(acme)
    assert [(each.changes, each.why) for each in owing.every(acme.redis)] == [(0, "")]


def test_what_ran_out_of_tries_is_still_owed_and_taken_up_again(acme: Installation, far: FarSide) -> None:
    target = _target(acme, far)
    _suppress(acme, "a@example.com", hours_ago=30)
    (job,) = acme.events.rq.get_jobs()
    acme.events.rq.remove(job)
    acme.events.rq.failed_job_registry.add(job)
    assert [each.changes for each in owing.every(acme.redis)] == [1]

    assert acme.forwards.again(target) == 1
    assert acme.forwards.again(target) == 0
    assert [(each.changes, each.oldest_ms) for each in owing.every(acme.redis)] == [
        (1, job.kwargs["batch"][0]["at_ms"])
    ]
    _run(acme)

    assert [each.changes for each in owing.every(acme.redis)] == [0]
    assert far.lists["103"] == {"a@example.com"}


def test_who_was_forgotten_and_a_target_that_was_removed_are_owed_nothing(acme: Installation, far: FarSide) -> None:
    target = _target(acme, far)
    _suppress(acme, "a@example.com", "c@example.com")
    forget.forget(acme, "a@example.com")
    assert "a@example.com" not in str([job.kwargs for job in acme.events.rq.get_jobs()])
    assert [each.changes for each in owing.every(acme.redis)] == [2], "not told yet"
    _run(acme)
    assert [each.changes for each in owing.every(acme.redis)] == [0]
    assert far.lists == {"103": {"c@example.com"}}, "neither the address nor the name in its place goes out"
    assert not any("~" in call or "a@example.com" in call for call in far.calls)

    _suppress(acme, "b@example.com")
    acme.forwards.remove(target.name)
    assert (owing.every(acme.redis), list(acme.redis.scan_iter("unsubd:forward:*"))) == ([], [])


def test_the_metrics_name_each_target(acme: Installation, far: FarSide) -> None:
    _target(acme, far)
    _suppress(acme, "a@example.com", hours_ago=2)
    _run(acme)
    _suppress(acme, "b@example.com", hours_ago=2)
    lines = exposition(acme).decode().splitlines()

    assert 'unsubd_forward_waiting{target="acme-sendgrid"} 1.0' in lines
    assert 'unsubd_forward_told_total{level="alarm",target="acme-sendgrid"} 1.0' in lines
    assert 'unsubd_forward_age_seconds_bucket{le="3600",target="acme-sendgrid"} 0.0' in lines
    assert 'unsubd_forward_age_seconds_bucket{le="14400",target="acme-sendgrid"} 1.0' in lines


def test_the_rest_of_many_targets_is_other(acme: Installation, far: FarSide, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.web.metrics._MOST_OTHERS", 1)
    for number in range(3):
        acme.forwards.add(Target(f"t{number}", "acme", "sendgrid", KEY, {12: "103"}, "", far.url))
    _suppress(acme, "a@example.com", hours_ago=2)
    lines = exposition(acme).decode().splitlines()

    assert 'unsubd_forward_waiting{target="other"} 2.0' in lines
    assert sum(line.startswith("unsubd_forward_waiting{") for line in lines) == 2


@pytest.mark.parametrize(
    ("why", "said"),
    [
        ("t: POST answered 403 for place 1 of group 2, expected 2xx", "key is not taken"),
        ("t: GET answered 404 for place 1 of group 2, expected 2xx", "place is gone"), ("t: PUT answered 429 for", "later"),
        ("t: PUT answered 400 for", "refuses"), ("t: 1 of 2 recipients refused, expected none", "refuses"),
        ("t: ConnectError, expected an answer in 20 s", "unsubd forward sync t"),
        ("forward to ses: needs botocore, which is not installed: pip install 'unsubd[ses]'", "install"),
    ],
)  # fmt: skip
def test_each_failure_has_a_remedy(why: str, said: str) -> None:
    assert said in forwarding.remedy("t", why)


def test_trouble_with_the_clock_undoes_no_forwarding(acme: Installation, far: FarSide) -> None:
    _target(acme, far)
    _suppress(acme, "a@example.com")
    acme.redis.set("unsubd:clock:totals:forward", "no hash")

    _run(acme)

    assert far.lists["103"] == {"a@example.com"}
    acme.redis.delete("unsubd:clock:totals:forward")
    assert clock.totals(acme.redis, clock.FORWARD) == {}
