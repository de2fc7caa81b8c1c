"""`unsubd policy`: Postfix asks before it accepts a recipient; a suppressed one is refused, or its mail discarded.

Whoever cannot be asked about is put off (450), because the mail may come again and a suppression must not be missed.
"""

import asyncio
import socket
from collections import Counter

from handlers import postfix_policy as protocol
from handlers.errors import AddressError
from handlers.postfix_policy import Question
from handlers.route import Route
from worker.installation import Installation
from worker.mta import server
from worker.mta.asking import Asking

NAME = "policy"
_IDLE_S = 600.0  # Postfix keeps an idle connection for 300 s (smtpd_policy_service_max_idle)
_WORDS = {
    protocol.PERMIT: "permitted", protocol.REFUSE: "refused", protocol.DISCARD: "discarded", protocol.ALONE: "split",
    protocol.LATER: "deferred", protocol.NO_ADDRESS: "no-address", protocol.NOT_AT_RCPT: "not-at-rcpt",
}  # fmt: skip


class _Mail:
    """The mail that a connection asks about. Shape: mates: how many of its recipients were suppressed, and how many not."""

    def __init__(self) -> None:
        self.name = ""
        self.mates: Counter[bool] = Counter()

    def is_now(self, name: str) -> None:
        if name != self.name or not name:
            self.name, self.mates = name, Counter()


class Policy:
    """The answers of one process."""

    def __init__(self, installation: Installation) -> None:
        self.asking = Asking(installation)

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the questions of one connection, in order, until it ends or asks nothing for 10 minutes."""
        mail = _Mail()
        while True:
            async with asyncio.timeout(_IDLE_S):
                request = await reader.readuntil(b"\n\n")
            question = protocol.read(request[:-2].split(b"\n"))
            mail.is_now(question.mail)
            async with asyncio.timeout(_IDLE_S):
                writer.write(protocol.reply(await self._action(question, mail)))
                await writer.drain()

    async def _action(self, question: Question, mail: _Mail) -> str:
        """Return what Postfix is to do. Errors: none."""
        try:
            route = self.asking.route(question.origin)
            if route is None:
                self.asking.told["unmapped"] += 1
                return protocol.PERMIT
            action = await self._mapped(route, question, mail)
        except AddressError:
            action = protocol.NO_ADDRESS
        except Exception as error:  # noqa: BLE001  whatever it is, the mail must wait
            await self.asking.failed(NAME, error)
            action = protocol.LATER
        self.asking.told[_WORDS[action]] += 1
        return action

    async def _mapped(self, route: Route, question: Question, mail: _Mail) -> str:
        if not question.recipient:
            return protocol.NOT_AT_RCPT
        suppressed = await self.asking.suppressed(route, question.recipient)
        action = protocol.action_of(suppressed, route.discard, mail.mates)
        if action != protocol.ALONE:
            mail.mates[suppressed] += 1
        return action


def serve(installation: Installation, listener: socket.socket) -> None:
    """Answer Postfix until SIGTERM or SIGINT."""
    policy = Policy(installation)
    server.serve(NAME, policy.asking, policy.converse, listener)
