"""Raw bytes become an `InboundMessage`: what arrived, whatever the source, in bounded time and memory.

Headers first, read by `handlers.mime`: the tag is in them. mail-parser is 12 times slower and is asked only where a
body matters (`read_text`).

Limits: at most `MAX_LOOK_BYTES` of a message are ever looked at, each of them a fixed number of times; whatever they
are, reading and deciding stay under 2 seconds and 100 MB (tests/fuzz measures both).

RFC: 5322 (format), 3834, 8058; the order of the recipient headers is that of who writes them: our side first.
"""

import email.errors
import email.header
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, wraps
from hashlib import sha256
from typing import TypeVar

import mailparser

from handlers import mime

FIRST_LOOK_BYTES = 8192
MAX_LOOK_BYTES = 262144
_KEY_BODY_BYTES = 4096
_MAX_UNTAGGED = 1000
_TEXT_BYTES = 8192  # a mail client's line stands at the beginning; mail-parser is quadratic in hostile headers
_MAX_PARSED = 2048  # of a header that mail-parser gets
_BEFORE_TO = ("x-original-to", "delivered-to", "envelope-to", "x-envelope-to", "x-rcpt-to", "x-forwarded-to")
_WRITTEN_BY_AUTHOR = ("to", "cc", "resent-to", "apparently-to")
# Each pattern runs in linear time over hostile text: no repeated class is followed by what it also matches.
_ENCODED_WORDS = re.compile(r"(?:=\?[^?\s]+\?[bBqQ]\?[^?]*\?=(?:\s+(?==\?))?){1,64}")
_SLOW_CHARSET = re.compile(r"=\?[^?]*(?:punycode|idna)", re.I)  # quadratic, and no mail is written in them
_MAY_BE_TAGGED = re.compile(r"(?:[ab][a-z2-7]{13}(?:-|%2d)|h[a-z2-7]{26})", re.I)
_ONE_PLAIN = re.compile(r"[a-z0-9_+=.-]+@[a-z0-9-]+(?:\.[a-z0-9-]+)*", re.I | re.A)
_BRACKETED = re.compile(r"<([^<>]*)>")
_BETWEEN_ADDRESSES = re.compile(r"[,;]")
_BRACKETS = re.compile(r"[\[\]]")
_BETWEEN_WORDS = re.compile(r"[\s<>,;\"()]+")
_RECEIVED_FOR = re.compile(r"\bfor\s+<([^<>\s]+)>")
_HTML_TAG = re.compile(r"<[^<>]*>")
_ByName = dict[str, list[str]]


@dataclass(frozen=True, slots=True)
class Candidate:
    """An address that may carry a tag, and where it stood ("envelope", or a header's name)."""

    where: str
    address: str


@dataclass(frozen=True)  # without slots: what deciding asks for again and again is read once
class InboundMessage:
    """What arrived.

    Shape:   key: 64 hex digits, see `read`. raw: what was looked at, exact bytes. headers: lower-case names, unfolded
             values in order. body: what stands below them, as far as it was looked at. envelope_to: SMTP RCPT TO, None =
             not told. envelope_from: "" = null sender, None = not told. candidates: in the order of trust, each once.
    Units:   received_ms: a time that the author could not write (INTERNALDATE, a signed timestamp), ms UTC; else None.
    """

    key: str
    source: str
    raw: bytes
    size_bytes: int
    headers: mime.Fields
    envelope_to: str | None
    envelope_from: str | None
    candidates: tuple[Candidate, ...]
    received_ms: int | None
    header_complete: bool
    body: bytes

    @cached_property
    def _by_name(self) -> _ByName:
        # Deciding asks for some fifty names; a hostile header has 80,000 fields.
        return _grouped(self.headers)

    @cached_property
    def content_type(self) -> mime.ContentType:
        """Return the media type of the whole, as `mime.content_type`."""
        return mime.content_type(self.headers)

    @cached_property
    def parts(self) -> list[mime.Part]:
        """Return the parts of a multipart, as `mime.parts`."""
        return mime.parts(self.headers, self.body) if self.content_type.is_multipart else []

    @property
    def truncated(self) -> bool:
        """Say whether there is more of the message than was looked at."""
        return len(self.raw) < self.size_bytes

    def values(self, name: str) -> list[str]:
        """Return every value of the header *name* (lower case), topmost first."""
        return list(self._by_name.get(name, ()))

    def value(self, name: str) -> str:
        """Return the topmost value of the header *name*, "" when there is none."""
        found = self._by_name.get(name)
        return found[0] if found else ""

    def named(self, names: Iterable[str]) -> list[str]:
        """Return those of *names*, in their order, that `value` is not empty of."""
        by_name = self._by_name
        return [name for name in names if name in by_name and by_name[name][0]]

    def text(self, name: str) -> str:
        """Return the topmost value of *name* with its encoded words decoded."""
        return decoded(self.value(name))


Fact = TypeVar("Fact")


def once(fact: Callable[[InboundMessage], Fact]) -> Callable[[InboundMessage], Fact]:
    """Work out a fact of a message at the first asking only: it does not change, and the order of decision asks again.

    Shape:   fact: pure; what it returns is not to be changed.
    """
    name = f"{fact.__module__}.{fact.__qualname__}"

    @wraps(fact)
    def known(message: InboundMessage) -> Fact:
        facts = message.__dict__
        if name not in facts:
            facts[name] = fact(message)
        found: Fact = facts[name]
        return found

    return known


def read(
    raw: bytes,
    *,
    source: str,
    envelope_to: str | None = None,
    envelope_from: str | None = None,
    received_ms: int | None = None,
    size_bytes: int | None = None,
) -> InboundMessage:
    """Return what *raw* says. Never raises, whatever the bytes are.

    Shape:   raw: a message or its beginning; size_bytes: of the whole message, when raw is only its beginning.
    Repeat:  the key depends on Message-ID, Date, From, Subject and the candidate recipients (and on the body's first
             4 KB when there is no Message-ID): never on source, folder or how much was fetched.
    """
    size = max(size_bytes or 0, len(raw))
    raw = raw[:MAX_LOOK_BYTES]
    header_block, body, complete = mime.split_header(raw)
    headers = mime.read_fields(header_block)
    by_name = _grouped(headers)
    candidates = distinct(_named_addresses(by_name, envelope_to))
    message = InboundMessage(
        key=_message_key(by_name, candidates, body),
        source=source,
        raw=raw,
        size_bytes=size,
        headers=headers,
        envelope_to=envelope_to,
        envelope_from=_return_path(headers) if envelope_from is None else envelope_from.strip("<> "),
        candidates=candidates,
        received_ms=received_ms,
        header_complete=complete or len(raw) >= size,
        body=body,
    )
    message.__dict__["_by_name"] = by_name  # where a cached_property keeps what it found
    return message


def decoded(value: str) -> str:
    """Return a header's *value* with RFC 2047 encoded words decoded; what cannot be decoded stays as it came."""
    return value if _is_plain(value) else _ENCODED_WORDS.sub(_decoded_words, _utf8(value))


def _decoded_words(words: re.Match[str]) -> str:
    if _SLOW_CHARSET.search(words[0]):
        return words[0]
    try:
        return str(email.header.make_header(email.header.decode_header(words[0])))
    except (LookupError, ValueError, email.errors.MessageError):  # unknown charset, broken octets, broken base64
        return words[0]


def _utf8(value: str) -> str:
    # The header parser hands octets above 127 on as surrogates; since RFC 6532 they are UTF-8.
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _return_path(headers: mime.Fields) -> str | None:
    for name, value in headers:
        if name == "received":
            return None  # below the first trace line it is the author's own claim
        if name == "return-path" and value:
            return value.strip("<> ")
    return None


def distinct(named: Iterable[tuple[str, str]]) -> tuple[Candidate, ...]:
    """Return each address once, where it stood first, of (where, address) pairs.

    Why:     an address that may carry a tag is never left out; of the others, which only make the key and the evidence,
             the first 1,000 stay.
    """
    found: dict[str, Candidate] = {}
    for where, address in named:
        if len(found) < _MAX_UNTAGGED or _MAY_BE_TAGGED.search(address):
            found.setdefault(address.lower(), Candidate(where, address))
    return tuple(found.values())


def _grouped(headers: mime.Fields) -> _ByName:
    by_name: _ByName = {}
    for name, value in headers:
        by_name.setdefault(name, []).append(value)
    return by_name


def _named_addresses(by_name: _ByName, envelope_to: str | None) -> Iterator[tuple[str, str]]:
    if envelope_to:
        yield "envelope", envelope_to.strip("<> ")
    yield from _addresses_of(by_name, _BEFORE_TO)
    for value in by_name.get("received", [])[:1]:
        yield from (("received", address) for address in _RECEIVED_FOR.findall(value) if "@" in address)
    yield from _addresses_of(by_name, _WRITTEN_BY_AUTHOR)


def _addresses_of(by_name: _ByName, names: Iterable[str]) -> Iterator[tuple[str, str]]:
    for name in names:
        for value in by_name.get(name, ()):
            for address in addresses(value):
                yield name, address


def addresses(value: str) -> Iterator[str]:
    """Yield whatever in a header's value may be an address, damaged ones included.

    Why:     the standard parsers lose `<mailto:x@d>`, encoded words and local parts with a space; the MAC decides later.
    """
    if _ONE_PLAIN.fullmatch(value):
        yield value
        return
    for text in (value,) if _is_plain(value) else dict.fromkeys((_utf8(value), decoded(value))):
        for piece in _BETWEEN_ADDRESSES.split(text):
            if "@" in piece:
                yield next((inside for inside in _BRACKETED.findall(piece) if "@" in inside), piece).strip()
        yield from _loose_addresses(text)


def _is_plain(value: str) -> bool:
    return value.isascii() and "=?" not in value


def _loose_addresses(text: str) -> Iterator[str]:
    for word in _BETWEEN_WORDS.split(text):
        local_part, at, domain = word.rpartition("@")
        if at and domain and (bare := _BRACKETS.split(local_part)[-1]):
            yield f"{bare}@{domain.rstrip('.')}"


def _message_key(by_name: _ByName, candidates: tuple[Candidate, ...], body: bytes) -> str:
    parts = [by_name.get(name, ("",))[0] for name in ("message-id", "date", "from", "subject")]
    parts += [candidate.address.lower() for candidate in candidates]
    # A provider's JSON and odd charsets yield lone surrogates of every kind: "surrogateescape" would raise.
    digest = sha256("\0".join(parts).encode("utf-8", "surrogatepass"))
    if not parts[0]:
        digest.update(b"\0" + _with_lf(body)[:_KEY_BODY_BYTES])
    return digest.hexdigest()


def _with_lf(body: bytes) -> bytes:
    # A file in a Maildir ends its lines with LF, the same mail by IMAP with CRLF: it must keep its key.
    return body.replace(b"\r\n", b"\n")


def key_is_final(message: InboundMessage) -> bool:
    """Say whether fetching more of the message could change its key."""
    if not message.truncated:
        return True
    if not message.header_complete:
        return len(message.raw) >= MAX_LOOK_BYTES
    return bool(message.value("message-id")) or len(_with_lf(message.body).removesuffix(b"\r")) >= _KEY_BODY_BYTES


def read_text(message: InboundMessage) -> str:
    """Return the first plain text of the body, for recognising a client and for people; "" when there is none.

    Why:     a body only adds a hint to a verified tag; what mail-parser refuses (deep nesting) must not stop a request.
    """
    names = ("content-type", "content-transfer-encoding")
    headers = "".join(f"{name}: {message.value(name)[:_MAX_PARSED]}\n" for name in names if message.value(name))
    body = message.body[:_TEXT_BYTES]
    try:
        parsed = mailparser.parse_from_bytes(headers.encode("utf-8", "surrogateescape") + b"\n" + body)
    except Exception:  # noqa: BLE001 - a foreign parser over hostile bytes
        return ""
    return "\n".join(parsed.text_plain) or "\n".join(_HTML_TAG.sub(" ", part) for part in parsed.text_html)
