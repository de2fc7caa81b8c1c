"""A text part's octets as text, and text as octets of the same charset and transfer encoding again.

What cannot be decoded and encoded to the very same octets is read as ASCII, in which tags are written, with the rest kept
as it is: so nothing is lost in a charset that is named wrongly.

RFC: 2045 6.7 (quoted-printable), 6.8 (base64).
"""

import base64
import binascii
import re
from dataclasses import dataclass

from handlers import mime
from handlers.body import CHARSET
from handlers.mime import ContentType, Fields

_AS_IT_IS = ("", "7bit", "8bit", "binary")
_LINE_OCTETS = 76
_QUOTED = re.compile(rb"[^!-<>-~ \t]|[ \t]\Z")
_TOKEN = re.compile(rb"=[0-9A-F]{2}|.", re.S)
_LAST_LINE_END = re.compile(rb"(?:\r?\n)*\Z")


@dataclass(frozen=True, slots=True)
class Coded:
    """A part's text and how it is written.

    Shape:   transfer: its encoding, lower case. errors: as codecs know them. mark: how its encoded lines end. closing: the
             line ends after base64.
    """

    text: str
    transfer: str
    charset: str
    errors: str
    mark: bytes
    closing: bytes

    @property
    def line_end(self) -> str:
        """How lines of the text end."""
        if self.transfer == "base64" and "\n" not in self.text:
            return "\r\n"
        return "\r\n" if "\r\n" in self.text or ("\n" not in self.text and self.mark == b"\r\n") else "\n"

    def encoded(self, text: str) -> bytes:
        """Return *text* as this part writes it."""
        octets = text.encode(self.charset, self.errors)
        if self.transfer == "quoted-printable":
            return quoted(octets, self.mark)
        if self.transfer == "base64":
            letters = base64.b64encode(octets)
            lines = [letters[at : at + _LINE_OCTETS] for at in range(0, len(letters), _LINE_OCTETS)]
            return self.mark.join(lines) + self.closing
        return octets

    def fitting(self, text: str, *, is_html: bool) -> tuple[str, int]:
        """Return *text* as this part can write it, and how many characters were lost: HTML has references for them."""
        charset = "ascii" if self.transfer in ("", "7bit") or self.errors != "strict" else self.charset
        known = text.encode(charset, "xmlcharrefreplace" if is_html else "replace").decode(charset)
        return known, 0 if is_html else known.count("?") - text.count("?")


def decoded(raw_body: bytes, fields: Fields, kind: ContentType, mark: bytes) -> Coded | None:
    """Return the text of a part, or None where its transfer encoding is unknown or broken; *mark*: the mail's line end."""
    transfer = mime.field(fields, "content-transfer-encoding").strip().lower()
    octets = _octets(raw_body, transfer)
    if octets is None:
        return None
    if b"\n" in raw_body:
        mark = b"\r\n" if b"\r\n" in raw_body else b"\n"
    closing = found[0] if transfer == "base64" and (found := _LAST_LINE_END.search(raw_body)) else b""
    named = kind.parameters.get("charset", "us-ascii")
    for charset, errors in ((named, "strict"), ("ascii", "surrogateescape")):
        try:
            text = octets.decode(charset, errors) if CHARSET.fullmatch(charset) or charset == "ascii" else None
            if text is not None and text.encode(charset, errors) == octets:
                return Coded(text, transfer, charset, errors, mark, closing)
        except (LookupError, UnicodeError):
            continue
    return None


def _octets(raw_body: bytes, transfer: str) -> bytes | None:
    if transfer in _AS_IT_IS:
        return raw_body
    if transfer == "quoted-printable":
        return mime.transfer_decoded(raw_body, transfer)
    if transfer == "base64":
        try:
            return base64.b64decode(b"".join(raw_body.split()), validate=True)
        except binascii.Error:
            return None
    return None


def quoted(octets: bytes, mark: bytes) -> bytes:
    """Return *octets* in quoted-printable; each *mark* in them ends a line.

    Example:
        >>> quoted("größe = 1 ".encode("latin-1"), b"\\n")
        b'gr=F6=DFe =3D 1=20'
    """
    return mark.join(_quoted_line(line, mark) for line in octets.split(mark))


def _quoted_line(line: bytes, mark: bytes) -> bytes:
    written = _QUOTED.sub(lambda match: b"=%02X" % match[0][0], line)
    if len(written) <= _LINE_OCTETS:
        return written
    lines, current = [], bytearray()
    for token in _TOKEN.findall(written):
        if len(current) + len(token) > _LINE_OCTETS - 1:
            lines.append(bytes(current))
            current.clear()
        current += token
    return (b"=" + mark).join([*lines, bytes(current)])
