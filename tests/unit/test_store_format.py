"""A program that is older than the store's format ends before it reads anything; on fakeredis."""

from unittest.mock import Mock

import fakeredis
import pytest

from handlers.errors import ConfigError
from tests.harness.first_layout import packed, write
from tests.harness.names import NAMES
from tests.store_model import NOW
from worker.store import Store
from worker.store.format import FORMAT, State, enter, require_known, state

KEY = "unsubd:store:format"


def test_a_newer_store_is_refused_in_one_line_and_left_as_it_is() -> None:
    client = fakeredis.FakeRedis()
    client.set(KEY, FORMAT + 1)
    client.sadd("unsubd:supp:{acme}", 1)

    with pytest.raises(
        ConfigError, match=r"^UNSUBD_STORE_URL: the store has format 3, and this unsubd knows 2 and older: .+$"
    ):
        enter(client, Mock(side_effect=AssertionError))

    assert (client.get(KEY), client.type("unsubd:supp:{acme}")) == (b"3", b"set")


def test_a_store_that_becomes_newer_under_a_running_program_is_refused() -> None:
    client = fakeredis.FakeRedis()
    enter(client, list)
    assert require_known(client) == FORMAT

    client.set(KEY, FORMAT + 1)

    with pytest.raises(ConfigError):
        require_known(client)


def test_of_two_that_begin_at_once_the_newer_wins() -> None:
    client = fakeredis.FakeRedis()

    def newer() -> list[str]:
        client.set(KEY, FORMAT + 1)
        return []

    with pytest.raises(ConfigError):
        enter(client, newer)

    assert client.get(KEY) == b"3"


def test_a_new_store_gets_the_format_and_nothing_else() -> None:
    client = fakeredis.FakeRedis()

    enter(client, list)

    assert client.keys() == [KEY.encode()]
    enter(client, Mock(side_effect=AssertionError))  # and looks at one key from then on


def test_what_waits_is_counted_before_and_after_it_was_put_aside_and_nothing_is_written() -> None:
    client = fakeredis.FakeRedis()
    rows = {f"p{number}@example.com": packed(NOW // 1000, NOW, 1) for number in range(30)}
    write(client, "acme", {12: rows, 0: rows}, ["~name"])
    write(client, "bolt", {9: rows}, ["~name"])
    before = {key: client.dump(key) for key in client.scan_iter()}

    assert state(client) == State(1, {"acme": 60, "bolt": 30})
    assert {key: client.dump(key) for key in client.scan_iter()} == before

    enter(client, list)
    store = Store(client, NAMES)
    assert state(client) == State(FORMAT, {"acme": 60, "bolt": 30})
    assert sum(store.migrate()) == 90
    assert state(client) == State(FORMAT, {})
    assert store.counted("acme", [12, 0]) == [30, 30]
