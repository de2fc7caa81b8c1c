"""Scripts in pipelines: a server that forgot them is given them, and nothing counts that only the second try confirmed."""

from typing import Any

import fakeredis
import pytest
import redis

from worker.store import script
from worker.store.script import Script

_SET = Script("redis.call('SET', KEYS[1], ARGV[1]) return 'set'")


def test_a_script_that_the_server_forgot_is_loaded_and_run() -> None:
    client = fakeredis.FakeRedis()
    for _ in range(2):
        assert script.send(client, [_SET("a", "1"), _SET("b", "2")]) == [b"set", b"set"]
        client.script_flush()

    assert (client.get("a"), client.get("b")) == (b"1", b"2")


def test_what_the_first_try_left_unconfirmed_stays_so(monkeypatch: Any) -> None:
    """On a Cluster the second try waits for the nodes of the missing scripts alone."""
    client, confirmed = fakeredis.FakeRedis(), iter([0, 1])
    sent = script._sent

    def answered(client: Any, commands: Any) -> list[Any]:
        return [*sent(client, commands[:-1]), next(confirmed)]

    monkeypatch.setattr(script, "_sent", answered)

    assert script.send(client, [_SET("a", "1"), ("SET", "b", "2")], [("WAIT", 1, 100)])[-1] == 0


def test_one_command_whose_connection_is_gone_is_asked_again(monkeypatch: Any) -> None:
    client = fakeredis.FakeRedis()
    real, tried = client.parse_response, []

    def gone_at_first(*words: Any, **named: Any) -> Any:
        tried.append(words[1])
        if len(tried) == 1:
            raise redis.ConnectionError("Connection closed by server.")
        return real(*words, **named)

    client.set("a", "1")
    monkeypatch.setattr(client, "parse_response", gone_at_first)

    assert (script.send(client, [("GET", "a")]), tried) == ([b"1"], ["GET", "GET"])


def test_the_answer_to_one_command_is_read_as_redis_py_reads_it() -> None:
    client = fakeredis.FakeRedis()
    client.hset("h", "field", "1")

    assert script.send(client, [("HGETALL", "h")]) == [{b"field": b"1"}]
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        script.send(client, [("GET", "h")])
    assert script.send(client, [("HGET", "h", "field")]) == [b"1"]
