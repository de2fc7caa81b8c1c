"""A polled folder: connect, find what is not done, accept it, mark it, move it later; again and for ever.

Work is every message without `$UnsubdDone`: somebody else's `\\Seen` never hides one. IDLE wakes us, a poll is the base.
A message is flagged only after it was accepted, in one STORE a batch; handled mail is moved in bulk at quiet times, for
MOVE costs 0.1 to 0.5 s a command on a large Maildir. What is not ours stays as it is (`UNSUBD_IMAP_UNTAGGED=leave`).
Where marks are forbidden or refused, the UIDs that are done are remembered instead.

Each mailbox has a second watch, on the folder that its server marks as `\\Junk`: there, only messages whose tag verifies
are ours, and all others stay untouched and unrecorded.

One process works on a folder at a time, by a lease (`worker/sources/lease.py`); a second one stands by. Who cannot reach
the mailbox leaves it to one that stands by, and comes again.
"""

import asyncio
import json
import math
import random
import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from datetime import UTC, date, datetime
from hashlib import sha256

from handlers.errors import MailboxUnavailable, Unavailable
from handlers.message import FIRST_LOOK_BYTES, InboundMessage
from worker.fence import LeaseLost
from worker.installation import Installation
from worker.intake import has_valid_tag, is_foreign
from worker.points import point
from worker.settings import Settings
from worker.sources import SourceReport, oauth
from worker.sources.imap import (
    ASIDE,
    DONE,
    Folders,
    ImapConnection,
    MailboxAddress,
    MailboxRefused,
    Selected,
    passes,
    within_a_line,
)
from worker.sources.lease import LIFE_S, Lease, LeaseTaken, process_name
from worker.sources.look import Look
from worker.sources.place import Place
from worker.sources.progress import Progress, ProgressStore, UidSet
from worker.sources.trying import Trying

_TOGETHER_S = 1.0  # a slow server's mail must not wait for more of it
_TOGETHER_OCTETS = 4 << 20
_MOVES, _MOST_MOVES = 500, 8000  # a command costs 0.24 s on 100,000 messages, whatever it moves
_MOVE_S = 1.0  # what a quick server needs for one
BACKLOG_ASKED_ABOVE = 50
_MAX_BACKOFF_S = 60.0
_REFUSED_WAIT_S = 60.0  # a wrong password tried too often locks the account
_REFUSED_JUNK_WAIT_S = 300.0
_SAY_AGAIN_S = 30.0
_NO_JUNK_WAIT_S = 3600.0
_MOVE_AGAIN_S = 3600.0
_LEASE_AGAIN_S = 2.0  # Redis is away: no mail server is spared by waiting longer
_PATIENCE_S = LIFE_S + 5.0  # of a single look: who still has the lease then is alive


class NoJunk(MailboxUnavailable):
    """The server marks no folder as `\\Junk`: nothing to watch, for now."""


class Mailbox:
    """One polled folder of this process: a configured mailbox, or with *junk* its Junk folder."""

    def __init__(self, installation: Installation, address: MailboxAddress, *, junk: bool = False) -> None:
        name = f"{address.name}:junk" if junk else address.name
        self._installation = installation
        self._settings = installation.settings
        self._address = address
        self._junk = junk
        self._source = f"imap:{name}"
        redis, where = installation.redis, address.where
        self._report = SourceReport(redis, installation.journal, self._source, where, by=process_name())
        folder, of = installation.settings.data_dir, address.identity("\\Junk" if junk else "")
        place = Place(folder / f"lease-{name.replace(':', '-')}")
        self._lease = Lease(redis, place, self._source, of, self._settings.min_replicas)
        self._look = Look(installation.keys, self._source)
        self._kept = ProgressStore(installation.redis, name)
        self._trying = Trying(installation.settings.data_dir, name)
        self._progress = Progress()
        self.opened = asyncio.Event()  # once in its life
        self._folder = self._processed = ""
        self._keywords = True
        self._taken = UidSet()  # in this session
        self._search_from = 1
        self._to_move: list[int] | None = None  # None: to be searched for
        self._moves = _MOVES  # at once, while the server is quick
        self._backoff_s = 1.0
        self._troubled = False
        self._move_again_at = 0.0
        self._notes: dict[str, str] = {}  # what the operator should know, by subject

    async def run(self, *, once: bool = False, strict: bool = False, aloud: bool = True) -> None:
        """Poll until cancelled, coming back after every trouble; stand by while another process does.

        Shape:   once: one look, then return. strict: give up when the mailbox cannot be opened even once. aloud
                 False: whoever called says the trouble that is raised, and the journal on stderr need not.
        Errors:  MailboxRefused, MailboxUnavailable  only with once or strict, and never of a Junk folder.
                 LeaseTaken  only with once: a living process works on it.    temporary
        """
        while True:
            try:
                away_s = await self._lease.hold(
                    lambda: self._polled(once=once, strict=strict, aloud=aloud),
                    self._stand_by,
                    _PATIENCE_S if once else math.inf,
                )
                if once:
                    return
                await asyncio.sleep(away_s)
            except (LeaseTaken, LeaseLost, MailboxRefused, Unavailable) as error:
                last = self._gives_up(once=once, strict=strict and not isinstance(error, LeaseLost))
                if isinstance(error, LeaseLost):
                    self._installation.journal.failed("lease", str(error))
                elif not isinstance(error, LeaseTaken):  # of a mailbox that another one works on, we say nothing
                    await self._wait_after(error, aloud=aloud or not last)
                if last:
                    if self._junk:
                        return
                    raise
                await asyncio.sleep(_LEASE_AGAIN_S)
            except Exception as error:
                if once:
                    raise
                self._installation.journal.failed("lease", type(error).__name__, source=self._source)
                await asyncio.sleep(_REFUSED_WAIT_S)

    def waiting_for(self, mailbox: "Mailbox") -> AbstractAsyncContextManager[None]:
        """Say for the time of the block that this process lives, as long as it works on *mailbox*."""
        return self._report.beating(mailbox._lease.is_sure)

    def _stand_by(self, holder: str) -> None:
        self._installation.journal.source(self._source, "standby", f"{holder} works on it")

    def _gives_up(self, *, once: bool, strict: bool) -> bool:
        return once or (strict and not self.opened.is_set())

    async def _polled(self, *, once: bool, strict: bool, aloud: bool) -> float:
        """Poll under the lease; return how long to stay away, for another process stands by and may fare better."""
        self._troubled = bool(await asyncio.to_thread(self._report.resume))
        async with nullcontext() if once else self._report.beating():
            while True:
                try:
                    await self._visit(once=once)
                    return 0.0
                except LeaseLost:
                    raise
                except (MailboxRefused, Unavailable) as error:
                    last = self._gives_up(once=once, strict=strict)
                    wait_s, said = await self._wait_after(error, aloud=aloud or not last)
                    if last:
                        raise
                except Exception as error:
                    if once:
                        raise
                    self._installation.journal.failed("imap", type(error).__name__, source=self._source)
                    wait_s, said = await self._wait_after(MailboxUnavailable(f"a bug of ours: {type(error).__name__}"))
                if self._troubled and await self._lease.is_awaited():
                    return wait_s
                await self._pause(wait_s, said)

    async def _pause(self, seconds: float, said: tuple[str, str]) -> None:
        """Wait, and say again meanwhile what was said: who says nothing for long counts as silent."""
        while seconds > _SAY_AGAIN_S:
            await asyncio.sleep(_SAY_AGAIN_S)
            await asyncio.to_thread(self._report.say, *said)
            seconds -= _SAY_AGAIN_S
        await asyncio.sleep(seconds)

    async def _wait_after(self, error: Exception, *, aloud: bool = True) -> tuple[float, tuple[str, str]]:
        """Report the trouble; return how long to wait before the next try, and what was said."""
        said = ("waiting", str(error))
        if isinstance(error, NoJunk):
            wait_s, said = _NO_JUNK_WAIT_S, ("idle", str(error))
        elif isinstance(error, MailboxRefused):
            wait_s, said = _REFUSED_JUNK_WAIT_S if self._junk else _REFUSED_WAIT_S, ("refused", str(error))
        else:
            wait_s = self._backoff_s * random.uniform(0.5, 1.0)
            self._backoff_s = min(self._backoff_s * 2, _MAX_BACKOFF_S)
        self._troubled = said[0] != "idle"
        await asyncio.to_thread(self._report.say, *said, aloud=aloud)
        return wait_s, said

    async def _visit(self, *, once: bool) -> None:
        connection = await self._connect()
        try:
            held = await self._open(connection)
            self._troubled = False
            self.opened.set()
            await self._session(connection, held, once=once)
        finally:
            await connection.close()

    async def _connect(self) -> ImapConnection:
        if not self._troubled:  # a try of 20 s must not hide why it is made
            await asyncio.to_thread(self._report.say, "connecting")
        return await connect(self._settings, self._address)

    async def _open(self, connection: ImapConnection) -> int:
        """Open the folder and load the progress; return how many older messages are held."""
        folders = await connection.folders()
        self._folder = folders.named(self._address.mailbox)
        self._processed = folders.named(self._settings.imap_processed)
        if self._junk:
            junk = folders.junk()
            if junk is None or junk == self._folder:
                raise NoJunk("the server marks no other folder as \\Junk: nothing to rescue from")
            self._folder = junk
        selected = await select(connection, self._folder, folders)
        self._keywords = selected.keywords
        self._taken, self._search_from, self._to_move, self._notes = UidSet(), 1, None, {}
        if time.monotonic() < self._move_again_at:
            self._notes["move"] = "handled mail stays here: moving it was refused, tried again in an hour"
        if not selected.keywords:
            self._notes["marks"] = f"{self._folder!r} takes no keywords: what is done is remembered by UID"
        return await self._resume(connection, selected)

    async def _session(self, connection: ImapConnection, held: int, *, once: bool) -> None:
        if held:
            self._notes["held"] = f"{held} older messages are held; release them with UNSUBD_IMAP_BACKLOG=all"
        while True:
            taken = await self._work(connection)
            self._backoff_s = 1.0
            await self._say_idle(held)
            if once:
                return
            if not taken and not await self._tidy(connection):
                await self._say_idle(held)
                await connection.wait_for_mail(self._settings.poll_interval_s)

    async def _say_idle(self, held: int) -> None:
        unread = self._look.given_up()
        if unread:
            self._notes["unreadable"] = f"{unread} messages cannot be fetched, tried again in an hour"
        detail, ends_ms = ". ".join(self._notes.values()), oauth.login_ends_ms(self._address)
        await asyncio.to_thread(
            self._report.say,
            "idle",
            detail,
            held=held,
            left=len(self._progress.left),
            unread=unread,
            login_ends_ms=ends_ms,
        )

    async def _resume(self, connection: ImapConnection, selected: Selected) -> int:
        """Load the progress; a folder never seen before asks about its backlog. Returns how many messages are held."""
        self._progress = await asyncio.to_thread(self._kept.load)
        account = f"{self._address.user}@{self._address.host}/{self._folder}"
        keys = await asyncio.to_thread(self._decided_with)
        if self._progress.of != f"{account}:{selected.uidvalidity}":
            from_uid, since = await self._beginning(connection, selected, account)
            self._progress = Progress(f"{account}:{selected.uidvalidity}", keys, from_uid, since)
            self._look.forget()
        if self._progress.keys != keys:
            self._progress.keys, self._progress.left = keys, UidSet()
        backlog = self._settings.imap_backlog
        if backlog == "all":
            self._progress.from_uid = 0
        elif backlog != "ask":
            self._progress.from_uid = await _first_since(connection, date.fromisoformat(backlog), selected.uidnext)
        await self._lease.require()
        await asyncio.to_thread(self._kept.save, self._progress)
        self._trying.resume(self._progress.of)
        if self._progress.from_uid <= 1:
            return 0
        older = await connection.search("UID", f"1:{self._progress.from_uid - 1}", *self._not_done())
        return sum(uid not in self._progress.done for uid in older)

    async def _beginning(self, connection: ImapConnection, selected: Selected, account: str) -> tuple[int, str]:
        """Where work begins when the remembered UIDs say nothing about this folder: the first UID, and since when.

        A folder that only got a new UIDVALIDITY is no new one: what came since the first contact is work, not backlog.
        """
        before = self._progress
        if before.of.rpartition(":")[0] == account:
            if before.from_uid <= 1 or not before.since:
                return 0, before.since
            return await _first_since(connection, date.fromisoformat(before.since), selected.uidnext), before.since
        today = datetime.now(UTC).date().isoformat()
        asked = self._settings.imap_backlog == "ask"
        waiting = await connection.search(*self._not_done()) if asked else []
        return (selected.uidnext if len(waiting) > BACKLOG_ASKED_ABOVE else 0), today

    def _decided_with(self) -> str:
        """What decides whether a message is ours: keys, address, and the sources that senders configured."""
        sources = [source.as_wire() for source in self._installation.intake.policies.now().sources]
        digest = sha256(json.dumps(sources, sort_keys=True).encode()).hexdigest()[:16] if sources else ""
        return ",".join((*self._installation.keys.fingerprints(), self._settings.address or "", digest))

    async def _look_again_if_asked(self, keys: str) -> None:
        """Forget what was left as not ours when somebody changed what ours is."""
        if self._progress.keys != keys:
            self._progress.keys, self._progress.left = keys, UidSet()
            self._search_from, self._taken = 1, UidSet()
            await asyncio.to_thread(self._kept.save, self._progress)

    def _not_done(self) -> tuple[str, ...]:
        return ("UNKEYWORD", DONE) if self._keywords else ("ALL",)

    async def _work(self, connection: ImapConnection) -> int:
        """Take everything that is not done; return how many messages that were."""
        await self._look_again_if_asked(await asyncio.to_thread(self._decided_with))
        from_uid = max(self._search_from, self._progress.from_uid)
        found = await connection.search("UID", f"{from_uid}:*", *self._not_done())
        uids = self._trying.in_order(
            self._look.in_order(uid for uid in found if uid >= from_uid and not self._is_known(uid))
        )
        for deadly in [uid for uid in uids if self._trying.is_deadly(uid)]:
            await self._set_aside(connection, deadly)
            uids.remove(deadly)
        count = start = 0
        while start < len(uids):
            together = self._trying.batch(uids[start : start + self._look.together], self._look.together)
            self._trying.begin(together)
            try:
                asked, messages = await self._read(connection, together)
                await self._take(connection, messages)
            except BaseException:
                self._trying.end()  # whatever it was, no mail killed us
                raise
            self._backoff_s = 1.0
            # Not what was asked for: what the server did not answer is asked for again.
            self._trying.end(messages)
            self._taken.add(messages)
            count, start = count + len(messages), start + asked
        # What was seen to its end needs no second search; a message whose mark is removed comes back at the next start.
        unsettled = (uid for uid in found if uid >= from_uid and not self._is_known(uid))
        self._search_from = next(unsettled, max(found, default=0) + 1)
        return count

    async def _set_aside(self, connection: ImapConnection, uid: int) -> None:
        """Give a message that kills whoever reads it to a person, as it is."""
        for each in await connection.fetch([uid], FIRST_LOOK_BYTES):
            name = f"{self._progress.of}:{uid}"
            args = (each.raw, name, self._source, each.received_ms, self._lease.fence)
            accepted = await asyncio.to_thread(self._installation.intake.set_aside, *args)
            await self._mark_aside(connection, uid)
            await self._mark(connection, [uid], accepted.job_ids)
            self._taken.add([uid])
            self._trying.end([uid])

    async def _mark_aside(self, connection: ImapConnection, uid: int) -> None:
        """Let no comparison read it either: by a keyword, which goes with it to Processed, else by its UID; then it stays."""
        refusal = ""
        await self._lease.require()
        if self._keywords:
            with point("imap.mark"):
                refusal = await connection.mark_done([uid], ASIDE)
        if refusal or not self._keywords:
            await self._lease.require()
            await asyncio.to_thread(self._kept.add, "aside", self._progress.aside, [uid])

    def _is_known(self, uid: int) -> bool:
        # A server may accept a flag and forget it: what this session took is not taken again, or it would never rest.
        left = self._settings.imap_untagged == "leave" or self._junk
        return (
            uid in self._taken
            or uid in self._progress.done
            or (left and uid in self._progress.left)
            or self._look.gave_up(uid)
        )

    async def _read(self, connection: ImapConnection, uids: Sequence[int]) -> tuple[int, dict[int, InboundMessage]]:
        """Fetch of *uids* what makes one job; return how many were asked for, and what came."""
        messages: dict[int, InboundMessage] = {}
        asked, octets, ends_at = 0, 0, time.monotonic() + _TOGETHER_S
        while asked < len(uids) and octets < _TOGETHER_OCTETS and (not asked or time.monotonic() < ends_at):
            batch = uids[asked : asked + self._look.batch]
            found = await self._fetched(connection, batch)
            messages |= found
            asked, octets = asked + len(batch), octets + sum(len(each.raw) for each in found.values())
        return asked, messages

    async def _fetched(self, connection: ImapConnection, uids: Sequence[int]) -> dict[int, InboundMessage]:
        given_up = self._look.given_up()
        try:
            with point("imap.fetch"):
                return await self._look.messages(connection, uids)
        except Unavailable:
            if self._look.given_up() > given_up:
                detail = "a message cannot be fetched: left where it is, tried again in an hour"
                self._installation.journal.failed("imap", detail, source=self._source)
            raise

    async def _take(self, connection: ImapConnection, messages: dict[int, InboundMessage]) -> None:
        """Accept, then acknowledge: the flag is set when the work is durable, never before."""
        leave = self._settings.imap_untagged == "leave"
        ours = await self._verified(messages) if self._junk else messages
        accepted = await asyncio.to_thread(
            self._installation.intake.accept,
            list(ours.values()),
            keep_untagged=not leave and not self._junk,
            decided_all=self._trying.end,
            fence=self._lease.fence,
        )
        left = {uid for uid in messages if uid not in ours}
        left |= {uid for uid, each in zip(ours, accepted.decided, strict=True) if leave and is_foreign(each)}
        await self._mark(connection, [uid for uid in messages if uid not in left], accepted.job_ids)
        if left:
            await self._lease.require()
            await asyncio.to_thread(self._kept.add, "left", self._progress.left, left)
        await asyncio.to_thread(self._report.say, "working", taken=len(ours), oldest_ms=_oldest_ms(ours))

    async def _verified(self, messages: dict[int, InboundMessage]) -> dict[int, InboundMessage]:
        """Those with a tag that verifies: all that is ours in a Junk folder."""
        decide = self._installation.intake.decide
        decided = await asyncio.to_thread(decide, list(messages.values()), remember=False)
        return {uid: messages[uid] for uid, each in zip(messages, decided, strict=True) if has_valid_tag(each)}

    async def _mark(self, connection: ImapConnection, uids: Sequence[int], job_ids: Sequence[str]) -> None:
        if not uids:
            return
        self._to_move = None
        await self._lease.require()
        with point("imap.mark"):
            refusal = await connection.mark_done(uids, DONE if self._keywords else "\\Seen")
        if refusal:
            await (
                self._lease.ask()
            )  # who woke too late is refused because another one took it: no trouble of the server
        if refusal and self._keywords:
            self._notes["marks"] = f"handled mail cannot be marked, its UIDs are remembered instead: {refusal}"
        if refusal or not self._keywords:
            await self._lease.require()
            await asyncio.to_thread(self._kept.add, "done", self._progress.done, uids)
        await self._tell("acknowledged", uids, job=" ".join(job_ids))

    async def _tell(self, event: str, uids: Sequence[int], **facts: str) -> None:
        told = self._installation.journal.settled
        await asyncio.to_thread(told, event, self._source, len(uids), uids=f"{min(uids)}:{max(uids)}", **facts)

    async def _tidy(self, connection: ImapConnection) -> bool:
        """Move one batch of handled mail out of the way; say whether there may be more.

        A failed move is not a failed message: it stays where it is, marked, and the reason is told.
        """
        if "move" in self._notes or self._processed == self._folder:
            return False
        if self._to_move is None:
            self._to_move = await self._handled(connection)
        batch = within_a_line(self._to_move[: self._moves])
        self._to_move = self._to_move[len(batch) :]
        if not batch:
            return False
        await self._lease.require()
        begun = time.monotonic()
        with point("imap.move"):
            refusal = await connection.move(batch, self._processed)
        if refusal:
            await self._lease.ask()
            if passes(refusal) and connection.can("MOVE") and "[OVERQUOTA]" not in refusal:
                self._to_move = None
                self._installation.journal.source(self._source, "idle", f"moving handled mail waits: {refusal}")
                return False
            self._notes["move"] = f"handled mail stays here, it cannot be moved to {self._processed!r}: {refusal}"
            # Without MOVE, a refused expunge leaves a copy behind: not another one at each connection.
            self._move_again_at = time.monotonic() + _MOVE_AGAIN_S
            self._installation.journal.source(self._source, "idle", self._notes["move"])
        else:
            quick = time.monotonic() - begun < _MOVE_S
            self._moves = min(self._moves * 2, _MOST_MOVES) if quick else _MOVES
            await self._tell("moved", batch)
        return True

    async def _handled(self, connection: ImapConnection) -> list[int]:
        marked = await connection.search("KEYWORD", DONE) if self._keywords else []
        remembered = await connection.search("ALL") if self._progress.done else []
        handled = {*marked, *(uid for uid in remembered if uid in self._progress.done)}
        return sorted(uid for uid in handled if uid not in self._progress.aside)


def _oldest_ms(messages: dict[int, InboundMessage]) -> int:
    """The oldest came first: what is still to be taken is hardly older."""
    return min((each.received_ms for each in messages.values() if each.received_ms), default=0)


async def connect(settings: Settings, address: MailboxAddress) -> ImapConnection:
    """Log in to a configured mailbox.

    Errors:  MailboxRefused, MailboxUnavailable  as `ImapConnection.open`.
    """
    credential = await oauth.credential(settings, address)
    try:
        return await ImapConnection.open(address, credential, settings.imap_ca_file)
    except MailboxRefused:
        oauth.forget(address)  # a token may be withdrawn before it expires: the next try gets a new one
        raise


async def select(connection: ImapConnection, folder: str, folders: Folders, *, readonly: bool = False) -> Selected:
    """Open *folder*; where that is refused, the error names the folders that there are."""
    try:
        return await connection.select(folder, readonly=readonly)
    except MailboxRefused as error:
        names = sorted(each.name for each in folders.known)
        more = ", …" if len(names) > 12 else ""
        there = f"{error.remedy}; the account has {', '.join(names[:12])}{more}"
        raise MailboxRefused(error.told, there) from error


async def _first_since(connection: ImapConnection, day: date, uidnext: int) -> int:
    """The first UID that arrived on *day* or later. RFC: 3501 6.4.4 (SINCE, internal date)."""
    return min(await connection.search("SINCE", imap_date(day)), default=uidnext)


def imap_date(day: date) -> str:
    """Spell a day as SEARCH takes it.

    Example:
        >>> imap_date(date(2026, 1, 31))
        '31-Jan-2026'
    """
    months = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
    return f"{day.day}-{months[day.month - 1]}-{day.year}"
