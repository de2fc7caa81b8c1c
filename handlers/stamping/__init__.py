"""Stamping: one recipient's mail gets its headers, and its links where substitution tags stand.

    draft = stamping.draft(raw)             what the mail holds, and which links it wants
    draft.stamped(lines, links).raw         the mail with them

Bytes are cut and joined, nothing is written anew but the parts in which something was replaced, in their own charset and
transfer encoding. Signed and encrypted parts stay as they are, and so does what hangs on the mail as an attachment. Where
no tag stands in a kind of text (plain, HTML), the sender's footer ends its first part.

RFC: 5322 (header), 2045, 2046 (through `handlers.mime`), 2369 (one List-Unsubscribe), 1847 and 8551 (what is signed).
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.utils import getaddresses

from handlers import mime
from handlers.errors import Rejected
from handlers.headers import Lines, folded
from handlers.mime import ContentType, Fields
from handlers.stamping.coding import Coded, decoded
from handlers.stamping.substitution import Link, Tags

__all__ = ["Draft", "Link", "Stamped", "draft"]
_SEALED = {
    "multipart/signed": "signed", "multipart/encrypted": "encrypted", "application/pkcs7-mime": "signed or encrypted",
    "application/x-pkcs7-mime": "signed or encrypted",
}  # fmt: skip
_INLINE_PGP = re.compile(r"^-----BEGIN PGP (SIGNED )?MESSAGE-----\s*$", re.M)
_OURS = re.compile(rb"^List-Unsubscribe(?:-Post)?[ \t]*:[^\n]*\n(?:[ \t][^\n]*\n)*", re.M | re.I)
_BARE_CR = re.compile(rb"[^\r\n]*\r(?!\n)")
_ENDS = (re.compile(r"</body\s*>", re.I), re.compile(r"</html\s*>", re.I))
_MAX_LINE = 998


@dataclass(frozen=True, slots=True)
class Stamped:
    """A stamped mail. Shape: replaced: tags that became links. footers: parts that got one. warnings: what to know."""

    raw: bytes
    replaced: int
    footers: int
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Leaf:
    """A part whose text may change. Shape: start, end: of its encoded body in the mail. footer: what it gets, or ""."""

    start: int
    end: int
    coded: Coded
    is_html: bool
    footer: str = ""


@dataclass(frozen=True, slots=True)
class Draft:
    """A mail as it came, looked at. Shape: wanted: the links that its tags and footers need."""

    raw: bytes
    fields: Fields
    wanted: frozenset[Link]
    _leaves: tuple[_Leaf, ...]
    _tags: Tags
    _sealed: tuple[str, ...]

    def recipient(self) -> str:
        """Return the one address in To, Cc and Bcc.

        Errors:  Rejected  none, or several: they would share a tag.    permanent
        """
        named = [_text(value) for name, value in self.fields if name in ("to", "cc", "bcc")]
        found = {address for _, address in getaddresses(named) if address}
        if len(found) != 1:
            raise Rejected(f"the mail: {len(found)} addresses in To, Cc and Bcc, expected one, or --recipient")
        return found.pop()

    def stamped(self, lines: Lines, links: Mapping[Link, str]) -> Stamped:
        """Return the mail with these headers and links.

        Shape:   links: at least those `wanted`.
        Repeat:  stamped again, it gets its headers anew instead of twice; its tags are links by then.
        """
        head, rest = _cut(self.raw)
        bare, before = _OURS.subn(b"", head)
        warnings = [*self._sealed, *_on_headers(self.fields, before)]
        line_end = "\r\n" if b"\r\n" in head else "\n"
        added = "".join(folded(name, value, line_end) + line_end for name, value in lines).encode("ascii")
        pieces, position, replaced, footers = [bare, added], len(self.raw) - len(rest), 0, 0
        for leaf in self._leaves:
            text, count = self._tags.replaced(leaf.coded.text, links, is_html=leaf.is_html)
            if leaf.footer:
                footer, lost = leaf.coded.fitting(
                    self._tags.replaced(leaf.footer, links, is_html=leaf.is_html)[0], is_html=leaf.is_html
                )
                text, footers = _with_footer(text, footer, leaf), footers + 1
                warnings += [f"footer: {lost} characters do not fit the charset of its part"] if lost else []
            content = leaf.coded.encoded(text) if count or leaf.footer else self.raw[leaf.start : leaf.end]
            warnings += _on_lines(self.raw[leaf.start : leaf.end], content)
            pieces += [self.raw[position : leaf.start], content]
            position, replaced = leaf.end, replaced + count
        return Stamped(b"".join([*pieces, self.raw[position:]]), replaced, footers, tuple(warnings))


def draft(raw: bytes, *, custom: str = "", footer_text: str = "", footer_html: str = "") -> Draft:
    """Look at a mail that is to be sent.

    Shape:   custom: a substitution tag of the sender's own. footers: may hold tags themselves; "" = none.
    Errors:  Rejected  no mail: no header, or bare CR line ends; a custom tag that is too short.    permanent
    """
    block, body, _ = mime.split_header(raw)
    fields = mime.read_fields(block)
    if not fields or _BARE_CR.match(raw):
        raise Rejected("the mail: has no header whose lines end in CRLF or LF, expected RFC 5322")
    tags = Tags(custom)
    leaves, sealed = _leaves(fields, raw, len(raw) - len(body))
    with_footers = tuple(_footed(leaves, tags, {False: footer_text, True: footer_html}))
    texts = [(text, leaf.is_html) for leaf in with_footers for text in (leaf.coded.text, leaf.footer)]
    wanted = frozenset(link for text, is_html in texts for link in tags.wanted(text, is_html=is_html))
    return Draft(raw, fields, wanted, with_footers, tags, tuple(sealed))


def _leaves(fields: Fields, raw: bytes, start: int) -> tuple[list[_Leaf], list[str]]:
    found: list[_Leaf] = []
    sealed: list[str] = []
    mark = b"\r\n" if b"\r\n" in raw[:start] else b"\n"
    for kind, own, begin, end in _open_parts(fields, raw[start:], sealed):
        attached = mime.field(own, "content-disposition").strip().lower().startswith("attachment")
        if kind.name not in ("text/plain", "text/html") or attached:
            continue
        coded = decoded(raw[start + begin : start + end], own, kind, mark)
        if coded is None:
            sealed.append(f"{kind.name}: left alone: its transfer encoding cannot be undone")
        elif _INLINE_PGP.search(coded.text):
            sealed.append(f"{kind.name}: left alone: signed or encrypted text (PGP)")
        else:
            found.append(_Leaf(start + begin, start + end, coded, kind.name == "text/html"))
    return found, sealed


def _open_parts(fields: Fields, body: bytes, sealed: list[str]) -> Iterator[tuple[ContentType, Fields, int, int]]:
    """Yield the parts that may change; tell *sealed* of those that may not. What is inside a sealed part is left out."""
    whole = mime.content_type(fields)
    closed = 0 if _is_sealed(whole, sealed) else None
    if closed is None and not whole.is_multipart:
        yield whole, fields, 0, len(body)
    for span in mime.spans(fields, body):
        if closed is not None and span.depth > closed:
            continue
        closed = span.depth if _is_sealed(span.content_type, sealed) else None
        if closed is None:
            yield span.content_type, span.fields, span.start, span.end


def _is_sealed(kind: ContentType, sealed: list[str]) -> bool:
    word = _SEALED.get(kind.name)
    if word:
        sealed.append(f"{kind.name}: left alone: {word}")
    return word is not None


def _footed(leaves: list[_Leaf], tags: Tags, footers: Mapping[bool, str]) -> Iterator[_Leaf]:
    tagged = {leaf.is_html for leaf in leaves if tags.wanted(leaf.coded.text, is_html=leaf.is_html)}
    first = {leaf.is_html: leaf for leaf in reversed(leaves)}
    for leaf in leaves:
        gets_one = leaf is first[leaf.is_html] and leaf.is_html not in tagged
        footer = footers[leaf.is_html] if gets_one else ""
        yield _Leaf(leaf.start, leaf.end, leaf.coded, leaf.is_html, footer)


def _with_footer(text: str, footer: str, leaf: _Leaf) -> str:
    line_end = leaf.coded.line_end
    ends = [each.start() for pattern in _ENDS for each in list(pattern.finditer(text))[-1:]]
    if leaf.is_html and ends:
        return text[: ends[0]] + footer + text[ends[0] :]
    apart = "" if not text or text.endswith("\n") else line_end
    return f"{text}{apart}{footer.replace(chr(10), line_end)}{line_end if text.endswith(chr(10)) else ''}"


def _cut(raw: bytes) -> tuple[bytes, bytes]:
    """Return the header's lines, each with its end, and what follows, from the empty line on."""
    block, _, complete = mime.split_header(raw)
    if complete:
        end = len(block) + (raw[len(block) : len(block) + 1] == b"\n" and bool(block))
        return raw[:end], raw[end:]
    line_end = b"\r\n" if b"\r\n" in raw else b"\n"
    return (raw if raw.endswith(b"\n") else raw + line_end), b""


def _on_headers(fields: Fields, replaced: int) -> list[str]:
    found = []
    if replaced:
        found.append("List-Unsubscribe: the mail had its own already: replaced, there may be one")
    if mime.field(fields, "dkim-signature"):
        found.append("DKIM-Signature: the mail is signed already: stamp first, then sign both List-Unsubscribe headers")
    return found


def _on_lines(before: bytes, after: bytes) -> list[str]:
    longest = max(map(len, after.split(b"\n")))
    if longest > _MAX_LINE + 1 and longest > max(map(len, before.split(b"\n"))):
        return [f"a line of {longest} octets: expected at most {_MAX_LINE}, break it before mail servers do"]
    return []


def _text(value: str) -> str:
    return value.encode("ascii", "surrogateescape").decode("utf-8", "replace") if not value.isascii() else value
