"""A Maildir as a way in: what a mail server (or a person) drops into `new/` is accepted, then moved to `cur/`.

The event time is the file's modification time: our own delivery agent wrote it, not the author of the mail.
"""

import asyncio
import os
import time
from pathlib import Path

from handlers import message
from handlers.errors import ConfigError, Unavailable
from handlers.message import MAX_LOOK_BYTES, InboundMessage
from worker.installation import Installation
from worker.sources import SourceReport

_BATCH = 50
_LOOK_EVERY_S = 0.5
_MAX_BACKOFF_S = 60.0
_EMPTY_WAIT_S = 5.0


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
        self._unreadable: set[str] = set()

    async def run(self) -> None:
        """Take what comes until cancelled."""
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
        entries = os.scandir(self._path / "new")
        names = sorted(entry.name for entry in entries if entry.is_file() and entry.name not in self._unreadable)
        messages = {name: each for name in names[:_BATCH] if (each := self._read(name))}
        if messages:
            self._installation.intake.accept(list(messages.values()))
        for name in messages:
            self._move(name)
        return len(messages)

    def _move(self, name: str) -> None:
        try:
            os.replace(self._path / "new" / name, self._path / "cur" / f"{name.partition(':')[0]}:2,S")
        except FileNotFoundError:
            pass  # somebody moved it since: it is accepted all the same
        except OSError as error:
            self._give_up(name, f"an accepted file cannot be moved: {error.strerror}")

    def _give_up(self, name: str, detail: str) -> None:
        self._unreadable.add(name)  # left where it is, and tried again at the next start
        self._installation.journal.failed("maildir", detail)

    def _read(self, name: str) -> InboundMessage | None:
        path = self._path / "new" / name
        try:
            with path.open("rb") as file:
                facts = os.fstat(file.fileno())
                raw = file.read(MAX_LOOK_BYTES)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._give_up(name, f"a file cannot be read: {error.strerror}")
            return None
        if not raw and time.time() - facts.st_mtime < _EMPTY_WAIT_S:
            return None  # a person's `cp` shows the file before its first octet
        return message.read(raw, source=self._source, received_ms=int(facts.st_mtime * 1000), size_bytes=facts.st_size)
