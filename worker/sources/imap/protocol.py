"""aioimaplib's protocol with a response loop of our own, and without its logging.

aioimaplib 2.0.3 recurses once a line, rescans a whole FETCH answer for each of its lines, removes "* " inside lines,
never answers the continuation of a refused XOAUTH2, tells nobody of a BYE, and writes credentials and mail to its log
at DEBUG (its README and issues 58, 107, 110, 118). Commands, tags and states remain its own.
"""

import asyncio
import base64
import re
import ssl
from typing import Any

import aioimaplib
from aioimaplib.aioimaplib import Command, IdleCommand

from worker.sources.imap.answers import words
from worker.sources.imap.reader import Garbage, Part, ResponseReader

# No level, no handler and no configuration of anybody may bring its lines back: logging's own (uvicorn's, say) clears
# `disabled`, and leaves a filter alone.
aioimaplib.aioimaplib.log.addFilter(lambda _: False)

_MAX_ANSWER_OCTETS = 32 * 1024 * 1024  # a batch of messages is 4 MB
_NUMBERED = re.compile(rb"\d+ (FETCH|EXPUNGE)\b", re.IGNORECASE)
_TAGGED = re.compile(rb"[A-Za-z0-9]+ (?:OK|NO|BAD)\b")


class Protocol(aioimaplib.IMAP4ClientProtocol):  # type: ignore[misc]
    """One connection's protocol. `lost` is done, with the reason, as soon as the connection is of no use."""

    capabilities: set[str]

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.lost: asyncio.Future[str] = loop.create_future()
        self._reader = ResponseReader()
        self._sasl: list[bytes] = []
        self._octets = 0  # of the answer that is coming in

    def give_up(self, reason: str) -> None:
        """Drop the connection, now. Repeat: safe, the first reason stays."""
        if not self.lost.done():
            self.lost.set_result(reason)
        for task in self.tasks:
            task.cancel()
        if self.transport is not None:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Hand every response that *data* completes to its command; what cannot be understood ends the connection."""
        if self.lost.done():
            return
        try:
            for parts in self._reader.feed(data):
                self._handle(parts)
                if self.lost.done():
                    return
        except Garbage as error:
            self.give_up(f"unexpected data: {error}")
        except (aioimaplib.AioImapException, ValueError, IndexError, AttributeError) as error:
            self.give_up(f"unexpected data ({type(error).__name__})")
        if self.pending_sync_command is not None:
            self.pending_sync_command.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits."""
        self.give_up(f"connection closed ({type(exc).__name__})" if exc else "connection closed")

    def send(self, line: str, scrub: str | None = None) -> None:
        """Write one command line; it is in no log."""
        if self.transport is not None:
            self.transport.write(f"{line}\r\n".encode())

    def _handle(self, parts: list[Part]) -> None:
        line = bytes(parts[0])
        if line.startswith(b"* "):
            self._handle_untagged(line[2:], parts)
        elif line.startswith(b"+"):
            self._continuation(line)
        elif _TAGGED.match(line):
            self._octets = 0
            if isinstance(self.pending_sync_command, IdleCommand):
                self.pending_sync_command.flush()  # what came with the answer to DONE is for the next IDLE
            self._response_done(line)
        elif line:
            raise Garbage(f"a line of {len(line)} octets that is no response")

    def _handle_untagged(self, text: bytes, parts: list[Part]) -> None:
        if text[:4].upper() == b"BYE ":
            self.give_up(f"the server says BYE {words(text[4:])[:120]}")
        elif self.state == "CONNECTED":
            self._greeted(text)
        else:
            self._deliver(text, parts[1:])

    def _greeted(self, text: bytes) -> None:
        self.state = "GREETED"
        task = asyncio.ensure_future(self.welcome(b"* " + text))
        self.tasks.add(task)
        task.add_done_callback(self._welcomed)

    def _welcomed(self, task: "asyncio.Future[None]") -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self.give_up(f"no IMAP greeting ({type(error).__name__})")

    def _deliver(self, text: bytes, more: list[Part]) -> None:
        """Give an untagged response to the command that waits for it; one with literals as a tuple."""
        if (command := self.pending_sync_command) is None:
            match = _NUMBERED.match(text)
            name, _, rest = text.partition(b" ")
            key, text = (match[1], text) if match else (name, rest)
            command = self.pending_async_commands.get(key.decode("ascii", "replace").upper())
        if command is not None:
            self._octets += len(text) + sum(map(len, more))
            if self._octets > _MAX_ANSWER_OCTETS:
                raise Garbage(f"an answer of more than {_MAX_ANSWER_OCTETS} octets")
            command.append_to_resp((text, *more) if more else text)

    async def capability(self) -> None:
        """Ask what the server can; names in upper case."""
        await super().capability()
        self.capabilities = {name.upper() for name in self.capabilities}

    async def authenticate(self, mechanism: str, message: bytes) -> Any:
        """Log in by SASL. The server's reason for a refusal, JSON in base64, is among the response's lines.

        RFC:     3501 6.2.2, 4959 (SASL-IR), 7628 3.2.3: the empty answer to the challenge of a refusal.
        """
        initial = [base64.b64encode(message)]
        direct = "SASL-IR" in self.capabilities
        self._sasl = [] if direct else initial
        arguments = (mechanism, initial[0].decode()) if direct else (mechanism,)
        response = await self.execute(Command("AUTHENTICATE", self.new_tag(), *arguments, loop=self.loop))
        if response.result == "OK":
            self.state = "AUTH"
        return response

    def _continuation(self, line: bytes) -> None:
        command = self.pending_sync_command
        if command is None or command.name != "AUTHENTICATE":
            super()._continuation(line)
            return
        if not self._sasl:
            command.append_to_resp(line)
        self.transport.write((self._sasl.pop() if self._sasl else b"") + b"\r\n")

    async def examine(self, mailbox: str) -> Any:
        """Open a mailbox for reading only (aioimaplib would not notice that it is open)."""
        response = await self.simple_command("EXAMINE", mailbox)
        if response.result == "OK":
            self.state = "SELECTED"
        return response


class Client(aioimaplib.IMAP4):  # type: ignore[misc]
    """aioimaplib's client around our protocol."""

    protocol: Protocol

    def create_client(self, host: str, port: int, loop: Any, _: Any, ssl_context: ssl.SSLContext | None) -> None:
        """Begin to connect (called by aioimaplib's constructor)."""
        loop = loop or asyncio.get_running_loop()
        self.protocol = Protocol(loop)
        self._client_task = loop.create_task(loop.create_connection(lambda: self.protocol, host, port, ssl=ssl_context))
