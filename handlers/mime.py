"""Bytes become header fields and parts: MIME's structure, read by rule and not by luck.

Own, because the standard library's parser ends a header at its first garbage line, loses what follows, and costs depth
times lines on nested parts. This one looks at every octet a fixed number of times. What is inside an embedded message
stays closed: it is somebody else's. A boundary counts only where its multipart is open, so text that quotes one is text.

Limits: `MAX_DEPTH` multiparts within each other and `MAX_PARTS` parts are opened; what lies beyond stays unread text.
RFC: 5322 2.2 (fields), 2045 5.1 (Content-Type), 2046 5.1.1 (boundaries), 6522 (multipart/report), 6532 (UTF-8 headers),
     6533 (message/global-*).
"""

import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass

MAX_DEPTH = 20
MAX_PARTS = 1000
_MAX_CONTENT_TYPE = 2000
_LINE_END = re.compile(rb"\r\r?\n|\r")  # "\r\r\n": a file that was converted twice
_FIRST_LINE_END = re.compile(rb"\r\r?\n|\n|\r")
_NO_HEADER = re.compile(rb"\r?\r?\n")
_HEADER_END = re.compile(rb"\n\r?\r?\n")  # begins with an octet, so that the engine skips to the next of it
_CR_HEADER_END = re.compile(rb"(?:\A|\r\n|\n|\r(?!\n))(?:\r\n|\n|\r(?!\n))")
_FIELD = re.compile(r"^([!-9;-~]+)[ \t]*:(.*(?:\n++[ \t].*)*)", re.M)
_PART_HEADER_END = re.compile(rb"\n(?=\r?\n|--)")
_LINE = re.compile(rb"\r?\n")
_DASHES = re.compile(rb"^--([^\n]+)", re.M)
_MEDIA_TYPE = re.compile(r"\s*([^\s/;]+)\s*/\s*([^\s;]+)")
_PARAMETER = re.compile(r';\s*([^\s=;"]+)\s*=\s*(?:"([^"]*)"|([^;]*))')
_NO_BASE64 = re.compile(rb"[^A-Za-z0-9+/]+")

REPORT_TYPES = ("delivery-status", "disposition-notification", "feedback-report", "tlsrpt")
_REPORT_PARTS = {
    "delivery-status": "delivery-status", "global-delivery-status": "delivery-status",
    "disposition-notification": "disposition-notification",
    "global-disposition-notification": "disposition-notification", "feedback-report": "feedback-report",
}  # fmt: skip

Fields = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class ContentType:
    """A media type and its parameters, lower-case names; "text/plain" where a header says nothing readable."""

    name: str
    parameters: dict[str, str]

    @property
    def is_multipart(self) -> bool:
        """Say whether parts may follow."""
        return self.name.startswith("multipart/")


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a message, containers included, in the order in which they stand.

    Shape:   depth: 1 = a child of the message itself. raw_body: lines end in LF; still transfer-encoded.
    """

    content_type: ContentType
    fields: Fields
    raw_body: bytes
    depth: int

    def body(self) -> bytes:
        """Return the body with its transfer encoding undone, as far as it can be."""
        encoding = field(self.fields, "content-transfer-encoding").strip().lower()
        return transfer_decoded(self.raw_body, encoding)


@dataclass(frozen=True, slots=True)
class Span:
    """Where the body of a part stands, containers included. Shape: as `Part`; start, end: of the text it was found in."""

    content_type: ContentType
    fields: Fields
    start: int
    end: int
    depth: int


def split_header(raw: bytes) -> tuple[bytes, bytes, bool]:
    """Return the header block, the body, and whether the header's end was seen.

    Why:     an empty line ends a header. Where the first line ends in a bare CR, a bare CR ends every line.
    """
    first = _FIRST_LINE_END.search(raw)
    ends_in_cr = first is not None and first[0] == b"\r"
    end = _CR_HEADER_END.search(raw) if ends_in_cr else _NO_HEADER.match(raw) or _HEADER_END.search(raw)
    return (raw[: end.start()], raw[end.end() :], True) if end else (raw, b"", False)


def read_fields(block: bytes) -> Fields:
    """Return the fields of a header block: lower-case names and unfolded values, in order.

    Why:     garbage lines (and what is folded below them) are left out, the fields after them are not: a tag may be
             there. An mbox line is such garbage. Octets above 127 come as surrogates.
    """
    text = _with_lf(block).decode("ascii", "surrogateescape")
    return tuple((name.lower(), value.replace("\n", "").strip()) for name, value in _FIELD.findall(text))


def _with_lf(raw: bytes) -> bytes:
    if b"\r\r" in raw:
        return _LINE_END.sub(b"\n", raw)
    return raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n")  # the same, for nearly every mail, in a third of the time


def field(fields: Fields, name: str) -> str:
    """Return the topmost value of *name* (lower case), "" when there is none."""
    for each, value in fields:
        if each == name:
            return value
    return ""


def content_type(fields: Fields) -> ContentType:
    """Return the media type that the topmost Content-Type says, in the time that 2,000 octets of it take."""
    value = field(fields, "content-type")[:_MAX_CONTENT_TYPE]
    named = _MEDIA_TYPE.match(value)
    if not named:
        return ContentType("text/plain", {})
    pairs = ((match[1].lower(), (match[2] or match[3] or "").strip()) for match in _PARAMETER.finditer(value))
    return ContentType(f"{named[1]}/{named[2]}".lower(), dict(reversed(list(pairs))))


def parts(fields: Fields, body: bytes) -> list[Part]:
    """Return the parts of a multipart in order, at every depth, embedded messages closed; none for any other type.

    Why:     a list of open boundaries, innermost last, and one look at each line that begins with "--".
    """
    text = _with_lf(body)
    return [
        Part(each.content_type, each.fields, text[each.start : each.end], each.depth) for each in spans(fields, text)
    ]


def spans(fields: Fields, body: bytes) -> list[Span]:
    """Return where the parts stand in *body*, as `parts` orders them; its lines end in LF or CRLF."""
    whole = content_type(fields)
    boundary = _boundary(whole)
    return list(_walk(body, boundary)) if boundary else []


def _boundary(kind: ContentType) -> bytes:
    text = kind.parameters.get("boundary", "") if kind.is_multipart else ""
    return text.encode("ascii", "surrogateescape")


def _walk(text: bytes, outermost: bytes) -> Iterator[Span]:
    opened = [outermost]
    head: tuple[ContentType, Fields, int] | None = None  # of the part whose body begins at `position`
    position = 0
    for _ in range(MAX_PARTS):
        start, end, level, closes = _delimiter(text, position, opened)
        if head:
            yield Span(head[0], head[1], position, max(position, _before_line_end(text, start)), head[2])
        del opened[level if closes else level + 1 :]
        if not opened:
            return
        head, position = None, end
        if not closes:
            fields, position = _part_header(text, end)
            head = (content_type(fields), fields, level + 1)
            _open(head[0], opened)


def _before_line_end(text: bytes, start: int) -> int:
    """Return where the line before *start* ends: its line end belongs to the delimiter (RFC 2046 5.1.1)."""
    return start - 2 if text[start - 2 : start] == b"\r\n" else start - 1


def _delimiter(text: bytes, position: int, opened: list[bytes]) -> tuple[int, int, int, bool]:
    """Return where the next delimiter line starts and ends, its boundary's level, and whether it is the closing one."""
    for line in _DASHES.finditer(text, position):
        for boundary, closes in ((line[1].rstrip(), False), (line[1].rstrip().removesuffix(b"--"), True)):
            if boundary in opened:
                return line.start(), line.end(), opened.index(boundary), closes
    return len(text) + 1, len(text), 0, True


def _part_header(text: bytes, start: int) -> tuple[Fields, int]:
    end = _PART_HEADER_END.search(text, start)
    if not end:
        return read_fields(text[start:]), len(text)
    blank = _LINE.match(text, end.end())
    return read_fields(text[start : end.start()]), blank.end() if blank else end.end()


def _open(kind: ContentType, opened: list[bytes]) -> None:
    boundary = _boundary(kind)
    if boundary and boundary not in opened and len(opened) < MAX_DEPTH:
        opened.append(boundary)


def transfer_decoded(raw: bytes, encoding: str) -> bytes:
    """Return *raw* with base64 or quoted-printable undone; what is broken decodes as far as it goes.

    Example:
        >>> transfer_decoded(b"cGxl!YXNl", "base64"), transfer_decoded(b"a=3Db=\\n", "quoted-printable")
        (b'please', b'a=b')
    """
    if encoding == "quoted-printable":
        return binascii.a2b_qp(raw)
    if encoding == "base64":
        letters = _NO_BASE64.sub(b"", raw)
        whole = len(letters) - (len(letters) % 4 == 1)  # a single letter is no octet
        return binascii.a2b_base64(letters[:whole] + b"=" * (-whole % 4))
    return raw


def report_type(whole: ContentType, parts: list[Part]) -> str:
    """Return the kind of a machine's report, e.g. "delivery-status"; "" when it is none.

    Shape:   the report-type of a multipart/report, else the subtype of the first message/* part or of the message.
    Why:     only the first message/* part counts: what follows an embedded mail belongs to whoever forwarded it.
    """
    if whole.name == "multipart/report" and (named := whole.parameters.get("report-type", "").lower()) in REPORT_TYPES:
        return named
    names = [part.content_type.name for part in parts] if whole.is_multipart else [whole.name]
    first = next((name for name in names if name.startswith("message/")), "").removeprefix("message/")
    return _REPORT_PARTS.get(first, "")
