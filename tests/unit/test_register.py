"""Many rows in one call of the register's script: each is decided as if it came alone, wherever its bucket went."""

from collections.abc import Iterator
from dataclasses import replace
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
from worker.store import _FORGET, Store, buckets, layout, script
from worker.store.buckets import Write
from worker.store.growth import SPLIT
from worker.store.line import Pending
from worker.store.row import COMPLAINT, HELD, SUPPRESSED, pack, unpack

GROUP = 12
PEOPLE = [f"p{number}@example.com" for number in range(200)]
LONG = "l" * 64 + "@" + "d" * 180 + ".example.com"
ADDED, PRESENT, LIFTED = Effect.ADDED, Effect.ALREADY_PRESENT, Effect.LIFTED


@pytest.fixture
def calls() -> Iterator[list[Any]]:
    """Every command that a test sends from here on."""
    sent: list[Any] = []
    by_redis_py, by_line = script._sent, Pending._send

    def kept(client: Any, commands: Any) -> list[Any]:
        sent.extend(commands)
        return by_redis_py(client, commands)

    def kept_too(pending: Pending, commands: Any) -> None:
        sent.extend(commands)
        by_line(pending, commands)

    with patch.object(script, "_sent", kept), patch.object(Pending, "_send", kept_too):
        yield sent


def stop(recipient: str, nonce: str = "", group: int = GROUP) -> Request:
    return asked(Action.UNSUBSCRIBE, ("acme", group, recipient), NOW, "page", nonce or recipient)


def split(client: redis.Redis, number: int) -> None:
    assert grow(lambda commands: script.send(client, commands), NAMES, "acme", number) == number


def bucket_of(recipient: str, number: int) -> int:
    return layout.bucket_of(layout.place(NAMES, "acme", recipient).hash, number)


def keys_of(calls: list[Any]) -> list[list[str]]:
    return [list(each[3 : 3 + each[2]]) for each in calls if each[0] == "EVALSHA"]


def test_more_rows_than_one_call_takes_are_answered_in_order(store: Store, calls: list[Any]) -> None:
    store.apply([stop(each) for each in PEOPLE[::2]], now_ms=NOW)
    calls.clear()
    effects = store.apply([stop(each, "again") for each in PEOPLE], now_ms=NOW)

    assert effects == [PRESENT, ADDED] * 100
    assert [len(each) for each in keys_of(calls)] == [64, 64, 64, 8]
    assert store.counted("acme", [GROUP]) == [200]


def test_one_call_carries_rows_of_several_buckets_of_which_one_has_split(
    store: Store, client: redis.Redis, calls: list[Any]
) -> None:
    """Each answers by itself: what is in its place is written at once, the rest goes where its bucket says."""
    people = PEOPLE[:50]
    store.apply([stop(each) for each in PEOPLE[150:]], now_ms=NOW)
    split(client, 2)
    store.apply([stop(each) for each in PEOPLE[100:150]], now_ms=NOW)  # hears of the second bucket
    split(client, 3)
    calls.clear()
    effects = store.apply([stop(each) for each in people], now_ms=NOW)

    moved = [each for each in people if bucket_of(each, 3) == 2]
    assert effects == [ADDED] * 50
    assert 0 < len(moved) < 50
    assert [len(each) for each in keys_of(calls)] == [50, len(moved)]
    for number in range(3):
        there = {name for each in client.hkeys(layout.bucket_key("acme", number)) for name in [each.split(b"\0")[0]]}
        assert {each.encode() for each in people if bucket_of(each, 3) == number} <= there
    assert store.counted("acme", [GROUP]) == [150]


def test_who_comes_too_early_is_sent_back_row_by_row(store: Store, client: redis.Redis) -> None:
    """The hint is of a store with more buckets; those that are not there send their rows to their parents."""
    other, fuller = Store(client, NAMES), fakeredis.FakeRedis()
    Store(fuller, NAMES).apply([stop(each) for each in PEOPLE], now_ms=NOW)
    split(fuller, 5)
    client.hset("unsubd:buckets:{acme}", "buckets", 5)

    assert other.apply([stop(each) for each in PEOPLE], now_ms=NOW) == [ADDED] * 200
    assert sorted(name for name, _ in store.stopped("acme", GROUP)) == sorted(PEOPLE)
    assert client.keys("unsubd:supp:*") == [b"unsubd:supp:{acme:0}"]


def test_a_bucket_that_is_on_its_way_is_asked_when_its_parent_says_so(store: Store, client: redis.Redis) -> None:
    """Filled, and its parent still answers; then its parent gave its rows up, and nobody opened it."""
    store.apply([stop(each) for each in PEOPLE[:50]], now_ms=NOW)
    goes = [each for each in PEOPLE if bucket_of(each, 2) == 1]
    parent, child = layout.bucket_key("acme", 0), layout.bucket_key("acme", 1)
    rows = client.hgetall(parent)
    stays = [each for row in rows.items() if row[0] and row[0].split(b"\0")[0].decode() not in goes for each in row]
    script.send(client, [SPLIT(child, "fill", "1 99", *[each for row in rows.items() if row[0] for each in row])])
    early = Store(client, NAMES)
    early.row("acme", GROUP, goes[0])  # asks how many buckets there are
    early._hints.met("acme", 1)

    assert early.apply([stop(each, "early") for each in goes[-4:-2]], now_ms=NOW) == [ADDED] * 2
    assert client.hget(child, "") == b"1 99 filled"
    assert script.send(client, [SPLIT(parent, "leave", client.hget(parent, ""), "1 99", *stays)]) == [1]
    assert store.apply([stop(each, "new") for each in goes[-2:]], now_ms=NOW) == [ADDED] * 2
    assert client.hget(child, "") == b"1 101"


def test_what_says_nothing_new_is_not_written(store: Store, client: redis.Redis) -> None:
    store.apply([stop(each) for each in PEOPLE[:3]], now_ms=NOW)
    before = client.hgetall("unsubd:supp:{acme:0}")

    assert store.apply([stop(PEOPLE[0]), stop(PEOPLE[1], "again")], now_ms=NOW) == [ADDED, PRESENT]
    assert client.hgetall("unsubd:supp:{acme:0}") == before


def test_what_only_a_request_says_is_in_no_row(store: Store, client: redis.Redis) -> None:
    target = ("acme", GROUP, PEOPLE[0])
    undated = replace(asked(Action.UNSUBSCRIBE, target, NOW, "import", "list"), undated=True)
    store.apply([undated], now_ms=NOW)
    row = client.hget("unsubd:supp:{acme:0}", f"{PEOPLE[0]}\0{GROUP}")

    assert row == pack(NOW, SUPPRESSED + HELD, "import", bytes.fromhex(undated.id)[:8])
    elsewhere = asked(Action.RESUBSCRIBE, target, NOW - 1, "provider", "there", row.hex())
    assert store.apply([elsewhere, replace(elsewhere, source="operator")], now_ms=NOW) == [Effect.NOT_LIFTED, LIFTED]


def test_a_resubscribe_made_elsewhere_counts_from_its_own_time(store: Store) -> None:
    target = ("acme", GROUP, PEOPLE[0])
    store.apply([stop(PEOPLE[0])], now_ms=NOW)
    row = store.row(*target)
    assert row is not None
    effects = [
        store.apply([asked(Action.RESUBSCRIBE, target, at_ms, "provider", "there", row.version.hex())], now_ms=NOW + 9)
        for at_ms in (NOW, NOW + 1)
    ]

    assert effects == [[Effect.NOT_LIFTED], [LIFTED]]


def test_one_row_is_changed_in_order_within_a_call_and_across_two(store: Store) -> None:
    store.apply([stop("jane@example.com", "first")], now_ms=NOW)
    row = store.row("acme", GROUP, "jane@example.com")
    assert row is not None
    target = ("acme", GROUP, "jane@example.com")
    back = asked(Action.RESUBSCRIBE, target, NOW, "page", "back", row.version.hex())
    late = asked(Action.UNSUBSCRIBE, target, NOW + 60_000, "imap:INBOX", "late")
    others = [stop(each) for each in PEOPLE[:62]]

    effects = store.apply([stop(*target[2:], "second"), *others, back, late, back], now_ms=NOW + 60_000)

    assert effects == [PRESENT, *[ADDED] * 62, LIFTED, ADDED, Effect.NOT_LIFTED]


def test_requests_with_more_to_say_stand_between_others(store: Store, client: redis.Redis) -> None:
    """A long address, a lift, and an address that was forgotten: their arguments are of different number."""
    store.apply([stop(PEOPLE[0]), stop(PEOPLE[1])], now_ms=NOW)
    store.forget(PEOPLE[1], ["acme"])
    row = store.row("acme", GROUP, PEOPLE[0])
    assert row is not None
    back = asked(Action.RESUBSCRIBE, ("acme", GROUP, PEOPLE[0]), NOW, "page", "back", row.version.hex())
    batch = [stop(LONG), stop(PEOPLE[2]), back, stop(PEOPLE[1], "again"), stop("l" + LONG, group=0), stop(PEOPLE[3])]

    assert store.apply(batch, now_ms=NOW + 1) == [ADDED, ADDED, LIFTED, PRESENT, ADDED, ADDED]
    assert {name for name, _ in store.stopped("acme", GROUP) if "@" in name} == {LONG, PEOPLE[2], PEOPLE[3]}
    assert [name for name, _ in store.stopped("acme", 0)] == ["l" + LONG]
    assert store.counted("acme", [GROUP, 0]) == [4, 1]
    assert not any(each.startswith(PEOPLE[1].encode()) for each in client.hkeys("unsubd:supp:{acme:0}"))


def test_a_call_that_fails_halfway_is_said_and_repeated(store: Store, client: redis.Redis) -> None:
    store.apply([stop(each) for each in PEOPLE[100:]], now_ms=NOW)
    split(client, 2)
    fresh, broken = Store(client, NAMES), layout.bucket_key("acme", 1)
    client.rename(broken, "aside")
    client.set(broken, "no hash")
    first, rest = [each for each in PEOPLE[:20] if bucket_of(each, 2) == 0], PEOPLE[:20]
    failing = next(each for each in rest if bucket_of(each, 2) == 1)
    batch = [*first[:3], failing, *first[3:]]
    before = store.changes("acme", GROUP)

    with pytest.raises(redis.ResponseError, match="WRONGTYPE") as caught:
        fresh.apply([stop(each) for each in batch], now_ms=NOW)

    assert "@" not in str(caught.value)
    there = client.hkeys(layout.bucket_key("acme", 0))
    assert [f"{each}\0{GROUP}".encode() in there for each in first] == [True] * 3 + [False] * (len(first) - 3)
    assert store.changes("acme", GROUP) > before  # whoever keeps a list looks again
    client.rename("aside", broken)
    assert fresh.apply([stop(each) for each in batch], now_ms=NOW) == [ADDED] * len(batch)
    assert store.counted("acme", [GROUP]) == [100 + len(batch)]


def test_a_server_that_forgot_the_script_is_given_it_once_for_all_calls(
    store: Store, client: redis.Redis, calls: list[Any]
) -> None:
    store.apply([stop(PEOPLE[0])], now_ms=NOW)
    client.script_flush()
    calls.clear()

    assert store.apply([stop(each) for each in PEOPLE], now_ms=NOW) == [ADDED] * 200
    assert [len(each) for each in keys_of(calls)] == [64, 64, 64, 8] * 3
    assert store.counted("acme", [GROUP]) == [200]


def test_on_a_cluster_a_call_stays_in_one_bucket(client: redis.Redis, calls: list[Any]) -> None:
    store = Store(client, NAMES)
    store.apply([stop(each) for each in PEOPLE[100:]], now_ms=NOW)
    split(client, 4)
    store = Store(client, NAMES)
    store._buckets._in_order = False
    calls.clear()
    batch = [*PEOPLE[:100], *PEOPLE[50:150]]

    effects = store.apply([stop(each, f"{number}") for number, each in enumerate(batch)], now_ms=NOW)
    assert effects == [ADDED] * 100 + [PRESENT] * 100
    assert {len(set(each)) for each in keys_of(calls)} == {1}
    assert len(keys_of(calls)) == 4
    assert store.changes("acme", GROUP) >= 300


def test_recipients_of_one_call_are_forgotten_each_in_its_place(store: Store) -> None:
    store.apply([stop(each) for each in PEOPLE[:4]], now_ms=NOW)
    writes = [Write("acme", layout.place(NAMES, "acme", each), "forgotten") for each in (*PEOPLE[:2], "x@example.com")]

    assert store._buckets.write(_FORGET, writes) == [[b"12"], [b"12"], []]
    assert sorted(name for name, _ in store.stopped("acme", GROUP) if "@" in name) == PEOPLE[2:4]
    assert store.forgotten_count("acme") == 3


def test_no_replica_no_effect_is_told(client: redis.Redis) -> None:
    """WAIT comes after all calls of a batch, and the batch after it is not sent."""
    store = Store(client, NAMES, min_replicas=1)
    sent: list[Any] = []

    def answered(client: Any, commands: Any) -> list[Any]:
        sent.append([each[0] for each in commands])
        return [*real(client, commands[:-1]), 0] if sent[-1][-1:] == ["WAIT"] else real(client, commands)

    real = script._sent
    with patch.object(script, "_sent", answered), pytest.raises(StoreUnavailable, match="0 of 1 replicas"):
        store.apply([stop(f"p{number}@example.com") for number in range(1200)], now_ms=NOW)

    assert sent[-1][-1] == "WAIT"
    assert sum(each == "EVALSHA" for each in sent[-1]) == -(-1000 // buckets._ROWS_A_CALL)


@pytest.mark.parametrize("at_ms", [-5, 0, NOW, 1 << 60])
def test_a_request_travels_as_the_row_it_would_be(at_ms: int) -> None:
    row = unpack(pack(at_ms, SUPPRESSED + HELD + COMPLAINT, "sendgrid:eu", b"12345678"))

    assert (row.suppressed, row.held, row.complaint, row.source) == (True, True, True, "sendgrid")
    assert (row.evidence, row.time_ms) == (b"12345678", max(0, min(at_ms, (1 << 48) - 1)))
    assert row.first_seen_s == row.time_ms // 1000
