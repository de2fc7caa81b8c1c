"""Forms without decoding, multipart and urlencoded: bytes in, bytes out.

Why:     form parsers of web frameworks turn non-UTF-8 octets of a raw message into U+FFFD; a callback parser does not.
"""

from email.message import Message
from typing import Any
from urllib.parse import unquote_to_bytes

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser

from handlers.errors import PayloadInvalid
from handlers.providers.webhook import Headers, content_type

_MAX_FIELDS = 500
_UNQUOTED_AT_ONCE = 65536  # unquote_to_bytes makes an object of every escape
_MAX_CONTENT_TYPE = 1000  # the standard library reads parameters in quadratic time


def read_form(headers: Headers, body: bytes) -> list[tuple[str, bytes]]:
    """Return the fields of *body* in order, names as latin-1 text, values as exact bytes.

    Shape:   multipart where Content-Type says so, else urlencoded.
    Errors:  PayloadInvalid  a broken multipart body, or more than 500 fields.    permanent
    """
    kind = content_type(headers)
    return _multipart(kind, body) if kind.strip().lower().startswith("multipart/") else _urlencoded(body)


def read_multipart(content_type: str, body: bytes) -> dict[str, bytes]:
    """Return the fields of *body*, exact bytes; of a repeated name the first.

    Errors:  PayloadInvalid  no boundary, a broken or unfinished body, or more than 500 fields.    permanent
    """
    return dict(reversed(_multipart(content_type, body)))


def _urlencoded(body: bytes) -> list[tuple[str, bytes]]:
    if body.count(b"&") >= _MAX_FIELDS:
        raise PayloadInvalid(f"form body: expected at most {_MAX_FIELDS} fields")
    pairs = (each.partition(b"=") for each in body.split(b"&") if each)
    return [(_unquoted(name).decode("latin-1"), _unquoted(value)) for name, _, value in pairs]


def _unquoted(quoted: bytes) -> bytes:
    """Undo the encoding piece by piece, no escape cut in two: an object per escape would be 20 times the body."""
    text = quoted.replace(b"+", b" ")
    found, start = bytearray(), 0
    while start < len(text):
        end = start + _UNQUOTED_AT_ONCE
        cut = text.rfind(b"%", end - 2, end)
        end = cut if cut > start and end < len(text) else end
        found += unquote_to_bytes(text[start:end])
        start = end
    return bytes(found)


def _multipart(content_type: str, body: bytes) -> list[tuple[str, bytes]]:
    header = Message()
    header["Content-Type"] = content_type[:_MAX_CONTENT_TYPE].encode("latin-1", "replace").decode("ascii", "replace")
    boundary = header.get_param("boundary")
    if not isinstance(boundary, str) or not boundary:
        raise PayloadInvalid("multipart body: expected a boundary in Content-Type")
    collector = _Collector()
    try:
        parser = MultipartParser(boundary.encode("latin-1"), collector.callbacks())
        parser.write(body)
        parser.finalize()
    except PayloadInvalid:
        raise
    except (FormParserError, UnicodeError, ValueError) as error:
        raise PayloadInvalid(f"multipart body of {len(body)} octets: {type(error).__name__}") from error
    if not collector.ended:
        raise PayloadInvalid(f"multipart body of {len(body)} octets: its last boundary is missing")
    return collector.fields


class _Collector:
    """Gathers what the parser calls out; holds the part that is being read."""

    def __init__(self) -> None:
        self.fields: list[tuple[str, bytes]] = []
        self._count = 0
        self.ended = False
        self._name, self._value, self._data = bytearray(), bytearray(), bytearray()
        self._field = ""

    def callbacks(self) -> Any:
        return {
            "on_part_begin": self._begin, "on_header_field": self._header_field, "on_header_value": self._header_value,
            "on_header_end": self._header_end, "on_part_data": self._part_data, "on_part_end": self._part_end,
            "on_end": self._end,
        }  # fmt: skip

    def _begin(self) -> None:
        self._count += 1
        if self._count > _MAX_FIELDS:
            raise PayloadInvalid(f"multipart body: expected at most {_MAX_FIELDS} fields")
        self._data, self._field = bytearray(), ""

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._name.lower() == b"content-disposition":
            header = Message()
            header["Content-Disposition"] = self._value.decode("latin-1").replace("\n", " ").replace("\r", " ")
            name = header.get_param("name", header="content-disposition")
            self._field = name if isinstance(name, str) else ""
        self._name, self._value = bytearray(), bytearray()

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        self._data += data[start:end]

    def _part_end(self) -> None:
        self.fields.append((self._field, bytes(self._data)))

    def _end(self) -> None:
        self.ended = True
