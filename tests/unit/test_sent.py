"""Who was mailed after a suppression took effect: what the row says, kept once, in bounded space."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from unittest.mock import patch

import fakeredis
import pytest

from handlers.errors import AddressError, Rejected, UnknownAccount
from handlers.request import Action
from tests.unit import house
from tests.unit.house import decided, now_ms
from worker import by_hand, sent
from worker.installation import Installation
from worker.sent import Sent, reported

JANE = "jane@example.com"
HOUR = timedelta(hours=1)


@pytest.fixture
def installation() -> Iterator[Installation]:
    with house.opened(fakeredis.FakeServer()) as installation:
        installation.accounts.add_sender("acme")
        for number, name in ((12, "Weekly news"), (13, "Offers")):
            installation.accounts.add_group("acme", name, "", number)
        yield installation


def pressed(installation: Installation, days_ago: float, group: int = 12, key: str = "k1") -> datetime:
    at_ms = now_ms() - round(days_ago * 86_400_000)
    installation.intake.record([decided(key, group=group, recipient=JANE, received_ms=at_ms)])
    return datetime.fromtimestamp(at_ms / 1000, UTC)


def told(installation: Installation, *mails: Sent) -> list[tuple[int, str]]:
    return [(each.number, each.scope) for each in reported(installation, "acme", mails)]


def test_a_mail_after_the_grace_is_a_violation_and_one_before_is_none(installation: Installation) -> None:
    at = pressed(installation, 2)

    found = told(
        installation,
        Sent(JANE, 12, at - HOUR), Sent("Jane@Example.COM", 12, at + HOUR * 0.9), Sent("Jane@Example.COM", 12, at + HOUR * 1.1),
        Sent(JANE, 13, at + HOUR * 2), Sent("joe@example.com", 12, at + HOUR * 2),
    )  # fmt: skip

    assert found == [(2, "group")]


def test_a_global_stop_counts_for_every_group_and_an_older_one_of_the_group_still_counts(
    installation: Installation,
) -> None:
    at = pressed(installation, 5)
    pressed(installation, 1, group=0, key="k2")

    found = told(
        installation, Sent(JANE, 12, at + HOUR * 2), Sent(JANE, 13, at + HOUR * 2), Sent(JANE, 13, at + HOUR * 100)
    )

    assert found == [(0, "group"), (2, "global")]


def test_whoever_came_back_may_be_mailed(installation: Installation) -> None:
    at = pressed(installation, 2)
    by_hand.enter(installation, Action.RESUBSCRIBE, "acme", 12, [JANE], actor="ops", reason="asked by phone")

    assert told(installation, Sent(JANE, 12, at + HOUR * 20)) == []


def test_essential_groups_and_bypasses_are_as_for_a_check(installation: Installation) -> None:
    at = pressed(installation, 2, group=0)
    installation.accounts.add_group("acme", "Receipts", "", 14, essential=True)

    bypass = frozenset({"bypass_unsubscribe_management"})
    assert told(installation, Sent(JANE, 14, at + HOUR * 2), Sent(JANE, 12, at + HOUR * 2, bypass)) == []


def test_the_same_report_again_counts_nothing_twice(installation: Installation) -> None:
    at = pressed(installation, 2)
    for _ in range(3):
        assert told(installation, Sent(JANE, 12, at + HOUR * 2)) == [(0, "group")]

    assert sum(sent.counts(installation.redis).values()) == 1
    (kept,) = sent.violations(installation.redis, "acme")
    assert (kept.group, kept.recipient) == (12, installation.pseudonyms.bare(JANE))
    assert kept.at == (at + HOUR * 2).replace(microsecond=kept.at.microsecond)


def test_only_the_last_are_kept_and_all_are_counted_once(installation: Installation) -> None:
    at = pressed(installation, 2)
    mails = [Sent(JANE, 12, at + HOUR * 2 + timedelta(seconds=each)) for each in range(8)]
    with patch.object(sent, "_KEPT", 5):
        for _ in range(2):
            reported(installation, "acme", mails)

    assert len(sent.violations(installation.redis, "acme")) == 5
    assert sum(sent.counts(installation.redis).values()) == 8
    assert installation.redis.ttl("unsubd:mailed-after:acme") > 0


@pytest.mark.parametrize(
    ("mail", "error"),
    [
        (Sent(JANE, 99, datetime.now(UTC)), UnknownAccount),
        (Sent("nobody", 12, datetime.now(UTC)), AddressError),
        (Sent(JANE, 12, datetime.now(UTC) + timedelta(days=1)), Rejected),
        (Sent(JANE, 12, datetime.now(UTC), frozenset({"bypass_everything"})), Rejected),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_refused_whole(
    installation: Installation, mail: Sent, error: type[Exception]
) -> None:
    at = pressed(installation, 2)

    with pytest.raises(error):
        reported(installation, "acme", [Sent(JANE, 12, at + HOUR * 2), mail])
    assert sent.counts(installation.redis) == {}
