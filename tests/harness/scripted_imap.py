"""An IMAP server with one mailbox that behaves, until a test tells it how not to.

    async with ScriptedImap() as server:
        server.on("FETCH", b"* 1 FETCH (UID 1 BODY[] {100}\\r\\nthe beg", drop)

A command is named by its word without UID; GREETING and DONE are commands too. What is to be played is bytes, sent as
they are but for `<tag>`, or an act: `drop`, `silence`, `normal`. A script is used once; the next such command is answered
well again, unless it was given to `always`.
"""

import asyncio
import base64
import re
import socket
import struct
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import quote

BEFORE_LOGIN = "IMAP4rev1 SASL-IR AUTH=PLAIN AUTH=XOAUTH2"
AFTER_LOGIN = "IMAP4rev1 MOVE UIDPLUS IDLE"

_LITERAL = re.compile(rb"\{(\d+)\}\r\n\Z")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"|(\S+)')


@dataclass
class Turn:
    """One command, and the connection that it came on."""

    server: "ScriptedImap"
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    tag: str = "*"
    name: str = "GREETING"
    words: list[str] = field(default_factory=list)
    logged_in: bool = False

    async def send(self, data: bytes) -> None:
        """Send *data*, with the command's tag for `<tag>`."""
        self.writer.write(data.replace(b"<tag>", self.tag.encode()))
        await self.writer.drain()


Act = bytes | Callable[[Turn], Awaitable[None]]


class ScriptedImap:
    """The server. `lines`: every command line it received, without the tag; `messages`: UID -> message of INBOX."""

    def __init__(self, messages: Iterable[bytes] = ()) -> None:
        self.messages = dict(enumerate(messages, 1))
        self.uidnext = len(self.messages) + 1
        self.flags: dict[int, set[str]] = defaultdict(set)
        self.copied: list[tuple[int, str]] = []
        self.before_login, self.after_login = BEFORE_LOGIN, AFTER_LOGIN
        self.lines: list[str] = []
        self.logins: list[tuple[str, str]] = []
        self.connections = self.flooded = 0
        self._once: dict[str, deque[tuple[Act, ...]]] = defaultdict(deque)
        self._always: dict[str, tuple[Act, ...]] = {}
        self._open: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._changed = asyncio.Condition()

    async def __aenter__(self) -> "ScriptedImap":
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=2**26)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task, writer in self._open.items():
            writer.transport.abort()
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    def url(self, user: str = "jane") -> str:
        """The URL of the mailbox, as in UNSUBD_IMAP_URL."""
        return f"imap://{quote(user, safe='')}@127.0.0.1:{self.port}/INBOX"

    def on(self, name: str, *acts: Act) -> None:
        """Play *acts* as the answer to one command *name*; after several calls, to as many commands in turn."""
        self._once[name].append(acts)

    def always(self, name: str, *acts: Act) -> None:
        """Play *acts* as the answer to every command *name*."""
        self._always[name] = acts

    def heard(self, name: str) -> list[str]:
        """Return the lines of command *name* that came so far."""
        return [line for line in self.lines if re.match(rf"(?:UID )?{name}\b", line)]

    async def hears(self, name: str, times: int = 1) -> None:
        """Wait until command *name* came *times* in all."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self.heard(name)) >= times)

    async def is_left(self) -> None:
        """Wait until no connection is open."""
        async with self._changed:
            await self._changed.wait_for(lambda: not self._open)

    def push(self, data: bytes) -> None:
        """Send *data* to whoever is connected, asked or not."""
        for writer in self._open.values():
            writer.write(data)

    def append(self, raw: bytes) -> None:
        """Let a mail come in, and tell whoever is connected."""
        self.messages[self.uidnext] = raw
        self.uidnext += 1
        self.push(f"* {len(self.messages)} EXISTS\r\n".encode())

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._open[asyncio.ensure_future(self._serve(reader, writer))] = writer

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):  # the client has left
            await self._converse(reader, writer)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        self._open = {task: other for task, other in self._open.items() if other is not writer}
        await self._tell()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        turn = Turn(self, reader, writer)
        logins = len(self.logins)
        await self._play(turn)
        while not writer.is_closing() and (line := await _read_command(reader, writer)):
            tag, _, rest = (turn.tag, "", line) if line == "DONE" else line.partition(" ")
            words = [re.sub(r"\\(.)", r"\1", quoted) + bare for quoted, bare in _QUOTED.findall(rest)]
            name, *words = words[1:] if words[0].upper() == "UID" else words
            self.lines.append(rest)
            await self._tell()
            turn = Turn(self, reader, writer, tag, name.upper(), words, len(self.logins) > logins)
            await self._play(turn)

    async def _play(self, turn: Turn) -> None:
        once = self._once[turn.name]
        for act in once.popleft() if once else self._always.get(turn.name, (normal,)):
            await (turn.send(act) if isinstance(act, bytes) else act(turn))

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()


async def _read_command(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
    """Return a command line, its literals put in as quoted strings; "" at the end."""
    line = await reader.readline()
    while match := _LITERAL.search(line):
        writer.write(b"+ go on\r\n")
        text = await reader.readexactly(int(match[1]))
        line = line[: match.start()] + b'"' + re.sub(rb'(["\\])', rb"\\\1", text) + b'"' + await reader.readline()
    return line.decode().removesuffix("\r\n")


# Acts.


async def normal(turn: Turn) -> None:
    """Answer as a good server does."""
    if turn.name == "AUTHENTICATE":
        await _authenticate(turn)
    if answer := _ANSWERS.get(turn.name):
        await turn.send(answer(turn))
    if turn.name not in ("GREETING", "IDLE"):
        await turn.send(f"<tag> OK {turn.name} completed\r\n".encode())
    if turn.name == "LOGOUT":
        turn.writer.close()


async def drop(turn: Turn) -> None:
    """Close the connection in an orderly way."""
    turn.writer.close()


async def reset(turn: Turn) -> None:
    """Close the connection as a firewall or a crash does (RST)."""
    linger = struct.pack("ii", 1, 0)
    turn.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    turn.writer.transport.abort()


async def silence(turn: Turn) -> None:
    """Read on and say nothing, until the client leaves."""
    await turn.reader.read()


def until(event: asyncio.Event) -> Act:
    """Wait for *event* before the next act: an answer that comes late."""

    async def act(_: Turn) -> None:
        await event.wait()

    return act


def dribble(data: bytes, octets: int) -> Act:
    """Send *data* in pieces of *octets*, each read apart."""

    async def act(turn: Turn) -> None:
        whole = data.replace(b"<tag>", turn.tag.encode())
        for start in range(0, len(whole), octets):
            await turn.send(whole[start : start + octets])
            await asyncio.sleep(0)  # the client is in this loop: now it reads

    return act


def flood(piece: bytes, octets: int) -> Act:
    """Send *piece* again and again, *octets* in all, and count in `flooded` what the client let us send."""

    async def act(turn: Turn) -> None:
        while turn.server.flooded < octets:
            await turn.send(piece)
            turn.server.flooded += len(piece)

    return act


def message_line(number: int, uid: int, raw: bytes, octets: int | None = None) -> bytes:
    """Return one message of a FETCH answer, at most its first *octets*, as Dovecot writes it."""
    facts = f'UID {uid} INTERNALDATE "21-Nov-2026 10:00:00 +0000" RFC822.SIZE {len(raw)}'
    part = raw[:octets]
    return f"* {number} FETCH ({facts} BODY[]<0> {{{len(part)}}}\r\n".encode() + part + b")\r\n"


# What a good server says before its tagged OK, by command.


def _capability(turn: Turn) -> bytes:
    server = turn.server
    return f"* CAPABILITY {server.after_login if turn.logged_in else server.before_login}\r\n".encode()


def _login(turn: Turn) -> bytes:
    turn.server.logins.append((turn.words[0], turn.words[1]))
    return b""


async def _authenticate(turn: Turn) -> None:
    if len(turn.words) < 2:
        await turn.send(b"+ \r\n")
        turn.words.append((await turn.reader.readline()).decode().strip())
    text = base64.b64decode(turn.words[1]).decode()
    user, secret = text.split("\0")[1:] if turn.words[0] == "PLAIN" else re.split("\1auth=|\1\1", text)[:2]
    turn.server.logins.append((user, secret))


def _select(turn: Turn) -> bytes:
    messages = turn.server.messages
    return (
        f"* FLAGS (\\Seen \\Deleted)\r\n* OK [PERMANENTFLAGS (\\Seen \\Deleted \\*)] all\r\n* {len(messages)} EXISTS\r\n"
        f"* OK [UIDVALIDITY 7] good\r\n* OK [UIDNEXT {turn.server.uidnext}] next\r\n"
    ).encode()


def _search(turn: Turn) -> bytes:
    wanted = " ".join(turn.words)
    uids = set(turn.server.messages)
    for no, keyword in re.findall(r"\b(UN)?KEYWORD (\S+)", wanted):
        uids = {uid for uid in uids if (keyword in turn.server.flags[uid]) != bool(no)}
    for text in re.findall(r"\bUID ([\d:,*]+)", wanted):
        uids &= _uids(turn, text)
    return f"* SEARCH {' '.join(map(str, sorted(uids)))}\r\n".encode()


def _fetch(turn: Turn) -> bytes:
    octets = re.search(r"<0\.(\d+)>", " ".join(turn.words))
    uids = _uids(turn, turn.words[0])
    return b"".join(
        message_line(number, uid, raw, int(octets[1]) if octets else None)
        for number, (uid, raw) in enumerate(turn.server.messages.items(), 1)
        if uid in uids
    )


def _store(turn: Turn) -> bytes:
    for uid in _uids(turn, turn.words[0]):
        turn.server.flags[uid].update(" ".join(turn.words[2:]).strip("()").split())
    return b""


def _copy(turn: Turn) -> bytes:
    turn.server.copied += [(uid, turn.words[1]) for uid in sorted(_uids(turn, turn.words[0]))]
    return b""


def _move(turn: Turn) -> bytes:
    return _copy(turn) + _expunged(turn, _uids(turn, turn.words[0]))


def _expunge(turn: Turn) -> bytes:
    return _expunged(turn, {uid for uid in _uids(turn, turn.words[0]) if "\\Deleted" in turn.server.flags[uid]})


def _expunged(turn: Turn, uids: set[int]) -> bytes:
    numbers = [number for number, uid in enumerate(turn.server.messages, 1) if uid in uids]
    for uid in uids:
        del turn.server.messages[uid]
    return b"".join(f"* {number} EXPUNGE\r\n".encode() for number in reversed(numbers))


def _uids(turn: Turn, text: str) -> set[int]:
    """Return the UIDs of a set that exist."""
    last = max(turn.server.messages, default=0)
    found: set[int] = set()
    for piece in text.replace("*", str(last)).split(","):
        first, _, end = piece.partition(":")
        found.update(range(int(first), min(int(end or first), last) + 1))
    return found & set(turn.server.messages)


_ANSWERS: dict[str, Callable[[Turn], bytes]] = {
    "GREETING": lambda _: b"* OK ready\r\n",
    "CAPABILITY": _capability,
    "LOGIN": _login,
    "LIST": lambda _: b'* LIST (\\HasNoChildren) "/" "INBOX"\r\n',
    "SELECT": _select,
    "EXAMINE": _select,
    "SEARCH": _search,
    "FETCH": _fetch,
    "STORE": _store,
    "COPY": _copy,
    "MOVE": _move,
    "EXPUNGE": _expunge,
    "IDLE": lambda _: b"+ idling\r\n",
    "LOGOUT": lambda _: b"* BYE see you\r\n",
}
