"""`unsubd milter`: mail that a mail server is about to send gets its `List-Unsubscribe`, or goes to nobody.

A tag names one recipient, so a mail has one: a second recipient who may be mailed hears 452 4.5.3, and comes in a mail of
its own (deploy/postfix lets Postfix split them beforehand). Suppressed ones are dropped, however many; is nobody left, the
mail is discarded. `List-Unsubscribe` headers that a mail brings are replaced.
"""

import asyncio
import socket
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from handlers import milter as protocol
from handlers.errors import AddressError, PayloadInvalid
from handlers.route import Origin, Route
from worker.installation import Installation
from worker.mta import server
from worker.mta.asking import Asking
from worker.mta.stamping import STAMPED, Stamping

NAME = "milter"
_IDLE_S = 900.0  # Postfix waits for its client between two commands (300 s), and for a whole mail
_LATER = protocol.said("451 4.3.0 unsubscribes cannot be looked up now: try again")
_ALONE = protocol.said("452 4.5.3 one recipient per mail: each gets an unsubscribe header of its own")
_NO_ADDRESS = protocol.said("550 5.1.3 not an address that unsubscribes can be looked up for")
_STAMPED = {name.lower(): name for name in STAMPED}


@dataclass(slots=True)
class _Mail:
    """What was shown of a mail. Shape: brought: how often each header that we write was there already, by its name."""

    route: Route | None = None
    allowed: str = ""
    dropped: list[str] = field(default_factory=list)
    brought: Counter[str] = field(default_factory=Counter)


class Milter:
    """The answers of one process."""

    def __init__(self, installation: Installation) -> None:
        self.asking = Asking(installation)
        self.stamping = Stamping(installation)

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Look at the mails of one connection, until it ends or shows nothing for 15 minutes."""
        session = _Session(self)
        while True:
            async with asyncio.timeout(_IDLE_S):
                (size,) = struct.unpack("!I", await reader.readexactly(4))
                if not 1 <= size <= protocol.MAX_PACKET_BYTES:
                    raise PayloadInvalid(
                        f"milter packet of {size} octets: expected at most {protocol.MAX_PACKET_BYTES}"
                    )
                packet = await reader.readexactly(size)
            if packet[:1] == protocol.QUIT:
                return
            async with asyncio.timeout(_IDLE_S):
                writer.write(await session.answer(packet[:1], packet[1:]))
                await writer.drain()


class _Session:
    """One connection: what was agreed, and the mail that is being shown."""

    def __init__(self, milter: Milter) -> None:
        self._asking = milter.asking
        self._stamping = milter.stamping
        self._answers_headers = True
        self._macros: dict[bytes, Mapping[str, str]] = {}
        self._mail = _Mail()

    async def answer(self, command: bytes, data: bytes) -> bytes:
        """Return the packets that answer one command, b"" where none is due.

        Errors:  PayloadInvalid  not of this protocol.    permanent
        """
        try:
            return await self._answer(command, data)
        except PayloadInvalid:
            raise
        except AddressError:
            return self._told("no-address", _NO_ADDRESS)
        except Exception as error:  # noqa: BLE001  whatever it is, the mail must wait
            await self._asking.failed(NAME, error)
            return self._told("deferred", _LATER)

    async def _answer(self, command: bytes, data: bytes) -> bytes:
        match command:
            case protocol.NEGOTIATE:
                terms = protocol.terms(data)
                self._answers_headers = terms.answers_headers
                return terms.reply
            case protocol.MACROS:
                self._macros[data[:1]] = protocol.macros(data)
                return b""
            case protocol.ABORT:
                self._mail = _Mail()
                return b""
            case protocol.NEW_CONNECTION:
                self._macros, self._mail = {}, _Mail()
                return b""
            case protocol.MAIL:
                return self._begin(protocol.path(data))
            case protocol.RCPT:
                return await self._recipient(protocol.path(data))
            case protocol.HEADER:
                name = (protocol.texts(data) or [""])[0].lower()
                if name in _STAMPED:
                    self._mail.brought[name] += 1
                return protocol.CONTINUE if self._answers_headers else b""
            case protocol.END:
                return await self._end()
        return protocol.CONTINUE

    def _told(self, word: str, packets: bytes) -> bytes:
        self._asking.told[word] += 1
        return packets

    def _begin(self, mail_from: str) -> bytes:
        # Those of this mail, once; where the mail server does not let us ask for them, those that came with the connection.
        known = {**self._macros.get(b"C", {}), **self._macros.pop(protocol.MAIL, {})}
        user, port = (known.get(name, "") for name in (protocol.USER, protocol.PORT))
        self._mail = _Mail()
        self._mail.route = self._asking.route(Origin(mail_from, user, port))
        return protocol.CONTINUE if self._mail.route else self._told("unmapped", protocol.ACCEPT)

    async def _recipient(self, recipient: str) -> bytes:
        mail = self._mail
        if mail.route is None:
            return protocol.CONTINUE
        if await self._asking.suppressed(mail.route, recipient):
            mail.dropped.append(recipient)
        elif mail.allowed:
            return self._told("split", _ALONE)
        else:
            mail.allowed = recipient
        return protocol.CONTINUE

    async def _end(self) -> bytes:
        mail, self._mail = self._mail, _Mail()
        if mail.route is None:
            return protocol.CONTINUE
        if not mail.allowed:
            return self._told("discarded", protocol.DISCARD) if mail.dropped else protocol.LATER
        headers = await asyncio.to_thread(self._stamping.headers, mail.route, mail.allowed)
        packets = [protocol.delete_recipient(each) for each in mail.dropped]
        if headers:
            packets += [
                each for low, name in _STAMPED.items() for each in protocol.delete_headers(name, mail.brought[low])
            ]
        packets += [protocol.add_header(name, value) for name, value in headers]
        self._asking.told += Counter(dropped=len(mail.dropped))
        return self._told("stamped" if headers else "essential", b"".join([*packets, protocol.CONTINUE]))


def serve(installation: Installation, listener: socket.socket) -> None:
    """Look at a mail server's mails until SIGTERM or SIGINT."""
    milter = Milter(installation)
    server.serve(NAME, milter.asking, milter.converse, listener)
