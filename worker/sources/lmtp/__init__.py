"""LMTP as a way in: a mail server on this machine hands mail over, and hears 250 only for what is durable.

The mail server keeps the queue: whatever goes wrong here (Redis away, queue full, a stop, a bug) is answered 451 or 421,
and it comes again. Nothing is relayed and nothing answered by mail; a recipient that is not ours is accepted, because a
refusal would bounce to a person, and quarantine shows it. The event time is our own clock at the end of the mail.

LMTP knows no password: the unix socket's folder, or loopback, is who may deliver.
"""

import asyncio
import socket
import weakref
from typing import Any

from worker.installation import Installation
from worker.listening import BACKLOG
from worker.sources import SourceReport
from worker.sources.lmtp.conversation import Conversation, Limits
from worker.sources.lmtp.taking import SOURCE, Taking
from worker.stopping import on_stop_of_loop
from worker.systemd import watched

__all__ = ["Limits", "serve"]

_STOP_S = 6.5  # the supervisor asks again after 8 s
_TELL_EVERY_S = 1.0
_SIGN_OF_LIFE_S = 30.0
_TROUBLED_S = 60.0  # after its last 451: the next mail may be hours away, and Redis long back


def serve(installation: Installation, listener: socket.socket) -> None:
    """Take mail until SIGTERM or SIGINT; mails that are being received or accepted then get 6.5 s."""
    asyncio.run(_serve(installation, listener))


async def _serve(installation: Installation, listener: socket.socket) -> None:
    stop = asyncio.Event()
    on_stop_of_loop(stop.set)
    async with watched():
        await Server(installation).run(listener, stop)


class _Refusal(asyncio.Protocol):
    """What a client beyond the limit meets: "later", and nothing kept of it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        transport.write(b"421 4.3.2 too many connections: try again\r\n")
        transport.close()


class Server:
    """The LMTP server of this process, in one event loop."""

    def __init__(self, installation: Installation, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._journal = installation.journal
        self._report = SourceReport(installation.redis, installation.journal, SOURCE)
        self._taking = Taking(installation)
        # Weak: one that never got its connection leaves no place taken.
        self._open: weakref.WeakSet[Conversation] = weakref.WeakSet()
        self._told = 0

    async def run(self, listener: socket.socket, stop: asyncio.Event) -> None:
        """Take mail until *stop* is set, then finish what is in hand."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._stray)
        # asyncio listens again, with a backlog of 100 if not told: a unix socket refuses at once whoever comes beyond it.
        server = await loop.create_server(self._conversation, sock=listener, backlog=BACKLOG)
        telling = asyncio.create_task(self._tell())
        try:
            async with self._report.beating():
                await stop.wait()
        finally:
            server.close()
            await self._hang_up()
            telling.cancel()
        await asyncio.to_thread(self._report.say, "stopped", taken=self._untold())

    def _stray(self, loop: asyncio.AbstractEventLoop, facts: dict[str, Any]) -> None:
        """Tell of an error nobody waits for; asyncio would print its text, and that may quote the mail."""
        loop.run_in_executor(None, self._journal.failed, "lmtp", type(facts.get("exception")).__name__)

    def _conversation(self) -> asyncio.Protocol | Conversation:
        open_ones = sum(not each.ended.done() for each in self._open)
        if open_ones >= self._limits.connections:
            return _Refusal()
        conversation = Conversation(
            self._taking.take,
            self._taking.failed,
            hostname=socket.gethostname(),  # not the full name: that asks the DNS
            limits=self._limits,
            loop=asyncio.get_running_loop(),
        )
        self._open.add(conversation)
        return conversation

    async def _hang_up(self) -> None:
        left = [each for each in self._open if not each.ended.done()]
        for each in left:
            each.hang_up()
        if left:
            await asyncio.wait([each.ended for each in left], timeout=_STOP_S)
        for each in left:
            each.abort()

    async def _tell(self) -> None:
        """Say how it goes: when something changed, and every 30 s."""
        loop = asyncio.get_running_loop()
        said, said_at = ("", ""), 0.0
        while True:
            trouble = self._taking.trouble if loop.time() - self._taking.troubled_at < _TROUBLED_S else ""
            state = ("waiting", trouble) if trouble else ("idle", "")
            taken = self._untold()
            if taken or state != said or loop.time() - said_at >= _SIGN_OF_LIFE_S:
                await asyncio.to_thread(self._report.say, *state, taken=taken)
                said, said_at = state, loop.time()
            await asyncio.sleep(_TELL_EVERY_S)

    def _untold(self) -> int:
        untold = self._taking.taken - self._told
        self._told = self._taking.taken
        return untold
