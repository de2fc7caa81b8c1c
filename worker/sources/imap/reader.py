"""Bytes as they come off the socket -> whole responses. Pure: no socket, so that every way of cutting can be tested.

aioimaplib's own loop calls itself once a line (1,000 lines in one read end it) and looks at everything again for each
line. This one looks at each octet once, keeps a literal apart from the text around it, and has bounds.

RFC: 3501 section 4.3 (literals), 7 (responses).
"""

import re
from collections.abc import Iterator

MAX_LINE_OCTETS = 16 * 1024 * 1024  # one SEARCH answer of two million UIDs
MAX_LITERAL_OCTETS = 1024 * 1024  # four times the most that is ever asked for
MAX_RESPONSE_OCTETS = 20 * 1024 * 1024

_LITERAL = re.compile(rb"\{(\d{1,20})\}\Z")
# Their text is free: "{5}" at its end announces nothing.
_STATUS = re.compile(rb"(?:\*|[A-Za-z0-9]+) (?:OK|NO|BAD|BYE|PREAUTH)\b|\+", re.IGNORECASE)

Part = bytes | bytearray


class Garbage(Exception):
    """What came is no IMAP, or more of it than anybody asked for: the connection is of no use any more."""


class ResponseReader:
    """One connection's incoming bytes."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._scanned = 0
        self._parts: list[Part] = []
        self._size = 0
        self._literal: bytearray | None = None
        self._missing = 0

    def feed(self, data: bytes) -> Iterator[list[Part]]:
        """Take what was read and yield each response it completes: text as bytes, literals as bytearray, in order.

        Errors:  Garbage  a line, a literal or a response beyond its bound.
        """
        self._buffer += data
        start = 0
        while True:
            if self._literal is not None:
                start = self._take_literal(start)
                if self._missing:
                    break
                self._parts.append(self._literal)
                self._literal = None
            end = self._buffer.find(b"\r\n", max(start, self._scanned))
            if end < 0:
                break
            line = bytes(self._buffer[start:end])
            start = self._scanned = end + 2
            if not self._announces_literal(line):
                parts, self._parts, self._size = self._parts, [], 0
                yield parts
        del self._buffer[:start]
        self._scanned = max(0, len(self._buffer) - 1)  # a CR may wait for its LF
        if len(self._buffer) > MAX_LINE_OCTETS:
            raise Garbage(f"a line of more than {MAX_LINE_OCTETS} octets")

    def _take_literal(self, start: int) -> int:
        assert self._literal is not None
        piece = self._buffer[start : start + self._missing]
        self._literal += piece
        self._missing -= len(piece)
        return start + len(piece)

    def _announces_literal(self, line: bytes) -> bool:
        self._parts.append(line)
        self._size += len(line)
        match = _LITERAL.search(line) if line.endswith(b"}") else None
        if match is None or (len(self._parts) == 1 and _STATUS.match(line)):
            return False
        size = int(match[1])
        self._size += size
        if size > MAX_LITERAL_OCTETS or self._size > MAX_RESPONSE_OCTETS:
            raise Garbage(f"a literal of {size} octets, expected at most {MAX_LITERAL_OCTETS}")
        self._literal, self._missing = bytearray(), size
        return True
