"""Pages of a group, the counts beside its rows, and what programs enter: on fakeredis."""

from collections.abc import Iterator
from unittest.mock import patch

import fakeredis
import pytest

from handlers.errors import StoreUnavailable
from handlers.request import Action
from tests.unit import house
from worker import by_hand, entries
from worker.installation import Installation
from worker.store import Store
from worker.store.listing import MAX_ROWS, Listings

JANE, JOE, ANN = "jane@example.com", "joe@example.org", "ann@example.net"


@pytest.fixture
def acme() -> Iterator[Installation]:
    with house.opened(fakeredis.FakeServer()) as installation:
        installation.accounts.add_sender("acme")
        installation.accounts.add_group("acme", "News", "", 12)
        yield installation


def suppress(acme: Installation, at_s: int, *recipients: str, group: int = 12) -> None:
    by_hand.enter(acme, Action.UNSUBSCRIBE, "acme", group, recipients, actor="eva", reason="x", at_ms=at_s * 1000)


def lift(acme: Installation, *recipients: str, group: int = 12) -> list[bool]:
    return entries.lift(acme, "acme", group, recipients, actor="robot", reason="x")


def counted(acme: Installation, group: int = 12) -> int:
    return acme.store.counted("acme", [group])[0]


def test_pages_are_newest_first_and_ties_by_address(acme: Installation) -> None:
    suppress(acme, 1000, JOE, JANE)
    suppress(acme, 2000, ANN)

    listing = acme.listings.of("acme", 12)

    assert list(listing) == [(ANN, 2000), (JANE, 1000), (JOE, 1000)]
    assert [listing.page(0, 2), listing.page(2, 2), listing.page(1)] == [
        [(ANN, 2000), (JANE, 1000)], [(JOE, 1000)], [(JANE, 1000), (JOE, 1000)],
    ]  # fmt: skip


def test_a_group_is_read_again_only_after_it_changed(acme: Installation) -> None:
    suppress(acme, 1000, JANE)
    with patch.object(Store, "listed", autospec=True, side_effect=Store.listed) as read:
        first = acme.listings.of("acme", 12)
        assert acme.listings.of("acme", 12) is first
        suppress(acme, 1000, JOE, group=0)
        assert acme.listings.of("acme", 12) is first
        lift(acme, JANE)
        assert len(acme.listings.of("acme", 12)) == 0
        assert read.call_count == 2


def test_what_changes_while_it_is_read_is_read_the_next_time(acme: Installation) -> None:
    suppress(acme, 1000, JANE)
    read = Store.listed

    def late(store: Store, sender: str, group: int) -> object:
        found = list(read(store, sender, group))
        suppress(acme, 2000, JOE)
        return found

    listings = Listings(acme.store)
    with patch.object(Store, "listed", autospec=True, side_effect=late):
        assert [each for each, _ in listings.of("acme", 12)] == [JANE]

    assert [each for each, _ in listings.of("acme", 12)] == [JOE, JANE]


def test_a_process_keeps_so_many_rows(acme: Installation) -> None:
    suppress(acme, 1000, JANE)
    suppress(acme, 1000, JOE, group=0)
    assert MAX_ROWS > 1_000_000
    with patch("worker.store.listing.MAX_ROWS", 1):
        first = acme.listings.of("acme", 12)
        acme.listings.of("acme", 0)
        assert acme.listings.of("acme", 12) is not first


def test_counts_follow_every_change(acme: Installation) -> None:
    steps = []
    for step in (
        lambda: suppress(acme, 1000, JANE, JOE), lambda: suppress(acme, 2000, JANE), lambda: lift(acme, JANE, ANN),
        lambda: suppress(acme, 9_999_999_999, JANE), lambda: acme.store.forget(JANE, ["acme"]), lambda: lift(acme, JANE),
    ):  # fmt: skip
        step()
        steps.append(counted(acme))

    assert steps == [2, 2, 1, 2, 2, 1]
    assert counted(acme, 0) == 0


def test_a_group_without_rows_is_not_written(acme: Installation) -> None:
    assert (counted(acme, 13), acme.store.counted("nobody", [0])) == (0, [0])
    assert acme.store_redis.keys("unsubd:supp:*") == []


def test_one_person_under_address_and_name_counts_once(acme: Installation) -> None:
    suppress(acme, 1000, JANE)
    bucket, field = "unsubd:supp:{acme:0}", JANE + "\x0012"
    packed = acme.store_redis.hget(bucket, field)
    acme.store.forget(JANE, ["acme"])
    acme.store_redis.hset(bucket, field, packed)  # as one written in the moment of forgetting
    acme.store_redis.hincrby(bucket, "\x0012", 1)

    acme.store.forget(JANE, ["acme"])

    assert counted(acme) == 1


def test_forgotten_people_are_counted_and_not_listed(acme: Installation) -> None:
    suppress(acme, 1000, JANE, JOE)
    acme.store.forget(JANE, ["acme"])

    assert (counted(acme), list(acme.listings.of("acme", 12))) == (2, [(JOE, 1000)])


def test_what_changes_again_and_again_is_not_called_lifted(acme: Installation) -> None:
    suppress(acme, 1000, JANE)
    with patch.object(entries.by_hand, "enter", autospec=True) as enter:
        enter.return_value = [{"recipient": JANE, "effect": "not-lifted"}]
        with pytest.raises(StoreUnavailable, match="again and again"):
            lift(acme, JANE)

    assert lift(acme, JANE) == [True]


def test_a_row_that_changes_in_between_is_looked_at_again(acme: Installation) -> None:
    suppress(acme, 1000, JANE)
    enter, calls = by_hand.enter, iter([lambda: suppress(acme, 2000, JANE)])

    def raced(*args: object, **named: object) -> object:
        if change := next(calls, None):
            change()
            return [{"recipient": JANE, "effect": "not-lifted"}]
        return enter(*args, **named)  # type: ignore[arg-type]

    with patch.object(entries.by_hand, "enter", autospec=True, side_effect=raced):
        assert lift(acme, JANE) == [True]


def test_an_entry_is_dated_by_the_stores_clock(acme: Installation) -> None:
    """A web server whose clock is behind must not lose what a program enters."""
    suppress(acme, acme.store.now_ms() // 1000, JANE)
    lift(acme, JANE)
    with patch("worker.by_hand.time.time_ns", return_value=10**18):
        entries.suppress(acme, "acme", 12, [JANE], actor="robot", reason="x")

    assert [each for each, _ in acme.listings.of("acme", 12)] == [JANE]
