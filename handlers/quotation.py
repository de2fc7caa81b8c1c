"""What a person wrote, without what the mail program put below: the quoted original, the signature.

Lines of a quotation begin with ">", or stand below "On … wrote:", "-----Original Message-----", or a block of From, Sent,
To, in twelve languages (`phrases.json`). Who writes below the quotation is heard too, where it is marked with ">".
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from handlers.body import Text, plain
from handlers.phrases import folded, languages, unaccented

_MAX_OWN = 4000  # who wants to leave says so early
_MAX_LINES = 5000
_MAX_INTRODUCTION = 400
_RULE = re.compile(r"\s*_{10,}\s*")
_LABEL = re.compile(r"\s*\W{0,4}([^:：]{1,30})\s?[:：]")
_HTML_QUOTE = re.compile(
    r"<blockquote|gmail_quote|id=\"?(?:x_)?(?:divrplyfwdmsg|appendonsend|mail-editor-reference-message-container)"
    r"|moz-cite-prefix|yahoo_quoted|protonmail_quote|olk_src_body_section|border-top:\s?solid #(?:e1e1e1|b5c4df)",
    re.I,
)


class _Marks(NamedTuple):
    """How mail programs of all languages introduce a quotation."""

    wrote: tuple[str, ...]
    original: frozenset[str]
    from_: frozenset[str]
    sent: frozenset[str]


@lru_cache(maxsize=1)
def _marks() -> _Marks:
    known = languages()
    return _Marks(
        tuple(words for language in known for words in language.wrote),
        frozenset().union(*(language.original for language in known)),
        frozenset().union(*(language.from_ for language in known)),
        frozenset().union(*(language.sent for language in known)),
    )


def own_text(texts: Sequence[Text]) -> str:
    """Return the person's own words, at most 4,000 characters: of the first plain text that has any, else of the HTML."""
    own = [text for text in texts if not text.embedded]
    for text in (*(each for each in own if not each.is_html), *(each for each in own if each.is_html)):
        if words := _own_lines(_above_html_quote(text.content) if text.is_html else text.content):
            return words
    return ""


def _above_html_quote(markup: str) -> str:
    quote = _HTML_QUOTE.search(markup)
    return plain(markup[: quote.start()] + ">" if quote else markup)


def _own_lines(text: str) -> str:
    lines = [line.strip() for line in text.split("\n", _MAX_LINES)[:_MAX_LINES]]
    own: list[str] = []
    length = 0
    for number, line in enumerate(lines):
        following = lines[number + 1 : number + 5]
        if line == "--" or _RULE.fullmatch(line):
            break  # a signature, with whatever disclaimer; the rule above Outlook's quotation
        if _introduces(line, own[-1] if own else "", following):
            if own and _is_date_line(own[-1]) and not _is_date_line(line):
                own.pop()  # "On Monday, 3 March, News <news@acme.example>", wrapped before "wrote:"
            if not any(each.startswith(">") for each in following):
                break
            continue
        if not line.startswith((">", "|>")):
            own.append(line[:_MAX_OWN])
            length += len(line) + 1
        if length > _MAX_OWN:
            break
    return "\n".join(own).strip()[:_MAX_OWN]


def _is_date_line(line: str) -> bool:
    return any(letter.isdigit() for letter in line) and ("@" in line or "," in line or "<" in line)


def _introduces(line: str, above: str, below: Sequence[str]) -> bool:
    """Say whether *line* introduces a quotation: an attribution, a mark, or the first line of a header block."""
    if not line or len(line) > _MAX_INTRODUCTION:
        return False
    if line.endswith((":", "：")):
        if folded(line) in _marks().original:
            return True
        return (_names_writer(line) and (_is_date_line(line) or _is_date_line(above))) or (
            line.endswith((">:", ">：")) and _is_date_line(line)
        )
    if line[0] in "-=_*<" and folded(line) in _marks().original:
        return True
    return _label(line) in _marks().from_ and any(_label(each) in _marks().sent for each in below)


def _names_writer(line: str) -> bool:
    text = f" {folded(line)} "
    return any(f" {words} " in text or (not words.isascii() and words in text) for words in _marks().wrote)


def _label(line: str) -> str:
    found = _LABEL.match(unaccented(line[:60]))
    return folded(found[1]) if found else ""
