"""Lists that people keep: CSV, JSON Lines, or one address a line; read as a stream, whatever their size.

Text is UTF-8 with or without a mark; octets that are not come back as they were when a list is written again.
"""

import csv
import io
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from handlers.address import undecoded
from handlers.errors import Rejected

_DELIMITERS = ",;\t|"
_HEAD_BYTES = 65536
_MAX_FIELD = 1 << 20  # a list of whole messages is none
_LONE_SURROGATE = re.compile("[\ud800-\udc7f\udd00-\udfff]")  # JSON can spell one, and it stands for no octet
_ADDRESS_ALONE = re.compile(r"""[\s"]*[^\s"@]+@[^\s"@]+[\s"]*""")
_NAMES = ("email", "e-mail", "emailaddress", "email address", "email_address", "address", "recipient", "mail")


@dataclass(slots=True)
class ListFile:
    """An open list.

    Shape:   columns: their names, as spelled; [] when the first line is data. json_lines: a value a line instead of CSV.
             size_bytes: None for standard input and pipes, which can be read once.
    Errors:  Rejected  while iterating: csv's own trouble, with its line.    permanent
    """

    raw: IO[bytes]
    columns: list[str]
    delimiter: str
    json_lines: bool
    line_end: str
    size_bytes: int | None
    line: int = 0
    _first: list[str] = field(default_factory=list)
    _text: IO[str] | None = None

    def read_bytes(self) -> int:
        """How much was read so far; 0 where that cannot be told."""
        return self.raw.tell() if self.size_bytes is not None else 0

    def rows(self) -> Iterator[list[str]]:
        """Yield the fields of each row that has any, in the order of `columns`; `line` is where it ended."""
        # Kept, because it closes the file when it goes.
        self._text = io.TextIOWrapper(self.raw, "utf-8-sig", "surrogateescape", newline="")
        try:
            yield from self._json(self._text) if self.json_lines else self._csv(self._text)
        except OSError as error:
            raise Rejected(f"line {self.line}: {error.strerror}, expected more of the list") from error

    def _csv(self, text: IO[str]) -> Iterator[list[str]]:
        reader = csv.reader(text, delimiter=self.delimiter)
        rows = self._whole(reader)
        try:
            if self.columns:
                next(rows, None)
            yield from rows
        except csv.Error as error:
            raise Rejected(f"line {reader.line_num}: {error}, expected CSV") from None

    def _whole(self, reader: Any) -> Iterator[list[str]]:
        for row in filter(None, reader):
            begun, self.line = self.line + 1, reader.line_num
            if self.line > begun and any(_swallows_rows(cell, self.delimiter) for cell in row):
                raise Rejected(
                    f"line {begun}: a quote opens and closes on line {self.line} or never, and rows with addresses lie"
                    " between, expected one row a line: mend the quote"
                )
            yield row

    def _json(self, text: IO[str]) -> Iterator[list[str]]:
        for self.line, line in enumerate(text, 1):
            if not line.strip():
                continue
            yield self._json_row(line)

    def _json_row(self, line: str) -> "_JsonRow":
        try:
            value = _object(line, self.line)
        except Rejected:  # one bad line is one bad row: whoever reads it finds no address in it
            return _JsonRow(line.rstrip("\r\n"), [line.strip(), *[""] * (len(self.columns) - 1)])
        return _JsonRow(line.rstrip("\r\n"), [_cell(value.get(name)) for name in self.columns])

    @property
    def undecoded(self) -> str:
        """What a complaint about the header adds when an octet of it is no UTF-8, else ""."""
        trouble = undecoded("".join(self.columns))
        return trouble and f"; the header: {trouble}"

    def address_column(self, name: str = "") -> int:
        """Return the number of the column that holds the addresses.

        Errors:  Rejected  no such column, or none that looks like it.    permanent
        """
        lowered = [each.strip().lower() for each in self.columns]
        if name:
            if name.strip().lower() in lowered:
                return lowered.index(name.strip().lower())
            raise Rejected(
                f"--column {name[:40]!r}: expected one of {', '.join(self.columns) or 'none: no header line'}"
            )
        for each in _NAMES:
            if each in lowered:
                return lowered.index(each)
        guess = next((number for number, value in enumerate(self._first) if "@" in value), None)
        if guess is None:
            raise Rejected(
                f"the list: no column of addresses found, expected one named email (or say --column){self.undecoded}"
            )
        return guess


def _swallows_rows(cell: str, delimiter: str) -> bool:
    """Say whether further lines of a cell look like rows: of those, a stray quote would lose every wish without a word."""
    return any(_ADDRESS_ALONE.fullmatch(each) for line in cell.splitlines()[1:] for each in line.split(delimiter))


class _JsonRow(list[str]):
    """The cells of a row of JSON Lines, and its line: cells are text, so only the line tells 3 from "3"."""

    def __init__(self, line: str, cells: list[str]) -> None:
        super().__init__(cells)
        self.line = line


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str) and not _LONE_SURROGATE.search(value):
        return value
    return json.dumps(value).strip('"')


def _object(line: str, number: int) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise Rejected(f"line {number}: expected one JSON object a line")
    return value


@contextmanager
def open_list(path: Path) -> Iterator[ListFile]:
    """Open a list; "-" is standard input. Errors: Rejected  it cannot be read, or is no text.    permanent"""
    csv.field_size_limit(_MAX_FIELD)
    with ExitStack() as stack:
        try:
            is_input = str(path) == "-"
            file = open(0, "rb", closefd=False) if is_input else path.open("rb")  # noqa: SIM115  the stack is one
            raw = stack.enter_context(file)
            found = _looked_at(raw, rewinds=raw.seekable() and not is_input)
        except OSError as error:
            raise Rejected(f"{path}: {error.strerror}, expected a file that we may read") from error
        yield found


class _Rejoined(io.RawIOBase):
    """What was read of a stream to look at it, and then the rest."""

    def __init__(self, head: bytes, rest: IO[bytes]) -> None:
        self._head = io.BytesIO(head)
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        some = self._head.read(len(buffer)) or self._rest.read(len(buffer))
        buffer[: len(some)] = some
        return len(some)


def _looked_at(raw: IO[bytes], *, rewinds: bool) -> ListFile:
    head = raw.read(_HEAD_BYTES)  # whoever writes into a pipe may take his time: what is there first may be half a line
    if rewinds:
        raw.seek(0)
        return _read_head(raw, head, os.fstat(raw.fileno()).st_size)
    return _read_head(io.BufferedReader(_Rejoined(head, raw), _HEAD_BYTES), head, None)


def _read_head(raw: Any, head: bytes, size_bytes: int | None) -> ListFile:
    if b"\0" in head:
        raise Rejected("the list: has NUL octets, expected text in UTF-8 (a sheet, or UTF-16? save it as CSV UTF-8)")
    text = head.decode("utf-8-sig", "surrogateescape")
    number, line = next(
        ((number, each) for number, each in enumerate(io.StringIO(text, newline=""), 1) if each.strip()), (1, "")
    )
    end = "\r\n" if b"\r\n" in head else "\n"
    if line.lstrip().startswith("{"):
        first = _object(line, number)
        cells = [_cell(each) for each in first.values()]
        return ListFile(raw, list(first), ",", True, end, size_bytes, _first=cells)
    delimiter = max(_DELIMITERS, key=line.count) if any(each in line for each in _DELIMITERS) else ","
    rows = filter(None, csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    first_row, second_row = next(rows, []), next(rows, [])
    if any("@" in value for value in first_row):
        return ListFile(raw, [], delimiter, False, end, size_bytes, _first=first_row)
    return ListFile(raw, first_row, delimiter, False, end, size_bytes, _first=second_row)


@contextmanager
def written_list(path: Path, like: ListFile) -> Iterator[Callable[[Sequence[str]], None]]:
    """Give a function that writes a row of *like* in its form; the file appears when all of it is there.

    Errors:  as `written_file`.
    """
    with written_file(path) as file:
        yield _writer(file, like)


@contextmanager
def written_file(path: Path) -> Iterator[IO[str]]:
    """Give a file to write, which appears at *path* when all of it is there; in the middle nothing changes.

    Errors:  Rejected  it cannot be written.    permanent
    """
    part = path.with_name(path.name + ".part")
    try:
        with part.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            yield file
        part.replace(path)
    except BrokenPipeError:  # whoever writes into it prints too
        raise
    except OSError as error:
        raise Rejected(f"{path}: {error.strerror}, expected a file that we may write") from error
    finally:
        with suppress(OSError):
            part.unlink()


def _writer(file: IO[str], like: ListFile) -> Callable[[Sequence[str]], None]:
    if like.json_lines:
        return lambda row: _write_line(file, row, like.line_end)
    writer = csv.writer(file, delimiter=like.delimiter, lineterminator=like.line_end)
    if like.columns:
        writer.writerow(like.columns)
    return writer.writerow


def _write_line(file: IO[str], row: Sequence[str], line_end: str) -> None:
    assert isinstance(row, _JsonRow), "a row of another list"
    file.write(row.line + line_end)
