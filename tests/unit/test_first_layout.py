"""What an older version wrote, read and moved while everybody works; on fakeredis."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count
from typing import Any
from unittest.mock import patch

import fakeredis
import pytest
import redis

from handlers.request import Action, Effect, Request
from tests.harness.first_layout import packed, write
from tests.harness.names import NAMES
from tests.store_model import DAY, NOW, SECOND, Killed, asked
from worker.store import Store, script
from worker.store import __name__ as store_name
from worker.store.format import enter
from worker.store.line import Line
from worker.store.row import Row
from worker.store.script import Command

JANE, JOE, BACK, LONG, GONE = (
    "jane@example.com", "joe@example.com", "back@example.com", "l" * 70 + "@example.com", "gone@example.com",
)  # fmt: skip
EVERYBODY = [JANE, JOE, BACK, LONG, GONE, "nobody@example.com"]
PLACES = [("acme", group, each) for group in (0, 12) for each in EVERYBODY]


@pytest.fixture
def client() -> redis.Redis:
    client = fakeredis.FakeRedis()
    seconds = NOW // SECOND
    name = NAMES("acme", GONE)
    write(client, "acme", {
        12: {JANE: packed(seconds, NOW, 1), LONG: packed(seconds - 9, NOW, 3), BACK: packed(seconds, NOW, 0, NOW - DAY),
             name: packed(seconds, NOW, 1)},
        0: {JOE: packed(seconds - 9, NOW, 5)},
    }, [name])  # fmt: skip
    enter(client, lambda: ["bolt"])
    return client


def wish(
    action: Action, recipient: str, nonce: str, at_ms: int = NOW, seen: Row | None = None, group: int = 12
) -> Request:
    return asked(action, ("acme", group, recipient), at_ms, "page", nonce, seen.version.hex() if seen else "")


def shown(store: Store) -> Any:
    """Everything that anybody can ask."""
    lists = [sorted((name, row.version) for name, row in store.stopped("acme", group)) for group in (0, 12)]
    return [
        store.rows(PLACES), store.asked("acme", 12, EVERYBODY), [sorted(set(each)) for each in lists],
        store.counted("acme", [0, 12]), store.groups("acme"), store.senders(),
        [store.is_forgotten("acme", each) for each in EVERYBODY],
    ]  # fmt: skip


def left(client: redis.Redis) -> list[bytes]:
    return list(client.keys("unsubd:first:*"))


def test_rows_of_the_first_layout_count(store: Store) -> None:
    found = store.asked("acme", 12, EVERYBODY)

    assert [(bool(first and first.suppressed), bool(own and own.suppressed)) for first, own in found] == [
        (False, True), (True, False), (False, False), (False, True), (False, True), (False, False),
    ]  # fmt: skip
    row = store.row("acme", 12, LONG)
    assert row is not None
    assert (row.first_seen_s, row.time_ms, row.held, row.source, row.evidence) == (
        NOW // SECOND - 9, NOW, True, "page", b"evidence",
    )  # fmt: skip


def test_programs_of_the_first_layout_fail_on_every_key_and_answer_nothing(store: Store, client: redis.Redis) -> None:
    """Also once all is moved, when one is started again: else it would mail everybody."""
    for _ in range(2):
        for sender in ("acme", "bolt"):
            for read in (
                lambda at: client.hmget(f"unsubd:supp:{at}:0", JANE), lambda at: client.smembers(f"unsubd:supp:{at}"),
                lambda at: client.sismember(f"unsubd:forgotten:{at}", "~name"),
                lambda at: client.hmget(f"unsubd:counts:{at}", "12"),
            ):  # fmt: skip
                with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
                    read(f"{{{sender}}}")
        with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
            client.hgetall("unsubd:supp:{acme}:12")
        list(store.migrate())


def test_a_store_is_entered_once_and_a_kill_on_the_way_is_made_good(client: redis.Redis) -> None:
    before = shown(Store(client, NAMES))
    client.delete("unsubd:store:format")  # as if killed before it was written

    for _ in range(2):
        enter(client, lambda: ["bolt"])

    assert client.get("unsubd:store:format") == b"2"
    assert shown(Store(client, NAMES)) == before


def test_moving_changes_no_answer(store: Store, client: redis.Redis) -> None:
    before = shown(store)

    assert sum(store.migrate()) == 5
    assert left(client) == []
    assert shown(store) == shown(Store(client, NAMES)) == before
    assert list(store.migrate()) == []


def test_whoever_has_no_rows_is_forgotten_beside_names_that_are_left(client: redis.Redis) -> None:
    """Of a sender of whom nothing else is left: there is nothing to move, and nobody to wait for."""
    client.sadd("unsubd:first:{cora}:forgotten", NAMES("cora", GONE))
    store = Store(client, NAMES)

    with patch.object(Line, "stream", autospec=True, side_effect=Line.stream) as stream:
        assert store.forget(JANE, ["cora"]) == 0

    assert stream.call_count == 1  # the mark
    assert store.is_forgotten("cora", JANE)
    assert store.is_forgotten("cora", GONE)


class Wire:
    """Sends until it is cut; says what is asked between two round trips."""

    def __init__(self, cut_after: int) -> None:
        self._numbers, self._cut_after = count(), cut_after

    def send(self, *words: Any) -> list[Any]:
        if next(self._numbers) == self._cut_after:
            raise Killed
        return script.send(*words)

    def ask(self, line: Line, commands: Sequence[Command]) -> list[Any]:
        return self.send(line.client, commands)

    def stream(self, line: Line, commands: Iterable[Command], last: Callable[[], Sequence[Command]]) -> list[Any]:
        return self.send(line.client, list(commands), last())


def kills(store: Store) -> Iterator[int]:
    """Kill a migration before each of its round trips, until one comes through."""
    for cut_after in count():
        wire = Wire(cut_after)
        try:
            with (
                patch(f"{store_name}.send", side_effect=wire.send),
                patch(f"{store_name}.buckets.send", side_effect=wire.send),
                patch.object(Line, "ask", autospec=True, side_effect=wire.ask),
                patch.object(Line, "stream", autospec=True, side_effect=wire.stream),
            ):
                list(store.migrate())
                return
        except Killed:
            yield cut_after


def test_a_move_may_be_killed_anywhere_and_begins_again(store: Store, client: redis.Redis) -> None:
    before, other = shown(store), Store(client, NAMES)
    cuts = []
    for cut in kills(store):
        cuts.append(cut)
        assert shown(other) == shown(Store(client, NAMES)) == before

    assert len(cuts) > 5
    assert left(client) == []
    assert shown(other) == before


def test_who_asks_meanwhile_finds_the_row_and_takes_it_along(store: Store, client: redis.Redis) -> None:
    late = wish(Action.UNSUBSCRIBE, BACK, "late", NOW - 2 * DAY)
    page = wish(Action.RESUBSCRIBE, JANE, "page", seen=store.row("acme", 12, JANE))
    effects = [Effect.STALE, Effect.LIFTED, Effect.ALREADY_PRESENT]

    assert store.apply([late, page, wish(Action.UNSUBSCRIBE, GONE, "again")], now_ms=NOW + 1) == effects
    assert not any(GONE.encode() in field for field in client.hkeys("unsubd:supp:{acme:0}"))
    before = shown(store)
    for _ in kills(store):
        assert shown(store) == before
    assert shown(store) == before
    assert [name for name, _ in store.stopped("acme", 12) if name == JANE] == []
    row = store.row("acme", 12, BACK)
    assert row is not None
    assert not row.suppressed


def test_a_person_is_forgotten_in_both(store: Store, client: redis.Redis) -> None:
    assert store.forget(LONG, ["acme"]) == 1
    assert not any(
        LONG[:60].encode() in field for key in client.keys("unsubd:first:*:12") for field in client.hkeys(key)
    )
    assert store.counted("acme", [12]) == [3]
    list(store.migrate())

    assert store.counted("acme", [12]) == [3]
    assert store.is_forgotten("acme", LONG)
    assert [own is not None for _, own in store.asked("acme", 12, [LONG, GONE])] == [True, True]


def test_what_an_older_program_wrote_of_a_later_sender_is_moved_too(client: redis.Redis, store: Store) -> None:
    """It was not there at the first start, so nothing stopped that program: the next start finds it, or `unsubd migrate`."""
    for _ in store.migrate():
        pass
    assert store.row("late", 12, JANE) is None
    write(client, "late", {12: {JANE: packed(NOW // SECOND, NOW, 1)}}, ["~name"])

    assert sum(store.migrate()) == 1

    fresh = Store(client, NAMES)
    assert fresh.row("late", 12, JANE)
    assert client.type("unsubd:supp:{late}:12") == b"string"
