"""A polled mailbox: connect, find what is not done, accept it, mark it, move it later; again and for ever.

Work is every message without `$UnsubdDone`: somebody else's `\\Seen` never hides one. IDLE wakes us, a poll is the base.
A message is flagged only after it was accepted, in one STORE a batch; handled mail is moved in bulk at quiet times, for
MOVE costs 0.1 to 0.5 s a command on a large Maildir. What is not ours stays as it is (`UNSUBD_IMAP_UNTAGGED=leave`).

| key                     | type | holds                                                          | lives    |
|-------------------------|------|----------------------------------------------------------------|----------|
| `unsubd:mailbox:NAME`   | HASH | whose UIDs, from_uid (older mail is held), left (UID ranges)   | for good |
"""

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from typing import cast

from handlers import decision, message
from handlers.errors import ConfigError, QueueUnavailable, Unavailable
from handlers.message import FIRST_LOOK_BYTES, MAX_LOOK_BYTES, InboundMessage
from worker.installation import Installation
from worker.intake import is_foreign
from worker.server import away_as
from worker.settings import Settings
from worker.sources import SourceReport
from worker.sources.imap import (
    DONE,
    Fetched,
    ImapConnection,
    MailboxAddress,
    MailboxRefused,
    Selected,
    uid_set,
    uids_of,
)

_BATCH = 50  # aioimaplib is quadratic in the batch size; 50 is its best
_SECOND_LOOK_BATCH = 4  # times 256 KB = 1 MB: at 100 KB/s a third of the time that a call may take
_MOVE_BATCH = 200
_BACKLOG_ASKED_ABOVE = 50
_MAX_BACKOFF_S = 60.0
_GOOD_READS = 10  # in a row, before a batch that was made smaller grows again
_STRIKES = 3  # fetches of one message that may fail before the others go on without it
_REFUSED_WAIT_S = 60.0  # a wrong password tried too often locks the account


@dataclass(slots=True)
class _Progress:
    """What is remembered of a mailbox: where work begins, and the UIDs that are not ours."""

    of: str = ""  # account, folder and UIDVALIDITY: elsewhere the same UID is another message
    keys: str = ""  # what `left` was decided with
    from_uid: int = 0
    left: set[int] = field(default_factory=set)


class Mailbox:
    """One polled mailbox of this process."""

    def __init__(self, installation: Installation, address: MailboxAddress) -> None:
        settings = installation.settings
        password = settings.imap_passwords.get(address.name, settings.imap_password)
        self._installation = installation
        self._settings = settings
        self._address = address
        self._password = password.get_secret_value()
        self._source = f"imap:{address.name}"
        self._report = SourceReport(installation.redis, installation.journal, self._source)
        self._progress = _Progress()
        self._taken: set[int] = set()
        self._backoff_s = 1.0
        self._strikes: Counter[int] = Counter()
        self._batch = _BATCH  # smaller after a failed fetch, so that the one message at fault is found
        self._good_reads = 0

    async def run(self, *, once: bool = False, strict: bool = False) -> None:
        """Poll until cancelled, coming back after every trouble.

        Shape:   once: one look, then return. strict: give up when the mailbox cannot be opened even once.
        Errors:  MailboxRefused, MailboxUnavailable  only with once or strict.
        """
        while True:
            try:
                connection = await self._connect()
                try:
                    held = await self._open(connection)
                    strict = False
                    await self._session(connection, held, once=once)
                    return
                finally:
                    await connection.close()
            except MailboxRefused as error:
                wait_s, reason = _REFUSED_WAIT_S, str(error)
                await asyncio.to_thread(self._report.say, "refused", reason)
                if once or strict:
                    raise
            except Unavailable as error:
                wait_s, reason = self._backoff_s * random.uniform(0.5, 1.0), str(error)
                self._backoff_s = min(self._backoff_s * 2, _MAX_BACKOFF_S)
                await asyncio.to_thread(self._report.say, "waiting", reason)
                if once or strict:
                    raise
            await asyncio.sleep(wait_s)

    async def _connect(self) -> ImapConnection:
        await asyncio.to_thread(self._report.say, "connecting")
        return await ImapConnection.open(self._address, self._password, self._settings.imap_ca_file)

    async def _open(self, connection: ImapConnection) -> int:
        """Select the mailbox and load the progress; return how many older messages are held."""
        self._taken = set()
        selected = await connection.select()
        if not selected.keywords:
            raise MailboxRefused(
                f"UNSUBD_IMAP_URL: mailbox {self._address.mailbox!r} does not allow keywords, so that handled mail cannot"
                f" be marked {DONE}: choose one that does"
            )
        return await self._resume(connection, selected)

    async def _session(self, connection: ImapConnection, held: int, *, once: bool) -> None:
        hint = _held_hint(held)
        if skipped := sum(strikes >= _STRIKES for strikes in self._strikes.values()):
            hint = f"{skipped} messages cannot be fetched and are tried again at the next start. {hint}".strip()
        while True:
            taken = await self._work(connection)
            self._backoff_s = 1.0
            await asyncio.to_thread(self._report.say, "idle", hint, held=held)
            if once:
                return
            if not taken:
                refusal = "" if "MOVE" in hint else await self._tidy(connection)
                hint = refusal or hint
                await connection.wait_for_mail(self._settings.poll_interval_s)

    async def _resume(self, connection: ImapConnection, selected: Selected) -> int:
        """Load the progress; a mailbox (or UIDVALIDITY) never seen before asks about its backlog. Returns what is held."""
        self._progress = await asyncio.to_thread(self._load)
        backlog = self._settings.imap_backlog
        of = f"{self._address.user}@{self._address.host}/{self._address.mailbox}:{selected.uidvalidity}"
        keys = ",".join((*self._installation.keys.fingerprints(), self._settings.address or ""))
        if self._progress.of != of:
            waiting = await connection.search("UNKEYWORD", DONE)
            asked = backlog == "ask" and len(waiting) > _BACKLOG_ASKED_ABOVE
            self._progress = _Progress(of, keys, selected.uidnext if asked else 0)
        elif backlog == "all":
            self._progress.from_uid = 0
        if self._progress.keys != keys:
            self._progress.keys, self._progress.left = keys, set()
        if backlog not in ("ask", "all"):
            since = await connection.search("SINCE", date.fromisoformat(backlog).strftime("%d-%b-%Y"))
            self._progress.from_uid = min(since, default=selected.uidnext)
        await asyncio.to_thread(self._save)
        if self._progress.from_uid <= 1:
            return 0
        return len(await connection.search("UID", f"1:{self._progress.from_uid - 1}", "UNKEYWORD", DONE))

    async def _work(self, connection: ImapConnection) -> int:
        """Take everything that is not done; return how many messages that were."""
        found = await connection.search("UNKEYWORD", DONE)
        # A server may accept a flag and forget it: what this session took is not taken again, or it would never rest.
        known = self._taken | (self._progress.left if self._settings.imap_untagged == "leave" else set())
        known |= {uid for uid, strikes in self._strikes.items() if strikes >= _STRIKES}
        uids = [uid for uid in found if uid >= self._progress.from_uid and uid not in known]
        count = 0
        while uids:
            batch, uids = uids[: self._batch], uids[self._batch :]
            messages = await self._read(connection, batch)
            await self._take(connection, messages)
            self._backoff_s = 1.0
            self._taken.update(messages)  # not the batch: what the server did not answer is asked for again
            count += len(messages)
            await asyncio.to_thread(self._report.say, "working", taken=len(messages))
        return count

    async def _read(self, connection: ImapConnection, uids: list[int]) -> dict[int, InboundMessage]:
        """The first look, and a larger second one where the first does not suffice.

        A message that cannot be fetched ends the connection; after three times the others go on without it.
        """
        try:
            messages = await self._look(connection, uids, FIRST_LOOK_BYTES)
            keys = self._installation.keys
            more = [uid for uid, each in messages.items() if decision.needs_more(each, keys)]
            for batch in _batches(more, _SECOND_LOOK_BATCH):
                messages |= await self._look(connection, batch, MAX_LOOK_BYTES)
        except Unavailable:
            await self._suspect(uids)
            raise
        self._good_reads += 1
        if self._good_reads >= _GOOD_READS:
            self._batch, self._good_reads = min(_BATCH, self._batch * 2), 0
        return messages

    async def _suspect(self, uids: list[int]) -> None:
        """Take a failed fetch into account: it was the connection, or it was one of *uids*."""
        self._batch, self._good_reads = max(1, self._batch // 7), 0
        if len(uids) == 1:
            self._strikes.update(uids)
            if self._strikes[uids[0]] == _STRIKES:
                detail = "a message cannot be fetched: left where it is, tried again at the next start"
                await asyncio.to_thread(self._installation.journal.failed, "imap", detail, source=self._source)

    async def _look(self, connection: ImapConnection, uids: list[int], octets: int) -> dict[int, InboundMessage]:
        fetched = await connection.fetch(uids, octets)
        # Nothing of a message that has octets is no answer: deciding on it would hide a request for good.
        return {each.uid: self._message(each) for each in fetched if each.raw or not each.size_bytes}

    def _message(self, fetched: Fetched) -> InboundMessage:
        return message.read(
            fetched.raw, source=self._source, received_ms=fetched.received_ms, size_bytes=fetched.size_bytes
        )

    async def _take(self, connection: ImapConnection, messages: dict[int, InboundMessage]) -> None:
        """Accept, then acknowledge: the flag is set when the work is durable, never before."""
        leave = self._settings.imap_untagged == "leave"
        accept = self._installation.intake.accept
        accepted = await asyncio.to_thread(accept, list(messages.values()), keep_untagged=not leave)
        left = {uid for uid, each in zip(messages, accepted.decided, strict=True) if leave and is_foreign(each)}
        if done := [uid for uid in messages if uid not in left]:
            await connection.mark_done(done)
        if left:
            self._progress.left |= left
            await asyncio.to_thread(self._save)

    async def _tidy(self, connection: ImapConnection) -> str:
        """Move handled mail out of the way, when nothing else is to do; return why that was refused, "" when it was not.

        A failed move is not a failed message: it stays marked where it is.
        """
        folder = self._settings.imap_processed
        if not connection.can("MOVE") or folder == self._address.mailbox:
            return ""
        for batch in _batches(await connection.search("KEYWORD", DONE), _MOVE_BATCH):
            if refusal := await connection.move(batch, folder):
                return f"handled mail stays here: MOVE to {folder!r} refused: {refusal}"
        return ""

    def _load(self) -> _Progress:
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
            row = cast(dict[bytes, bytes], self._installation.redis.hgetall(f"unsubd:mailbox:{self._address.name}"))
        text = {name.decode(): value.decode() for name, value in row.items()}
        left = uids_of(text.get("left", ""))
        return _Progress(text.get("of", ""), text.get("keys", ""), int(text.get("from_uid", 0)), left)

    def _save(self) -> None:
        progress = self._progress
        left = uid_set(progress.left)
        row = {"of": progress.of, "keys": progress.keys, "from_uid": progress.from_uid, "left": left}
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
            self._installation.redis.hset(f"unsubd:mailbox:{self._address.name}", mapping=row)  # type: ignore[arg-type]


def _held_hint(held: int) -> str:
    return f"{held} older messages are held; release them with UNSUBD_IMAP_BACKLOG=all" if held else ""


def _batches(uids: list[int], size: int) -> Iterator[list[int]]:
    for start in range(0, len(uids), size):
        yield uids[start : start + size]


def mailbox_addresses(settings: Settings) -> list[MailboxAddress]:
    """Return the configured mailboxes.

    Errors:  ConfigError  a URL is wrong, or two mailboxes have one name.
    """
    addresses = [MailboxAddress.parse(url) for url in settings.imap_url.split()]
    for name, count in Counter(address.name for address in addresses).items():
        if count > 1:
            raise ConfigError(f"UNSUBD_IMAP_URL: {count} mailboxes are named {name!r}, expected #name after each URL")
    return addresses


async def poll(installation: Installation, *, once: bool = False, strict: bool = False) -> None:
    """Poll every configured mailbox side by side; one's trouble is not another's."""
    addresses = mailbox_addresses(installation.settings)
    async with asyncio.TaskGroup() as group:
        for address in addresses:
            group.create_task(Mailbox(installation, address).run(once=once, strict=strict and len(addresses) == 1))
