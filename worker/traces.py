"""Where one address is spelled, in whatever mail and programs make of it, and nobody else's that looks alike.

"ann@example.com" is not in "joann@example.com", nor in "ann@example.com.au": their owners forgot nothing. Where the two
cannot be told ("-ann_example.com" behind a digit may be a tag's end), it counts as spelled.
Limits:  a single word of base64 and MIME's own encodings are opened, pictures and archives are not.
"""

import base64
import binascii
import html
import re
import unicodedata
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import unquote

from handlers import message, mime
from handlers.address import canonical, split
from handlers.errors import AddressError

GONE = "(forgotten)"
_MAX_EMBEDDED = 5
_MAX_BEFORE = 70  # a local part has 64 octets
_WORD, _VERP_WORD = re.compile(r"[\w.-]*\Z"), re.compile(r"[\w.]*\Z")
_ESCAPE_BEFORE = re.compile(r"[%=][0-9a-f]{2}\Z")
_TAG_BEFORE = re.compile(r"(?:\A|[^a-z0-9])[0-9]{1,10}-\Z")
_MORE_DOMAIN = re.compile(r"[^\W_]|[.-][^\W_]")
_BASE64 = re.compile(r"[A-Za-z0-9+/]{12,}|[A-Za-z0-9_-]{12,}")
Names = Callable[[str, str], str]


class Traces:
    """One address. Shape: recipient: canonical. names: `ForgottenNames`."""

    def __init__(self, recipient: str, names: Names) -> None:
        self.recipient = recipient
        self._names = names
        local_part, domain = split(recipient)
        self._plain = tuple({f"{local_part}@{domain}", f"{local_part}@{_unicode(domain)}"})
        self._in_tag, self._in_verp = f"{local_part}_{domain}", f"{local_part}={domain}"
        in_base32 = base64.b32encode(recipient.encode("utf-8", "surrogateescape")).decode().rstrip("=").lower()
        self._in_base32 = re.compile(rf"(?<![a-z2-7]){in_base32}(?![a-z2-7])")

    def are_in(self, value: Any) -> bool:
        """Say whether a text, octets, or JSON values spell the address."""
        if isinstance(value, dict):
            return any(self.are_in(each) for pair in value.items() for each in pair)
        if isinstance(value, list | tuple):
            return any(self.are_in(each) for each in value)
        if isinstance(value, bytes):
            value = value.decode("utf-8", "surrogateescape")
        return isinstance(value, str) and any(self._spelled_in(each) for each in _undone(value))

    def are_in_mail(self, raw: bytes) -> bool:
        """Say whether a mail, or its beginning, spells the address, however it is encoded."""
        return any(self.are_in(each) for each in _looks(raw))

    def without(self, value: Any) -> Any:
        """Return JSON values of a job with the name in the place of the address, and nothing where no name can be."""
        if isinstance(value, list):
            return [self.without(each) for each in value]
        if isinstance(value, dict):
            return {name: self.without(each) for name, each in value.items()} | self._named(value)
        return GONE if isinstance(value, str) and self.are_in(value) else value

    def _named(self, request: dict[str, Any]) -> dict[str, str]:
        sender, recipient = request.get("sender"), request.get("recipient")
        if not (isinstance(sender, str) and isinstance(recipient, str) and _canonical(recipient) == self.recipient):
            return {}
        return {"recipient": self._names(sender, self.recipient)}

    def _spelled_in(self, text: str) -> bool:
        text = text.lower()
        if not text.isascii():
            text = unicodedata.normalize("NFC", text)
        return (
            any(_stands_in(text, each, _WORD) for each in self._plain)
            or _stands_in(text, self._in_tag, _WORD, _TAG_BEFORE)
            or _stands_in(text, self._in_verp, _VERP_WORD)
            or bool(self._in_base32.search(text))
        )


def _stands_in(text: str, spelled: str, word: re.Pattern[str], starter: re.Pattern[str] = _ESCAPE_BEFORE) -> bool:
    """Say whether *spelled* is in a text, neither as the end of a longer *word* nor as the beginning of a longer domain."""
    start = text.find(spelled)
    while start >= 0:
        before, end = text[max(0, start - _MAX_BEFORE) : start], start + len(spelled)
        longer = any(letter.isalnum() for letter in word.search(before)[0])  # type: ignore[index]  # it matches nothing, too
        starts = not longer or starter.search(before) or _ESCAPE_BEFORE.search(before)
        if starts and not _MORE_DOMAIN.match(text, end):
            return True
        start = text.find(spelled, start + 1)
    return False


def _undone(text: str) -> Iterator[str]:
    """Yield a text, and what it says once a URL's, HTML's or base64's escapes are undone."""
    yield text
    if "%" in text:
        yield unquote(text)
    if "&" in text:
        yield html.unescape(text)
    for word in _BASE64.findall(text):
        yield _from_base64(word)


def _from_base64(word: str) -> str:
    letters = word.replace("-", "+").replace("_", "/")
    whole = len(letters) - (len(letters) % 4 == 1)
    return binascii.a2b_base64(letters[:whole] + "=" * (-whole % 4)).decode("utf-8", "surrogateescape")


def _looks(raw: bytes, depth: int = 0) -> Iterator[str | bytes]:
    """Yield a mail as it came, its headers and its parts as they read, and the mails within it."""
    yield raw
    yield binascii.a2b_qp(raw)  # whatever it says of its encoding, and wherever it was cut
    block, body, _ = mime.split_header(raw)
    fields = mime.read_fields(block)
    yield from (message.decoded(value) for _, value in fields)
    encoding = mime.field(fields, "content-transfer-encoding").strip().lower()
    bodies = [(mime.content_type(fields).name, mime.transfer_decoded(body, encoding))]
    for part in mime.parts(fields, body):
        yield from (message.decoded(value) for _, value in part.fields)
        bodies.append((part.content_type.name, part.body()))
    for name, content in bodies:
        if name.startswith("message/") and depth < _MAX_EMBEDDED:
            yield from _looks(content, depth + 1)
        else:
            yield content


def _canonical(address: str) -> str:
    try:
        return canonical(address)
    except AddressError:
        return ""


def _unicode(domain: str) -> str:
    import idna

    try:
        return idna.decode(domain)
    except idna.IDNAError:
        return domain
