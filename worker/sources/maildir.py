"""A Maildir as a way in: what a mail server (or a person) drops into `new/` is accepted, then moved to `cur/`.

The event time is the file's modification time: our own delivery agent wrote it, not the author of the mail.

A crash between accepting and moving repeats the mail, to no effect; a rename lost with the power does too, so no folder
is synced. `new/` is listed twice a second. Not looked at: subfolders (`.Junk`), links, names that begin with a dot, and
`cur/`, which only ever holds what was accepted. A file must come by rename, as maildir(5) says: one that is still being
written when it is seen counts as it is then.

Several processes, on several hosts, may watch one folder without a lease: a file has one name to rename, so one of them
moves it, and what two have accepted has one effect.
"""

import asyncio
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from handlers import message
from handlers.errors import ConfigError, Unavailable
from handlers.message import FIRST_LOOK_BYTES, MAX_LOOK_BYTES, InboundMessage
from worker.installation import Installation
from worker.points import point
from worker.queue import BATCH
from worker.sources import SourceReport
from worker.sources.trying import Trying

_BATCH_BYTES = 8 * 1024 * 1024  # what is looked at of so many files; each look lists the whole folder
_LOOK_EVERY_S = 0.5
_COMPARED_AT_ONCE = 50
_MAX_BACKOFF_S = 60.0
_EMPTY_WAIT_S = 5.0
_AGAIN_S = 60.0


class Maildir:
    """One Maildir of this process.

    Errors:  ConfigError  the folder cannot be made or read.
    """

    def __init__(self, installation: Installation, path: Path) -> None:
        try:
            for name in ("tmp", "new", "cur"):
                (path / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"UNSUBD_MAILDIR: {path}: {error.strerror}, expected a folder we may write") from error
        self._installation = installation
        self._path = path
        self._source = "maildir:default"
        self._report = SourceReport(installation.redis, installation.journal, self._source)
        self._stuck: set[str] = set()
        self._trying = Trying(installation.settings.data_dir, "maildir")
        self._again_at: dict[str, float] = {}

    async def run(self) -> None:
        """Take what comes until cancelled."""
        async with self._report.beating():
            await self._run()

    async def _run(self) -> None:
        backoff_s, quiet_s = _LOOK_EVERY_S, 60.0
        while True:
            try:
                taken = await asyncio.to_thread(self.take)
            except (Unavailable, OSError) as error:
                why = str(error) if isinstance(error, Unavailable) else f"{self._path}: {error.strerror}"
                await asyncio.to_thread(self._report.say, "waiting", why)
                await asyncio.sleep(backoff_s)
                backoff_s = min(backoff_s * 2, _MAX_BACKOFF_S)
                continue
            backoff_s, quiet_s = _LOOK_EVERY_S, quiet_s + _LOOK_EVERY_S
            if taken or quiet_s >= 30:
                await asyncio.to_thread(self._report.say, "idle", taken=taken)
                quiet_s = 0.0
            if not taken:
                await asyncio.sleep(_LOOK_EVERY_S)

    def take(self) -> int:
        """Accept one batch of files and move them to `cur/`; return how many. Repeat: safe."""
        self._trying.resume(str(self._path))
        names = self._trying.in_order(self._names())
        for deadly in [name for name in names if self._trying.is_deadly(name)]:
            self._set_aside(deadly)
            names.remove(deadly)
        if not names:
            return 0
        batch = self._trying.batch(names, BATCH)
        self._trying.begin(batch)
        try:
            messages = self._taken(batch)
        except BaseException:
            self._trying.end()  # whatever it was, no mail killed us
            raise
        self._trying.end(messages)
        for name in messages:
            self._move(name)
        return len(messages)

    def _taken(self, names: Sequence[str]) -> list[str]:
        """Read and accept some of *names*, as many as are good for one batch; return which."""
        messages: dict[str, InboundMessage] = {}
        size_bytes = 0
        for name in names:
            if each := self._read(name):
                messages[name] = each
                size_bytes += len(each.raw)
            if size_bytes >= _BATCH_BYTES:
                break
        if messages:
            self._installation.intake.accept(list(messages.values()), decided_all=self._trying.end)
        return list(messages)

    def _set_aside(self, name: str) -> None:
        """Give a file that kills whoever reads it to a person, as it is."""
        try:
            with (self._path / "new" / name).open("rb") as file:
                raw, at_s = file.read(FIRST_LOOK_BYTES), os.fstat(file.fileno()).st_mtime
        except FileNotFoundError:
            return
        self._installation.intake.set_aside(raw, name, self._source, int(min(at_s, time.time()) * 1000))
        with suppress(FileNotFoundError), point("maildir.move"):
            # A name with a dot: no comparison and no mail reader opens it.
            os.replace(self._path / "new" / name, self._path / "cur" / f".{name.lstrip('.')}")
        self._trying.end([name])

    def accepted(self, since_s: float) -> Iterator[list[InboundMessage]]:
        """Yield what `cur/` holds that came, or was moved there, since then; some messages at a time."""
        found: list[InboundMessage] = []
        with os.scandir(self._path / "cur") as entries:
            for each in entries:
                if _came_since(each, since_s) and (inbound := self._read(each.name, "cur")):
                    found.append(inbound)
                if len(found) >= _COMPARED_AT_ONCE:
                    yield found
                    found = []
        if found:
            yield found

    def _names(self) -> list[str]:
        """The files of `new/`: no folders, no links (another user's may lead anywhere), no `.name`, which maildir(5) ignores."""
        with os.scandir(self._path / "new") as entries:
            names = [each.name for each in entries if each.name[0] != "." and each.is_file(follow_symlinks=False)]
        now = time.monotonic()
        return sorted(name for name in names if name not in self._stuck and now >= self._again_at.get(name, 0.0))

    def _move(self, name: str) -> None:
        self._again_at.pop(name, None)
        target = self._path / "cur" / f"{name.partition(':')[0]}:2,S"
        if target.exists():  # a name used twice, by a person: neither mail is overwritten
            target = target.with_name(f"{name.partition(':')[0]}.{time.time_ns()}:2,S")
        try:
            with point("maildir.move"):
                os.replace(self._path / "new" / name, target)
        except FileNotFoundError:
            pass  # somebody moved it since: it is accepted all the same
        except OSError as error:
            self._stuck.add(name)  # left where it is, and accepted again, to no effect, at the next start
            self._installation.journal.failed("maildir", f"an accepted file cannot be moved: {error.strerror}")

    def _later(self, name: str, error: OSError) -> None:
        """Leave a file that cannot be read, and look again: its owner or mode may be mended. Said once."""
        if name not in self._again_at:
            self._installation.journal.failed(
                "maildir", f"a file cannot be read: {error.strerror}: fix its owner or mode"
            )
        self._again_at[name] = time.monotonic() + _AGAIN_S

    def _read(self, name: str, folder: str = "new") -> InboundMessage | None:
        path = self._path / folder / name
        try:
            with path.open("rb") as file:
                facts = os.fstat(file.fileno())
                raw = file.read(MAX_LOOK_BYTES)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._later(name, error)
            return None
        if not raw and time.time() - facts.st_mtime < _EMPTY_WAIT_S:
            return None  # a person's `cp` shows the file before its first octet
        received_ms = int(min(facts.st_mtime, time.time()) * 1000)  # a clock that was wrong must not win for years
        return message.read(raw, source=self._source, received_ms=received_ms, size_bytes=facts.st_size)


def _came_since(entry: os.DirEntry[str], since_s: float) -> bool:
    """Say whether a file of `cur/` is a mail that came there since then; one that somebody moved meanwhile is not."""
    try:
        return entry.name[0] != "." and entry.is_file(follow_symlinks=False) and entry.stat().st_ctime >= since_s
    except FileNotFoundError:
        return False
