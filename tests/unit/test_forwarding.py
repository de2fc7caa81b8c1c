"""Forwarders: the far side ends equal, whatever fails on the way, and is not called for what it is known to hold."""

import random
from collections.abc import Iterator
from typing import Any

import fakeredis
import pytest

from handlers import forwarding
from handlers.errors import ConfigError, Rejected, Unavailable
from handlers.request import Action, Effect, Request, request_id
from tests.harness.far_side import AWS_ID, AWS_SECRET, KEY, FarSide, far_side
from tests.unit import house
from worker import by_hand, forget, jobs
from worker.forwarding import Target, sigv4
from worker.installation import Installation

PROVIDERS = ["sendgrid", "mailgun", "postmark", "sparkpost", "ses"]
PLACES = {
    "sendgrid": {12: "103", 13: "104"}, "mailgun": {12: "news", 13: "offers"},
    "postmark": {12: "broadcast", 13: "outbound"}, "sparkpost": {},
    "ses": {12: "news", 13: "offers"},
}  # fmt: skip


@pytest.fixture
def acme(monkeypatch: pytest.MonkeyPatch) -> Iterator[Installation]:
    with house.opened(fakeredis.FakeServer()) as found:
        found.accounts.add_sender("acme")
        for group, name in ((12, "Weekly news"), (13, "Offers")):
            found.accounts.add_group("acme", name, "", group)
        monkeypatch.setattr(jobs, "_settings", found.settings)
        monkeypatch.setitem(forwarding.PACE_S, "ses", 0.0)
        yield found


@pytest.fixture
def far(request: pytest.FixtureRequest) -> Iterator[FarSide]:
    with far_side(request.param) as server:
        yield server


def _add(acme: Installation, provider: str, far: FarSide) -> Target:
    account = {"mailgun": "mg.example.com", "ses": "people"}.get(provider, "")
    return acme.forwards.add(Target("", "acme", provider, _key(provider), PLACES[provider], account, far.url))


def _key(provider: str) -> str:
    return f"{AWS_ID}:{AWS_SECRET}" if provider == "ses" else KEY


def _enter(acme: Installation, action: Action, group: int, *recipients: str) -> None:
    by_hand.enter(acme, action, "acme", group, recipients, actor="ops", reason="a test")


def _run(acme: Installation) -> int:
    """Run what is queued once; what fails stays, as RQ keeps it for later. Returns how many recipients were called for."""
    told = 0
    for job in acme.events.rq.get_jobs():
        try:
            told += job.perform()
        except Unavailable:
            continue
        job.delete()
    return told


def _drain(acme: Installation) -> None:
    for _ in range(500):
        _run(acme)
        if not acme.events.rq.get_jobs():
            return
    raise AssertionError("never done")


def _here(acme: Installation, target: Target) -> dict[str, set[str]]:
    """What the register says must be at each place."""
    everything = {name for name, _ in acme.store.listed("acme", 0) if name}
    more = set() if target.has_global else everything
    return {
        place: {name for name, _ in acme.store.listed("acme", group) if name} | more
        for group, place in target.places.items()
    }


def _there(far: FarSide, target: Target) -> dict[str, set[str]]:
    return {place: far.lists.get(place, set()) for place in target.places.values()}


@pytest.mark.parametrize(("provider", "far"), [(each, each) for each in PROVIDERS], indirect=["far"])
def test_both_sides_end_equal_though_a_third_of_the_calls_fail(provider: str, far: FarSide, acme: Installation) -> None:
    target, dice = _add(acme, provider, far), random.Random(7)
    far.fails = 0.17  # before and after: 31 % of the calls
    for number in range(40):
        action = Action.RESUBSCRIBE if dice.random() < 0.4 else Action.UNSUBSCRIBE
        who = [f"r{dice.randrange(8)}@example.com" for _ in range(dice.randrange(1, 4))]
        _enter(acme, action, dice.choice([0, *PLACES[provider]]), *dict.fromkeys(who))
        if number % 2 == 0:
            _run(acme)

    _drain(acme)

    assert _there(far, target) == _here(acme, target)
    assert any(_here(acme, target).values())


@pytest.mark.parametrize(("provider", "far"), [(each, each) for each in PROVIDERS], indirect=["far"])
def test_no_call_for_what_is_known_to_be_equal(provider: str, far: FarSide, acme: Installation) -> None:
    target = _add(acme, provider, far)
    _enter(acme, Action.UNSUBSCRIBE, 0, "jane@example.com")
    acme.forwards.enqueue(target, [(group, "jane@example.com") for group in target.places])
    _drain(acme)
    calls = len(far.calls)

    _enter(acme, Action.RESUBSCRIBE, 0, "jane@example.com")
    _enter(acme, Action.UNSUBSCRIBE, 0, "jane@example.com")  # back before anybody was told
    acme.forwards.enqueue(target, [(group, "jane@example.com") for group in target.places])
    _drain(acme)

    assert len(far.calls) == calls


@pytest.mark.parametrize("far", ["sendgrid"], indirect=True)
def test_a_change_that_the_target_told_us_is_not_told_back(far: FarSide, acme: Installation) -> None:
    target = _add(acme, "sendgrid", far)
    at_ms, action = house.now_ms(), Action.UNSUBSCRIBE
    wish = Request(request_id("e1", "acme", 12, "a@example.com", action), action, "acme", 12, "a@example.com", at_ms,
                   f"provider:{target.name}", "e1")  # fmt: skip
    message = house.decided("e1", source=f"provider:{target.name}", requests=(wish,))

    (result,) = acme.intake.record([message])[0]

    assert result["effect"] == Effect.ADDED.value
    assert acme.events.rq.get_jobs() == []


@pytest.mark.parametrize("far", ["sendgrid"], indirect=True)
def test_a_group_that_is_gone_there_is_never_added_to(far: FarSide, acme: Installation) -> None:
    acme.forwards.add(Target("", "acme", "sendgrid", KEY, {12: "999"}, "", far.url))
    _enter(acme, Action.UNSUBSCRIBE, 12, "jane@example.com")
    (job,) = acme.events.rq.get_jobs()

    with pytest.raises(Unavailable, match="GET answered 404 for place 999 of group 12"):
        job.perform()

    assert far.lists == {}


@pytest.mark.parametrize("far", ["postmark"], indirect=True)
def test_a_recipient_who_is_refused_is_said_and_his_neighbours_are_equal(far: FarSide, acme: Installation) -> None:
    _add(acme, "postmark", far)
    _enter(acme, Action.UNSUBSCRIBE, 12, "complained@example.com", "jane@example.com")
    (job,) = acme.events.rq.get_jobs()

    with pytest.raises(Unavailable, match="1 of 2 recipients refused") as failure:
        job.perform()

    assert "complained" not in str(failure.value)
    assert "jane@example.com" in far.lists["broadcast"]


@pytest.mark.parametrize("far", ["sendgrid"], indirect=True)
def test_who_was_forgotten_meanwhile_is_named_to_nobody(far: FarSide, acme: Installation) -> None:
    _add(acme, "sendgrid", far)
    _enter(acme, Action.UNSUBSCRIBE, 12, "jane@example.com")

    forget.forget(acme, "jane@example.com")
    _drain(acme)

    assert far.calls == []


@pytest.mark.parametrize("far", ["sendgrid"], indirect=True)
def test_a_wrong_key_is_tried_again_and_named_nowhere(far: FarSide, acme: Installation) -> None:
    target = acme.forwards.add(Target("", "acme", "sendgrid", "wrong-secret", {}, "", far.url))
    _enter(acme, Action.UNSUBSCRIBE, 0, "jane@example.com")
    (job,) = acme.events.rq.get_jobs()

    with pytest.raises(Unavailable, match="acme-sendgrid: POST answered 401") as failure:
        job.perform()

    assert "wrong-secret" not in f"{failure.value} {target!r} {acme.redis.hgetall('unsubd:forwards')!r}"
    assert job.retries_left == 31


def test_one_job_a_target_at_a_time(acme: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    target = acme.forwards.add(Target("", "acme", "sendgrid", KEY, {}, "", "http://127.0.0.1:1"))
    monkeypatch.setattr("worker.forwarding._LEASE_WAIT_S", 0.0)

    with (
        acme.forwards.alone(target),
        pytest.raises(Unavailable, match="another job works on it"),
        acme.forwards.alone(target),
    ):
        pass
    with acme.forwards.alone(target) as renew:
        renew()
        acme.redis.set(f"unsubd:forwarding:{target.name}", "another")
        with pytest.raises(Unavailable, match="another job took it over"):
            renew()


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"provider": "carrier-pigeon"}, "expected one of sendgrid"), ({"base": "http://api.example.com"}, "expected https"),
        ({"provider": "mailgun"}, "domain that Mailgun"), ({"provider": "postmark"}, "no list for everything"),
        ({"name": "Acme!"}, "expected 1 to 40"), ({"provider": "ses", "secret": "a:b"}, "name of the contact list"),
        ({"provider": "ses", "secret": "AKID"}, "ACCESS_KEY_ID:SECRET"),
        ({"provider": "ses", "secret": "a:b", "account": "people", "places": {12: forwarding.ses.ACCOUNT_LIST}}, "group 0 alone"),
    ],
)  # fmt: skip
def test_what_cannot_be_a_target(facts: dict[str, Any], expected: str, acme: Installation) -> None:
    given = {"name": "", "sender": "acme", "provider": "sendgrid", "secret": KEY, "places": {}} | facts

    with pytest.raises(Rejected, match=expected):
        acme.forwards.add(Target(**given))


# --- SES


@pytest.mark.parametrize("far", ["ses"], indirect=True)
def test_a_contact_keeps_what_is_not_ours(far: FarSide, acme: Installation) -> None:
    _add(acme, "ses", far)
    theirs = {"TopicName": "theirs", "SubscriptionStatus": "OPT_OUT"}
    far.contacts["jane@example.com"] = {"TopicPreferences": [theirs], "UnsubscribeAll": False, "AttributesData": "{}"}

    _enter(acme, Action.UNSUBSCRIBE, 12, "jane@example.com")
    _drain(acme)
    assert far.contacts["jane@example.com"] == {
        "TopicPreferences": [theirs, {"TopicName": "news", "SubscriptionStatus": "OPT_OUT"}],
        "UnsubscribeAll": False, "AttributesData": "{}",
    }  # fmt: skip

    _enter(acme, Action.RESUBSCRIBE, 12, "jane@example.com")
    _drain(acme)
    topics = far.contacts["jane@example.com"]["TopicPreferences"]
    assert topics == [theirs, {"TopicName": "news", "SubscriptionStatus": "OPT_IN"}]


@pytest.mark.parametrize("far", ["ses"], indirect=True)
def test_nothing_is_written_to_a_contact_that_is_so_already(far: FarSide, acme: Installation) -> None:
    target = _add(acme, "ses", far)
    out = [{"TopicName": "news", "SubscriptionStatus": "OPT_OUT"}]
    far.contacts["jane@example.com"] = {"TopicPreferences": out, "UnsubscribeAll": False}

    _enter(acme, Action.UNSUBSCRIBE, 12, "jane@example.com")
    acme.forwards.enqueue(target, [(12, "nobody@example.com")])
    _drain(acme)

    assert {call.split()[0] for call in far.calls} == {"GET"}


@pytest.mark.parametrize("far", ["ses"], indirect=True)
def test_a_list_that_is_gone_is_never_taken_for_a_contact_that_is(far: FarSide, acme: Installation) -> None:
    acme.forwards.add(Target("", "acme", "ses", _key("ses"), {12: "news"}, "gone", far.url))
    _enter(acme, Action.UNSUBSCRIBE, 12, "jane@example.com")
    (job,) = acme.events.rq.get_jobs()

    with pytest.raises(Unavailable, match="GET answered 404 for place news of group 12"):
        job.perform()


@pytest.mark.parametrize("far", ["ses"], indirect=True)
def test_the_account_list_follows_group_0_and_keeps_what_ses_put_there(far: FarSide, acme: Installation) -> None:
    everything = forwarding.ses.ACCOUNT_LIST
    target = acme.forwards.add(Target("", "acme", "ses", _key("ses"), {0: everything}, "", far.url))
    far.by_itself = {"bounced@example.com"}
    far.lists[everything] = {"bounced@example.com"}
    who = ["jane@example.com", "joe@example.com", "bounced@example.com"]
    far.fails = 0.17

    _enter(acme, Action.UNSUBSCRIBE, 0, *who)
    _drain(acme)
    assert far.lists[everything] == set(who)
    _enter(acme, Action.RESUBSCRIBE, 0, *who[1:])
    _drain(acme)

    assert far.lists[everything] == {"jane@example.com", "bounced@example.com"}
    assert "over-broad" in "".join(forwarding.warnings_of("ses", target.places))


@pytest.mark.parametrize("far", ["ses"], indirect=True)
def test_what_ses_takes_too_fast_is_tried_again(far: FarSide, acme: Installation) -> None:
    target = _add(acme, "ses", far)
    far.per_s = 1.0
    acme.forwards.enqueue(target, [(12, f"r{number}@example.com") for number in range(45)])
    assert [len(job.kwargs["batch"]) for job in acme.events.rq.get_jobs()] == [20, 20, 5]
    _enter(acme, Action.UNSUBSCRIBE, 12, "jane@example.com")

    with pytest.raises(Unavailable, match="answered 429"):
        acme.events.rq.get_jobs()[-1].perform()
    far.per_s = 0.0
    _drain(acme)

    assert far.lists["news"] == {"jane@example.com"}


@pytest.mark.parametrize("far", ["ses"], indirect=True)
def test_a_wrong_signature_is_refused_and_the_key_named_nowhere(far: FarSide, acme: Installation) -> None:
    acme.forwards.add(Target("", "acme", "ses", f"{AWS_ID}:wrong-secret", {}, "people", far.url))
    _enter(acme, Action.UNSUBSCRIBE, 0, "jane+tag@example.com")
    (job,) = acme.events.rq.get_jobs()

    with pytest.raises(Unavailable, match="GET answered 403") as failure:
        job.perform()
    assert "wrong-secret" not in str(failure.value)


def test_ses_without_its_extra_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sigv4, "find_spec", lambda _: None)

    with pytest.raises(ConfigError, match=r"pip install 'unsubd\[ses\]'"):
        sigv4.SigV4("a:b", "https://email.eu-west-1.amazonaws.com")


def test_a_removed_target_hears_no_more(acme: Installation) -> None:
    target = acme.forwards.add(Target("", "acme", "sendgrid", KEY, {}, "", "http://127.0.0.1:1"))
    _enter(acme, Action.UNSUBSCRIBE, 0, "jane@example.com")

    assert acme.forwards.remove(target.name)
    _enter(acme, Action.UNSUBSCRIBE, 0, "joe@example.com")

    assert len(acme.events.rq.get_jobs()) == 1
    _drain(acme)
