"""Adoption: a sender registered after its tags went out keeps every suppression, and asks for its groups by their ids."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import fakeredis
import pytest

from handlers.errors import QueueUnavailable, Rejected, StoreUnavailable, UnknownAccount
from handlers.request import Action, Request, request_id
from tests.unit import house
from tests.unit.house import decided
from worker import adoption
from worker.accounts import Accounts
from worker.check import check
from worker.installation import Installation
from worker.store import Store
from worker.store.row import Row

JANE, JO = "jane@example.com", "jo@example.com"
NOON_MS = 1_780_000_000_000


@pytest.fixture
def unknown() -> Iterator[Installation]:
    """beta with group 20; nobody registered acme."""
    with house.opened(fakeredis.FakeServer()) as installation:
        installation.accounts.add_sender("beta")
        installation.accounts.add_group("beta", "Beta news", "", 20)
        yield installation


def entered(
    installation: Installation, group: int, recipient: str = JANE, source: str = "imap",
    action: Action = Action.UNSUBSCRIBE, at_ms: int = NOON_MS,
) -> None:  # fmt: skip
    wish_id = request_id(f"{at_ms}{source}", "acme", group, recipient, action)
    wish = Request(wish_id, action, "acme", group, recipient, at_ms, source, "k")
    if action is Action.RESUBSCRIBE and (found := installation.store.row("acme", group, recipient)):
        wish = replace(wish, seen_version=found.version.hex())
    installation.store.apply([wish], now_ms=at_ms + 1000)


def ids(installation: Installation, sender: str = "acme") -> list[int]:
    return [each.id for each in installation.accounts.groups(sender)]


def row(installation: Installation, group: int, recipient: str = JANE) -> Row | None:
    return installation.store.row("acme", group, recipient)


def scope(installation: Installation, group: int, recipient: str = JANE) -> str | None:
    return check(installation, "acme", group, [recipient])[0].scope


def test_the_ids_that_its_rows_name_become_its_groups(unknown: Installation) -> None:
    for group in (0, 12, 15):
        unknown.intake.record([decided(f"k{group}", group=group, recipient=f"p{group}@example.com")])

    added = adoption.register(unknown, "acme", "Acme Inc", opaque=True)

    assert (added.name, added.opaque, unknown.accounts.sender("acme")) == ("Acme Inc", True, added)
    assert [(each.id, each.name) for each in unknown.accounts.groups("acme")] == [(12, "Group 12"), (15, "Group 15")]
    assert scope(unknown, 12, "p12@example.com") == "group"
    assert scope(unknown, 12, "p15@example.com") is None
    assert scope(unknown, 15, "p0@example.com") == "global"
    with pytest.raises(UnknownAccount):
        scope(unknown, 16)


@pytest.mark.parametrize("rows", [[], [0]])
def test_group_0_alone_adopts_nothing(unknown: Installation, rows: list[int]) -> None:
    for group in rows:
        entered(unknown, group)

    adoption.register(unknown, "acme")

    assert ids(unknown) == []
    assert scope(unknown, 0) == ("global" if rows else None)


def test_another_senders_id_stops_everything_as_well(unknown: Installation) -> None:
    entered(unknown, 20)
    entered(unknown, 12, JO)

    adoption.register(unknown, "acme")

    assert (ids(unknown), ids(unknown, "beta")) == ([12], [20])
    assert (scope(unknown, 0), scope(unknown, 12), scope(unknown, 12, JO)) == ("global", "global", "group")
    here, there = row(unknown, 0), row(unknown, 20)
    assert here == there  # its time, source and evidence too
    assert scope(unknown, 0, JO) is None
    assert check(unknown, "beta", 20, [JANE])[0].scope is None


@pytest.mark.parametrize(
    ("entries", "held", "complaint", "source"),
    [
        ([("imap", Action.UNSUBSCRIBE)], False, False, "imap"),
        ([("import", Action.UNSUBSCRIBE)], True, False, "import"),
        ([("operator", Action.UNSUBSCRIBE)], True, False, "operator"),
        ([("imap", Action.UNSUBSCRIBE), ("operator", Action.UNSUBSCRIBE)], True, False, "operator"),
        ([("imap", Action.COMPLAINT)], True, True, "imap"),
        ([("page", Action.UNSUBSCRIBE), ("imap", Action.COMPLAINT)], True, True, "page"),
        ([("unheard-of", Action.UNSUBSCRIBE)], False, False, "unknown"),
    ],
)
def test_what_held_a_row_holds_it_there_too(
    unknown: Installation, entries: list[tuple[str, Action]], held: bool, complaint: bool, source: str
) -> None:
    for source_, action in entries:
        entered(unknown, 20, source=source_, action=action)

    adoption.register(unknown, "acme")

    found = row(unknown, 0)
    assert found is not None
    assert (found.suppressed, found.held, found.complaint, found.source) == (True, held, complaint, source)


def test_who_came_back_is_not_stopped_by_an_adoption(unknown: Installation) -> None:
    entered(unknown, 20)
    entered(unknown, 20, source="operator", action=Action.RESUBSCRIBE, at_ms=NOON_MS + 60_000)
    entered(unknown, 20, JO)
    entered(unknown, 0, JO)
    entered(unknown, 0, JO, "operator", Action.RESUBSCRIBE, NOON_MS + 3_600_000)

    adoption.register(unknown, "acme")

    assert (row(unknown, 0), scope(unknown, 0), scope(unknown, 0, JO)) == (None, None, None)


def test_a_forgotten_person_stays_suppressed_and_unnamed(unknown: Installation) -> None:
    entered(unknown, 20)
    unknown.store.forget(JANE, ["acme"])

    adoption.register(unknown, "acme")

    assert scope(unknown, 0) == "global"
    assert not [each for each in unknown.redis.hkeys("unsubd:supp:{acme:0}") if JANE.encode() in each]


def test_more_rows_than_one_part_are_all_adopted(unknown: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adoption, "_CHUNK", 3)
    people = [f"p{number}@example.com" for number in range(7)]
    for person in people:
        entered(unknown, 20, person)

    adoption.register(unknown, "acme")

    assert [scope(unknown, 0, person) for person in people] == ["global"] * 7


@pytest.mark.parametrize("owner", [Accounts, Store])
@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("after", [False, True])
def test_after_a_crash_the_same_command_finishes(
    unknown: Installation, monkeypatch: pytest.MonkeyPatch, owner: type, number: int, *, after: bool
) -> None:
    monkeypatch.setattr(adoption, "_CHUNK", 2)
    for group in (12, 15):
        entered(unknown, group)
    for person in (JANE, JO, "ann@example.com"):
        entered(unknown, 20, person)
    name, error = {
        Accounts: ("adopt_group", QueueUnavailable("away")), Store: ("apply", StoreUnavailable("away")),
    }[owner]  # fmt: skip
    real, calls = getattr(owner, name), []

    def stopped(*words: Any, **named: Any) -> Any:
        calls.append(words)
        if len(calls) == number and not after:
            raise error
        result = real(*words, **named)
        if len(calls) == number:
            raise error
        return result

    with patch.object(owner, name, autospec=True, side_effect=stopped), pytest.raises(type(error)):
        adoption.register(unknown, "acme")
    with pytest.raises(UnknownAccount):  # not half of it
        unknown.accounts.sender("acme")

    adoption.register(unknown, "acme")

    assert (ids(unknown), ids(unknown, "beta")) == ([12, 15], [20])
    assert {row(unknown, 0, person) for person in (JANE, JO)} == {row(unknown, 20, JANE), row(unknown, 20, JO)}
    assert scope(unknown, 15, "ann@example.com") == "global"


def test_what_comes_while_a_sender_is_registered_is_adopted_too(unknown: Installation) -> None:
    real = Accounts.add_sender

    def meanwhile(accounts: Accounts, *words: Any, **named: Any) -> Any:
        entered(unknown, 12)
        entered(unknown, 20, JO)
        return real(accounts, *words, **named)

    with patch.object(Accounts, "add_sender", autospec=True, side_effect=meanwhile):
        adoption.register(unknown, "acme")

    assert (scope(unknown, 12), scope(unknown, 0, JO)) == ("group", "global")


@pytest.mark.parametrize(
    ("sender", "fields"), [("Acme", {}), ("beta", {}), ("acme", {"address": "no tag"}), ("acme", {"public_url": "x"})]
)
def test_a_sender_that_is_refused_adopts_nothing(unknown: Installation, sender: str, fields: dict[str, str]) -> None:
    entered(unknown, 12)
    entered(unknown, 20)

    with pytest.raises(Rejected):
        adoption.register(unknown, sender, **fields)
    assert (unknown.accounts.owners([12, 20]), row(unknown, 0)) == ({20: "beta"}, None)
