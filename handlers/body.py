"""What a body says, as text: every text part decoded, HTML without its markup, an embedded message opened once.

Limits: `_MAX_TEXT` characters in all; every pass is linear in them.
RFC: 2045, 2046 (through `handlers.mime`), 3676 (the signature's "-- " stays for the reader).
"""

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass

from handlers import mime
from handlers.message import InboundMessage, once
from handlers.mime import ContentType, Fields

_MAX_TEXT = 262144
_MAX_PARTS = 50
# Charsets that decode in linear time and are met in mail; whatever else is read as UTF-8.
CHARSET = re.compile(
    r"us-ascii|utf-?8|iso-8859-\d{1,2}|iso-2022-jp|windows-125\d|cp125\d|koi8-[ru]|gb2312|gbk|gb18030|big5|euc-(?:jp|kr)"
    r"|shift[_-]jis",
    re.I,
)
_UNSEEN = ("style", "script", "head", "title")
_LINE_BREAK = re.compile(r"<(?:br|/?p|/?div|/?tr|/?li|/?h[1-6]|/?table)\b[^<>]*>", re.I)
_MARKUP = re.compile(r"<[^<>]*>")


@dataclass(frozen=True, slots=True)
class Text:
    """A text part. Shape: content: decoded, markup still in it. embedded: of a message inside the message."""

    content: str
    is_html: bool
    embedded: bool = False


@once
def texts(message: InboundMessage) -> list[Text]:
    """Return the texts of the body in order, at most 256 K characters in all. Never raises."""
    kept: list[Text] = []
    room = _MAX_TEXT
    for text in _texts(message.headers, message.body, embedded=False):
        kept.append(Text(text.content[:room], text.is_html, text.embedded))
        room -= len(kept[-1].content)
        if room <= 0 or len(kept) >= _MAX_PARTS:
            break
    return kept


def _texts(fields: Fields, body: bytes, *, embedded: bool) -> Iterator[Text]:
    whole = mime.content_type(fields)
    if not whole.is_multipart:
        encoding = mime.field(fields, "content-transfer-encoding").strip().lower()
        leaves = [(whole, mime.transfer_decoded(body, encoding))]
    else:
        leaves = [(part.content_type, part.body()) for part in mime.parts(fields, body)[:_MAX_PARTS]]
    for kind, content in leaves:
        if kind.name.startswith("text/"):
            yield Text(_decoded(content, kind), kind.name == "text/html", embedded)
        elif kind.name in ("message/rfc822", "message/global") and not embedded:
            yield from _embedded(content)


def _embedded(raw: bytes) -> Iterator[Text]:
    block, body, _ = mime.split_header(raw)
    fields = mime.read_fields(block)
    yield Text("\n".join(f"{name}: {value}" for name, value in fields), is_html=False, embedded=True)
    yield from _texts(fields, body, embedded=True)


def _decoded(content: bytes, kind: ContentType) -> str:
    name = kind.parameters.get("charset", "")
    try:
        return content.decode(name if CHARSET.fullmatch(name) else "utf-8", "replace").replace("\r\n", "\n")
    except LookupError:  # iso-8859-99
        return content.decode("utf-8", "replace").replace("\r\n", "\n")


def plain(markup: str) -> str:
    """Return the text of HTML as a person sees it: lines where blocks end, no style, script or head.

    Example:
        >>> plain("<head><title>x</title></head><p>Stop &amp; go</p>now").split()
        ['Stop', '&', 'go', 'now']
    """
    for name in _UNSEEN:
        markup = _without(markup, name)
    text = _MARKUP.sub(" ", _LINE_BREAK.sub("\n", re.sub(r"\s+", " ", markup)))
    try:
        return html.unescape(text)
    except ValueError:  # a character reference of thousands of digits
        return text


def _without(markup: str, name: str) -> str:
    # By hand: a lazy pattern over unclosed elements costs quadratic time.
    folded = _ascii_lowered(markup)
    kept, position = [], 0
    while (start := folded.find(f"<{name}", position)) >= 0:
        if folded[start + 1 + len(name) : start + 2 + len(name)].isalnum():  # <header> is not <head>
            kept.append(markup[position : start + 1])
            position = start + 1
            continue
        kept.append(markup[position:start])
        end = folded.find(f"</{name}", start)
        if end < 0:
            return "".join(kept)
        position = end
    return "".join((*kept, markup[position:]))


def _ascii_lowered(text: str) -> str:
    return re.sub(r"[A-Z]+", lambda capitals: capitals[0].lower(), text)
