"""Imports: lists of people who asked somebody else, or before. An import can add, never remove.

A list is read as a stream, so many rows at a time; after each part its counts and place are kept, so that the same command
goes on where a crash, or Ctrl-C, left it. What cannot be used goes to a file of its own, with the reason.

| key              | type | holds                                                             | lives    |
|------------------|------|-------------------------------------------------------------------|----------|
| `unsubd:imports` | HASH | import id -> JSON {sender, group, file, started_ms, rows, added, …} | for good |
"""

import csv
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import file_digest, sha256
from itertools import islice
from pathlib import Path
from typing import Any, cast

import redis

from handlers import exports
from handlers.errors import QueueUnavailable, Rejected, UnknownAccount
from handlers.exports import ExportRow
from handlers.request import Action, Effect, Request
from worker.installation import Installation
from worker.lists import ListFile, open_list
from worker.points import point
from worker.server import Writer, away_as

_IMPORTS = "unsubd:imports"
_CHUNK = 2000
_ID_OCTETS, _ROW_OCTETS = 5, 3  # of the 8 that a row keeps of the request that changed it
_COUNTED = {Effect.ADDED: "added", Effect.ALREADY_PRESENT: "present", Effect.STALE: "stale"}
Progress = Callable[[int, str], None]


@dataclass(frozen=True, slots=True)
class Import:
    """One import, and how far it is.

    Shape:   rows = added + present + stale + rejected. file: its name; digest: of its content, "" for standard input.
             rejects_bytes: how long the file of rejected rows is. done: False while it runs, or was left.
             failed: why a posted list ended early.
    Units:   started_ms: ms UTC, the event time of rows without a date.
    """

    id: str
    sender: str
    group: int
    file: str
    digest: str
    form: str
    actor: str
    started_ms: int
    rows: int = 0
    added: int = 0
    present: int = 0
    stale: int = 0
    rejected: int = 0
    rejects_bytes: int = 0
    done: bool = False
    failed: str = ""


class Imports:
    """The imports of one installation, kept for good: they are what a row's source `import` points to.

    Errors:  QueueUnavailable  every method, when Redis is away; `keep` also when too few replicas confirm it.    temporary
    """

    def __init__(self, client: redis.Redis, *, min_replicas: int = 0) -> None:
        self._redis = client
        self._confirmed = Writer(client, min_replicas)

    def of(self, sender: str) -> list[Import]:
        """Return the imports of *sender*, oldest first."""
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
            rows = cast(dict[bytes, bytes], self._redis.hgetall(_IMPORTS))
        every = (_read(key.decode(), row) for key, row in rows.items())
        return sorted((each for each in every if each.sender == sender), key=lambda each: each.started_ms)

    def find(self, import_id: str) -> Import | None:
        """Return an import, None for an id that none has."""
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
            row = cast(bytes | None, self._redis.hget(_IMPORTS, import_id))
        return _read(import_id, row) if row else None

    def keep(self, one: Import) -> Import:
        """Remember how far *one* is."""
        with point("import.keep"):
            self._confirmed(lambda to: to.hset(_IMPORTS, one.id, json.dumps(asdict(one))))
        return one


def _read(key: str, row: bytes) -> Import:
    found = json.loads(row)
    return Import(**{name: found[name] for name in Import.__slots__ if name in found} | {"id": key})


def origin(imports: Sequence[Import], evidence: bytes) -> Import | None:
    """Return the import that last changed a row, by the row's evidence reference; None when none of these did."""
    return next((one for one in imports if bytes.fromhex(one.id)[:_ID_OCTETS] == evidence[:_ID_OCTETS]), None)


def _wish_id(import_id: str, number: int) -> str:
    """The request id of a row: it begins with the import's, so that whoever sees the store's row knows the import.

    Why:     not a digest of recipient and group as of a message (semantics §1): a list may name somebody twice, and the
             second row is to hear "already present", and its later date to count.
    """
    row = number % (1 << 8 * _ROW_OCTETS)
    octets = bytes.fromhex(import_id)[:_ID_OCTETS] + row.to_bytes(_ROW_OCTETS)
    return octets.hex() + sha256(octets).hexdigest()[:16]


def run(
    installation: Installation, sender: str, group: int, path: Path, *, actor: str,
    form: str = "", rejects: Path | None = None, progress: Progress = lambda *_: None,
) -> Import:  # fmt: skip
    """Import a list and return its counts.

    Shape:   form: a name of `exports.FORMATS`, "" = what the columns say. rejects: where rejected rows go; default: beside
             the list. group: of rows that name none; unsubd's own export names one a row.
    Errors:  UnknownAccount, Rejected  an unknown or archived group, a file that is no list.    permanent
             Unavailable               a server is away: the same command goes on from there.    temporary
    Repeat:  safe: a list that was left is gone on with; one that is done is imported anew, and finds itself present.
    """
    if installation.accounts.group(sender, group).archived:
        raise UnknownAccount(f"group {group}: archived, expected one that is not, or 0 for everything")
    target = rejects or Path(f"{path}.rejected.csv")
    if target.resolve() == path.resolve():
        raise Rejected(f"--rejects {target}: is the list itself, expected another file")
    known = Imports(installation.redis, min_replicas=installation.settings.min_replicas)
    with open_list(path) as found:
        read = _reader(found, form)  # first: what is no list leaves no import
        one = _begun(known, sender, group, path, found, form, actor)
        work = _Work(installation, known, one, read)
        return work.run(found, target, progress)


def begin(
    installation: Installation, sender: str, group: int, path: Path, *, name: str, form: str, actor: str
) -> Import:
    """Return the import of a list that `run` is to import: a new one, or the one of this very list that was left.

    Shape:   name: what the list is called. Errors: as `run`.
    """
    if installation.accounts.group(sender, group).archived:
        raise UnknownAccount(f"group {group}: archived, expected one that is not, or 0 for everything")
    with open_list(path) as found:
        _reader(found, form)
        known = Imports(installation.redis, min_replicas=installation.settings.min_replicas)
        return _begun(known, sender, group, Path(name), found, form, actor)


def _begun(known: Imports, sender: str, group: int, path: Path, found: ListFile, form: str, actor: str) -> Import:
    """The import of this very list that was left, else a new one."""
    digest = file_digest(found.raw, "sha256").hexdigest() if found.size_bytes is not None else ""  # type: ignore[arg-type]
    if digest:
        found.raw.seek(0)
        for one in known.of(sender):
            if (one.group, one.digest, one.form, one.done) == (group, digest, form, False):
                return one
    now_ms = time.time_ns() // 1_000_000
    parts = (sender, str(group), digest or str(time.time_ns()), form, str(now_ms))
    import_id = sha256("\0".join(parts).encode()).hexdigest()[:16]
    return known.keep(Import(import_id, sender, group, path.name, digest, form, actor, now_ms))


def _reader(found: ListFile, form: str) -> Callable[[Sequence[str]], ExportRow]:
    if form and form not in exports.FORMATS:
        raise Rejected(f"format {form[:40]!r}: expected one of {', '.join(exports.FORMATS)}")
    if not found.columns:  # no header: one column, or the first that looks like an address
        read = exports.reader(exports.FORMATS["plain"], ["email"])
        number = found.address_column()
        return lambda row: read([row[number] if number < len(row) else ""])
    try:
        return exports.reader(exports.FORMATS[form] if form else exports.detect(found.columns), found.columns)
    except Rejected as error:
        raise Rejected(f"{error}{found.undecoded}") from None


@dataclass(slots=True)
class _Work:
    installation: Installation
    known: Imports
    one: Import
    read: Callable[[Sequence[str]], ExportRow]

    def run(self, found: ListFile, rejects: Path, progress: Progress) -> Import:
        rows = found.rows()
        for _ in islice(rows, self.one.rows):
            pass  # done before
        groups = {each.id for each in self.installation.accounts.groups(self.one.sender) if not each.archived} | {0}
        with _Rejects(rejects, found, self.one.rejects_bytes) as bin:
            while part := list(islice(rows, _CHUNK)):
                self._take(part, groups, bin)
                progress(found.read_bytes(), f"{self.one.rows:,} rows, {self.one.added:,} added")
        self.one = self.known.keep(replace(self.one, done=True))
        facts = {name: getattr(self.one, name) for name in ("rows", "added", "present", "stale", "rejected")}
        journal = self.installation.journal
        journal.service("import", sender=self.one.sender, group=self.one.group, id=self.one.id, **facts)
        return self.one

    def _take(self, part: list[list[str]], groups: set[int], bin: "_Rejects") -> None:
        """Apply one part; its place is kept last, so that a crash repeats the part and every count is right."""
        requests, counts = [], dict.fromkeys(("added", "present", "stale", "rejected"), 0)
        for number, row in enumerate(part, self.one.rows):
            try:
                requests.append(self._request(self.read(row), groups, number))
            except Rejected as error:
                counts["rejected"] += 1
                bin.write(row, str(error))
        for _, effect in self.installation.intake.apply(requests):
            counts[_COUNTED[effect]] += 1
        totals = {name: getattr(self.one, name) + count for name, count in counts.items()}
        self.one = replace(self.one, **totals, rows=self.one.rows + len(part), rejects_bytes=bin.flushed())
        self.known.keep(self.one)

    def _request(self, row: ExportRow, groups: set[int], number: int) -> Request:
        group = self.one.group if row.group is None else row.group
        if group not in groups:
            raise Rejected(f"group {group}: expected one of the sender's, see: unsubd group list {self.one.sender}")
        action = Action.COMPLAINT if row.complaint else Action.UNSUBSCRIBE
        at_ms = self.one.started_ms if row.at_ms is None else row.at_ms
        one = self.one
        return Request(
            _wish_id(one.id, number), action, one.sender, group, row.recipient, at_ms, "import", one.id, one.actor,
            undated=row.at_ms is None,
        )  # fmt: skip


class _Rejects:
    """The file of rejected rows: made at the first one; what a part wrote that is repeated is written anew."""

    def __init__(self, path: Path, found: ListFile, keep_bytes: int) -> None:
        self._path, self._found, self._keep_bytes = path, found, keep_bytes
        self._file: Any = None

    def __enter__(self) -> "_Rejects":
        # One that went meanwhile, or is another, begins anew: what it held is not told again, but the work goes on.
        if self._keep_bytes and self._path.is_file() and self._path.stat().st_size >= self._keep_bytes:
            self._open("r+")
            self._file.seek(self._keep_bytes)
            self._file.truncate()
        return self

    def _open(self, mode: str) -> None:
        try:
            self._file = self._path.open(mode, encoding="utf-8", errors="surrogateescape", newline="")
        except OSError as error:
            raise Rejected(f"{self._path}: {error.strerror}, expected a file that we may write") from error
        self._writer = csv.writer(self._file, delimiter=self._found.delimiter, lineterminator="\n")

    def write(self, row: Sequence[str], reason: str) -> None:
        if self._file is None:
            self._open("w")
            if self._found.columns:
                self._writer.writerow([*self._found.columns, "rejected because"])
        self._writer.writerow([*row, reason])

    def flushed(self) -> int:
        if self._file is None:
            return 0
        with point("import.reject"):
            self._file.flush()
        return int(self._file.tell())

    def __exit__(self, *_: Any) -> None:
        if self._file is not None:
            self._file.close()


def rows(installation: Installation, sender: str, groups: Sequence[int]) -> Iterator[dict[str, Any] | None]:
    """Yield what `unsubd export` writes, a row each suppressed recipient; None for a forgotten one, who is only counted."""
    for group in groups:
        for recipient, row in installation.store.listed(sender, group):
            yield (
                None
                if recipient is None
                else {
                    "email": recipient,
                    "group": group,
                    "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(row.first_seen_s)),
                    "source": row.source,
                    "reason": "complaint" if row.complaint else "unsubscribe",
                }
            )
