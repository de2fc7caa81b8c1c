"""Lua scripts in pipelines, on one server and on a Cluster: by digest, and once more after a server that forgot them.

Why:     redis-py's own scripts cost a round trip before each pipeline, and do not go into a Cluster's.
"""

from collections.abc import Sequence
from hashlib import sha1
from typing import Any

import redis
from redis.exceptions import NoScriptError

from worker.server import disconnect_idle

Command = tuple[Any, ...]
_KNOWN: dict[str, str] = {}  # digest -> text of every script


class Script:
    """A script for one key, or for many in one slot. Calling it makes the command, which sends nothing yet."""

    def __init__(self, text: str) -> None:
        self._digest = sha1(text.encode()).hexdigest()
        _KNOWN[self._digest] = text

    def __call__(self, key: str, *arguments: Any) -> Command:
        """Return the command that runs it on *key*."""
        return self.on((key,), arguments)

    def on(self, keys: Sequence[str], arguments: Sequence[Any]) -> Command:
        """Return the command that runs it on *keys*."""
        return ("EVALSHA", self._digest, len(keys), *keys, *arguments)


def send(client: Any, commands: Sequence[Command], last: Sequence[Command] = ()) -> list[Any]:
    """Send commands and then *last* in one round trip; return the replies to all.

    Errors:  redis.RedisError  the first that a command had, after all were tried.
    """
    replies = _sent(client, [*commands, *last])
    missing = [number for number, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
    if missing:
        for digest in dict.fromkeys(commands[number][1] for number in missing):
            client.script_load(_KNOWN[digest])
        again = [*missing, *range(len(commands), len(replies))]
        for number, reply in zip(again, _sent(client, [[*commands, *last][each] for each in again]), strict=True):
            is_wait = number >= len(commands) and last[number - len(commands)][0] == "WAIT"
            # The second one counts for the servers of the second time alone.
            replies[number] = min(replies[number], reply) if is_wait else reply
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies


def _sent(client: Any, commands: Sequence[Command]) -> list[Any]:
    if not commands:
        return []
    try:
        with client.pipeline(transaction=False) as pipeline:
            for command in commands:
                pipeline.execute_command(*command)
            found: list[Any] = pipeline.execute(raise_on_error=False)
    except redis.RedisError:
        raise
    except BaseException:
        # A caller's time limit or Ctrl-C, by a signal: who had this connection next would hear this answer as his.
        disconnect_idle(client)
        raise
    return found
