"""multipart/form-data without decoding: bytes in, bytes out.

Why:     form parsers of web frameworks turn non-UTF-8 octets of a raw message into U+FFFD; a callback parser does not.
"""

from email.message import Message
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser

from handlers.errors import PayloadInvalid

_MAX_FIELDS = 500
_MAX_CONTENT_TYPE = 1000  # the standard library reads parameters in quadratic time


def read_multipart(content_type: str, body: bytes) -> dict[str, bytes]:
    """Return the fields of *body*, exact bytes; of a repeated name the first.

    Errors:  PayloadInvalid  no boundary, a broken or unfinished body, or more than 500 fields.    permanent
    """
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
        self.fields: dict[str, bytes] = {}
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
        self.fields.setdefault(self._field, bytes(self._data))

    def _end(self) -> None:
        self.ended = True
