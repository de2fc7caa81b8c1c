"""What an operator enters in his own name: its effects, and what the ledger tells of it."""

from collections.abc import Iterator, Sequence
from typing import Any

import fakeredis
import pytest

from handlers.errors import AddressError, UnknownAccount
from handlers.request import Action
from tests.harness.names import answers
from tests.unit import house
from tests.unit.house import decided
from tests.unit.letters import JANE
from worker import by_hand
from worker.check import check
from worker.installation import Installation
from worker.store.row import Row

JOE = "joe@example.org"


@pytest.fixture
def acme() -> Iterator[Installation]:
    with house.opened(fakeredis.FakeServer()) as installation:
        installation.accounts.add_sender("acme")
        installation.accounts.add_group("acme", "Weekly news", "", 12)
        installation.accounts.add_group("acme", "Bills", "", 13, essential=True)
        installation.accounts.add_group("acme", "Old offers", "", 14)
        yield installation


def enter(
    acme: Installation, action: Action, group: int = 12, recipients: Sequence[str] = (JANE.recipient,), **more: str
) -> list[str]:
    results = by_hand.enter(acme, action, "acme", group, recipients, **{"actor": "eva", "reason": "she called"} | more)
    return [each["effect"] for each in results]


def suppress(acme: Installation, group: int = 12, *recipients: str, **more: str) -> list[str]:
    return enter(acme, Action.UNSUBSCRIBE, group, recipients or (JANE.recipient,), **more)


def resubscribe(acme: Installation, group: int = 12, *recipients: str, **more: str) -> list[str]:
    return enter(acme, Action.RESUBSCRIBE, group, recipients or (JANE.recipient,), **more)


def row(acme: Installation, group: int = 12, recipient: str = JANE.recipient) -> Row:
    found = acme.store.row("acme", group, recipient)
    assert found is not None
    return found


def records(acme: Installation) -> list[dict[str, Any]]:
    return [record for _, record in acme.ledger.records()]


def test_each_recipient_has_an_effect_of_its_own_in_order(acme: Installation) -> None:
    acme.intake.record([decided("k1")])

    assert suppress(acme, 12, "Jane@Example.com", JOE) == ["already-present", "added"]
    assert resubscribe(acme, 12, "nobody@example.com", JOE.upper()) == ["not-lifted", "lifted"]


def test_an_operators_entry_holds_the_row_against_tags(acme: Installation) -> None:
    acme.intake.record([decided("k1")])
    assert not row(acme).held

    suppress(acme)

    assert row(acme).held
    assert row(acme).suppressed


@pytest.mark.parametrize("action", [Action.UNSUBSCRIBE, Action.COMPLAINT])
def test_only_he_lifts_what_is_held(acme: Installation, action: Action) -> None:
    enter(acme, action)

    assert resubscribe(acme) == ["lifted"]

    assert (row(acme).held, row(acme).suppressed, row(acme).complaint) == (False, False, False)


def test_who_came_back_may_go_again_in_the_same_moment(acme: Installation) -> None:
    assert [suppress(acme), resubscribe(acme), suppress(acme), resubscribe(acme)] == [
        ["added"], ["lifted"], ["added"], ["lifted"],
    ]  # fmt: skip


def test_who_has_no_row_is_not_lifted_and_gets_none(acme: Installation) -> None:
    assert resubscribe(acme) == ["not-lifted"]

    assert acme.store.row("acme", 12, JANE.recipient) is None


def test_who_comes_back_to_one_group_stays_out_of_the_others(acme: Installation) -> None:
    suppress(acme, 0)
    suppress(acme, 12)

    resubscribe(acme, 12)

    assert [each.scope for each in check(acme, "acme", 12, [JANE.recipient])] == ["global"]


def test_an_essential_group_is_stopped_by_hand_for_itself_alone(acme: Installation) -> None:
    suppress(acme, 0)
    assert [each.suppressed for each in check(acme, "acme", 13, [JANE.recipient])] == [False]

    assert suppress(acme, 13) == ["added"]

    [answer] = check(acme, "acme", 13, [JANE.recipient])
    assert (answer.scope, answer.essential) == ("group", True)


def test_a_mail_never_stops_an_essential_group(acme: Installation) -> None:
    [[result]] = acme.intake.record([decided("k1", group=13)])

    assert (result["group"], result["redirected_from"]) == (0, 13)
    assert not check(acme, "acme", 13, [JANE.recipient])[0].suppressed


def test_an_archived_group_takes_nobody_in_and_lets_all_go(acme: Installation) -> None:
    suppress(acme, 14)
    acme.accounts.edit_group("acme", 14, archived=True)

    with pytest.raises(UnknownAccount, match="archived"):
        suppress(acme, 14, JOE)

    assert resubscribe(acme, 14) == ["lifted"]
    assert not answers(acme.store, "acme", 14, [JANE.recipient])[0].suppressed
    assert acme.store.row("acme", 0, JANE.recipient) is None


@pytest.mark.parametrize(("sender", "group"), [("nobody", 0), ("nobody", 12), ("acme", 99)])
def test_an_unknown_sender_or_group_takes_no_entry(acme: Installation, sender: str, group: int) -> None:
    with pytest.raises(UnknownAccount):
        by_hand.enter(acme, Action.UNSUBSCRIBE, sender, group, [JANE.recipient], actor="eva", reason="x")

    assert records(acme) == []


def test_one_bad_address_keeps_all_from_being_entered(acme: Installation) -> None:
    with pytest.raises(AddressError):
        suppress(acme, 12, JOE, "a@x.com,b@y.org")

    assert acme.store.row("acme", 12, JOE) is None
    assert records(acme) == []


def test_the_ledger_knows_who_and_why_and_spells_nobody(acme: Installation) -> None:
    suppress(acme, 12, JANE.recipient, JOE, reason="Jane <jane@example.com> called for joe@example.org")

    [record] = records(acme)
    assert (record["source"], record["evidence"]) == ("operator", {"actor": "eva"})
    assert record["reason"] == "Jane <j···e@example.com> called for j···e@example.org"
    assert [each["effect"] for each in record["requests"]] == ["added", "added"]
    assert "jane@" not in str(record)
    assert "joe@" not in str(record)


def test_each_entry_is_a_record_of_its_own(acme: Installation) -> None:
    suppress(acme)
    suppress(acme)
    resubscribe(acme)

    assert sorted(record["requests"][0]["effect"] for record in records(acme)) == ["added", "already-present", "lifted"]
