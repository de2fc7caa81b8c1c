"""The store's own line to its server: one connection is kept, and the server works on one command while the next is made.

Why:     what redis-py does around a command, its pool, retries and measurements, was a third of one address's check; and a
         list of 100,000, asked or written, had client and server wait for each other in turn. Only what may be repeated goes
         this way: whatever a lost connection took with it is sent once more, as redis-py does.
"""

import os
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import redis
from hiredis import pack_command
from redis.exceptions import MaxConnectionsError, ResponseError

from worker.server import disconnect_idle
from worker.store.script import Command, send


class Line:
    """Asks one server. Threads may share it. A Cluster is asked by redis-py alone, when the replies are taken."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self._pool: Any = client.connection_pool if isinstance(client, redis.Redis) else None
        # A Sentinel's pool looks whether a connection leads to the primary, each time.
        self._keeps = type(self._pool) is redis.ConnectionPool
        self._kept: list[Any] = []
        weakref.finalize(self, _release, self._pool, self._kept).atexit = False

    def ask(self, commands: Sequence[Command]) -> list[Any]:
        """Return the replies to *commands*. Errors: as `send`."""
        return Pending(self, commands).replies()

    def begin(self, commands: Sequence[Command]) -> "Pending":
        """Send *commands*, and return where to take the replies once, or to `close` it."""
        return Pending(self, commands)

    def stream(self, commands: Iterable[Command], last: Callable[[], Sequence[Command]]) -> list[Any]:
        """Send each command while the next is made, and then what *last* returns; return the replies to all.

        Errors:  as `send`, and whatever *commands* raises: what it yielded before may be done.
        """
        pending = Pending(self)
        try:
            for command in commands:
                pending.add([command])
            return pending.replies(last())
        finally:
            pending.close()

    def take(self) -> Any:
        """Return a connection in which nothing is left to read; None of a Cluster, and while the pool has no more.

        Errors:  redis.RedisError  it cannot be opened.
        """
        try:
            kept = self._kept.pop()
        except IndexError:
            return self._pool and self._opened()
        if kept.pid != os.getpid():  # after a fork it is the parent's, who would hear what we ask
            return self.take()
        try:
            if _speaks(kept):
                kept.disconnect()  # whoever sends opens it again
        except BaseException:
            self.give_back(kept, is_read=False)
            raise
        return kept

    def _opened(self) -> Any:
        try:
            return self._pool.get_connection()
        except MaxConnectionsError:
            return None
        except redis.RedisError:
            raise
        except BaseException:  # of a signal: redis-py keeps what was half opened, in no database yet
            disconnect_idle(self.client)
            raise

    def give_back(self, connection: Any, *, is_read: bool) -> None:
        """Take *connection* back: closed when answers may be left in it, for who had it next would hear them."""
        if not is_read:
            connection.disconnect()
        elif self._keeps and not self._kept:
            self._kept.append(connection)
            return
        self._pool.release(connection)


def _speaks(connection: Any) -> bool:
    """Say whether there is something to read before anything is asked: an answer to somebody else, or the end."""
    try:
        return bool(connection.can_read())
    except redis.RedisError:
        return True


def _release(pool: Any, kept: list[Any]) -> None:
    for connection in kept:
        pool.release(connection)


class Pending:
    """Commands on their way."""

    _is_asked = False

    def __init__(self, line: Line, commands: Sequence[Command] = ()) -> None:
        self._line, self._commands = line, commands
        self._connection: Any = None
        self._connection = line.take()
        if commands:
            self._send(commands)

    def add(self, commands: Sequence[Command]) -> None:
        """Send these, too."""
        self._commands = (*self._commands, *commands)
        self._send(commands)

    def _send(self, commands: Sequence[Command]) -> None:
        if self._connection is None:
            return
        packed = b"".join(map(pack_command, commands))
        try:
            # Once: redis-py looks after a connection that was idle by a PING, and would take our first reply for the answer.
            self._connection.send_packed_command([packed], check_health=not self._is_asked)
            self._is_asked = True
        except redis.ConnectionError:
            self.close()
        except BaseException:
            self.close()
            raise

    def replies(self, last: Sequence[Command] = ()) -> list[Any]:
        """Send *last*, and return the replies to all. Errors: as `send`."""
        if last:
            self._send(last)
        if self._connection is None:
            return send(self._line.client, self._commands, last)
        try:
            read = self._line.client.parse_response
            sent = (*self._commands, *last) if last else self._commands
            found = [read(self._connection, each[0]) for each in sent]
        except (redis.ConnectionError, ResponseError):
            self.close()
            return send(self._line.client, self._commands, last)  # tries again, or tells
        except BaseException:  # a caller's time limit or Ctrl-C, by a signal
            self.close()
            raise
        self.close(is_read=True)
        return found

    def close(self, *, is_read: bool = False) -> None:
        """Let the connection go. Repeat: safe."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._line.give_back(connection, is_read=is_read)

    def __del__(self) -> None:
        if self._connection is not None:
            self.close()  # forgotten between two lines, by a signal
