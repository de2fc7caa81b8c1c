"""Buckets that split, on fakeredis; the histories of `test_store_model.py` put every step to the test as well."""

from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import fakeredis
import pytest
import redis

from handlers.errors import StoreUnavailable
from handlers.request import Action, Effect, Request
from tests.harness.growth import grow
from tests.harness.names import NAMES
from tests.store_model import NOW, asked
from worker.store import Store, growth, layout, script
from worker.store.growth import SPLIT, Growth

GROUP = 12
PEOPLE = [f"p{number}@example.com" for number in range(400)]
LONG = "l" * 64 + "@" + "d" * 180 + ".example.com"


@pytest.fixture(autouse=True)
def _small_buckets() -> Iterator[None]:
    with patch.object(layout, "LOAD", 8):
        yield


def stops(people: list[str], group: int = GROUP) -> list[Request]:
    return [asked(Action.UNSUBSCRIBE, ("acme", group, each), NOW, "page", each) for each in people]


def grown(client: redis.Redis, more: int) -> int:
    buckets = int(client.hget("unsubd:buckets:{acme}", "buckets") or 1)
    return grow(lambda commands: script.send(client, commands), NAMES, "acme", buckets + more)


def names(store: Store, group: int = GROUP) -> list[str]:
    return sorted(name for name, _ in store.stopped("acme", group))


def test_buckets_grow_with_the_sender_and_every_process_finds_its_rows(client: redis.Redis) -> None:
    stores = [Store(client, NAMES) for _ in range(3)]
    for start in range(0, len(PEOPLE), 10):
        stores[start % 3].apply(stops(PEOPLE[start : start + 10]), now_ms=NOW)
    buckets = int(client.hget("unsubd:buckets:{acme}", "buckets") or 0)

    assert 25 <= buckets <= 100
    for store in stores:
        assert all(first is None and own and own.suppressed for first, own in store.asked("acme", GROUP, PEOPLE))
        assert names(store) == sorted(PEOPLE)
        assert store.counted("acme", [GROUP, 0]) == [len(PEOPLE), 0]
    assert max(client.hlen(key) for key in client.scan_iter("unsubd:supp:*")) < 40


def test_a_walk_meets_each_row_once_while_buckets_split(client: redis.Redis) -> None:
    store = Store(client, NAMES)
    store.apply(stops(PEOPLE[:150]), now_ms=NOW)
    met: list[bytes] = []
    for bucket in store._buckets.walk("acme", lambda key: ("HGETALL", key), at_once=1):
        met += [field for field in bucket if layout.group_of(field) not in (None, (b"", GROUP))]
        grown(client, 3)

    assert len(met) == len(set(met)) == 150


def test_rows_of_a_split_that_did_not_end_are_not_listed_twice(client: redis.Redis) -> None:
    store = Store(client, NAMES)
    store.apply(stops(PEOPLE), now_ms=NOW)
    buckets = int(client.hget("unsubd:buckets:{acme}", "buckets") or 0)
    key = layout.bucket_key("acme", buckets)
    half = client.hgetall(layout.bucket_key("acme", layout.parent(buckets)))
    depth = layout.read_head(half.pop(b"")).depth
    script.send(client, [SPLIT(key, "fill", f"{depth + 1} 9999", *[each for pair in half.items() for each in pair])])

    assert names(store) == sorted(PEOPLE)
    assert store.counted("acme", [GROUP]) == [len(PEOPLE)]


@pytest.mark.parametrize("asked_at_once", [1, 400])
def test_rows_of_a_split_that_did_not_end_are_where_they_came_from(client: redis.Redis, asked_at_once: int) -> None:
    store = Store(client, NAMES)
    store.apply(stops(PEOPLE), now_ms=NOW)
    buckets = int(client.hget("unsubd:buckets:{acme}", "buckets") or 0)
    depth = layout.read_head(client.hgetall(layout.bucket_key("acme", layout.parent(buckets)))[b""]).depth
    script.send(
        client, [SPLIT(layout.bucket_key("acme", buckets), "fill", f"{depth + 1} 9999")]
    )  # as before all of them
    client.hset("unsubd:buckets:{acme}", "buckets", buckets + 1)  # as somebody knows who met it

    other = Store(client, NAMES)
    for _ in range(2):
        for start in range(0, len(PEOPLE), asked_at_once):
            assert all(own for _, own in other.asked("acme", GROUP, PEOPLE[start : start + asked_at_once]))


def test_a_fill_of_whoever_was_overtaken_is_refused(client: redis.Redis) -> None:
    fill = lambda changes, *rows: script.send(client, [SPLIT("bucket", "fill", f"1 {changes}", *rows)])  # noqa: E731

    assert [fill(7, "a", "new"), fill(6, "a", "old"), fill(7, "a", "new")] == [[1], [0], [1]]
    script.send(client, [SPLIT("bucket", "open")])
    assert fill(8, "a", "late") == [0]
    assert client.hgetall("bucket") == {b"": b"1 7", b"a": b"new"}


def test_who_splits_leaves_it_to_whoever_began(client: redis.Redis) -> None:
    Store(client, NAMES).apply(stops(PEOPLE[:5]), now_ms=NOW)
    client.set("unsubd:growing:{acme}", "1")

    assert grown(client, 3) == 1


def test_a_sender_without_rows_does_not_grow(client: redis.Redis) -> None:
    assert grown(client, 3) == 1
    assert client.keys("unsubd:supp:*") == []


def test_forgotten_people_and_long_addresses_go_along(client: redis.Redis) -> None:
    store, other = Store(client, NAMES), Store(client, NAMES)
    store.apply(stops([LONG, "l" + LONG, *PEOPLE[:20]]), now_ms=NOW)
    other.apply(stops(["l" + LONG], group=0), now_ms=NOW)
    store.forget(LONG, ["acme"])
    store.forget(PEOPLE[0], ["acme"])
    grown(client, 60)

    assert [name for name in names(other) if "@" in name] == sorted(["l" + LONG, *PEOPLE[1:20]])
    assert names(other, 0) == ["l" + LONG]
    assert other.counted("acme", [GROUP]) == [22]
    assert other.is_forgotten("acme", LONG)
    assert not other.is_forgotten("acme", "l" + LONG)
    assert other.apply(stops([PEOPLE[0]], group=0), now_ms=NOW) == [Effect.ADDED]
    assert not any(
        PEOPLE[0].encode() in field for key in client.scan_iter("unsubd:supp:*") for field in client.hkeys(key)
    )


def test_an_older_store_that_somebody_restored_answers_right(client: redis.Redis) -> None:
    store, fresh = Store(client, NAMES), fakeredis.FakeRedis()
    store.apply(stops(PEOPLE), now_ms=NOW)
    Store(fresh, NAMES).apply(stops(PEOPLE[:5]), now_ms=NOW)
    client.flushall()
    for key in fresh.scan_iter():
        client.hset(key, mapping=fresh.hgetall(key))

    found = store.asked("acme", GROUP, PEOPLE)
    assert [own is not None for _, own in found] == [True] * 5 + [False] * 395
    assert store.apply(stops(PEOPLE), now_ms=NOW)[4:] == [Effect.ADDED] * 396
    assert names(store) == sorted(PEOPLE)


def test_a_server_that_forgot_the_scripts_is_told_them_again(client: redis.Redis) -> None:
    store = Store(client, NAMES)
    store.apply(stops(PEOPLE[:3]), now_ms=NOW)
    client.script_flush()

    assert store.apply(stops(PEOPLE[:4]), now_ms=NOW) == [Effect.ADDED] * 4
    assert store.changes("acme", GROUP) > 4


def test_one_person_in_many_groups_is_no_reason_to_split_for_ever(client: redis.Redis) -> None:
    """No split makes his bucket smaller; each made the sender look twice as large."""
    store = Store(client, NAMES)
    store.apply(stops(PEOPLE), now_ms=NOW)
    before = len(client.keys("unsubd:supp:*"))

    for group in range(100, 140):
        store.apply(stops(["jane@example.com"], group), now_ms=NOW)

    assert len(client.keys("unsubd:supp:*")) <= 3 * before
    assert all(store.row("acme", group, "jane@example.com") for group in range(100, 140))


@pytest.mark.parametrize("ask", ["check", "write"])
def test_a_bucket_that_is_gone_is_said_and_nobody_waits_for_it(client: redis.Redis, ask: str) -> None:
    Store(client, NAMES).apply(stops(PEOPLE), now_ms=NOW)
    buckets = int(client.hget("unsubd:buckets:{acme}", "buckets") or 0)
    lost = next(each for each in PEOPLE if layout.bucket_of(layout.place(NAMES, "acme", each).hash, buckets) == 1)
    client.delete(layout.bucket_key("acme", 1))
    fresh = Store(client, NAMES)

    for some in ([lost], PEOPLE, PEOPLE):  # of a sender who is not known yet, and of one who is
        with pytest.raises(StoreUnavailable, match="bucket 1 of acme is gone"):
            fresh.asked("acme", GROUP, some) if ask == "check" else fresh.apply(stops(some), now_ms=NOW)


def test_each_step_of_a_split_is_confirmed_before_the_next(client: redis.Redis) -> None:
    """The halves lie on different nodes of a Cluster: who takes over for one must know what the other rests on."""
    sent: list[str] = []

    def write(some: Any) -> list[Any]:
        commands = list(some)
        sent.append(commands[0][4] if commands[0][1] == SPLIT("k")[1] else "count")
        return script.send(client, commands)

    with patch.object(layout, "LOAD", 1000):
        Store(client, NAMES).apply(stops(PEOPLE[:50]), now_ms=NOW)
    with patch.object(growth, "_are_full", return_value=True):
        Growth(lambda commands: script.send(client, commands), NAMES, write).grow("acme", 2)

    assert sent == ["fill", "leave", "open", "count"]
