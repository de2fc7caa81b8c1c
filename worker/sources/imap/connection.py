"""One IMAP connection that cannot hang.

aioimaplib waits for ever on UID STORE and MOVE over a dead link and reports a lost connection as a time-out or not at
all. So every call is bounded and raced against the loss of the connection, and after any doubt the connection is aborted
and never used again. A plain NO is no doubt where the caller can do without: STORE, MOVE and COPY return it.

RFC: 3501 (IMAP4rev1), 2177 (IDLE), 2342 (NAMESPACE), 4315 (UIDPLUS), 5530 (response codes), 6154 (SPECIAL-USE),
6851 (MOVE). Passwords and tokens need TLS; without it, loopback only.
"""

import asyncio
import base64
import json
import ssl
from collections.abc import Coroutine, Iterable
from pathlib import Path
from typing import Any

import aioimaplib

from handlers.errors import MailboxUnavailable
from worker.sources.credential import Credential
from worker.sources.imap import answers
from worker.sources.imap.address import MailboxAddress, MailboxBusy, MailboxRefused, wire_name
from worker.sources.imap.answers import DONE, Fetched, Folder, Folders, Selected, uid_set
from worker.sources.imap.protocol import Client

CONNECT_S = 20.0
CALL_S = 30.0
SLOW_CALL_S = 120.0  # SELECT, MOVE and COPY of a large Maildir: seconds, and minutes when the disk is busy
_LOGOUT_S = 2.0
_STILL_THERE_S = 10.0  # so often an idle server is asked, and so long it may take: a frozen one closes no connection
_TEMPORARY_CODES = ("[UNAVAILABLE]", "[INUSE]", "[LIMIT]", "[SERVERBUG]", "[OVERQUOTA]")


class ImapConnection:
    """One logged-in connection.

    Errors:  MailboxUnavailable  every method: lost, silent or refusing; the connection is dead then.    temporary
             MailboxRefused      open and select: a setting is wrong.
    """

    def __init__(self, client: Client, address: MailboxAddress) -> None:
        self._client = client
        self._protocol = client.protocol
        self._lost = client.protocol.lost
        self._address = address
        self._idles = True

    @classmethod
    async def open(cls, address: MailboxAddress, credential: Credential, ca_file: Path | None) -> "ImapConnection":
        """Connect and log in."""
        context = _tls_context(ca_file) if address.tls else None
        client = Client(address.host, address.port, timeout=CONNECT_S, ssl_context=context)
        self = cls(client, address)
        try:
            await self._connect()
            await self._login(credential)
        except BaseException:
            self.abort()
            raise
        return self

    async def _connect(self) -> None:
        task = asyncio.ensure_future(self._client.wait_hello_from_server())
        await self._race(task, CONNECT_S)
        error = task.exception() if task.done() and not task.cancelled() else None
        if isinstance(error, ssl.SSLCertVerificationError):
            raise MailboxRefused(
                f"UNSUBD_IMAP_URL: the certificate of {self._address.host} is not trusted ({error.verify_message})",
                "set UNSUBD_IMAP_CA_FILE to the authority's PEM file",
            ) from error
        if error or not task.done() or task.cancelled():
            where, why = f"{self._address.host}:{self._address.port}", self._why(error, CONNECT_S)
            raise MailboxUnavailable(
                f"UNSUBD_IMAP_URL: {where} does not answer ({why})", "check host, port and firewall"
            ) from error

    async def _login(self, credential: Credential) -> None:
        if self._protocol.state == "AUTH":
            return  # PREAUTH
        response = await self._ask(self._authenticated(credential))
        if response.result != "OK":
            self._refuse_login(
                credential, (_sasl_reason(response) or _shown(response)).replace(credential.secret or "\0", "***")
            )
        await self._ask(self._protocol.capability())  # those before the login lack MOVE and UIDPLUS

    def _authenticated(self, credential: Credential) -> Coroutine[Any, Any, Any]:
        user = self._address.user
        if credential.kind == "token":
            sasl = f"user={user}\1auth=Bearer {credential.secret}\1\1"
            return self._protocol.authenticate("XOAUTH2", sasl.encode())
        # LOGIN has no word for what is not ASCII (RFC 3501 9): PLAIN does, in UTF-8 (RFC 4616).
        plain = not (user + credential.secret).isascii() or self.can("LOGINDISABLED")
        if plain and self.can("AUTH=PLAIN"):
            return self._protocol.authenticate("PLAIN", f"\0{user}\0{credential.secret}".encode())
        return self._protocol.login(_quoted(user), credential.secret)  # type: ignore[no-any-return]

    def _refuse_login(self, credential: Credential, reason: str) -> None:
        host, name = self._address.host, self._address.name
        if passes(reason):
            raise MailboxUnavailable(f"UNSUBD_IMAP_URL: {host} refuses the login for now: {reason}")
        setting, remedy = ("UNSUBD_IMAP_PASSWORD", "check user and password")
        if credential.kind == "token":
            setting, remedy = ("UNSUBD_IMAP_OAUTH", "check user, scope and consent, or run: unsubd mailbox login URL")
        raise MailboxRefused(f"{setting}: {host} refused the login of mailbox {name!r} ({reason})", remedy)

    def can(self, capability: str) -> bool:
        """Say whether the server has *capability*."""
        return capability in self._protocol.capabilities

    async def folders(self) -> Folders:
        """Return the account's folders and how new ones are named."""
        response = await self._checked(self._protocol.simple_command("LIST", '""', '"*"'), "LIST")
        known = [found for line in response.lines if (found := answers.folder(line))]
        if self.can("SPECIAL-USE") and not any("\\junk" in each.flags for each in known):
            known = await self._with_special_use(known)
        prefix = ""
        if self.can("NAMESPACE"):
            response_ = await self._checked(self._protocol.namespace(), "NAMESPACE")
            prefix = answers.personal_prefix(response_.lines)
        delimiter = next((mark for line in response.lines if (mark := answers.delimiter(line))), "")
        return Folders(tuple(known), prefix, delimiter)

    async def _with_special_use(self, known: list[Folder]) -> list[Folder]:
        """Ask for the marks apart: RFC 6154 lets a plain LIST go without them."""
        response = await self._ask(self._protocol.simple_command("LIST", "(SPECIAL-USE)", '""', '"*"'))
        marked = [found for line in response.lines if (found := answers.folder(line))]
        return [*marked, *(each for each in known if each.name not in {found.name for found in marked})]

    async def select(self, folder: str, *, readonly: bool = False) -> Selected:
        """Open *folder*; readonly: nothing that is read leaves a mark (EXAMINE)."""
        name = _quoted(wire_name(folder))
        command = self._protocol.examine(name) if readonly else self._protocol.select(name)
        response = await self._ask(command, SLOW_CALL_S)
        if response.result == "OK":
            return answers.selected(response.lines)
        reason = _shown(response)
        if passes(reason):
            raise MailboxUnavailable(f"mailbox {self._address.name!r}: {folder!r} cannot be opened for now: {reason}")
        raise MailboxRefused(f"UNSUBD_IMAP_URL: mailbox {folder!r} cannot be opened ({reason})", "check its name")

    async def search(self, *criteria: str) -> list[int]:
        """Return the UIDs that match, ascending."""
        response = await self._checked(self._protocol.search(*criteria, charset=None, by_uid=True), "SEARCH")
        return answers.uids_found(response.lines)

    async def fetch(self, uids: Iterable[int], octets: int) -> list[Fetched]:
        """Return the first *octets* of each message that still exists. Keep it to 4 MB a call."""
        parts = f"(UID INTERNALDATE RFC822.SIZE BODY.PEEK[]<0.{octets}>)"
        response = await self._checked(self._protocol.fetch(uid_set(uids), parts, by_uid=True), "FETCH")
        return answers.fetched(response.lines)

    async def mark_done(self, uids: Iterable[int], flag: str = DONE) -> str:
        """Flag each message in one command; return "", or the server's words when it refuses.

        Shape:   flag: `\\Seen` where the mailbox takes no keywords.
        Repeat:  safe.
        """
        command = self._protocol.store(uid_set(uids), "+FLAGS.SILENT", f"({flag})", by_uid=True)
        response = await self._ask(command)
        return "" if response.result == "OK" else _shown(response)

    async def move(self, uids: Iterable[int], folder: str) -> str:
        """Move messages and return "", or the server's words when it refuses; they stay where they are then.

        Shape:   without MOVE: COPY, mark \\Deleted, UID EXPUNGE; without UIDPLUS nothing is moved, because a plain
                 EXPUNGE also removes what other people marked. The folder is created when it is missing.
        """
        if not self.can("MOVE") and not self.can("UIDPLUS"):
            return "the server has neither MOVE nor UIDPLUS"
        which = uid_set(uids)
        if refusal := await self._moved(which, _quoted(wire_name(folder))):
            return refusal
        if self.can("MOVE"):
            return ""
        if refusal := await self.mark_done(uids, "\\Deleted"):
            return refusal
        response = await self._ask(self._protocol.expunge(which, by_uid=True), SLOW_CALL_S)
        return "" if response.result == "OK" else _shown(response)

    async def _moved(self, which: str, name: str) -> str:
        def command() -> Coroutine[Any, Any, Any]:
            calls = self._protocol.move if self.can("MOVE") else self._protocol.copy
            return calls(which, name, by_uid=True)  # type: ignore[no-any-return]

        response = await self._ask(command(), SLOW_CALL_S)
        if response.result != "OK" and "[TRYCREATE]" in _shown(response):
            created = await self._ask(self._protocol.simple_command("CREATE", name))
            if created.result != "OK":
                return f"CREATE: {_shown(created)}"
            await self._ask(self._protocol.simple_command("SUBSCRIBE", name))  # so that mail clients show it
            response = await self._ask(command(), SLOW_CALL_S)
        return "" if response.result == "OK" else _shown(response)

    async def wait_for_mail(self, seconds: float) -> None:
        """Return when the server tells of new mail, or after *seconds*. Without IDLE: after *seconds*."""
        loop = asyncio.get_running_loop()
        ends_at, came = loop.time() + seconds, False
        while not came and (left_s := ends_at - loop.time()) > 0:
            came = await self._rest(min(left_s, _STILL_THERE_S))

    async def _rest(self, seconds: float) -> bool:
        """Wait, then see that the server still answers; say whether it told of new mail."""
        if self._idles and self.can("IDLE") and (came := await self._idle(seconds)) is not None:
            return came
        self._idles = False
        await asyncio.wait({self._lost}, timeout=seconds)
        self._check_alive()
        await self._checked(self._protocol.simple_command("NOOP"), "NOOP", min(CALL_S, _STILL_THERE_S))
        return False

    async def _idle(self, seconds: float) -> bool | None:
        """One IDLE: whether the server told of new mail; None when it refuses to."""
        self._check_alive()
        bound_s = min(CALL_S, _STILL_THERE_S)
        idle: asyncio.Future[Any] = asyncio.ensure_future(self._protocol.idle())
        ready: asyncio.Future[Any] = asyncio.ensure_future(self._protocol.wait_for_idle_response())
        push: asyncio.Future[Any] = asyncio.ensure_future(self._next_arrival())
        try:
            await asyncio.wait({idle, ready, self._lost}, timeout=bound_s, return_when=asyncio.FIRST_COMPLETED)
            if idle.done() and not idle.cancelled() and idle.exception() is None:
                return None
            self._check_alive()
            if not ready.done():
                self.abort()
                raise MailboxUnavailable(f"{self._where()}: no answer to IDLE within {bound_s:g} s")
            await asyncio.wait({push, self._lost}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            self._check_alive()
            self._protocol.idle_done()
            await self._ask(idle, bound_s)
            return push.done()
        except asyncio.CancelledError:
            self.abort()
            raise
        finally:
            for task in (idle, ready, push):
                task.cancel()

    async def _next_arrival(self) -> None:
        while True:
            lines = await self._protocol.idle_queue.get()
            if any(b"EXISTS" in line or b"RECENT" in line for line in lines if isinstance(line, bytes)):
                return

    def _check_alive(self) -> None:
        if self._lost.done():
            raise MailboxUnavailable(f"{self._where()}: {self._lost.result()}")

    def _where(self) -> str:
        return f"mailbox {self._address.name!r}: {self._address.host}"

    async def _checked(self, call: Coroutine[Any, Any, Any], name: str, seconds: float = 0) -> Any:
        response = await self._ask(call, seconds)
        if response.result != "OK":
            self.abort()
            reason = _shown(response)
            kind = MailboxBusy if passes(reason) else MailboxUnavailable
            raise kind(f"{self._where()}: {name} refused: {reason}")
        return response

    async def _ask(self, call: Any, seconds: float = 0) -> Any:
        """Await one call: bounded, and ended at once by the loss of the connection."""
        seconds = seconds or CALL_S
        if self._lost.done():
            _drop(call)
            self._check_alive()
        task = asyncio.ensure_future(call)
        await self._race(task, seconds)
        if task.done() and not task.cancelled() and task.exception() is None:
            return task.result()
        error = task.exception() if task.done() and not task.cancelled() else None
        reason = self._why(error, seconds)
        self.abort()
        raise MailboxUnavailable(f"{self._where()}: {reason}") from error

    async def _race(self, task: "asyncio.Future[Any]", seconds: float) -> None:
        try:
            await asyncio.wait({task, self._lost}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self.abort()  # its answer is still to come: nothing else may be asked here
            raise
        finally:
            if not task.done():
                task.cancel()

    def _why(self, error: BaseException | None, seconds: float) -> str:
        if self._lost.done():
            return self._lost.result()
        return _named(error) if error else f"no answer within {seconds:g} s"

    def abort(self) -> None:
        """Drop the connection without a word. Repeat: safe."""
        self._protocol.give_up("dropped by us")
        if not self._client._client_task.done():
            self._client._client_task.cancel()

    async def close(self) -> None:
        """Log out politely, within 2 s, then drop the connection."""
        if not self._lost.done():
            task = asyncio.ensure_future(self._protocol.logout())
            await asyncio.wait({task, self._lost}, timeout=_LOGOUT_S, return_when=asyncio.FIRST_COMPLETED)
            task.cancel()
        self.abort()


def passes(reason: str) -> bool:
    """Say whether a refusal is, by its code, one that passes. RFC: 5530."""
    return any(code in reason.upper() for code in _TEMPORARY_CODES)


def _drop(call: Any) -> None:
    """End a call that never began: aioimaplib would leave tasks behind."""
    call.cancel() if isinstance(call, asyncio.Future) else call.close()


def _tls_context(ca_file: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
    except (OSError, ssl.SSLError) as error:
        raise MailboxRefused(
            f"UNSUBD_IMAP_CA_FILE: {ca_file}: {_named(error)}, expected a PEM file we may read"
        ) from error


def _quoted(text: str) -> str:
    return str(aioimaplib.aioimaplib.quoted(text))


def _named(error: BaseException) -> str:
    """An exception's name, and its words where they cannot repeat what we sent."""
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    text = str(error).splitlines()[0][:120] if str(error) and isinstance(error, OSError) else ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _shown(response: Any) -> str:
    """The server's own words, cut short: response text never repeats credentials or mail."""
    last = answers.flat(response.lines[-1]) if response.lines else b""
    return f"{response.result} {answers.words(last)}"[:160]


def _sasl_reason(response: Any) -> str:
    """What the challenge of a refused token says, e.g. `status 401 (scope …)`; "" when there is none."""
    for line in response.lines:
        if isinstance(line, bytes) and line.startswith(b"+ "):
            try:
                told = json.loads(base64.b64decode(line[2:]))
                return f"status {str(told['status'])[:40]}, {_shown(response)}"
            except (ValueError, KeyError, TypeError):
                continue
    return ""
