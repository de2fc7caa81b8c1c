"""Scripts in pipelines: a server that forgot them is given them, and nothing counts that only the second try confirmed."""

from typing import Any

import fakeredis

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
