"""One LMTP connection: RFC 2033 spoken so that a mail server never has a reason to bounce.

aiosmtpd reads commands, counts bogus ones and owns the transport. Its MAIL, RCPT and DATA are replaced: they refuse long
lines and odd addresses for good, answer once for all recipients, and keep a whole mail in memory.

Limits: of a mail only its first `MAX_LOOK_BYTES` are kept, the rest is counted; what a slow client costs is that and two
buffers. Its octets are kept exactly: only CRLF ends a line, only CRLF.CRLF the mail, NUL and bare LF are octets.

RFC: 2033, 2920 (pipelining), 1870 (SIZE), 6152 (8BITMIME), 6531 (SMTPUTF8), 3463 (codes), 5321 4.5.2 (dots).
"""

import asyncio
import collections
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiosmtpd.lmtp import LMTP

from handlers.message import MAX_LOOK_BYTES
from worker.points import point
from worker.sources.lmtp.path import read_path
from worker.sources.lmtp.taking import FAILED, Mail

_BUFFER_BYTES = 65536
_RECIPIENTS_BYTES = 262144
_LINGER_S = 5.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What a client may ask for.

    Units:   size_bytes: of a mail. idle_s: between two commands (RFC 5321 4.5.3.2.7: at least 5 minutes). silence_s:
             without an octet within a mail. data_s: for a whole mail.
    """

    size_bytes: int = 64 * 1024 * 1024
    recipients: int = 1000
    connections: int = 500
    idle_s: float = 300.0
    silence_s: float = 180.0
    data_s: float = 900.0


class _Bugs:
    """aiosmtpd's way to ask what to say about an exception. Its own answer, 500, would bounce."""

    def __init__(self, failed: Callable[[BaseException], Awaitable[None]]) -> None:
        self._failed = failed

    async def handle_exception(self, error: Exception) -> str:
        if not isinstance(error, OSError):  # a connection that broke is nobody's bug
            await self._failed(error)
        return FAILED


class Conversation(LMTP):
    """The server's side of one connection."""

    line_length_limit = _BUFFER_BYTES  # of the reader's buffer; longer lines of a mail come in pieces
    command_size_limit = 4096

    def __init__(
        self,
        take: Callable[[Mail], Awaitable[list[str]]],
        failed: Callable[[BaseException], Awaitable[None]],
        *,
        hostname: str,
        limits: Limits,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._limits = limits
        self.command_size_limits = collections.defaultdict(lambda: self.command_size_limit)  # aiosmtpd shares one
        super().__init__(
            _Bugs(failed), hostname=hostname, ident="unsubd LMTP", data_size_limit=limits.size_bytes,
            enable_SMTPUTF8=True, timeout=limits.idle_s, loop=loop,
        )  # fmt: skip
        for verb in ("HELO", "EHLO", "AUTH", "STARTTLS", "HELP"):
            self._smtp_methods.pop(verb, None)
        self._take = take
        self._recipients_bytes = 0
        self._stopping = False
        self._in_data = self._receiving = False
        self._heard_at = self._data_until = 0.0
        self.ended: asyncio.Future[None] = loop.create_future()

    # --- the connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet the client, unless the service stopped between its connecting and now."""
        super().connection_made(transport)
        if self._stopping:
            self.hang_up()

    def connection_lost(self, error: Exception | None) -> None:
        """Forget the client; what was accepted of it stays accepted."""
        super().connection_lost(error)
        if not self.ended.done():
            self.ended.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Note that the client is alive."""
        self._heard_at = self.loop.time()
        super().data_received(data)

    async def _handle_client(self) -> None:
        try:
            await super()._handle_client()
        except OSError:
            self._close()  # it hung up while we answered

    def hang_up(self) -> None:
        """End the conversation for a stop of the service: now, or when the mail that is being received is answered."""
        self._stopping = True
        if not self._in_data:
            self._say_last("421 4.3.2 unsubd stops: try again")

    def abort(self) -> None:
        """End it at once: what was not answered is the mail server's still."""
        if self.transport is not None:
            self.transport.abort()  # type: ignore[attr-defined]

    def _say_last(self, reply: str) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self._writer.write(f"{reply}\r\n".encode())
            self._close()

    def _close(self) -> None:
        if self.transport is not None:
            self.transport.close()
            # A client that reads nothing would keep a closed connection for ever.
            self.loop.call_later(_LINGER_S, self.transport.abort)  # type: ignore[attr-defined]

    def _timeout_cb(self) -> None:
        """Look whether the client is too slow. aiosmtpd counts from the last command; a long mail may still be coming."""
        now = self.loop.time()
        if self._in_data and not self._receiving:
            self._reset_timeout(self._limits.idle_s)  # we are the slow one
        elif self._receiving and now < (until := min(self._heard_at + self._limits.silence_s, self._data_until)):
            self._reset_timeout(until - now)
        else:
            self._say_last("421 4.4.2 too slow: try again")

    # --- commands

    async def smtp_LHLO(self, arg: str | None) -> None:
        """Say what we can. RFC 2033 5: PIPELINING and ENHANCEDSTATUSCODES are a must."""
        if not arg:
            await self.push("501 5.5.4 expected LHLO and a name")
            return
        self._begin()
        self._session.host_name = "known"
        self._session.extended_smtp = True
        able = ("PIPELINING", "ENHANCEDSTATUSCODES", "8BITMIME", "SMTPUTF8", f"SIZE {self._limits.size_bytes}")
        lines = [self.hostname, *able]
        await self.push("\r\n".join(f"250{'-' if line is not lines[-1] else ' '}{line}" for line in lines))

    async def smtp_MAIL(self, arg: str | None) -> None:
        """Begin a mail. Unknown parameters are let pass: nothing they could ask for would be ours to do."""
        if not self._session.host_name:
            await self.push("503 5.5.1 expected LHLO first")
        elif self._envelope.mail_from is not None:
            await self.push("503 5.5.1 a mail has begun already")
        elif (path := read_path(arg or "", "FROM:")) is None:
            await self.push("501 5.5.4 expected MAIL FROM:<address>")
        elif self._too_large(path[1].get("SIZE", "")):
            await self.push(self._over_size)
        else:
            self._envelope.mail_from = path[0]
            await self.push("250 2.1.0 go on")

    async def smtp_RCPT(self, arg: str | None) -> None:
        """Take any recipient: whether it is ours is decided with the mail, and quarantine keeps what is not."""
        if self._envelope.mail_from is None:
            await self.push("503 5.5.1 expected MAIL first")
        elif (path := read_path(arg or "", "TO:")) is None or not path[0]:
            await self.push("501 5.5.4 expected RCPT TO:<address>")
        elif not self._has_room(path[0]):
            await self.push("452 4.5.3 too many recipients: send the mail again to the others")
        else:
            self._envelope.rcpt_tos.append(path[0])
            self._recipients_bytes += len(path[0])
            await self.push("250 2.1.5 go on")

    async def smtp_DATA(self, arg: str | None) -> None:
        """Receive a mail and answer for each recipient. RFC 2033 4.2."""
        if not self._envelope.rcpt_tos:
            await self.push("503 5.5.1 expected RCPT first")
            return
        self._in_data = True
        try:
            await self.push("354 end with a line that holds one dot")
            answers = await self._answers()
            with point("lmtp.answer"):
                await self.push("\r\n".join(answers))
        finally:
            self._in_data = False
            self._reset_timeout()
        if self._stopping:
            self.hang_up()

    async def smtp_RSET(self, arg: str | None) -> None:
        """Forget the mail that was begun."""
        self._begin()
        await self.push("250 2.0.0 forgotten")

    async def smtp_VRFY(self, arg: str | None) -> None:
        """Tell nothing about addresses."""
        await self.push("502 5.5.1 not here")

    async def smtp_EXPN(self, arg: str | None) -> None:
        """Tell nothing about addresses."""
        await self.push("502 5.5.1 not here")

    # --- the mail

    async def _answers(self) -> list[str]:
        raw, size_bytes = await self._content()
        mail = Mail(raw, size_bytes, self._envelope.mail_from or "", self._envelope.rcpt_tos)
        self._begin()
        if size_bytes > self._limits.size_bytes:
            return [self._over_size] * len(mail.recipients)
        return await self._take(mail)

    async def _content(self) -> tuple[bytes, int]:
        """Read up to the lone dot; return the beginning and how many octets there were."""
        self._data_until = self.loop.time() + self._limits.data_s
        self._heard_at = self.loop.time()
        self._receiving = True
        self._reset_timeout(min(self._limits.silence_s, self._limits.data_s))
        kept, size_bytes, at_line_start = bytearray(), 0, True
        try:
            while True:
                piece, ended = await self._piece()
                if at_line_start:
                    if piece == b".\r\n":
                        return bytes(kept[:MAX_LOOK_BYTES]), size_bytes
                    piece = piece.removeprefix(b".")
                size_bytes += len(piece)
                if len(kept) < MAX_LOOK_BYTES:
                    kept += piece
                at_line_start = ended
        finally:
            self._receiving = False

    async def _piece(self) -> tuple[bytes, bool]:
        """Return a line with its CRLF, or a piece of one that is longer than the buffer."""
        try:
            return await self._reader.readuntil(b"\r\n"), True
        except asyncio.LimitOverrunError as error:
            return await self._reader.readexactly(error.consumed), False

    # --- what it is made of

    def _begin(self) -> None:
        self.envelope = self._create_envelope()
        self._recipients_bytes = 0

    def _too_large(self, declared: str) -> bool:
        return declared.isascii() and declared.isdigit() and int(declared[:19]) > self._limits.size_bytes

    def _has_room(self, recipient: str) -> bool:
        known = len(self._envelope.rcpt_tos)
        return known < self._limits.recipients and self._recipients_bytes + len(recipient) <= _RECIPIENTS_BYTES

    @property
    def _over_size(self) -> str:
        return f"552 5.3.4 mail of more than {self._limits.size_bytes} octets"

    # Both are there as soon as there is a connection. No assert: aiosmtpd reads every attribute before there is one.

    @property
    def _session(self) -> Any:
        return self.session

    @property
    def _envelope(self) -> Any:
        return self.envelope
