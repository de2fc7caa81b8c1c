"""unsubd forwards to another unsubd, whose `/v3` is SendGrid's: the two houses end equal, in both directions of a change."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sendgrid import EventWebhook, SendGridAPIClient

from handlers import events
from handlers.errors import Unavailable
from handlers.request import Action
from tests.harness.web import Web, serving
from worker import by_hand, jobs
from worker.forwarding import Target


@pytest.fixture
def here(tmp_path: Path, redis_url: str) -> Iterator[Web]:
    with serving(tmp_path / "here", redis_url) as running:
        running.installation.accounts.add_sender("acme")
        running.installation.accounts.add_group("acme", "Weekly news", "", 12)
        yield running


@pytest.fixture
def there(tmp_path: Path, valkey_url: str) -> Iterator[Web]:
    with serving(tmp_path / "there", valkey_url) as running:
        running.installation.accounts.add_sender("shop")
        running.installation.accounts.add_group("shop", "News", "", 103)
        yield running


def _run(here: Web, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run what waits; return how many jobs."""
    monkeypatch.setattr(jobs, "_settings", here.installation.settings)
    waiting = here.installation.events.rq.get_jobs()
    for job in waiting:
        job.perform()
        job.delete()
    return len(waiting)


def test_each_change_reaches_the_other_house(here: Web, there: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    key, url = there.installation.accounts.new_api_key("shop"), f"http://127.0.0.1:{there.port}"
    here.installation.forwards.add(Target("", "acme", "sendgrid", key, {12: "103"}, "", url))
    lists = SendGridAPIClient(key, host=url).client.asm

    people = [f"p{number}@example.com" for number in range(30)] + ["with+plus@example.com", "o'hara@example.com"]
    by_hand.enter(here.installation, Action.UNSUBSCRIBE, "acme", 12, people, actor="ops", reason="a test")
    by_hand.enter(here.installation, Action.UNSUBSCRIBE, "acme", 0, people[:3], actor="ops", reason="a test")
    _run(here, monkeypatch)
    assert sorted(lists.groups._("103").suppressions.get().to_dict) == sorted(people)

    by_hand.enter(here.installation, Action.RESUBSCRIBE, "acme", 12, people[-12:], actor="ops", reason="came back")
    by_hand.enter(here.installation, Action.RESUBSCRIBE, "acme", 0, people[:1], actor="ops", reason="came back")
    _run(here, monkeypatch)

    assert sorted(lists.groups._("103").suppressions.get().to_dict) == sorted(people[:-12])
    everything = [bool(lists.suppressions._("global")._(each).get().to_dict) for each in people[:3]]
    assert everything == [False, True, True]


def test_two_houses_that_forward_to_each_other_come_to_rest(
    here: Web, there: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change that came from the other house is told back once, changes nothing there, and so is told no more."""
    for house, sender, group, other, name, place in (
        (here, "acme", 12, there, "shop", "103"), (there, "shop", 103, here, "acme", "12"),
    ):  # fmt: skip
        key, url = other.installation.accounts.new_api_key(name), f"http://127.0.0.1:{other.port}"
        house.installation.forwards.add(Target("", sender, "sendgrid", key, {group: place}, "", url))
    people = [f"p{number}@example.com" for number in range(6)]

    for changed in (0, 0, 1):
        action = Action.RESUBSCRIBE if changed else Action.UNSUBSCRIBE
        by_hand.enter(here.installation, action, "acme", 12, people[changed:4], actor="ops", reason="a test")
        by_hand.enter(there.installation, action, "shop", 103, people[2 + changed :], actor="ops", reason="a test")
        rounds = [_run(here, monkeypatch) + _run(there, monkeypatch) for _ in range(4)]
        assert rounds[-1] == 0, rounds

    lists = [
        {name for name, _ in house.installation.store.listed(sender, group)}
        for house, sender, group in ((here, "acme", 12), (there, "shop", 103))
    ]
    assert lists == [{people[0]}, {people[0]}]


def test_a_revoked_key_is_said_and_the_change_waits(here: Web, there: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"http://127.0.0.1:{there.port}"
    here.installation.forwards.add(Target("", "acme", "sendgrid", "SG.wrong", {}, "", url))
    by_hand.enter(here.installation, Action.UNSUBSCRIBE, "acme", 0, ["a@example.com"], actor="ops", reason="a test")
    monkeypatch.setattr(jobs, "_settings", here.installation.settings)
    (job,) = here.installation.events.rq.get_jobs()

    with pytest.raises(Unavailable, match="POST answered 401"):
        job.perform()


def test_sendgrids_own_verifier_takes_our_signature(here: Web) -> None:
    hook = here.installation.events.configure("acme", "https://acme.example/events")
    body = events.body([{"email": "jörg@example.com"}])
    verifier = EventWebhook(hook.public_key)

    assert verifier.verify_signature(body.decode(), events.signature(hook.key, "1700000000", body), "1700000000")
    assert not verifier.verify_signature(
        body.decode() + " ", events.signature(hook.key, "1700000000", body), "1700000000"
    )
