"""The archive: the ledger's older records, in files that nobody changes unseen.

A record leaves Redis for the next file of a folder: ledger-000001.jsonl.gz, ledger-000002.jsonl.gz, ... A file is never
written again, and each one's end is computed from the end of the one before (`volume.py`): whoever noted an end can see later
that nothing up to it was changed, removed or put in between.
Limits:  a folder whose last files are gone altogether looks whole, to everybody who noted no end: `verify(noted)`.
"""

import errno
import fcntl
import json
import re
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from itertools import chain, islice
from pathlib import Path
from typing import Any

from handlers.errors import ConfigError, Rejected, Unavailable
from worker.points import point
from worker.store import volume
from worker.store.volume import ZERO, Volume

FILE_LINES = 10_000
_NAME = re.compile(r"ledger-(\d{6,})\.jsonl\.gz", re.ASCII)
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EIO}


@dataclass(frozen=True, slots=True)
class Line:
    """One archived record. Shape: home: where it lay, "acme:3f" or "-". key: message key, hex."""

    home: str
    key: str
    record: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the files are worth.

    Shape:   files, lines: that were read. head: hex, the end of the last sound file; note it elsewhere.
             broken: the first place where something does not fit; "" = sound.
    """

    files: int
    lines: int
    head: str
    broken: str


def content_of(line: Line) -> bytes:
    """Return the JSON that stands for *line* in a chain.

    Why:     salted, so that nobody who is shown its digest only can find out by trying what it says.
    """
    return volume.canonical({"home": line.home, "key": line.key, "record": line.record, "salt": secrets.token_hex(16)})


def line_of(content: bytes) -> Line:
    """Undo `content_of`. Errors: ValueError, KeyError, TypeError."""
    found = json.loads(content)
    return Line(found["home"], found["key"], found["record"])


class Archive:
    """The files of one folder.

    Errors:  ConfigError  the folder cannot be used.
             Unavailable  the disk is full or fails.                            temporary
             Rejected     a file is damaged; names file and line, no content.    permanent
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def append(self, lines: Iterable[Line]) -> int:
        """Write *lines* to new files and return how many there were; durable when it returns. One process at a time.

        Repeat:  safe; what is there twice is read once. When it fails, the files that were full by then stay.
        """
        count, stream = 0, iter(lines)
        with self._blamed(), self._alone():
            end, number = self._end()
            for first in stream:
                number += 1
                contents = map(content_of, chain([first], islice(stream, FILE_LINES - 1)))
                with point("archive.write"):
                    end, written = volume.write(self._folder / volume.name_of(number), end, contents)
                count += written
        return count

    def lines(self, wanted: Callable[[str], bool] | None = None) -> Iterator[Line]:
        """Yield the records whose JSON text is *wanted*, oldest first, the first of each home and key.

        Why:     a missing file does not keep the others from being read: `verify` tells of it.
        """
        seen = set()
        for line in self.copies(wanted):
            name = sha256(f"{line.home} {line.key}".encode()).digest()[:16]  # smaller than the two
            if name not in seen:
                seen.add(name)
                yield line

    def copies(self, wanted: Callable[[str], bool] | None = None) -> Iterator[Line]:
        """Yield what `lines` does, and every later copy: after a crash, or of a message that came or was resolved again."""
        for file in map(Volume, self.files()):
            for content, _ in file.contents():
                if not wanted or wanted(content.decode("ascii", "replace")):
                    yield self.line_in(file, content)

    def line_in(self, file: Volume, content: bytes) -> Line:
        """Return the line that *file* was just read up to."""
        try:
            return line_of(content)
        except (ValueError, KeyError, TypeError):
            raise file.damaged("is not a record") from None

    def files(self) -> list[Path]:
        """Return the files, oldest first."""
        with self._blamed():
            try:
                found = [
                    (int(name[1]), path) for path in self._folder.iterdir() if (name := _NAME.fullmatch(path.name))
                ]
            except FileNotFoundError:
                return []
        return [path for _, path in sorted(found)]

    def volumes(self) -> Iterator[Volume]:
        """Yield each file, to be read to its end before the next, and check that it follows the one before."""
        end = ZERO
        for number, path in enumerate(self.files(), 1):
            if path.name != volume.name_of(number):
                raise Rejected(f"{volume.name_of(number)}: missing: restore the file from a backup")
            file = Volume(path)
            yield file
            if file.starts_from != end:
                raise Rejected(f"{path.name} line 1: does not start from where the file before ends: restore both")
            end = file.ends_at

    def verify(self, noted: str = "") -> Verdict:
        """Read everything and say whether it is sound, and whether *noted*, a head of before, is one of its ends."""
        files, lines, ends, broken = 0, 0, [ZERO.hex()], ""
        try:
            for file in self.volumes():
                lines += sum(1 for _ in file.contents())
                files += 1
                ends.append(file.ends_at.hex())
        except Rejected as error:
            broken = str(error)
        if noted and noted not in ends and not broken:
            broken = f"{noted[:64]!r}: no file ends there: files at the end are missing, or all were written anew"
        return Verdict(files, lines, ends[-1], broken)

    def _end(self) -> tuple[bytes, int]:
        """Where the last file ends, and its number."""
        if not (files := self.files()):
            return ZERO, 0
        last = Volume(files[-1])
        for _ in last.contents():
            pass
        return last.ends_at, int(_NAME.fullmatch(last.path.name)[1])  # type: ignore[index]  # `files` matched it

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._folder.is_dir():
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            volume.sync(self._folder.parent)
        with open(self._folder / "archive.lock", "wb", opener=volume.private) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @contextmanager
    def _blamed(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            where = f"UNSUBD_ARCHIVE_DIR: {self._folder}: {error.strerror}"
            if error.errno in _FULL:
                raise Unavailable(f"{where}: make room on that disk") from error
            raise ConfigError(f"{where}, expected a folder that we may write") from error
