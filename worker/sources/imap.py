"""One IMAP connection that cannot hang. The only file that imports aioimaplib.

aioimaplib waits for ever on UID STORE and MOVE over a dead link, reports a lost connection as a time-out or not at all,
and dies on about 1,000 lines in one read. So: every call is bounded and raced against the loss of the connection, sets
are small, and after any doubt the connection is aborted and never used again.

RFC: 3501 (IMAP4rev1), 2177 (IDLE), 6851 (MOVE), 5530 (response codes). Passwords need TLS; without it, loopback only.
"""

import asyncio
import base64
import re
import ssl
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import aioimaplib

from handlers.errors import ConfigError, MailboxUnavailable

DONE = "$UnsubdDone"
_CALL_S = 30.0
_CONNECT_S = 20.0
_TEMPORARY_CODES = (b"[UNAVAILABLE]", b"[INUSE]", b"[LIMIT]", b"[SERVERBUG]", b"[OVERQUOTA]")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class MailboxRefused(ConfigError):
    """The server understood us and said no: wrong password, unknown mailbox, untrusted certificate."""


@dataclass(frozen=True, slots=True)
class MailboxAddress:
    """Where a mailbox is: `imaps://user@host:993/INBOX#name`. Shape: mailbox as people write it, decoded."""

    tls: bool
    host: str
    port: int
    user: str
    mailbox: str
    name: str

    @classmethod
    def parse(cls, url: str) -> "MailboxAddress":
        """Errors: ConfigError  not such a URL, a password in it, or plain imap:// to another host."""
        parts = urlsplit(url)
        if parts.scheme not in ("imaps", "imap") or not parts.hostname or not parts.username:
            raise ConfigError(f"UNSUBD_IMAP_URL: scheme {parts.scheme!r}, expected e.g. imaps://user@host/INBOX#name")
        if parts.password:
            raise ConfigError("UNSUBD_IMAP_URL: holds a password, expected it in UNSUBD_IMAP_PASSWORD or a file")
        if parts.scheme == "imap" and parts.hostname not in _LOOPBACK:
            raise ConfigError(
                f"UNSUBD_IMAP_URL: plain imap:// to {parts.hostname!r}, expected imaps:// (loopback excepted)"
            )
        try:
            port = parts.port or (993 if parts.scheme == "imaps" else 143)
        except ValueError as error:
            raise ConfigError("UNSUBD_IMAP_URL: the port is no number up to 65535") from error
        mailbox = unquote(parts.path.lstrip("/")) or "INBOX"
        name = parts.fragment or "default"
        if not re.fullmatch(r"[A-Za-z0-9_]{1,40}", name):
            raise ConfigError(f"UNSUBD_IMAP_URL: name {name[:40]!r} after #, expected letters, digits and _")
        return cls(parts.scheme == "imaps", parts.hostname, port, unquote(parts.username), mailbox, name.lower())


@dataclass(frozen=True, slots=True)
class Selected:
    """What SELECT told. keywords: whether `$UnsubdDone` may be stored."""

    uidvalidity: int
    uidnext: int
    exists: int
    keywords: bool


@dataclass(frozen=True, slots=True)
class Fetched:
    """One message, or its beginning. Units: received_ms from INTERNALDATE, ms UTC."""

    uid: int
    raw: bytes
    size_bytes: int
    received_ms: int | None


class ImapConnection:
    """One logged-in connection.

    Errors:  MailboxUnavailable  every method: lost, silent or refusing; the connection is dead then.    temporary
             MailboxRefused      open and select: a setting is wrong.
    """

    def __init__(self, client: aioimaplib.IMAP4, lost: asyncio.Future[None], address: MailboxAddress) -> None:
        self._client = client
        self._lost = lost
        self._address = address

    @classmethod
    async def open(cls, address: MailboxAddress, password: str, ca_file: Path | None) -> "ImapConnection":
        """Connect and log in."""
        lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        context = _tls_context(ca_file) if address.tls else None
        client = aioimaplib.IMAP4(address.host, address.port, timeout=_CONNECT_S, ssl_context=context)
        client.protocol.conn_lost_cb = lambda _: None if lost.done() else lost.set_result(None)
        self = cls(client, lost, address)
        try:
            await client.wait_hello_from_server()
        except ssl.SSLCertVerificationError as error:
            raise MailboxRefused(
                f"UNSUBD_IMAP_URL: the certificate of {address.host} is not trusted ({error.verify_message}):"
                " set UNSUBD_IMAP_CA_FILE to the authority's PEM file"
            ) from error
        except (OSError, TimeoutError, aioimaplib.AioImapException) as error:
            self.abort()
            raise MailboxUnavailable(
                f"UNSUBD_IMAP_URL: {address.host}:{address.port} does not answer ({_named(error)}):"
                " check host, port and firewall"
            ) from error
        try:
            await self._login(password)
        except BaseException:
            self.abort()
            raise
        return self

    async def _login(self, password: str) -> None:
        if not password:
            raise MailboxRefused(
                f"UNSUBD_IMAP_PASSWORD: not set, expected the password of mailbox {self._address.name!r}"
            )
        user = aioimaplib.aioimaplib.quoted(self._address.user)  # the library quotes the password only
        response = await self._ask(self._client.protocol.login(user, password))
        if response.result != "OK":
            reason = _shown(response)
            if any(code in reason.encode() for code in _TEMPORARY_CODES):
                raise MailboxUnavailable(f"UNSUBD_IMAP_URL: {self._address.host} refuses the login for now: {reason}")
            raise MailboxRefused(
                f"UNSUBD_IMAP_PASSWORD: {self._address.host} refused the login of mailbox {self._address.name!r}"
                f" ({reason}): check user and password"
            )
        await self._ask(self._client.protocol.capability())  # those before the login lack MOVE and UIDPLUS

    def can(self, capability: str) -> bool:
        """Say whether the server has *capability*."""
        return capability in self._client.protocol.capabilities

    async def select(self) -> Selected:
        """Open the mailbox for reading and writing."""
        response = await self._ask(self._client.protocol.select(_mailbox_name(self._address.mailbox)))
        if response.result != "OK":
            raise MailboxRefused(
                f"UNSUBD_IMAP_URL: mailbox {self._address.mailbox!r} cannot be opened ({_shown(response)}): check its name"
            )
        text = b"\n".join(bytes(line) for line in response.lines)
        flags = re.search(rb"PERMANENTFLAGS \(([^)]*)\)", text)
        return Selected(
            uidvalidity=_number(rb"UIDVALIDITY (\d+)", text),
            uidnext=_number(rb"UIDNEXT (\d+)", text),
            exists=_number(rb"(\d+) EXISTS", text),
            keywords=flags is None or rb"\*" in flags[1] or DONE.encode() in flags[1],
        )

    async def search(self, *criteria: str) -> list[int]:
        """Return the UIDs that match, ascending."""
        response = await self._checked(self._client.protocol.search(*criteria, charset=None, by_uid=True), "SEARCH")
        words = b" ".join(line for line in response.lines if re.fullmatch(rb"[\d ]+", line)).split()
        return sorted({int(word) for word in words})

    async def fetch(self, uids: Iterable[int], octets: int) -> list[Fetched]:
        """Return the first *octets* of each message that still exists. Keep it to 50 messages or 4 MB a call."""
        parts = f"(UID INTERNALDATE RFC822.SIZE BODY.PEEK[]<0.{octets}>)"
        command = self._client.protocol.fetch(uid_set(uids), parts, by_uid=True, timeout=_CALL_S)
        response = await self._checked(command, "FETCH")
        return _fetched(response.lines)

    async def mark_done(self, uids: Iterable[int]) -> None:
        """Set `$UnsubdDone` on each message, in one command. Repeat: safe."""
        command = self._client.protocol.store(uid_set(uids), "+FLAGS.SILENT", f"({DONE})", by_uid=True)
        await self._checked(command, "STORE")

    async def move(self, uids: Iterable[int], folder: str) -> str:
        """Move messages, at most 200 a call, and return "", or the server's words when it refuses.

        The folder is created when it is missing.
        """
        response = await self._ask(self._client.protocol.move(uid_set(uids), _mailbox_name(folder), by_uid=True))
        if response.result != "OK" and b"[TRYCREATE]" in b"".join(bytes(line) for line in response.lines):
            await self._checked(self._client.protocol.simple_command("CREATE", _mailbox_name(folder)), "CREATE")
            response = await self._ask(self._client.protocol.move(uid_set(uids), _mailbox_name(folder), by_uid=True))
        return "" if response.result == "OK" else _shown(response)

    async def wait_for_mail(self, seconds: float) -> None:
        """Return when the server tells of new mail, or after *seconds*. Without IDLE: after *seconds*."""
        if not self.can("IDLE"):
            await asyncio.wait({self._lost}, timeout=seconds)
            self._check_alive()
            await self._checked(self._client.protocol.simple_command("NOOP"), "NOOP")
            return
        idle = await self._ask(self._client.idle_start(timeout=seconds + _CALL_S))
        push = asyncio.ensure_future(self._next_arrival())
        try:
            await asyncio.wait({push, self._lost}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            self._check_alive()
        finally:
            push.cancel()
        self._client.idle_done()
        await self._ask(idle)

    async def _next_arrival(self) -> None:
        while True:
            pushed = await self._client.protocol.idle_queue.get()
            lines = pushed if isinstance(pushed, list) else [pushed]
            if any(isinstance(line, bytes) and line.startswith(b"BYE") for line in lines):
                self.abort()
            if any(isinstance(line, str) or b"EXISTS" in line or b"RECENT" in line for line in lines):
                return

    def _check_alive(self) -> None:
        if self._lost.done():
            raise MailboxUnavailable(f"mailbox {self._address.name!r}: {self._address.host} closed the connection")

    async def _checked(self, call: Coroutine[Any, Any, Any], name: str) -> Any:
        response = await self._ask(call)
        if response.result != "OK":
            self.abort()
            raise MailboxUnavailable(f"mailbox {self._address.name!r}: {name} refused: {_shown(response)}")
        return response

    async def _ask(self, call: Any) -> Any:
        """Await one call: bounded, and ended at once by the loss of the connection."""
        task = asyncio.ensure_future(call)
        try:
            await asyncio.wait({task, self._lost}, timeout=_CALL_S, return_when=asyncio.FIRST_COMPLETED)
            if task.done() and not task.cancelled() and task.exception() is None:
                return task.result()
        finally:
            if not task.done():
                task.cancel()
        error = task.exception() if task.done() and not task.cancelled() else None
        self.abort()
        reason = (
            _named(error)
            if error
            else ("connection closed" if self._lost.done() else f"no answer within {_CALL_S:.0f} s")
        )
        raise MailboxUnavailable(f"mailbox {self._address.name!r}: {self._address.host}: {reason}") from error

    def abort(self) -> None:
        """Drop the connection without a word. Repeat: safe."""
        if self._client.protocol.transport is not None:
            self._client.protocol.transport.abort()
        if not self._client._client_task.done():
            self._client._client_task.cancel()

    async def close(self) -> None:
        """Log out politely, within 2 s, then drop the connection."""
        if not self._lost.done():
            task = asyncio.ensure_future(self._client.protocol.logout())
            await asyncio.wait({task, self._lost}, timeout=2, return_when=asyncio.FIRST_COMPLETED)
            task.cancel()
        self.abort()


def _tls_context(ca_file: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
    except (OSError, ssl.SSLError) as error:
        raise MailboxRefused(
            f"UNSUBD_IMAP_CA_FILE: {ca_file}: {_named(error)}, expected a PEM file we may read"
        ) from error


def _named(error: BaseException) -> str:
    text = str(error).splitlines()[0][:120] if str(error) else ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _shown(response: Any) -> str:
    """The server's own words, cut short: response text never repeats credentials or mail."""
    last = bytes(response.lines[-1]) if response.lines else b""
    return f"{response.result} {last.decode('utf-8', 'replace')}"[:160]


def _number(pattern: bytes, text: bytes) -> int:
    match = re.search(pattern, text)
    return int(match[1]) if match else 0


def uid_set(uids: Iterable[int]) -> str:
    """Return the shortest IMAP set of *uids*.

    Example:
        >>> uid_set([9, 1, 2, 3])
        '1:3,9'
    """
    ranges: list[list[int]] = []
    for uid in sorted(set(uids)):
        if ranges and ranges[-1][1] == uid - 1:
            ranges[-1][1] = uid
        else:
            ranges.append([uid, uid])
    return ",".join(str(first) if first == last else f"{first}:{last}" for first, last in ranges)


def uids_of(text: str) -> set[int]:
    """Undo `uid_set`.

    Example:
        >>> sorted(uids_of("1:3,9"))
        [1, 2, 3, 9]
    """
    uids: set[int] = set()
    for piece in text.split(",") if text else []:
        first, _, last = piece.partition(":")
        uids.update(range(int(first), int(last or first) + 1))
    return uids


def _fetched(lines: list[Any]) -> list[Fetched]:
    """Lines of one FETCH answer: text as bytes, literals as bytearray. What has no UID is somebody else's notice."""
    messages: list[tuple[bytes, bytes]] = []
    for line in lines:
        if isinstance(line, bytearray) and messages:
            messages[-1] = (messages[-1][0], bytes(line))
        elif re.match(rb"\d+ FETCH \(", line):
            messages.append((bytes(line), b""))
        elif messages:
            messages[-1] = (messages[-1][0] + b" " + bytes(line), messages[-1][1])
    return [
        Fetched(int(uid[1]), raw, _number(rb"RFC822\.SIZE (\d+)", text), _internal_date(text))
        for text, raw in messages
        if (uid := re.search(rb"\bUID (\d+)", text)) and b"BODY[]" in text
    ]


def _internal_date(text: bytes) -> int | None:
    match = re.search(rb'INTERNALDATE "([^"]*)"', text)
    if match is None:
        return None
    try:
        return int(datetime.strptime(match[1].decode().strip(), "%d-%b-%Y %H:%M:%S %z").timestamp() * 1000)
    except ValueError:
        return None


def _mailbox_name(name: str) -> str:
    """Return *name* quoted and in modified UTF-7 (RFC 3501 5.1.3)."""
    encoded = "".join(
        piece.replace("&", "&-") if piece.isascii() else f"&{_utf7(piece)}-"
        for piece in re.findall(r"[ -~]+|[^ -~]+", name)
    )
    return str(aioimaplib.aioimaplib.quoted(encoded))


def _utf7(text: str) -> str:
    return base64.b64encode(text.encode("utf-16-be")).decode().rstrip("=").replace("/", ",")
