"""What the server's lines say. Pure: lines -> values. A line is bytes, or a tuple of text and literals."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any

from worker.sources.imap.address import shown_name

DONE = "$UnsubdDone"
ASIDE = "$UnsubdAside"  # beside it: reading this one killed us, nobody reads it again
_FOLDER = re.compile(rb'\(([^)]*)\) (?:"((?:[^"\\]|\\.)*)"|NIL) (.*)', re.DOTALL | re.IGNORECASE)
_NAMESPACE = re.compile(rb'\(\(("(?:[^"\\]|\\.)*") (?:"((?:[^"\\]|\\.)*)"|NIL)', re.IGNORECASE)
_BODY = re.compile(rb'BODY\[\](?:<0>)? "((?:[^"\\]|\\.)*)"', re.IGNORECASE)
_MAX_SET = 4096  # octets of a set of UIDs


@dataclass(frozen=True, slots=True)
class Selected:
    """What SELECT told. keywords: whether `$UnsubdDone` may be stored."""

    uidvalidity: int
    uidnext: int
    exists: int
    keywords: bool


@dataclass(frozen=True, slots=True)
class Fetched:
    """One message, or its beginning. Units: received_ms from INTERNALDATE, ms UTC."""

    uid: int
    raw: bytes
    size_bytes: int
    received_ms: int | None


@dataclass(frozen=True, slots=True)
class Folder:
    """One line of LIST. Shape: name decoded; flags lower-cased, with their backslash."""

    name: str
    flags: frozenset[str]


@dataclass(frozen=True, slots=True)
class Folders:
    """The folders of an account, and how new ones are named. RFC: 2342 (namespace), 6154 (special use)."""

    known: tuple[Folder, ...]
    prefix: str
    delimiter: str

    def named(self, name: str) -> str:
        """Return the server's name for what people write, e.g. `Done/2026` as `INBOX.Done.2026`."""
        names = {folder.name for folder in self.known}
        if name in names or name.upper() == "INBOX":
            return name
        local = name.replace("/", self.delimiter) if self.delimiter else name
        if (
            local in names
            or local.startswith(self.prefix or "\0")
            or local.upper().startswith("INBOX" + self.delimiter)
        ):
            return local
        return self.prefix + local

    def junk(self) -> str | None:
        """Return the folder that the server marks as `\\Junk`, None when it marks none."""
        found = (folder.name for folder in self.known if "\\junk" in folder.flags and "\\noselect" not in folder.flags)
        return next(found, None)


def selected(lines: Sequence[Any]) -> Selected:
    """Read the answer to SELECT or EXAMINE."""
    text = b"\n".join(flat(line) for line in lines)
    flags = re.search(rb"PERMANENTFLAGS \(([^)]*)\)", text)
    return Selected(
        uidvalidity=_number(rb"UIDVALIDITY (\d+)", text),
        uidnext=_number(rb"UIDNEXT (\d+)", text),
        exists=_number(rb"(\d+) EXISTS", text),
        keywords=flags is None or rb"\*" in flags[1] or DONE.lower().encode() in flags[1].lower(),
    )


def folder(line: Any) -> Folder | None:
    """Read one LIST response; None for what is none."""
    text = flat(line if not isinstance(line, tuple) else line[0])
    if (match := _FOLDER.match(text)) is None:
        return None
    name = bytes(line[1]) if isinstance(line, tuple) else _unquoted(match[3])
    return Folder(shown_name(name), frozenset(match[1].decode("ascii", "replace").lower().split()))


def delimiter(line: Any) -> str:
    """Return the hierarchy delimiter that a LIST response names, "" for a flat account."""
    match = _FOLDER.match(flat(line))
    return _unescaped(match[2]).decode("ascii", "replace") if match and match[2] else ""


def personal_prefix(lines: Sequence[Any]) -> str:
    """Return the prefix of the user's own folders from NAMESPACE, e.g. `INBOX.`"""
    match = next((found for line in lines if (found := _NAMESPACE.match(flat(line)))), None)
    return shown_name(_unquoted(match[1])) if match else ""


def uids_found(lines: Sequence[Any]) -> list[int]:
    """Read the answer to SEARCH: UIDs, ascending."""
    words = b" ".join(line for line in lines if isinstance(line, bytes) and re.fullmatch(rb"[\d ]+", line)).split()
    return sorted({int(word) for word in words if len(word) <= 10})


def fetched(lines: Sequence[Any]) -> list[Fetched]:
    """Read the answer to FETCH. What has no UID or no body is somebody else's notice.

    Why:     NIL is no body (RFC 3501 9), an empty message's is "" or {0}. Dovecot answers so, with size 0 and the date of
             1970, for a message that another session removed meanwhile: taken for mail, it is a record of nothing.
    """
    return [message for line in lines if (message := _message(line if isinstance(line, tuple) else (line,)))]


def _message(parts: tuple[Any, ...]) -> Fetched | None:
    texts = [bytes(part) for part in parts if not isinstance(part, bytearray)]
    text = b" ".join(texts)
    uid = re.search(rb"\bUID (\d{1,10})\b", text, re.IGNORECASE)
    if uid is None or not re.match(rb"\d+ FETCH \(", text, re.IGNORECASE) or b"BODY[]" not in text.upper():
        return None
    if (body := _body(parts, text)) is None:
        return None
    return Fetched(int(uid[1]), body, _number(rb"RFC822\.SIZE (\d+)", text), _internal_date(text))


def _body(parts: tuple[Any, ...], text: bytes) -> bytes | None:
    """The literal that BODY[] announced; short ones may come quoted; None: there is none."""
    for before, part in pairwise(parts):
        if isinstance(part, bytearray) and re.search(rb"BODY\[\](?:<0>)? \{\d+\}\Z", before, re.IGNORECASE):
            return bytes(part)
    match = _BODY.search(text)
    return _unescaped(match[1]) if match else None


def _internal_date(text: bytes) -> int | None:
    match = re.search(rb'INTERNALDATE "([^"]*)"', text)
    if match is None:
        return None
    try:
        return int(datetime.strptime(match[1].decode().strip(), "%d-%b-%Y %H:%M:%S %z").timestamp() * 1000)
    except ValueError:
        return None


def words(text: bytes) -> str:
    """Return a server's words for people and terminals: what is not printable ASCII is "?".

    Example:
        >>> words(b"\x1b[2Jno")
        '?[2Jno'
    """
    return re.sub(r"[^ -~]", "?", text.decode("ascii", "replace"))


def flat(line: Any) -> bytes:
    """Return a line's octets, literals included."""
    return b" ".join(bytes(part) for part in line) if isinstance(line, tuple) else bytes(line)


def _number(pattern: bytes, text: bytes) -> int:
    match = re.search(pattern, text, re.IGNORECASE)
    return int(match[1]) if match and len(match[1]) < 20 else 0


def _unquoted(text: bytes) -> bytes:
    return _unescaped(text[1:-1]) if text[:1] == b'"' else text


def _unescaped(text: bytes) -> bytes:
    return re.sub(rb"\\(.)", rb"\1", text)


def uid_set(uids: Iterable[int]) -> str:
    """Return the shortest IMAP set of *uids*.

    Example:
        >>> uid_set([9, 1, 2, 3])
        '1:3,9'
    """
    ranges: list[list[int]] = []
    for uid in sorted(set(uids)):
        if ranges and ranges[-1][1] == uid - 1:
            ranges[-1][1] = uid
        else:
            ranges.append([uid, uid])
    return ",".join(str(first) if first == last else f"{first}:{last}" for first, last in ranges)


def within_a_line(uids: Sequence[int]) -> Sequence[int]:
    """Return the first of *uids*, half, a quarter… of them: as many as a command line takes.

    RFC:     7162 4 lets a line have 8,192 octets; half of that is safe.
    Example:
        >>> len(within_a_line(range(1, 8001))), len(within_a_line(range(1, 8001, 2)))
        (8000, 500)
    """
    while len(uids) > 1 and len(uid_set(uids)) > _MAX_SET:
        uids = uids[: len(uids) // 2]
    return uids
