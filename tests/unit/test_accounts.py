"""Senders, groups and API keys."""

import time
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from typing import Any
from unittest.mock import patch

import fakeredis
import pytest
import redis

from handlers.errors import QueueUnavailable, Rejected, UnknownAccount
from handlers.tag import MAX_GROUP
from worker.accounts import Accounts, Group, KnownGroups, Sender, Standing
from worker.accounts.api_keys import SCOPES, ApiKey, ApiKeys
from worker.accounts.key_calls import KeyCalls


@pytest.fixture
def accounts(client: redis.Redis) -> Accounts:
    accounts = Accounts(client)
    accounts.add_sender("acme", "Acme Inc")
    return accounts


# --- senders


def test_a_sender_is_known_by_its_name_or_its_id(accounts: Accounts) -> None:
    accounts.add_sender("beta")

    assert accounts.sender("acme") == Sender("acme", "Acme Inc")
    assert accounts.senders() == [Sender("acme", "Acme Inc"), Sender("beta", "beta")]


@pytest.mark.parametrize("sender", ["", "Acme", "a-b", "a" * 17, "ä", "a b", "acme\n"])
def test_sender_ids_fit_into_a_tag(accounts: Accounts, sender: str) -> None:
    with pytest.raises(Rejected, match="expected 1 to 16 characters of a-z and 0-9"):
        accounts.add_sender(sender)


def test_a_senders_name_has_an_end(accounts: Accounts) -> None:
    for change in (
        lambda name: accounts.add_sender("beta", name),
        lambda name: accounts.edit_sender("acme", name=name),
    ):
        with pytest.raises(Rejected, match=r"^sender name of 101 characters: expected at most 100$"):
            change("n" * 101)

    assert accounts.edit_sender("acme", name="n" * 100).name == "n" * 100


def test_a_sender_is_registered_once(accounts: Accounts) -> None:
    with pytest.raises(Rejected, match=r"^sender 'acme': exists already"):
        accounts.add_sender("acme", "Other")

    assert accounts.sender("acme").name == "Acme Inc"


def test_an_unknown_sender_is_refused(accounts: Accounts) -> None:
    for ask in (
        lambda: accounts.sender("beta"),
        lambda: accounts.group("beta", 0),
        lambda: accounts.add_group("beta", "News", ""),
        lambda: accounts.new_api_key("beta"),
    ):
        with pytest.raises(UnknownAccount, match=r"^sender 'beta': not registered"):
            ask()


# --- groups


def test_group_ids_come_from_one_counter_of_the_installation(accounts: Accounts) -> None:
    accounts.add_sender("beta")

    ids = [accounts.add_group(sender, "News", "What is new").id for sender in ("acme", "beta")]

    assert ids == [1, 2]
    assert accounts.groups() == [Group(1, "acme", "News", "What is new"), Group(2, "beta", "News", "What is new")]
    assert accounts.groups("beta") == [Group(2, "beta", "News", "What is new")]


def test_the_counter_steps_over_ids_that_were_chosen(accounts: Accounts) -> None:
    chosen = [accounts.add_group("acme", f"Kept {number}", "", number).id for number in (1, 2, MAX_GROUP)]

    assert chosen == [1, 2, MAX_GROUP]
    assert accounts.add_group("acme", "New", "").id == 3


@pytest.mark.parametrize("group_id", [0, -1, MAX_GROUP + 1])
def test_a_chosen_id_is_in_range(accounts: Accounts, group_id: int) -> None:
    with pytest.raises(Rejected, match=f"expected 1 to {MAX_GROUP}"):
        accounts.add_group("acme", "News", "", group_id)


def test_an_id_is_never_used_twice_not_even_by_another_sender(accounts: Accounts) -> None:
    accounts.add_group("acme", "News", "", 7)
    accounts.add_sender("beta")

    with pytest.raises(Rejected, match="used already"):
        accounts.add_group("beta", "News", "", 7)


def test_a_group_name_is_unique_within_its_sender(accounts: Accounts) -> None:
    accounts.add_group("acme", "News", "")

    with pytest.raises(Rejected, match="has one of that name"):
        accounts.add_group("acme", "News", "")


@pytest.mark.parametrize(("name", "description"), [("", ""), ("n" * 31, ""), ("News", "d" * 101)])
def test_names_and_descriptions_fit_the_sendgrid_contract(accounts: Accounts, name: str, description: str) -> None:
    with pytest.raises(Rejected, match="expected 1-30 and 0-100"):
        accounts.add_group("acme", name, description)


def test_a_refused_group_uses_up_no_id(accounts: Accounts) -> None:
    with pytest.raises(Rejected):
        accounts.add_group("acme", "", "")

    assert accounts.add_group("acme", "News", "").id == 1


def test_group_zero_is_everything_of_a_registered_sender(accounts: Accounts) -> None:
    assert accounts.group("acme", 0) == Group(0, "acme", "Everything from Acme Inc", "")


def test_a_group_belongs_to_its_sender_alone(accounts: Accounts) -> None:
    accounts.add_sender("beta")
    group = accounts.add_group("acme", "News", "")

    assert accounts.group("acme", group.id) == group
    for sender, group_id in (("beta", group.id), ("acme", 99)):
        with pytest.raises(UnknownAccount, match=f"^group {group_id}: sender '{sender}' has none of that id"):
            accounts.group(sender, group_id)


def test_standings(accounts: Accounts) -> None:
    accounts.add_sender("beta")
    for number, sender in ((1, "acme"), (2, "acme"), (3, "beta")):
        accounts.add_group(sender, f"Group {number}", "", number)
    accounts.add_group("acme", "Receipts", "", 4, essential=True)
    accounts.edit_group("acme", 2, archived=True)

    found = accounts.standings({("acme", n) for n in (0, 1, 2, 3, 4, 9)} | {("nobody", n) for n in (0, 1, 2, 9)})

    live, gone = Standing.LIVE, Standing.GONE
    assert found == {
        ("acme", 0): live, ("acme", 1): live, ("acme", 2): gone, ("acme", 3): gone, ("acme", 9): gone,
        ("acme", 4): Standing.ESSENTIAL,
        # Nobody registered it: its ids stay as its tags carry them, unless another sender owns one.
        ("nobody", 0): live, ("nobody", 9): live, ("nobody", 1): gone, ("nobody", 2): gone,
    }  # fmt: skip


def test_the_groups_of_one_sender_that_are_not_archived(accounts: Accounts) -> None:
    accounts.add_sender("beta")
    accounts.add_group("beta", "Theirs")
    accounts.add_group("acme", "News", group_id=7)
    accounts.add_group("acme", "Old")
    accounts.add_group("acme", "First", is_default=True)
    accounts.edit_group("acme", 2, archived=True)

    found = accounts.live_groups("acme")
    assert found == [each for each in accounts.groups("acme") if not each.archived]
    assert len(found) == 2
    assert accounts.live_groups("nobody") == []


def test_an_archived_group_frees_its_name_and_never_its_id(accounts: Accounts) -> None:
    old = accounts.add_group("acme", "News")
    accounts.edit_group("acme", old.id, archived=True)
    new = accounts.add_group("acme", "News")

    assert new.id != old.id
    with pytest.raises(Rejected, match="has one of that name"):
        accounts.edit_group("acme", old.id, archived=False)
    accounts.edit_group("acme", new.id, name="News today")
    assert accounts.edit_group("acme", old.id, archived=False) == old
    with pytest.raises(Rejected, match="used already"):
        accounts.add_group("acme", "Other", "", old.id)


def test_a_group_is_changed_by_what_is_given(accounts: Accounts) -> None:
    first, second = accounts.add_group("acme", "News", "Daily"), accounts.add_group("acme", "Offers")
    changed = accounts.edit_group("acme", second.id, name="Sales", is_default=True)

    assert changed == replace(second, name="Sales", is_default=True)
    assert accounts.groups("acme") == [changed, first]
    with pytest.raises(Rejected, match="has one of that name"):
        accounts.edit_group("acme", first.id, name="Sales")
    with pytest.raises(Rejected, match="expected 1-30"):
        accounts.edit_group("acme", first.id, name="")
    with pytest.raises(Rejected, match=r"^group 0"):
        accounts.edit_group("acme", 0, name="All")
    assert accounts.add_group("acme", "Offers").name == "Offers"


def test_a_sender_has_so_many_groups(accounts: Accounts) -> None:
    accounts.edit_sender("acme", max_groups=2)
    first = accounts.add_group("acme", "One")
    accounts.add_group("acme", "Two")

    with pytest.raises(Rejected, match="has 2 groups"):
        accounts.add_group("acme", "Three")
    accounts.edit_group("acme", first.id, archived=True)
    assert accounts.add_group("acme", "Three").name == "Three"


def test_group_names_are_counted_in_characters(accounts: Accounts) -> None:
    assert accounts.add_group("acme", "ü" * 30, "読" * 100).name == "ü" * 30


def test_a_group_changed_meanwhile_is_read_again(accounts: Accounts) -> None:
    group = accounts.add_group("acme", "News")
    seen = accounts._group("acme", group.id)
    accounts.edit_group("acme", group.id, description="by somebody else")
    with patch.object(accounts, "_group", side_effect=[seen, accounts._group("acme", group.id)]):
        accounts.edit_group("acme", group.id, name="Sales")

    assert accounts.group("acme", group.id) == replace(group, name="Sales", description="by somebody else")


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"address": "u+tag@example.com"}, "^address: "),
        ({"address": "unsub{tag}@example.com"}, "^address: "),
        ({"public_url": "http://example.com"}, "^public-url: "),
        ({"https_url": "javascript:alert(1)"}, "^https-url: "),
    ],
)
def test_what_a_sender_chose_is_checked(accounts: Accounts, fields: dict[str, str], complaint: str) -> None:
    with pytest.raises(Rejected, match=complaint):
        accounts.edit_sender("acme", **fields)
    with pytest.raises(Rejected, match=complaint):
        accounts.add_sender("beta", **fields)

    assert accounts.sender("acme") == Sender("acme", "Acme Inc")
    assert [each.id for each in accounts.senders()] == ["acme"]


def test_groups_are_known_for_5_seconds(accounts: Accounts) -> None:
    group, known = accounts.add_group("acme", "News"), KnownGroups(accounts)
    assert known.group("acme", group.id) == group
    accounts.edit_group("acme", group.id, archived=True)

    with patch("worker.accounts.time.monotonic", return_value=time.monotonic() + 4):
        assert known.group("acme", group.id) == group
    with patch("worker.accounts.time.monotonic", return_value=time.monotonic() + 6):
        assert known.group("acme", group.id).archived
    with pytest.raises(UnknownAccount):
        known.group("acme", 99)


# --- API keys


def test_an_api_key_is_shown_once_and_kept_as_a_digest(client: redis.Redis, accounts: Accounts) -> None:
    key, other = accounts.new_api_key("acme"), accounts.new_api_key("acme")

    assert key != other
    assert [each and each.sender for each in (accounts.keys.find(key), accounts.keys.find(other))] == ["acme", "acme"]
    assert key.encode() not in b"".join(value for row in client.hgetall("unsubd:api-keys").items() for value in row)


@pytest.mark.parametrize("key", ["", "SG.x.y", "ä"])
def test_a_key_that_was_never_given_out_is_nobodys(accounts: Accounts, key: str) -> None:
    accounts.new_api_key("acme")

    assert accounts.keys.find(key) is None


def test_a_key_that_is_revoked_opens_nothing_and_the_others_do(accounts: Accounts) -> None:
    key, other = accounts.new_api_key("acme"), accounts.new_api_key("acme", name="robot")
    first, second = accounts.keys.find(key), accounts.keys.find(other)
    assert first
    assert second

    accounts.keys.revoke("acme", first.id)

    assert accounts.keys.find(key) is None
    assert accounts.keys.find(other) == second
    assert (first.name, second.name) == (f"key {first.id}", "robot")


def test_a_sender_revokes_its_own_keys_alone(accounts: Accounts) -> None:
    accounts.add_sender("beta")
    key = accounts.new_api_key("acme")
    [known] = accounts.keys.of("acme")

    with pytest.raises(Rejected, match="none of that id"):
        accounts.keys.revoke("beta", known.id)

    assert accounts.keys.find(key) == known
    assert accounts.keys.of("beta") == []


@pytest.mark.parametrize(
    ("wanted", "scopes"),
    [
        (["asm.groups.read"], ("asm.groups.read",)),
        (["asm.groups"], ("asm.groups.create", "asm.groups.read", "asm.groups.update", "asm.groups.delete")),
        ([], SCOPES),
    ],
)
def test_a_scope_may_be_named_by_its_subject(accounts: Accounts, wanted: list[str], scopes: tuple[str, ...]) -> None:
    accounts.new_api_key("acme", scopes=wanted)

    assert accounts.keys.of("acme")[0].scopes == scopes


@pytest.mark.parametrize("more", [{"scopes": ["asm"]}, {"scopes": ["mail.send"]}, {"scopes": [""]}, {"name": "x" * 41}])
def test_a_key_that_cannot_be_is_not_made(accounts: Accounts, more: dict[str, Any]) -> None:
    with pytest.raises(Rejected):
        accounts.new_api_key("acme", **more)

    assert accounts.keys.of("acme") == []


def test_a_key_of_an_earlier_release_may_do_everything(client: redis.Redis, accounts: Accounts) -> None:
    client.hset("unsubd:api-keys", sha256(b"SG.old").hexdigest(), '{"sender": "acme", "created_ms": 5}')

    found = accounts.keys.find("SG.old")

    assert found == ApiKey(sha256(b"SG.old").hexdigest()[:12], "acme", f"key {found and found.id}", created_ms=5)


def test_calls_are_counted_by_the_minute(accounts: Accounts, client: redis.Redis) -> None:
    accounts.new_api_key("acme")
    [key] = accounts.keys.of("acme")
    calls = KeyCalls(client)

    assert [calls.count([key] * times, now_s) for times, now_s in ((1, 0), (2, 59.9), (1, 60))] == [[1], [2, 3], [1]]


def test_the_calls_of_several_processes_are_one_count(client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    key, other, clock = ApiKey("0" * 12, "acme", "robot"), ApiKey("1" * 12, "acme", "robot"), [0.0]
    monkeypatch.setattr("worker.accounts.key_calls.time.monotonic", lambda: clock[0])
    here, there = KeyCalls(client), KeyCalls(client)

    assert here.count([key, other, key], 0) == [1, 1, 2]
    assert there.count([key], 0) == [1]  # what another took in this second is not known yet
    clock[0] = 2.0
    assert here.count([key], 0) == [3]
    assert there.count([key], 0) == [4]  # 2 of here, told a moment ago, and its own 2


# --- Redis away

ASK: dict[str, Callable[[Accounts], Any]] = {
    "add_sender": lambda accounts: accounts.add_sender("acme"),
    "senders": lambda accounts: accounts.senders(),
    "sender": lambda accounts: accounts.sender("acme"),
    "add_group": lambda accounts: accounts.add_group("acme", "News", ""),
    "groups": lambda accounts: accounts.groups(),
    "live_groups": lambda accounts: accounts.live_groups("acme"),
    "group": lambda accounts: accounts.group("acme", 1),
    "new_sender": lambda accounts: accounts.new_sender("acme"),
    "edit_sender": lambda accounts: accounts.edit_sender("acme", name="Acme"),
    "adopt_group": lambda accounts: accounts.adopt_group("acme", 1),
    "edit_group": lambda accounts: accounts.edit_group("acme", 1, name="News"),
    "owners": lambda accounts: accounts.owners([1]),
    "standings": lambda accounts: accounts.standings({("acme", 1)}),
    "new_api_key": lambda accounts: accounts.new_api_key("acme"),
    "keys.find": lambda accounts: accounts.keys.find("SG.x.y"),
    "keys.of": lambda accounts: accounts.keys.of("acme"),
    "keys.revoke": lambda accounts: accounts.keys.revoke("acme", "0" * 12),
    "keys.found": lambda accounts: accounts.keys.found(["SG.x.y"]),
    "api_keys": lambda accounts: accounts.api_keys("acme"),
    "revoke_api_key": lambda accounts: accounts.revoke_api_key("acme", "0" * 12),
}


@pytest.mark.parametrize("method", ASK)
def test_redis_away_is_unavailable(method: str) -> None:
    server = fakeredis.FakeServer()
    server.connected = False

    with pytest.raises(QueueUnavailable, match=r"^UNSUBD_REDIS_URL: the server does not answer"):
        ASK[method](Accounts(fakeredis.FakeRedis(server=server)))


def test_every_method_is_asked_with_redis_away() -> None:
    of_keys = {f"keys.{name}" for name in vars(ApiKeys) if not name.startswith("_") and name != "make"}
    assert {name for name in vars(Accounts) if not name.startswith("_")} | of_keys == set(ASK)


def test_a_footer_is_kept_and_a_book_is_refused(accounts: Accounts) -> None:
    accounts.edit_sender("acme", footer_text="Bye: <% %>", footer_html="<p><% Bye %></p>")

    assert accounts.sender("acme").footer_html == "<p><% Bye %></p>"
    for footer in ("x" * 10_001, "a\0b"):
        with pytest.raises(Rejected, match=r"^footer-text: .* expected text of at most 10000"):
            accounts.edit_sender("acme", footer_text=footer)
