"""Lists that people keep: CSV, JSON Lines, or one address a line; read as a stream, whatever their size.

Text is UTF-8 with or without a mark; octets that are not come back as they were when a list is written again.
"""

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from handlers.errors import Rejected

_DELIMITERS = ",;\t|"
_HEAD_BYTES = 65536
_MAX_FIELD = 1 << 20  # a list of whole messages is none
_NAMES = ("email", "e-mail", "emailaddress", "email address", "email_address", "address", "recipient", "mail")


@dataclass(slots=True)
class ListFile:
    """An open list.

    Shape:   columns: their names, as spelled; [] when the first line is data. json_lines: a value a line instead of CSV.
             size_bytes: None for standard input.
    Errors:  Rejected  while iterating: a line that is neither; csv's own trouble, with its line.    permanent
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
        yield from self._json(self._text) if self.json_lines else self._csv(self._text)

    def _csv(self, text: IO[str]) -> Iterator[list[str]]:
        reader = csv.reader(text, delimiter=self.delimiter)
        try:
            if self.columns:
                next(reader, None)
            for row in reader:
                self.line = reader.line_num
                if row:
                    yield row
        except csv.Error as error:
            raise Rejected(f"line {reader.line_num}: {error}, expected CSV") from None

    def _json(self, text: IO[str]) -> Iterator[list[str]]:
        for self.line, line in enumerate(text, 1):
            if not line.strip():
                continue
            value = _object(line, self.line)
            yield ["" if (found := value.get(name)) is None else str(found) for name in self.columns]

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
            raise Rejected("the list: no column of addresses found, expected one named email (or say --column)")
        return guess


def _object(line: str, number: int) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise Rejected(f"line {number}: expected one JSON object a line")
    return value


@contextmanager
def open_list(path: Path) -> Iterator[ListFile]:
    """Open a list; "-" is standard input. Errors: Rejected  it cannot be read, or is no text.    permanent"""
    csv.field_size_limit(_MAX_FIELD)
    try:
        with open(0, "rb", closefd=False) if str(path) == "-" else path.open("rb") as raw:
            yield _looked_at(raw, None if str(path) == "-" else path.stat().st_size)
    except OSError as error:
        raise Rejected(f"{path}: {error.strerror}, expected a file that we may read") from error


def _looked_at(raw: Any, size_bytes: int | None) -> ListFile:
    head = raw.peek(_HEAD_BYTES)[:_HEAD_BYTES]
    text = head.decode("utf-8-sig", "surrogateescape")
    line = next((each for each in text.splitlines() if each.strip()), "")
    end = "\r\n" if b"\r\n" in head else "\n"
    if line.lstrip().startswith("{"):
        first = _object(line, 1)
        return ListFile(raw, list(first), ",", True, end, size_bytes, _first=[str(each) for each in first.values()])
    delimiter = max(_DELIMITERS, key=line.count) if any(each in line for each in _DELIMITERS) else ","
    rows = csv.reader(io.StringIO(text), delimiter=delimiter)
    first_row, second_row = next(rows, []), next(rows, [])
    if any("@" in value for value in first_row):
        return ListFile(raw, [], delimiter, False, end, size_bytes, _first=first_row)
    return ListFile(raw, first_row, delimiter, False, end, size_bytes, _first=second_row)


@contextmanager
def written_list(path: Path, like: ListFile) -> Iterator[Callable[[Sequence[str]], None]]:
    """Give a function that writes a row in the form of *like*; the file appears when all of it is there.

    Errors:  Rejected  the file cannot be written.    permanent
    """
    part = path.with_name(path.name + ".part")
    try:
        with part.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            yield _writer(file, like)
        part.replace(path)
    except OSError as error:
        raise Rejected(f"{path}: {error.strerror}, expected a file that we may write") from error
    finally:
        part.unlink(missing_ok=True)


def _writer(file: IO[str], like: ListFile) -> Callable[[Sequence[str]], None]:
    if like.json_lines:
        return lambda row: _write_json(file, like.columns, row)
    writer = csv.writer(file, delimiter=like.delimiter, lineterminator=like.line_end)
    if like.columns:
        writer.writerow(like.columns)
    return writer.writerow


def _write_json(file: IO[str], columns: list[str], row: Sequence[str]) -> None:
    file.write(json.dumps(dict(zip(columns, row, strict=True)), ensure_ascii=False) + "\n")
