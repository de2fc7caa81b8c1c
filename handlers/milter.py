"""The milter protocol, version 6, as far as we speak it: packets of a length, a letter and data.

A mail server shows who sends (`MAIL`), to whom (`RCPT`), the headers, and the end of the mail; we say go on, no, or later,
and at the end which headers to add and which recipients to drop.

RFC: none; it is Sendmail's. MILTER_README of Postfix says what Postfix makes of it.
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from handlers.errors import PayloadInvalid

VERSION = 6
MAX_PACKET_BYTES = 1024 * 1024

# What the mail server says.
NEGOTIATE, MACROS, MAIL, RCPT, HEADER, END, ABORT, QUIT, NEW_CONNECTION = (
    b"O", b"D", b"M", b"R", b"L", b"E", b"A", b"Q", b"K",
)  # fmt: skip
# What we say.
CONTINUE, ACCEPT, DISCARD, LATER = (struct.pack("!Ic", 1, letter) for letter in (b"c", b"a", b"d", b"t"))

_ADD_HEADERS, _DELETE_RECIPIENTS, _CHANGE_HEADERS, _NAME_MACROS = 0x01, 0x08, 0x10, 0x100
_ACTIONS = _ADD_HEADERS | _DELETE_RECIPIENTS | _CHANGE_HEADERS
# Of the steps of a mail we need not see connect, HELO, body, end of headers, unknown commands and DATA; headers need no
# answer each.
_UNSEEN = 0x01 | 0x02 | 0x10 | 0x40 | 0x100 | 0x200
_SILENT_HEADERS = 0x80
_STAGE_MAIL = 2
USER, PORT = "{auth_authen}", "{daemon_port}"


@dataclass(frozen=True, slots=True)
class Terms:
    """What both sides agreed on. Shape: answers_headers: each header wants an answer."""

    reply: bytes
    answers_headers: bool


def terms(data: bytes) -> Terms:
    """Return our side of the negotiation that *data* opens.

    Errors:  PayloadInvalid  too old a mail server, or one that forbids what we are for.    permanent
    """
    if len(data) < 12:
        raise PayloadInvalid(f"milter negotiation of {len(data)} octets: expected at least 12")
    version, actions, steps = struct.unpack("!III", data[:12])
    if version < 2 or actions & _ACTIONS != _ACTIONS:
        raise PayloadInvalid(
            f"milter protocol {version} with actions {actions:#x}: expected 2 or newer, and {_ACTIONS:#x}"
        )
    ours = struct.pack(
        "!III", min(version, VERSION), _ACTIONS | actions & _NAME_MACROS, steps & (_UNSEEN | _SILENT_HEADERS)
    )
    if actions & _NAME_MACROS:
        ours += struct.pack("!I", _STAGE_MAIL) + f"{USER} {PORT}".encode() + b"\0"
    return Terms(packet(NEGOTIATE, ours), not steps & _SILENT_HEADERS)


def packet(letter: bytes, data: bytes) -> bytes:
    """Return the octets of one packet."""
    return struct.pack("!Ic", len(data) + 1, letter) + data


def texts(data: bytes) -> list[str]:
    """Return the strings of *data*, each ended by NUL.

    Example:
        >>> texts(b"List-Unsubscribe\\0<mailto:x>\\0")
        ['List-Unsubscribe', '<mailto:x>']
    """
    return [text.decode("utf-8", "replace") for text in data.split(b"\0")[:-1]]


def macros(data: bytes) -> Mapping[str, str]:
    """Return the macros of a packet, whichever command they are for."""
    words = texts(data[1:])
    return dict(zip(words[::2], words[1::2], strict=False))


def path(data: bytes) -> str:
    """Return the address of MAIL or RCPT, "" for `<>`.

    Errors:  PayloadInvalid  there is none.    permanent
    """
    words = texts(data)
    if not words:
        raise PayloadInvalid("milter MAIL or RCPT: expected an address")
    return words[0].removeprefix("<").removesuffix(">")


def said(reply: str) -> bytes:
    """Return the packet that makes the mail server answer *reply*, an SMTP reply without "%"."""
    return packet(b"y", reply.encode() + b"\0")


def add_header(name: str, value: str) -> bytes:
    """Return the packet that adds a header at the end; a fold is LF and white space."""
    return packet(b"h", name.encode() + b"\0" + value.replace("\r\n", "\n").encode() + b"\0")


def delete_headers(name: str, count: int) -> Iterator[bytes]:
    """Yield the packets that take every header of a name out, last first: each leaves the numbers of the others alone."""
    for number in range(count, 0, -1):
        yield packet(b"m", struct.pack("!I", number) + name.encode() + b"\0\0")


def delete_recipient(address: str) -> bytes:
    """Return the packet that drops a recipient, spelt as the mail server spelt it."""
    return packet(b"-", f"<{address}>".encode() + b"\0")


OPENING = packet(NEGOTIATE, struct.pack("!III", VERSION, 0x1FF, 0x1FFFFF))
"""The first packet of a mail server that can do everything."""
