"""The store's own line: asked again when its connection is gone, kept while it lives, read as redis-py reads."""

from typing import Any

import fakeredis
import pytest
import redis

from worker.store.line import Line


def test_whose_connection_is_gone_is_asked_again(monkeypatch: Any) -> None:
    client = fakeredis.FakeRedis()
    real, tried = client.parse_response, []

    def gone_at_first(*words: Any, **named: Any) -> Any:
        tried.append(words[1])
        if len(tried) == 1:
            raise redis.ConnectionError("Connection closed by server.")
        return real(*words, **named)

    client.set("a", "1")
    monkeypatch.setattr(client, "parse_response", gone_at_first)

    assert Line(client).ask([("GET", "a")]) == [b"1"]
    assert tried == ["GET"]


def test_answers_are_read_as_redis_py_reads_them() -> None:
    client = fakeredis.FakeRedis()
    client.hset("h", "field", "1")
    line = Line(client)

    assert line.ask([("HGETALL", "h"), ("HGET", "h", "field")]) == [{b"field": b"1"}, b"1"]
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        line.ask([("GET", "h"), ("HGET", "h", "field")])
    assert line.ask([("HGET", "h", "field")]) == [b"1"]
    assert line.ask([]) == []


def test_one_connection_is_kept_as_long_as_the_line_lives() -> None:
    pool = redis.ConnectionPool(
        connection_class=fakeredis.FakeRedisConnection, server=fakeredis.FakeServer(), max_connections=3
    )
    client = redis.Redis(connection_pool=pool)
    for _ in range(9):
        line = Line(client)
        first, second = line.begin([("PING",)]), line.begin([("PING",)])
        assert [*first.replies(), *second.replies(), *line.ask([("PING",)])] == [True] * 3
        assert len(pool._get_in_use_connections()) == 1

    del line, first, second
    assert not pool._get_in_use_connections()


def test_a_pool_that_looks_at_each_connection_gets_each_back() -> None:
    """As a Sentinel's, for a connection may lead to what was the primary."""

    class Looking(redis.ConnectionPool):
        pass

    pool = Looking(connection_class=fakeredis.FakeRedisConnection, server=fakeredis.FakeServer())
    line = Line(redis.Redis(connection_pool=pool))

    assert line.ask([("PING",)]) == [True]
    assert not pool._get_in_use_connections()


def test_who_finds_no_connection_free_asks_when_one_is() -> None:
    pool = redis.ConnectionPool(
        connection_class=fakeredis.FakeRedisConnection, server=fakeredis.FakeServer(), max_connections=2
    )
    line = Line(redis.Redis(connection_pool=pool))

    three = [line.begin([("ECHO", name), ("ECHO", name)]) for name in "abc"]

    assert [each.replies() for each in three] == [[b"a"] * 2, [b"b"] * 2, [b"c"] * 2]
