"""The file of a backup: JSON Lines in gzip members, one member a page, so that any `zcat` reads it.

    {"unsubd": "backup", "format": 2, "made_ms": …, "servers": [run id, …], "masters": [fingerprint, …]}
    {"key": …, "type": …, …}                          as `keys.py` makes them
    {"next": [place, cursor]}                         the end of a page: where an interrupted backup goes on
    {"end": how many keys, "sha256": digest of every octet before this line}

What is cut off, or changed, has no end that fits: it is refused before a key is written.
"""

import gzip
import json
import os
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

from handlers.errors import Rejected

FORMAT = 2  # 1: without buckets
_READ = (1, 2)
_CHUNK = 1 << 20
Line = dict[str, Any]


@dataclass
class Writer:
    """Writes pages to *file*. Shape: keys: how many were written, since the beginning of the file."""

    file: IO[bytes]
    digest: Any = field(default_factory=sha256)
    keys: int = 0

    def write(self, lines: Iterable[Line]) -> None:
        """Write some lines as one member."""
        text = bytearray()
        for line in lines:
            text += json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
            self.keys += line.get("part") == 0
        self.digest.update(text)
        self.file.write(gzip.compress(bytes(text), 1, mtime=0))

    def end(self) -> None:
        """Write the end, and make the file durable."""
        self.write([{"end": self.keys, "sha256": self.digest.hexdigest()}])
        self.file.flush()
        if self.file.seekable():
            os.fsync(self.file.fileno())


class Broken(Rejected):
    """Octets that are no gzip. Shape: place: where the last whole member before them ends in the file."""

    def __init__(self, place: int) -> None:
        super().__init__(f"the backup: no gzip behind octet {place:,}, expected a file that nobody changes meanwhile")
        self.place = place


def members(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield (where it ends in the file, its text) of every whole member; a cut-off one ends it quietly.

    Errors:  Broken  what follows is no gzip, or has not the check sum that it was written with.
    """
    place, whole, inflating, text, rest = 0, 0, zlib.decompressobj(31), bytearray(), b""
    while rest or (rest := file.read(_CHUNK)):
        try:
            text += inflating.decompress(rest)
        except zlib.error as error:
            raise Broken(whole) from error
        place += len(rest) - len(inflating.unused_data)
        rest = inflating.unused_data
        if inflating.eof:
            whole = place
            yield place, bytes(text)
            inflating, text = zlib.decompressobj(31), bytearray()


@dataclass(frozen=True, slots=True)
class Whole:
    """What a verified file holds. Shape: id: its digest."""

    head: Line
    keys: int
    id: str


def verified(path: Path) -> Whole:
    """Read a whole file and compare it with its digest.

    Errors:  Rejected  it is no backup, or not all of it is there, or it was changed.    permanent
    """
    digest, head, end, broken = sha256(), None, None, ""
    with _opened(path) as file:
        try:
            for _, text in members(file):
                end = _line(text) if text.startswith(b'{"end":') else None
                if end is None:
                    head = head or _line(text.partition(b"\n")[0])
                    digest.update(text)
        except Broken as error:
            broken = f"changed since it was written, behind octet {error.place:,}"
    if not head or head.get("unsubd") != "backup":
        raise Rejected(
            f"{path}: no backup{' that is whole' if broken else ''}, expected a file that `unsubd backup` wrote"
        )
    if head.get("format") not in _READ:
        raise Rejected(f"{path}: format {str(head.get('format'))[:9]}, expected {FORMAT}: use the unsubd that wrote it")
    if not end or end.get("sha256") != digest.hexdigest():
        what = broken or ("changed since it was written" if end else "cut off: its end is missing")
        raise Rejected(f"{path}: {what}, expected the digest of all of it at its end: take another copy")
    return Whole(head, int(end["end"]), digest.hexdigest())


def pages(path: Path) -> Iterator[list[Line]]:
    """Yield the lines of each member of a verified file, without its first and last line."""
    with _opened(path) as file:
        for _, text in members(file):
            yield [line for each in text.splitlines() if "key" in (line := _line(each))]


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A backup that was interrupted. Shape: length: of what is whole; next: where to go on."""

    head: Line
    length: int
    next: list[int | str]
    digest: Any
    keys: int


def unfinished(path: Path) -> Unfinished | None:
    """Return how far *path* is, when it is the beginning of a backup."""
    found, head, digest, keys = None, None, sha256(), 0
    if not path.exists():
        return None
    with _opened(path) as file, suppress(Broken):
        for place, text in members(file):
            lines = [_line(each) for each in text.splitlines()]
            digest.update(text)
            head = head or lines[0]
            keys += sum(line.get("part") == 0 for line in lines)
            if "next" in lines[-1]:
                found = Unfinished(head, place, lines[-1]["next"], digest.copy(), keys)
    return found


def _opened(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except OSError as error:
        raise Rejected(f"{path}: {error.strerror}, expected a file we may read") from error


def _line(text: bytes) -> Line:
    try:
        line = json.loads(text)
    except ValueError:
        return {}
    return line if isinstance(line, dict) else {}
