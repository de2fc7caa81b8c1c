"""One file of the archive: lines of JSON that `zcat` shows, chained by SHA-256, whole or not there at all.

    {"file":"ledger-000002.jsonl.gz","starts_from":END OF THE FILE BEFORE}
    {"content":{...},"hash":HASH}                                             as often as there are records
    {"digest":LAST HASH,"ends_at":END,"lines":COUNT}

One rule makes both chains, `chained`: of the records within a file, from 32 zero bytes, and of the files, each with the last
hash of its records, from 32 zero bytes too.
Why:     two chains, because a bundle shows one person's files only. Of the others it gives the digest, and the reader can
         still compute every end; in a single chain he would have to believe where such a file leads.
"""

import gzip
import json
import os
import zlib
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

from handlers.errors import ConfigError, Rejected

ZERO = bytes(32)
_HEX = 2 * len(ZERO)


def canonical(value: Any) -> bytes:
    """Return the one JSON text that *value* has here.

    Example:
        >>> canonical({"b": "é", "a": [1, 2]})
        b'{"a":[1,2],"b":"\\\\u00e9"}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def chained(before: bytes, digest: bytes) -> bytes:
    """Return the hash of a chain that stood at *before* when *digest* is added."""
    return sha256(before + digest).digest()


def added(before: bytes, content: bytes) -> bytes:
    """Return the hash of a chain that stood at *before* when a record's JSON is added."""
    return chained(before, sha256(content).digest())


def line(content: bytes, hash_: bytes) -> bytes:
    """Return the line of a record: as `canonical` would write it, without reading *content* again."""
    return b'{"content":%s,"hash":"%s"}\n' % (content, hash_.hex().encode())


def name_of(number: int) -> str:
    """Return the name of the file with that number; the first has 1."""
    return f"ledger-{number:06d}.jsonl.gz"


def _header(name: str, starts_from: bytes) -> bytes:
    return canonical({"file": name, "starts_from": starts_from.hex()}) + b"\n"


def _footer(digest: bytes, ends_at: bytes, lines: int) -> bytes:
    return canonical({"digest": digest.hex(), "ends_at": ends_at.hex(), "lines": lines}) + b"\n"


def write(path: Path, starts_from: bytes, contents: Iterable[bytes]) -> tuple[bytes, int]:
    """Write a file of *contents* and return where it ends and how many there were; durable when it returns.

    Repeat:  what a crash left under the temporary name is overwritten.
    Errors:  OSError.
    """
    draft = path.with_suffix(".new")
    try:
        with open(draft, "wb", opener=private) as file:
            # No name and no time: the same lines make the same file.
            with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=file, mtime=0) as packed:
                written = _fill(packed, path.name, starts_from, contents)
            file.flush()
            os.fsync(file.fileno())
        draft.rename(path)
        sync(path.parent)
    finally:
        draft.unlink(missing_ok=True)
    return written


def private(path: str, flags: int) -> int:
    """Open a file for nobody else: an opener for `open`."""
    return os.open(path, flags, 0o600)


def _fill(file: gzip.GzipFile, name: str, starts_from: bytes, contents: Iterable[bytes]) -> tuple[bytes, int]:
    hash_, count = ZERO, 0
    file.write(_header(name, starts_from))
    for count, content in enumerate(contents, 1):  # noqa: B007  (how many there were)
        hash_ = added(hash_, content)
        file.write(line(content, hash_))
    ends_at = chained(starts_from, hash_)
    file.write(_footer(hash_, ends_at, count))
    return ends_at, count


def sync(folder: Path) -> None:
    """Make the names in *folder* durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Volume:
    """One file, checked byte for byte while it is read; where it starts and ends is known when `contents` is through.

    Errors:  Rejected     the file is damaged; the message names file and line, never a content.    permanent
             ConfigError  it may not be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.starts_from = self.digest = self.ends_at = ZERO
        self.lines = 0
        self._number = 0

    def contents(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield each record's JSON, with the hash of the chain after it."""
        lines = self._raw_lines()
        self._start(next(lines, b""))
        footer = _footer(self.digest, self.ends_at, 0)
        for raw in lines:
            if raw == footer:
                return self._end(lines)
            content = raw[len(b'{"content":') : -len(b',"hash":""}\n') - _HEX]
            self.digest = added(self.digest, content)
            if raw != line(content, self.digest):
                raise self.damaged("does not fit the chain")
            self.lines += 1
            self.ends_at = chained(self.starts_from, self.digest)
            footer = _footer(self.digest, self.ends_at, self.lines)
            yield content, self.digest
        raise self.damaged("the end of the file is missing")

    def damaged(self, what: str) -> Rejected:
        """Return the error that names the line read last."""
        return Rejected(f"{self.path.name} line {self._number}: {what}: restore the file from a backup")

    def _raw_lines(self) -> Iterator[bytes]:
        try:
            packed = self.path.open("rb")
        except OSError as error:
            raise ConfigError(
                f"UNSUBD_ARCHIVE_DIR: {self.path}: {error.strerror}, expected a file that we may read"
            ) from error
        with packed, gzip.GzipFile(fileobj=packed) as file:
            while raw := self._raw_line(file):
                yield raw

    def _raw_line(self, file: gzip.GzipFile) -> bytes:
        self._number += 1
        try:
            return file.readline()
        except (OSError, EOFError, zlib.error) as error:
            raise self.damaged("cannot be read") from error

    def _start(self, raw: bytes) -> None:
        try:
            self.starts_from = bytes.fromhex(raw[-3 - _HEX : -3].decode())
        except ValueError:
            raise self.damaged("does not say where the file starts from") from None
        if raw != _header(self.path.name, self.starts_from):
            raise self.damaged("does not say where the file starts from")
        self.ends_at = chained(self.starts_from, self.digest)

    def _end(self, lines: Iterator[bytes]) -> None:
        if next(lines, b""):
            raise self.damaged("stands behind the end of the file")
