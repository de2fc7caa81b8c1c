"""A service that a mail server asks on long-lived connections; and how it is told that the service lives.

A stop hangs up at once: an answer promises nothing, and whoever hears none asks again or puts its mail off.
"""

import asyncio
import socket
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress

from handlers.errors import Rejected
from worker.listening import BACKLOG
from worker.mta.asking import Asking
from worker.sources import SourceReport
from worker.stopping import on_stop_of_loop
from worker.systemd import watched

_CONNECTIONS = 500
_BUFFER_BYTES = 16384
_TELL_EVERY_S = 1.0
_REFRESH_EVERY_S = 5.0
_LINE_EVERY_S = 60.0
_SIGN_OF_LIFE_S = 30.0
_LINGER_S = 5.0
# What a mail server may do to a connection; everything else is a bug.
_BROKEN = (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError, Rejected)

Converse = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Server:
    """One service of this process, in one event loop. Shape: name: `policy` or `milter`; converse: one connection."""

    def __init__(self, name: str, asking: Asking, converse: Converse) -> None:
        self._name = name
        self._asking = asking
        self._converse = converse
        self._open: set[asyncio.Task[None]] = set()
        self._report = SourceReport(asking.installation.redis, asking.installation.journal, f"mta:{name}")
        self._told = 0

    async def run(self, listener: socket.socket, stop: asyncio.Event) -> None:
        """Answer until *stop* is set.

        Errors:  any  the routes could not be kept fresh for a reason that is not Redis's: old ones would let new mail through.
        """
        await self._asking.refresh()
        server = await asyncio.start_server(self._connected, sock=listener, backlog=BACKLOG, limit=_BUFFER_BYTES)
        telling, stopping = asyncio.create_task(self._tell()), asyncio.create_task(stop.wait())
        try:
            async with self._report.beating():
                await asyncio.wait([telling, stopping], return_when=asyncio.FIRST_COMPLETED)
            if telling.done():
                telling.result()
        finally:
            server.close()
            ending = [*self._open, telling, stopping]
            for task in ending:
                task.cancel()
            await asyncio.gather(*ending, return_exceptions=True)
        await self._write_line()
        await asyncio.to_thread(self._report.say, "stopped", taken=self._untold())

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            if len(self._open) <= _CONNECTIONS:
                await self._converse(reader, writer)
        except _BROKEN as error:
            ended = isinstance(error, asyncio.IncompleteReadError) and not error.partial
            self._asking.told += Counter(broken=not ended)
        except asyncio.CancelledError:
            pass  # the stop: the end of this task is all that is wanted
        except Exception as error:  # noqa: BLE001  without its text: that may quote a mail
            await self._asking.failed(self._name, error)
        finally:
            self._open.discard(task)
            writer.close()
            # One that reads nothing would keep a closed connection for ever.
            asyncio.get_running_loop().call_later(_LINGER_S, writer.transport.abort)

    async def _tell(self) -> None:
        """Keep the routes fresh; say how it goes when something changed and every 30 s; a line a minute of what was told."""
        loop = asyncio.get_running_loop()
        said, said_at, refreshed_at, line_at = "?", 0.0, loop.time(), loop.time()
        while True:
            await asyncio.sleep(_TELL_EVERY_S)
            now = loop.time()
            if now - refreshed_at >= _REFRESH_EVERY_S:
                await self._asking.refresh()
                refreshed_at = now
            if now - line_at >= _LINE_EVERY_S:
                await self._write_line()
                line_at = now
            trouble = self._asking.trouble
            if trouble != said or self._asking.asked > self._told or now - said_at >= _SIGN_OF_LIFE_S:
                await asyncio.to_thread(
                    self._report.say, "waiting" if trouble else "idle", trouble, taken=self._untold()
                )
                said, said_at = trouble, now

    def _untold(self) -> int:
        asked, self._told = self._asking.asked - self._told, self._asking.asked
        return asked

    async def _write_line(self) -> None:
        answers, self._asking.told = self._asking.told, Counter()
        if answers:
            await asyncio.to_thread(self._asking.installation.journal.told, self._name, answers)


def serve(name: str, asking: Asking, converse: Converse, listener: socket.socket) -> None:
    """Answer until SIGTERM or SIGINT."""
    asyncio.run(_serve(Server(name, asking, converse), listener))


async def _serve(server: Server, listener: socket.socket) -> None:
    stop = asyncio.Event()
    on_stop_of_loop(stop.set)
    with suppress(asyncio.CancelledError):
        async with watched():
            await server.run(listener, stop)
