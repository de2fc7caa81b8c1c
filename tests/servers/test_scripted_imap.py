"""A server that misbehaves in every way we could think of: each call ends within its bound, and its connection with it.

"At once" means that nobody waited for a time-out: the bounds are 5 s here, and 0.1 s where silence is what is tested.
"""

import asyncio
import base64
import functools
import gc
import logging
import random
import sys
import traceback
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import pytest

from handlers.errors import ConfigError, MailboxUnavailable
from tests.harness.mails import address, mail
from tests.harness.scripted_imap import (
    AFTER_LOGIN,
    Act,
    ScriptedImap,
    Turn,
    dribble,
    drop,
    flood,
    message_line,
    normal,
    reset,
    silence,
    until,
)
from tests.harness.service import MASTERS
from worker.installation import Installation, open_installation
from worker.settings import load_settings
from worker.sources import mailbox as poller
from worker.sources.credential import Credential
from worker.sources.imap import DONE, ImapConnection, MailboxAddress, MailboxRefused
from worker.sources.imap import connection as adapter
from worker.sources.mailbox import Mailbox

AT_ONCE_S = 1.0
PATIENT_S, IMPATIENT_S, POLLER_S, LOGOUT_S = 5.0, 0.1, 0.4, 0.5
SLACK_S = 1.0  # of a busy machine
PASSWORD = Credential("password", "horse")
TOKEN = Credential("token", "ya29.token")
NO_MOVE = AFTER_LOGIN.replace("MOVE ", "")

Call = Callable[[ImapConnection], Coroutine[Any, Any, Any]]


def _select(connection: ImapConnection) -> Coroutine[Any, Any, Any]:
    return connection.select("Other")


def _examine(connection: ImapConnection) -> Coroutine[Any, Any, Any]:
    return connection.select("Other", readonly=True)


def _search(connection: ImapConnection) -> Coroutine[Any, Any, Any]:
    return connection.search("UNKEYWORD", DONE)


def _fetch(connection: ImapConnection) -> Coroutine[Any, Any, Any]:
    return connection.fetch([1, 2], 1000)


def _store(connection: ImapConnection) -> Coroutine[Any, Any, Any]:
    return connection.mark_done([1, 2])


def _move(connection: ImapConnection) -> Coroutine[Any, Any, Any]:
    return connection.move([1, 2], "Processed")


def _idle(connection: ImapConnection) -> Coroutine[Any, Any, Any]:
    return connection.wait_for_mail(20)


def _short_idle(connection: ImapConnection) -> Coroutine[Any, Any, Any]:
    return connection.wait_for_mail(0.05)


# Command -> the call that comes to it, and what the server can.
CALLS: dict[str, tuple[Call, str]] = {
    "SELECT": (_select, AFTER_LOGIN),
    "EXAMINE": (_examine, AFTER_LOGIN),
    "LIST": (ImapConnection.folders, AFTER_LOGIN),
    "NAMESPACE": (ImapConnection.folders, AFTER_LOGIN + " NAMESPACE"),
    "SEARCH": (_search, AFTER_LOGIN),
    "FETCH": (_fetch, AFTER_LOGIN),
    "STORE": (_store, AFTER_LOGIN),
    "MOVE": (_move, AFTER_LOGIN),
    "CREATE": (_move, AFTER_LOGIN),
    "COPY": (_move, NO_MOVE),
    "EXPUNGE": (_move, NO_MOVE),
    "IDLE": (_idle, AFTER_LOGIN),
    "DONE": (_short_idle, AFTER_LOGIN),
    "NOOP": (_short_idle, AFTER_LOGIN.replace(" IDLE", "")),
}
OPENING = ("GREETING", "CAPABILITY", "LOGIN", "AUTHENTICATE")


def scene(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Play an async test in a loop of its own. What the loop complains of, and a task that stays behind, fail it."""

    async def whole(*args: Any, **kwargs: Any) -> None:
        await asyncio.wait_for(test(*args, **kwargs), 20)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        pending = (await asyncio.wait(left, timeout=0.2))[1] if left else set()
        assert [task.get_coro().__qualname__ for task in pending] == []  # tasks that nobody ends

    @functools.wraps(test)
    def played(*args: Any, **kwargs: Any) -> None:
        complaints: list[dict[str, Any]] = []
        with asyncio.Runner() as runner:
            runner.get_loop().set_exception_handler(lambda _, context: complaints.append(context))
            runner.run(whole(*args, **kwargs))
            gc.collect()  # an exception that nobody fetched complains when it is collected
        assert complaints == []

    return played


@pytest.fixture(autouse=True, scope="module")
def _little_garbage() -> Iterator[None]:
    gc.freeze()  # each test collects garbage: without all that was there before, it takes no time
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    for bound in ("CALL_S", "CONNECT_S", "SLOW_CALL_S"):
        monkeypatch.setattr(adapter, bound, PATIENT_S)
    monkeypatch.setattr(adapter, "_LOGOUT_S", LOGOUT_S)


@pytest.fixture
def impatience(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that shortens the bounds, for the calls that come after it."""

    def shorten(bound_s: float = IMPATIENT_S) -> None:
        for bound in ("CALL_S", "CONNECT_S", "SLOW_CALL_S"):
            monkeypatch.setattr(adapter, bound, bound_s)

    return shorten


@pytest.fixture
def server() -> ScriptedImap:
    """A server with two messages, still to be entered."""
    return ScriptedImap([b"Subject: one\r\n\r\nfirst", b"Subject: two\r\n\r\nsecond"])


async def _open(server: ScriptedImap, credential: Credential = PASSWORD, user: str = "jane") -> ImapConnection:
    return await ImapConnection.open(MailboxAddress.parse(server.url(user)), credential, None)


async def _open_and_abort(server: ScriptedImap, credential: Credential, user: str) -> None:
    (await _open(server, credential, user)).abort()


@asynccontextmanager
async def _session(server: ScriptedImap) -> AsyncIterator[ImapConnection]:
    async with server:
        connection = await _open(server)
        try:
            await connection.select("INBOX")
            yield connection
        finally:
            connection.abort()


async def _fails(call: Coroutine[Any, Any, Any], within_s: float, error: Any = MailboxUnavailable) -> str:
    """Await *call*, which must fail in time; return its words."""
    now = asyncio.get_running_loop().time
    began = now()
    with pytest.raises(error) as caught:
        await call
    assert now() - began < within_s
    return str(caught.value)


async def _lasts(call: Coroutine[Any, Any, Any], within_s: float) -> Any:
    """Await *call*, which must succeed in time."""
    return await asyncio.wait_for(call, within_s)


async def _is_dead(connection: ImapConnection, server: ScriptedImap) -> None:
    """After doubt the connection is closed, and whoever uses it again is told at once, without a word on the wire."""
    await asyncio.wait_for(server.is_left(), AT_ONCE_S)
    said = len(server.lines)
    for call in (_select, _search, _fetch, _store, _move, _idle):
        await _fails(call(connection), AT_ONCE_S)
    assert len(server.lines) == said


def _arrange(server: ScriptedImap, command: str, *acts: Act) -> Call:
    """Let *command* be answered with *acts*, and return the call that comes to it."""
    call, server.after_login = CALLS[command]
    if command == "CREATE":
        server.on("MOVE", b"<tag> NO [TRYCREATE] no such mailbox\r\n")
    if command == "SELECT":
        server.on("SELECT", normal)  # the one that the session begins with
    server.on(command, *acts)
    return call


# Connections that end.

ENDINGS: dict[str, tuple[Act, ...]] = {
    "closed": (drop,),
    "reset": (reset,),
    "bye": (b"* BYE going down\r\n",),
    "bye-and-closed": (b"* bye [UNAVAILABLE] going down\r\n", drop),
    "closed-in-mid-line": (b"* 1 FE", drop),
    "closed-in-mid-literal": (b"* 1 FETCH (UID 1 BODY[]<0> {100}\r\nthe beg", drop),
    "bye-after-some": (message_line(1, 1, b"first"), b"* 2 EXISTS\r\n* BYE going down\r\n"),
}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("command", CALLS)
@scene
async def test_the_end_of_the_connection_is_noticed_at_once(server: ScriptedImap, command: str, ending: str) -> None:
    call = _arrange(server, command, *ENDINGS[ending])

    async with _session(server) as connection:
        await _fails(call(connection), AT_ONCE_S)
        await _is_dead(connection, server)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("command", OPENING)
@scene
async def test_the_end_while_logging_in_is_noticed_at_once(server: ScriptedImap, command: str, ending: str) -> None:
    server.on(command, *ENDINGS[ending])

    async with server:
        await _fails(_open(server, TOKEN if command == "AUTHENTICATE" else PASSWORD), AT_ONCE_S)
        await asyncio.wait_for(server.is_left(), AT_ONCE_S)


@pytest.mark.parametrize("ending", ENDINGS)
@scene
async def test_the_end_while_idling_is_noticed_at_once(server: ScriptedImap, ending: str) -> None:
    event = asyncio.Event()
    server.on("IDLE", b"+ idling\r\n", until(event), *ENDINGS[ending])

    async with _session(server) as connection:
        waiting = asyncio.ensure_future(connection.wait_for_mail(20))
        await server.hears("IDLE")
        event.set()
        await _fails(waiting, AT_ONCE_S)  # type: ignore[arg-type]
        await _is_dead(connection, server)


@scene
async def test_the_end_between_two_calls_is_told_by_the_next(server: ScriptedImap) -> None:
    async with _session(server) as connection:
        server.push(b"* BYE idle for too long\r\n")
        await asyncio.wait_for(server.is_left(), AT_ONCE_S)

        assert "idle for too long" in await _fails(_search(connection), AT_ONCE_S)
        await _is_dead(connection, server)


@scene
async def test_nobody_listens(free_port: Callable[[], int]) -> None:
    nowhere = MailboxAddress.parse(f"imap://jane@127.0.0.1:{free_port()}/INBOX")

    assert "does not answer" in await _fails(ImapConnection.open(nowhere, PASSWORD, None), AT_ONCE_S)


@scene
async def test_a_bye_in_place_of_a_greeting_is_quoted(server: ScriptedImap) -> None:
    server.on("GREETING", b"* BYE too many connections\r\n")

    async with server:
        assert "too many connections" in await _fails(_open(server), AT_ONCE_S)


# Servers that say nothing, or too late.


@pytest.mark.parametrize("command", CALLS)
@scene
async def test_silence_ends_at_the_bound(server: ScriptedImap, command: str, impatience: Callable[..., None]) -> None:
    call = _arrange(server, command, silence)

    async with _session(server) as connection:
        impatience()
        await _fails(call(connection), IMPATIENT_S + SLACK_S)
        await _is_dead(connection, server)


@pytest.mark.parametrize("command", OPENING)
@scene
async def test_silence_while_logging_in_ends_at_the_bound(
    server: ScriptedImap, command: str, impatience: Callable[..., None]
) -> None:
    server.on(command, silence)

    async with server:
        impatience()
        await _fails(_open(server, TOKEN if command == "AUTHENTICATE" else PASSWORD), IMPATIENT_S + SLACK_S)
        await asyncio.wait_for(server.is_left(), AT_ONCE_S)


@pytest.mark.parametrize("command", ["SEARCH", "FETCH", "STORE", "MOVE", "IDLE", "DONE"])
@scene
async def test_a_late_answer_changes_nothing(
    server: ScriptedImap, command: str, impatience: Callable[..., None]
) -> None:
    event = asyncio.Event()
    call = _arrange(server, command, until(event), normal)

    async with _session(server) as connection:
        impatience()
        await _fails(call(connection), IMPATIENT_S + SLACK_S)
        event.set()
        await _is_dead(connection, server)


@scene
async def test_an_answer_that_never_ends_is_bounded_too(server: ScriptedImap, impatience: Callable[..., None]) -> None:
    async def chatter(turn: Turn) -> None:
        while True:
            await turn.send(b"* OK still searching\r\n")
            await asyncio.sleep(IMPATIENT_S / 8)

    server.on("SEARCH", chatter)

    async with _session(server) as connection:
        impatience()
        await _fails(_search(connection), IMPATIENT_S + SLACK_S)
        await _is_dead(connection, server)


@pytest.mark.parametrize("command", ["SEARCH", "FETCH", "STORE", "MOVE", "IDLE"])
@scene
async def test_a_call_that_was_cancelled_leaves_no_connection_to_be_reused(server: ScriptedImap, command: str) -> None:
    call = _arrange(server, command, silence)

    async with _session(server) as connection:
        task = asyncio.ensure_future(call(connection))
        await server.hears(command)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await _is_dead(connection, server)


@scene
async def test_closing_is_bounded(server: ScriptedImap) -> None:
    server.on("LOGOUT", silence)

    async with _session(server) as connection:
        await _lasts(connection.close(), LOGOUT_S + SLACK_S)
        await _is_dead(connection, server)


@scene
async def test_closing_says_logout_once(server: ScriptedImap) -> None:
    async with _session(server) as connection:
        await _lasts(connection.close(), AT_ONCE_S)
        await _lasts(connection.close(), AT_ONCE_S)

    assert server.heard("LOGOUT") == ["LOGOUT"]


# Servers that refuse.


@pytest.mark.parametrize("command", ["STORE", "MOVE", "COPY", "EXPUNGE", "CREATE"])
@scene
async def test_what_we_can_do_without_is_refused_in_words(server: ScriptedImap, command: str) -> None:
    call = _arrange(server, command, b"<tag> NO [OVERQUOTA] keep * calm {5}\r\n")

    async with _session(server) as connection:
        said = await _lasts(call(connection), AT_ONCE_S)

        assert "[OVERQUOTA] keep * calm {5}" in said
        assert await _search(connection) == [1, 2]  # no doubt: it is used on


@pytest.mark.parametrize("refusal", [b"NO [SERVERBUG] never mind", b"BAD what?"])
@pytest.mark.parametrize("command", ["SEARCH", "FETCH", "NOOP", "LIST", "NAMESPACE"])
@scene
async def test_what_we_cannot_do_without_is_unavailable(server: ScriptedImap, command: str, refusal: bytes) -> None:
    call = _arrange(server, command, b"<tag> " + refusal + b"\r\n")

    async with _session(server) as connection:
        assert refusal.decode() in await _fails(call(connection), AT_ONCE_S)
        await _is_dead(connection, server)


@pytest.mark.parametrize("command", ["STORE", "MOVE", "COPY", "EXPUNGE", "CREATE"])
@scene
async def test_a_bad_is_no_reason_to_hang_or_to_crash(server: ScriptedImap, command: str) -> None:
    call = _arrange(server, command, b"<tag> BAD what?\r\n")

    async with _session(server) as connection:
        with suppress(MailboxUnavailable):
            assert "BAD what?" in await _lasts(call(connection), AT_ONCE_S)


@pytest.mark.parametrize("refusal", [b"NO not now", b"BAD what?"])
@scene
async def test_a_server_that_refuses_idle_is_polled(server: ScriptedImap, refusal: bytes) -> None:
    server.always("IDLE", b"<tag> " + refusal + b"\r\n")

    async with _session(server) as connection:
        for _ in range(2):
            await _lasts(_short_idle(connection), AT_ONCE_S)

        assert await _search(connection) == [1, 2]
        assert len(server.heard("NOOP")) == 2


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ("NO [NONEXISTENT] unknown mailbox", MailboxRefused),
        ("NO no such mailbox", MailboxRefused),
        ("NO [NOPERM] not yours", MailboxRefused),
        ("NO [UNAVAILABLE] the disk is away", MailboxUnavailable),
        ("NO [unavailable] the disk is away", MailboxUnavailable),  # response codes are case-insensitive
        ("NO [INUSE] locked", MailboxUnavailable),
        ("NO [SERVERBUG] see the log", MailboxUnavailable),
    ],
)
@scene
async def test_select_is_refused(server: ScriptedImap, answer: str, error: type[Exception]) -> None:
    async with _session(server) as connection:
        server.on("SELECT", f"<tag> {answer}\r\n".encode())

        assert answer in await _fails(_select(connection), AT_ONCE_S, error)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ("NO [AUTHENTICATIONFAILED] wrong", MailboxRefused),
        ("NO [EXPIRED] your password is old", MailboxRefused),
        ("NO wrong", MailboxRefused),
        ("BAD wrong", MailboxRefused),
        ("NO [UNAVAILABLE] the directory is away", MailboxUnavailable),
        ("NO [Unavailable] the directory is away", MailboxUnavailable),
        ("NO [INUSE] locked", MailboxUnavailable),
        ("NO [LIMIT] too many", MailboxUnavailable),
    ],
)
@pytest.mark.parametrize("credential", [PASSWORD, TOKEN], ids=["password", "token"])
@scene
async def test_login_is_refused(
    server: ScriptedImap, credential: Credential, answer: str, error: type[Exception]
) -> None:
    for command in ("LOGIN", "AUTHENTICATE"):
        server.on(command, f"<tag> {answer}\r\n".encode())

    async with server:
        assert answer in await _fails(_open(server, credential), AT_ONCE_S, error)
        await asyncio.wait_for(server.is_left(), AT_ONCE_S)


async def _hears_an_empty_line(turn: Turn) -> None:
    turn.server.lines.append("answered " + (await turn.reader.readline()).decode())


@pytest.mark.parametrize(
    ("challenge", "told"),
    [
        (b'{"status":"401"}', "status 401"),
        (b'{"status":"400","schemes":"Bearer","scope":"https://mail.google.com/"}', "status 400"),
        (b"no JSON", "AUTHENTICATE failed"),
        (b"[1]", "AUTHENTICATE failed"),
    ],
)
@scene
async def test_a_refused_token_is_named_at_once(server: ScriptedImap, challenge: bytes, told: str) -> None:
    asked = b"+ " + base64.b64encode(challenge) + b"\r\n"
    server.on("AUTHENTICATE", asked, _hears_an_empty_line, b"<tag> NO AUTHENTICATE failed\r\n")

    async with server:
        said = await _fails(_open(server, TOKEN), AT_ONCE_S, MailboxRefused)

    assert told in said
    assert server.lines[-1] == "answered \r\n"


@pytest.mark.parametrize("challenge", [b"+\r\n", b"+ \r\n", b"+ !!!not base64!!!\r\n"])
@scene
async def test_a_challenge_that_says_nothing_is_still_a_refusal(server: ScriptedImap, challenge: bytes) -> None:
    server.on("AUTHENTICATE", challenge, _hears_an_empty_line, b"<tag> NO sorry\r\n")

    async with server:
        assert "NO sorry" in await _fails(_open(server, TOKEN), AT_ONCE_S, MailboxRefused)


@pytest.mark.parametrize("code", ["OVERQUOTA", "NONEXISTENT", "CANNOT", "NOPERM"])
@scene
async def test_a_refused_move_is_words_and_leaves_the_mail(server: ScriptedImap, code: str) -> None:
    server.always("MOVE", f"<tag> NO [{code}] no\r\n".encode())

    async with _session(server) as connection:
        assert f"[{code}] no" in await _lasts(_move(connection), AT_ONCE_S)
        assert await _search(connection) == [1, 2]


@scene
async def test_a_missing_folder_is_created_once(server: ScriptedImap) -> None:
    server.on("MOVE", b"<tag> NO [TRYCREATE] no such mailbox\r\n")

    async with _session(server) as connection:
        assert await _lasts(_move(connection), AT_ONCE_S) == ""

    assert server.heard("CREATE") == ['CREATE "Processed"']
    assert server.copied == [(1, "Processed"), (2, "Processed")]


@scene
async def test_a_folder_that_is_never_there_ends_in_words(server: ScriptedImap) -> None:
    server.always("MOVE", b"<tag> NO [TRYCREATE] no such mailbox\r\n")

    async with _session(server) as connection:
        assert "[TRYCREATE]" in await _lasts(_move(connection), AT_ONCE_S)
        assert await _search(connection) == [1, 2]


@scene
async def test_without_move_it_is_copy_mark_and_uid_expunge(server: ScriptedImap) -> None:
    server.after_login = NO_MOVE

    async with _session(server) as connection:
        said = len(server.lines)
        assert await _lasts(_move(connection), AT_ONCE_S) == ""

    commands = [line.split(" ")[:3] for line in server.lines[said:]]
    assert commands == [["UID", "COPY", "1:2"], ["UID", "STORE", "1:2"], ["UID", "EXPUNGE", "1:2"]]
    assert (server.copied, server.messages) == ([(1, "Processed"), (2, "Processed")], {})


@pytest.mark.parametrize("command", ["COPY", "STORE"])
@scene
async def test_what_could_not_be_copied_and_marked_is_not_expunged(server: ScriptedImap, command: str) -> None:
    server.after_login = NO_MOVE
    server.on(command, b"<tag> NO [NOPERM] not here\r\n")

    async with _session(server) as connection:
        assert "[NOPERM] not here" in await _lasts(_move(connection), AT_ONCE_S)

    assert server.heard("EXPUNGE") == []
    assert len(server.messages) == 2


@scene
async def test_without_move_and_uidplus_nothing_is_touched(server: ScriptedImap) -> None:
    server.after_login = "IMAP4rev1 IDLE"

    async with _session(server) as connection:
        said = len(server.lines)
        assert await _lasts(_move(connection), AT_ONCE_S) != ""
        assert server.lines[said:] == []


# Garbage.

_NUMBERS = random.Random(4)  # the same bytes in every run
HUGE = b"9" * 5000  # Python refuses to read a number of more than 4,300 digits
GARBAGE: dict[str, tuple[Act, ...]] = {
    "random": (_NUMBERS.randbytes(500), b"\r\n", _NUMBERS.randbytes(5000), b"\r\n"),
    "random-without-an-end": (_NUMBERS.randbytes(5000).replace(b"\r\n", b"__"),),
    "web-page": (b"HTTP/1.1 400 Bad Request\r\nServer: x\r\n\r\n<html>\r\n",),
    "unknown-tag": (b"ZZZ99 OK done\r\n",),
    "tag-of-another": (b"A1 NO done\r\nB2 BAD done\r\n",),
    "tag-without-result": (b"<tag> \r\n",),
    "tag-with-nonsense": (b"<tag> YES done\r\n",),
    "greeting-again": (b"* PREAUTH [CAPABILITY IMAP4rev1] hello\r\n",),
    "untagged-nothing": (b"* \r\n*\r\n\r\n",),
    "negative-literal": (b"* 1 FETCH (UID 1 BODY[]<0> {-5}\r\nabcde)\r\n",),
    "literal-that-is-no-number": (b"* 1 FETCH (UID 1 BODY[]<0> {five}\r\nabcde)\r\n",),
    "literal-of-5000-digits": (b"* 1 FETCH (UID 1 BODY[]<0> {" + HUGE + b"}\r\nabc",),
    "literals-in-thousands": (b"* 1 FETCH (" + b"X {1}\r\na " * 3000,),
    "nul": (b"* 1 FETCH (UID 1 \0 BODY[]<0>\0 {3}\r\nabc\0",),
    "continuation": (b"+ what next?\r\n+\r\n+ \r\n",),
    "not-utf-8": (b"* \xff\xfe \xc3\x28\r\n\xff\xfe\r\n",),
    "bare-line-ends": (b"* 1 FETCH (UID 1)\n<tag> OK done\n",),
}


@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize("command", ["SEARCH", "FETCH", "MOVE", "DONE"])
@scene
async def test_garbage_is_bounded_and_ends_the_connection(
    server: ScriptedImap, command: str, garbage: str, impatience: Callable[..., None]
) -> None:
    call = _arrange(server, command, *GARBAGE[garbage], silence)

    async with _session(server) as connection:
        impatience()
        await _fails(call(connection), IMPATIENT_S + SLACK_S)
        await _is_dead(connection, server)


@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize("command", OPENING)
@scene
async def test_garbage_while_logging_in_is_bounded(
    server: ScriptedImap, command: str, garbage: str, impatience: Callable[..., None]
) -> None:
    server.on(command, *GARBAGE[garbage], silence)

    async with server:
        impatience()
        await _fails(_open(server, TOKEN if command == "AUTHENTICATE" else PASSWORD), 2 * IMPATIENT_S + SLACK_S)
        await asyncio.wait_for(server.is_left(), AT_ONCE_S)


@pytest.mark.parametrize("numbers", [HUGE, b"-1", b"1" * 25, b"0"])
@pytest.mark.parametrize(
    "answer",
    [
        b"* SEARCH N\r\n",
        b"* 1 FETCH (UID N RFC822.SIZE 3 BODY[]<0> {3}\r\nabc)\r\n",
        b"* 1 FETCH (UID 1 RFC822.SIZE N BODY[]<0> {3}\r\nabc)\r\n",
        b"* N FETCH (UID 1 RFC822.SIZE 3 BODY[]<0> {3}\r\nabc)\r\n",
        b"* N EXISTS\r\n* OK [UIDVALIDITY N] x\r\n* OK [UIDNEXT N] x\r\n",
    ],
    ids=["SEARCH", "UID", "SIZE", "FETCH", "SELECT"],
)
@scene
async def test_a_number_out_of_range_is_unavailable_or_not_believed(
    server: ScriptedImap, answer: bytes, numbers: bytes
) -> None:
    """Anything but MailboxUnavailable would end the poller as a bug of ours."""
    said = answer.replace(b"N", numbers, 1) if b"SEARCH" in answer else answer.replace(b"N ", numbers + b" ")
    said = said.replace(b"N]", numbers + b"]") + b"<tag> OK done\r\n"

    async with _session(server) as connection:
        for command, call in (("SELECT", _select), ("SEARCH", _search), ("FETCH", _fetch)):
            server.on(command, said)
            with suppress(MailboxUnavailable):
                await _lasts(call(connection), AT_ONCE_S)


@pytest.mark.parametrize(
    "date", ["31-Feb-2026 10:00:00 +0000", "01-Jan-0001 00:00:00 +2359", "31-Dec-9999 23:59:59 -2359", "\xff", ""]
)
@scene
async def test_a_date_that_is_none_costs_no_message(server: ScriptedImap, date: str) -> None:
    line = f'* 1 FETCH (UID 1 INTERNALDATE "{date}" RFC822.SIZE 5 BODY[]<0> {{5}}\r\nfirst)\r\n'
    server.on("FETCH", line.encode("latin-1"), b"<tag> OK done\r\n")

    async with _session(server) as connection:
        assert [each.raw for each in await _lasts(_fetch(connection), AT_ONCE_S)] == [b"first"]


@pytest.mark.parametrize(
    "piece",
    [b"x" * 65536, b"\0" * 65536, b"* SEARCH" + b" 4294967295" * 6000, b"* OK" + b" {5}" * 16000],
    ids=["x", "nul", "search", "ok"],
)
@scene
async def test_a_line_without_an_end_is_not_collected_for_ever(server: ScriptedImap, piece: bytes) -> None:
    server.on("SEARCH", flood(piece, 60_000_000), silence)

    async with _session(server) as connection:
        await _fails(_search(connection), PATIENT_S)
        await _is_dead(connection, server)

    assert server.flooded < 40_000_000


@pytest.mark.parametrize("octets", [4 * 1024**3, 2**63, 10**19])
@scene
async def test_a_literal_of_gigabytes_is_refused_when_announced(server: ScriptedImap, octets: int) -> None:
    announced = f"* 1 FETCH (UID 1 BODY[]<0> {{{octets}}}\r\n".encode()
    server.on("FETCH", announced, silence)

    async with _session(server) as connection:
        await _fails(_fetch(connection), AT_ONCE_S)
        await _is_dead(connection, server)


@scene
async def test_an_answer_without_an_end_is_not_collected_for_ever(server: ScriptedImap) -> None:
    """4 MB a call is what is asked for; the bound of a call alone would let gigabytes in."""
    server.on("FETCH", flood(message_line(1, 1, b"x" * 500_000), 150_000_000), silence)

    async with _session(server) as connection:
        await _fails(_fetch(connection), PATIENT_S + SLACK_S)
        await _is_dead(connection, server)

    assert server.flooded < 100_000_000


# Strange, and right.

_TWO = [(1, b"first"), (2, b"second")]
_FIRST, _SECOND = message_line(1, 1, b"first"), message_line(2, 2, b"second")
_OK = b"<tag> OK done\r\n"
_LURE = b"x\r\n<tag> OK done\r\n* BYE gone\r\n* 9 EXISTS\r\n+ go\r\n* 2 FETCH (UID 3 BODY[]<0> {3}\r\nabc)\r\n\0) UID 99 {7}"
STRANGE: dict[str, tuple[bytes, list[tuple[int, bytes]]]] = {
    "notices-between": (
        b"* 3 EXISTS\r\n" + _FIRST + b"* 9 EXPUNGE\r\n* FLAGS (\\Seen)\r\n* 2 FETCH (FLAGS (\\Seen))\r\n"
        b"* 2 FETCH (UID 2 FLAGS (\\Seen))\r\n* OK still here {5}\r\n* NO [ALERT] full {3}\r\n* SEARCH 7\r\n"
        b"* STATUS x (MESSAGES 1)\r\n" + _SECOND + b"* 1 RECENT\r\n",
        _TWO,
    ),
    "without-uid": (b"* 1 FETCH (BODY[]<0> {5}\r\nfirst)\r\n" + _SECOND, [(2, b"second")]),
    "uid-after-the-literal": (b"* 1 FETCH (BODY[]<0> {5}\r\nfirst UID 1)\r\n" + _SECOND, _TWO),
    "uid-in-the-literal-only": (b"* 1 FETCH (BODY[]<0> {5}\r\nUID 7 FLAGS ())\r\n" + _SECOND, [(2, b"second")]),
    "another-literal-first": (b"* 1 FETCH (X {3}\r\nabc UID 1 BODY[]<0> {5}\r\nfirst)\r\n" + _SECOND, _TWO),
    "another-literal-last": (b"* 1 FETCH (UID 1 BODY[]<0> {5}\r\nfirst X {3}\r\nabc)\r\n" + _SECOND, _TWO),
    "braces-in-a-quoted-word": (b'* 1 FETCH (X "{5} * (" UID 1 BODY[]<0> {5}\r\nfirst Y "{3}")\r\n' + _SECOND, _TWO),
    "parentheses-in-a-quoted-word": (b'* 1 FETCH (X "((" UID 1 BODY[]<0> {5}\r\nfirst)\r\n' + _SECOND, _TWO),
    "short-body-quoted": (b'* 1 FETCH (UID 1 BODY[]<0> "fi\\"rst")\r\n' + _SECOND, [(1, b'fi"rst'), (2, b"second")]),
    "lower-case": (b"* 1 fetch (uid 1 body[]<0> {5}\r\nfirst)\r\n" + _SECOND, _TWO),
    "no-origin": (b"* 1 FETCH (UID 1 BODY[] {5}\r\nfirst)\r\n" + _SECOND, _TWO),
    "a-literal-that-lures": (
        f"* 1 FETCH (UID 1 BODY[]<0> {{{len(_LURE)}}}\r\n".encode() + _LURE + b")\r\n" + _SECOND,
        [(1, _LURE), (2, b"second")],
    ),
    "empty-literal": (b"* 1 FETCH (UID 1 BODY[]<0> {0}\r\n)\r\n" + _SECOND, [(1, b""), (2, b"second")]),
    "empty-quoted": (b'* 1 FETCH (UID 1 BODY[]<0> "")\r\n' + _SECOND, [(1, b""), (2, b"second")]),
    "gone-with-a-size": (b"* 1 FETCH (UID 1 RFC822.SIZE 9 BODY[]<0> NIL)\r\n" + _SECOND, [(2, b"second")]),
    "gone-without-a-size": (b"* 1 FETCH (UID 1 RFC822.SIZE 0 BODY[]<0> NIL)\r\n" + _SECOND, [(2, b"second")]),
    "one-has-gone": (_SECOND, [(2, b"second")]),
    "none-is-left": (b"", []),
}


@pytest.mark.parametrize("octets", [1, 7, 10_000])
@pytest.mark.parametrize("strange", STRANGE)
@scene
async def test_a_strange_answer_is_understood_however_it_is_cut(
    server: ScriptedImap, strange: str, octets: int
) -> None:
    answer, expected = STRANGE[strange]
    tag = b"TAGTAG" if octets else b""  # the lure's length counts its tag as it is written there
    server.on("FETCH", dribble(answer.replace(b"<tag>", tag[:5]) + _OK, octets))
    expected = [(uid, raw.replace(b"<tag>", tag[:5])) for uid, raw in expected]

    async with _session(server) as connection:
        got = await _lasts(_fetch(connection), PATIENT_S)

        assert [(each.uid, each.raw) for each in got] == expected
        assert await _search(connection) == [1, 2]


@scene
async def test_a_mail_that_quotes_our_own_tag_ends_nothing(server: ScriptedImap) -> None:
    async def lure(turn: Turn) -> None:
        raw = f"x\r\n{turn.tag} OK done\r\n* BYE gone\r\n{turn.tag} NO done\r\n".encode()
        await turn.send(message_line(1, 1, raw) + _SECOND + _OK)

    server.on("FETCH", lure)

    async with _session(server) as connection:
        got = await _lasts(_fetch(connection), AT_ONCE_S)

    assert [each.uid for each in got] == [1, 2]
    assert got[0].raw.endswith(b" NO done\r\n")


@pytest.mark.parametrize("command", ["FETCH", "STORE", "MOVE", "SEARCH", "SELECT", "NOOP"])
@scene
async def test_1200_lines_in_one_write(server: ScriptedImap, command: str) -> None:
    lines = b"* 1 EXPUNGE\r\n" * 1200 + b"* 1 FETCH (UID 1 FLAGS (\\Seen))\r\n" * 1200
    call = _arrange(server, command, lines, normal)

    async with _session(server) as connection:
        await _lasts(call(connection), AT_ONCE_S)


@scene
async def test_1200_lines_while_idling_are_one_arrival(server: ScriptedImap) -> None:
    server.on("IDLE", b"+ idling\r\n" + b"* 1 EXPUNGE\r\n" * 1200 + b"* 3 EXISTS\r\n")

    async with _session(server) as connection:
        await _lasts(_idle(connection), AT_ONCE_S)

        assert await _search(connection) == [1, 2]


@scene
async def test_500_messages_dribbled(server: ScriptedImap) -> None:
    answer = b"".join(message_line(number, number, b"mail %d" % number) for number in range(1, 501))
    server.on("FETCH", dribble(answer + _OK, 7))

    async with _session(server) as connection:
        got = await _lasts(connection.fetch(range(1, 501), 1000), PATIENT_S)

    assert [each.raw for each in got] == [b"mail %d" % number for number in range(1, 501)]


@pytest.mark.parametrize("a_line", [100_000, 7])
@scene
async def test_100000_uids_in_one_line_or_many(server: ScriptedImap, a_line: int) -> None:
    uids = range(1, 100_001)
    lines = (
        b"* SEARCH %s\r\n" % b" ".join(b"%d" % uid for uid in uids[at : at + a_line])
        for at in range(0, 100_000, a_line)
    )
    server.on("SEARCH", b"".join(lines), _OK)

    async with _session(server) as connection:
        assert await _lasts(_search(connection), PATIENT_S) == list(uids)


@pytest.mark.parametrize("line_end", [b"\r\n", b" \r\n"])
@scene
async def test_a_search_answer_in_single_octets(server: ScriptedImap, line_end: bytes) -> None:
    answer = b"* SEARCH " + b" ".join(b"%d" % uid for uid in range(1, 301)) + line_end + b"* SEARCH" + line_end
    server.on("SEARCH", dribble(answer + _OK, 1))

    async with _session(server) as connection:
        assert await _lasts(_search(connection), PATIENT_S) == list(range(1, 301))


async def _calls_made(size: int) -> int:
    """Return how many function calls a FETCH of *size* messages takes, the server's included: no clock, no luck."""
    count = 0

    def tick(*_: object) -> None:
        nonlocal count
        count += 1

    async with _session(ScriptedImap([b"mail"] * size)) as connection:
        sys.setprofile(tick)
        try:
            assert len(await connection.fetch(range(1, size + 1), 1000)) == size
        finally:
            sys.setprofile(None)
    return count


@scene
async def test_ten_times_the_messages_are_ten_times_the_work() -> None:
    small, large = await _calls_made(200), await _calls_made(2000)

    assert large < 12 * small


# Capabilities, names and secrets on the wire.


@scene
async def test_what_the_server_can_is_asked_again_after_the_login(server: ScriptedImap) -> None:
    async with _session(server) as connection:
        assert [name for name in ("MOVE", "UIDPLUS", "IDLE") if not connection.can(name)] == []
        assert not connection.can("AUTH=PLAIN")


@pytest.mark.parametrize(
    "answer",
    [
        b"<tag> OK [CAPABILITY IMAP4rev1 MOVE UIDPLUS IDLE] in\r\n",
        b"* CAPABILITY IMAP4rev1 MOVE UIDPLUS IDLE\r\n<tag> OK in\r\n",
        b"* capability imap4rev1 move uidplus idle\r\n<tag> OK in\r\n",
        b"* 3 EXISTS\r\n* OK [ALERT] in {4}\r\n<tag> OK in\r\n",
    ],
)
@scene
async def test_capabilities_told_with_the_login_are_read(server: ScriptedImap, answer: bytes) -> None:
    server.on("LOGIN", answer)
    server.before_login = server.after_login  # what a later CAPABILITY says, as no login was counted here

    async with _session(server) as connection:
        assert [name for name in ("MOVE", "UIDPLUS", "IDLE") if not connection.can(name)] == []
        assert [name for name in ("MOVE]", "IDLE]", "[CAPABILITY", "in") if connection.can(name)] == []
        await _lasts(_move(connection), AT_ONCE_S)


@scene
async def test_capabilities_in_lower_case_count(server: ScriptedImap) -> None:
    server.after_login = "IMAP4rev1 move uidplus Idle"

    async with _session(server) as connection:
        assert [name for name in ("MOVE", "UIDPLUS", "IDLE") if not connection.can(name)] == []


@scene
async def test_a_preauth_greeting_needs_no_secret(server: ScriptedImap) -> None:
    server.on("GREETING", b"* PREAUTH welcome\r\n")
    server.before_login = server.after_login

    async with _session(server) as connection:
        assert await _search(connection) == [1, 2]

    assert server.logins == []


NAMES = [
    ("a box", '"a box"'),
    ('the "box"', '"the \\"box\\""'),
    ("back\\slash", '"back\\\\slash"'),
    ("Entwürfe", '"Entw&APw-rfe"'),
    ("Désabonnés", '"D&AOk-sabonn&AOk-s"'),
    ("~peter/mail/台北/日本語", '"~peter/mail/&U,BTFw-/&ZeVnLIqe-"'),  # the example of RFC 3501 5.1.3
    ("Hi Mom -☺-!", '"Hi Mom -&Jjo--!"'),  # RFC 2152's
    ("Ham & Eggs", '"Ham &- Eggs"'),
    ("📥", '"&2D3c5Q-"'),
    ("A&B/ü&", '"A&-B/&APw-&-"'),
    ("", '""'),
]


@pytest.mark.parametrize(("name", "wire"), NAMES)
@scene
async def test_mailbox_names_are_quoted_and_in_modified_utf7(server: ScriptedImap, name: str, wire: str) -> None:
    async with _session(server) as connection:
        await connection.select(name)
        await connection.select(name, readonly=True)
        await connection.select("INBOX")
        await connection.move([1], name)

    assert server.lines[-4:] == [f"SELECT {wire}", f"EXAMINE {wire}", 'SELECT "INBOX"', f"UID MOVE 1 {wire}"]


SECRETS = [
    "horse",
    "two words",
    'a "quoted" one',
    "back\\slash",
    "\\",
    '"',
    "pässwörd",
    "密码",
    "%s {5} *",
    "a&b",
    "()",
]


@pytest.mark.parametrize("secret", SECRETS)
@scene
async def test_user_and_password_arrive_as_they_are(server: ScriptedImap, secret: str) -> None:
    async with server:
        await _open_and_abort(server, Credential("password", secret), f"jane {secret}")

    assert server.logins == [(f"jane {secret}", secret)]


@pytest.mark.parametrize("can", ["IMAP4rev1 AUTH=PLAIN", "IMAP4rev1 AUTH=PLAIN SASL-IR"])
@scene
async def test_a_server_without_login_is_given_plain(server: ScriptedImap, can: str) -> None:
    server.before_login = f"{can} LOGINDISABLED"

    async with server:
        await _open_and_abort(server, PASSWORD, "jane")

    assert server.logins == [("jane", "horse")]
    assert server.heard("LOGIN") == []


@pytest.mark.parametrize("can", ["IMAP4rev1 AUTH=XOAUTH2", "IMAP4rev1 AUTH=XOAUTH2 SASL-IR"])
@scene
async def test_a_token_arrives_as_xoauth2(server: ScriptedImap, can: str) -> None:
    server.before_login = can

    async with server:
        await _open_and_abort(server, TOKEN, "jane@example.com")

    assert server.logins == [("user=jane@example.com", "Bearer ya29.token")]


INJECTION = "x\r\nA9 DELETE INBOX\r\n\0"


@scene
async def test_line_ends_in_an_argument_never_reach_the_wire(server: ScriptedImap) -> None:
    async with _session(server) as connection:
        for call in (connection.select(INJECTION), connection.move([1], INJECTION), connection.search(INJECTION)):
            with suppress(MailboxUnavailable, ConfigError):
                await _lasts(call, AT_ONCE_S)

    assert server.heard("DELETE") == []


@pytest.mark.parametrize("credential", [Credential("password", INJECTION), Credential("token", INJECTION)], ids=repr)
@pytest.mark.parametrize("user", ["jane", INJECTION])
@scene
async def test_line_ends_in_a_credential_never_reach_the_wire(
    server: ScriptedImap, credential: Credential, user: str
) -> None:
    async with server:
        told = await _told(_lasts(_open_and_abort(server, credential, user), AT_ONCE_S))

    assert "DELETE" not in told
    assert server.heard("DELETE") == []


# Logs.

MARK = 'zebra-"qu"-\\-crossing'
MAIL = b"Subject: giraffe-in-the-mail\r\n\r\ngiraffe-in-the-mail"


@contextmanager
def _everything_logged(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Collect every record there is, at every level, with all it carries."""
    said: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(f"{self.format(record)} {vars(record)!r}")

    root, handler = logging.getLogger(), Collect()
    for name in ("", "asyncio", "aioimaplib", "aioimaplib.aioimaplib", "worker"):
        monkeypatch.setattr(logging.getLogger(name), "level", logging.DEBUG)
        logging.getLogger(name).manager._clear_cache()  # type: ignore[attr-defined]
    root.addHandler(handler)
    try:
        yield said
    finally:
        root.removeHandler(handler)


def _leaks(texts: list[str]) -> list[str]:
    secrets = [MARK, MARK.replace("\\", "\\\\").replace('"', '\\"'), repr(MARK)[1:-1], "zebra", "giraffe"]
    for word in (b"zebra", b"giraffe", MARK.encode()):
        secrets += [base64.b64encode(b"x" * before + word)[4:-4].decode() for before in range(3)]
    return [text for text in texts for secret in secrets if len(secret) > 3 and secret in text]


async def _told(call: Coroutine[Any, Any, Any]) -> str:
    """Return all that can be told of the failure of *call*, causes included; "" when it succeeds."""
    try:
        await call
    except (MailboxUnavailable, MailboxRefused) as error:
        return "".join(traceback.format_exception(error))
    return ""


@scene
async def test_no_log_tells_credential_or_mail(monkeypatch: pytest.MonkeyPatch) -> None:
    asyncio.get_running_loop().set_debug(True)
    server = ScriptedImap([MAIL])

    with _everything_logged(monkeypatch) as said:
        async with _session(server):
            for credential in (
                Credential("password", MARK),
                Credential("token", MARK),
                Credential("password", MARK + "ü"),
            ):
                connection = await _open(server, credential)
                await connection.select("INBOX")
                assert (await connection.fetch(await connection.search("ALL"), 1000))[0].raw == MAIL
                await connection.mark_done([1])
                await connection.wait_for_mail(0.01)
                await connection.close()
        logging.getLogger("aioimaplib").debug("the collector works")

    assert any("the collector works" in text for text in said)
    assert _leaks(said) == []


TROUBLE: dict[str, tuple[Act, ...]] = {
    "no": (b"<tag> NO sorry\r\n",),
    "bad": (b"<tag> BAD sorry\r\n",),
    "silence": (silence,),
    "closed": (drop,),
    "bye": (b"* BYE gone\r\n",),
    "unknown": (b"giraffe giraffe giraffe\r\n", silence),
    "unknown-tag": (b"ZZ1 OK giraffe\r\n", silence),
    "mid-literal": (b"* 1 FETCH (UID 1 BODY[]<0> {900}\r\n" + MAIL, drop),
    "literal-then-garbage": (message_line(1, 1, MAIL) + b"giraffe\r\n", silence),
    "challenge": (b"+ Z2lyYWZmZQ==\r\n", drop),
}


@pytest.mark.parametrize("trouble", TROUBLE)
@scene
async def test_no_trouble_tells_credential_or_mail(
    monkeypatch: pytest.MonkeyPatch, trouble: str, impatience: Callable[..., None]
) -> None:
    asyncio.get_running_loop().set_debug(True)
    server = ScriptedImap([MAIL])
    told: list[str] = []

    with _everything_logged(monkeypatch) as said:
        async with server:
            for command, kind in (("LOGIN", "password"), ("AUTHENTICATE", "token")):
                server.on(command, *TROUBLE[trouble])
                impatience()
                told.append(await _told(_open(server, Credential(kind, MARK))))  # type: ignore[arg-type]
            for command, call in (("SEARCH", _search), ("FETCH", _fetch), ("STORE", _store)):
                server.on(command, *TROUBLE[trouble])
                impatience(PATIENT_S)
                connection = await _open(server, Credential("password", MARK))
                await connection.select("INBOX")
                impatience()
                told.append(await _told(call(connection)))
                connection.abort()

    assert sum(map(bool, told)) >= 2
    assert _leaks(told + said) == []


# The whole poller.


@asynccontextmanager
async def _polling(server: ScriptedImap, redis_url: str, **settings: str) -> AsyncIterator[Installation]:
    async with server:
        given = {
            "redis_url": redis_url, "secret_keys": MASTERS[0], "address": "u+{tag}@unsub.example.com",
            "imap_url": server.url(), "imap_password": "horse", "imap_backlog": "all", "poll_interval_s": "60",
        } | settings  # fmt: skip
        with open_installation(
            load_settings({f"UNSUBD_{name.upper()}": text for name, text in given.items()})
        ) as found:
            task = asyncio.ensure_future(Mailbox(found, MailboxAddress.parse(server.url())).run())
            try:
                yield found
                assert not task.done(), task
            finally:
                task.cancel()
                await asyncio.wait({task})


def _asks(number: int) -> bytes:
    return mail(address(number), f"ask-{number}")


def _journal(installation: Installation, word: str) -> list[str]:
    lines: Any = installation.redis.lrange("unsubd:journal", 0, -1)
    return [line.decode() for line in lines if word in line.decode()]


async def _soon(event: Coroutine[Any, Any, None], within_s: float = 3) -> None:
    await asyncio.wait_for(event, within_s)


@scene
async def test_a_store_that_is_refused_stops_nothing(redis_url: str) -> None:
    server = ScriptedImap([_asks(1)])
    server.always("STORE", b"<tag> NO [NOPERM] no flags here\r\n")

    async with _polling(server, redis_url) as installation:
        await _soon(server.hears("IDLE"))
        server.append(_asks(2))
        await _soon(server.hears("IDLE", 2))
        server.push(b"* 2 EXISTS\r\n")
        await _soon(server.hears("IDLE", 3))

        assert server.connections == 1
        assert [line.split(" ")[2] for line in server.heard("FETCH")] == ["1", "2"]  # neither is taken again
        assert installation.queue.rq.count == 2


@scene
async def test_what_could_not_be_marked_is_not_taken_again_after_a_reconnect(redis_url: str) -> None:
    server = ScriptedImap([_asks(1)])
    for command in ("STORE", "MOVE"):
        server.always(command, b"<tag> NO [NOPERM] this mailbox is read-only\r\n")

    async with _polling(server, redis_url) as installation:
        await _soon(server.hears("IDLE"))
        server.push(b"* BYE restarting\r\n")
        await _soon(server.hears("IDLE", 2))

        assert (server.connections, len(server.heard("FETCH"))) == (2, 1)
        assert installation.queue.rq.count == 1


@scene
async def test_a_move_that_is_refused_leaves_the_mail_and_is_said_once(redis_url: str) -> None:
    server = ScriptedImap([_asks(1)])
    server.always("MOVE", b"<tag> NO [OVERQUOTA] the disk is full\r\n")

    async with _polling(server, redis_url) as installation:
        await _soon(server.hears("IDLE"))
        for number in (2, 3):
            server.append(_asks(number))
            await _soon(server.hears("IDLE", number))

        assert (server.connections, sorted(server.messages)) == (1, [1, 2, 3])
        assert all(DONE in server.flags[uid] for uid in (1, 2, 3))
        assert installation.queue.rq.count == 3
        assert len(_journal(installation, "the disk is full")) == 1


@scene
async def test_a_move_that_is_refused_for_a_moment_is_made_at_the_next_look(redis_url: str) -> None:
    server = ScriptedImap([_asks(1)])
    server.on("MOVE", b"<tag> NO [INUSE] somebody else holds the lock\r\n")

    async with _polling(server, redis_url):
        await _soon(server.hears("IDLE"))
        assert len(server.heard("MOVE")) == 1
        server.append(_asks(2))
        await _soon(server.hears("IDLE", 2))

        assert (server.connections, server.messages) == (1, {})


@pytest.mark.parametrize(
    ("bound", "value", "jobs"), [("", 0, 1), ("_TOGETHER_S", 0.0, 3), ("_TOGETHER_OCTETS", 70 * len(_asks(1)), 2)]
)
@scene
async def test_what_one_job_takes_is_bounded_in_messages_time_and_octets(
    redis_url: str, bound: str, value: float, jobs: int
) -> None:
    """A job costs what hundreds of messages do; but a slow server's first mail must not wait for its last."""
    server = ScriptedImap([_asks(number) for number in range(120)])
    with pytest.MonkeyPatch.context() as changed:
        if bound:
            changed.setattr(poller, bound, value)

        async with _polling(server, redis_url) as installation:
            await _soon(server.hears("IDLE"), 10)

            assert [len(server.heard(command)) for command in ("FETCH", "STORE")] == [3, jobs]
            assert installation.queue.rq.count == jobs
            assert all(DONE in flags for flags in server.flags.values())


@pytest.mark.parametrize("code", ["SERVERBUG", "NOPERM"], ids=["its trouble", "a message's"])
@scene
async def test_after_a_fetch_that_failed_what_is_read_is_taken_at_once(redis_url: str, code: str) -> None:
    """A server that fails now and then must not let the same mail be read for ever."""
    server = ScriptedImap([_asks(number) for number in range(120)])
    server.on("FETCH", normal)
    server.on("FETCH", f"<tag> NO [{code}] never mind\r\n".encode())

    async with _polling(server, redis_url) as installation:
        await _soon(server.hears("STORE"), 10)

        assert len(server.heard("FETCH")) == 3
        await _soon(server.hears("IDLE"), 10)
        assert all(DONE in flags for flags in server.flags.values())
        assert installation.queue.rq.count > 1


RECOVERIES: dict[str, tuple[Act, ...]] = {
    "silence": (silence,),
    "garbage": GARBAGE["random"],
    "closed": (message_line(1, 1, b"x" * 500)[:100], drop),
    "no": (b"<tag> NO [SERVERBUG] never mind\r\n",),
}


@pytest.mark.parametrize("trouble", RECOVERIES)
@scene
async def test_the_poller_comes_back_within_bound_and_backoff(
    redis_url: str, trouble: str, impatience: Callable[..., None]
) -> None:
    server = ScriptedImap([_asks(1)])
    server.on("FETCH", *RECOVERIES[trouble])
    backoff_s = 1.0
    impatience(POLLER_S)

    async with _polling(server, redis_url) as installation:
        await _soon(server.hears("FETCH"))
        await _soon(server.hears("STORE"), POLLER_S + backoff_s + SLACK_S)
        await _soon(server.hears("MOVE"))

        assert installation.queue.rq.count == 1
        assert server.connections == 2
