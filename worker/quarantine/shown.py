"""What of a mail may reach a person's terminal: readable, without its control characters, addresses masked.

Anybody can write into the quarantine. An escape sequence could rewrite the screen, a bidi control could turn an address
round; and a look at the list must not spell whose mail it was.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from handlers import message
from handlers.address import masked
from handlers.message import InboundMessage
from handlers.tag import is_shaped
from worker.quarantine.entry import FAILED, Entry

HEADERS = ("From", "To", "Subject", "Date", "Authentication-Results")
_MAX_VALUES = 3  # of one header: two From are worth seeing, a thousand are not
_MAX_HEADER = 500
_MAX_TEXT = 2000
_MAX_LINES = 40
_WORD = re.compile(r"[^\s<>\"',;()\[\]]+")
_LINK = re.compile(r"(/[up])/\S+")


def row(entry: Entry, *, full: bool) -> dict[str, Any]:
    """Return an entry's facts as JSON values; addresses are masked unless *full*. Not escaped yet."""
    shown = str if full else without_addresses
    suggestion = entry.suggestion
    return {
        "id": entry.id,
        "reason": entry.reason,
        "detail": shown(entry.detail),
        "source": entry.source,
        "arrived_at": _time(entry.at_ms),
        "kept_at": _time(entry.kept_ms),
        "size_bytes": entry.size_bytes,
        "shrunk": entry.shrunk,
        "failures": entry.failures,
        "from": shown(entry.author),
        "subject": shown(entry.subject),
        "suggestion": {
            "sender": suggestion.sender, "group": suggestion.group, "recipient": shown(suggestion.recipient),
            "why": shown(suggestion.why),
        } if suggestion else None,
    }  # fmt: skip


def _time(at_ms: int) -> str:
    try:
        return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    except (OverflowError, ValueError, OSError):
        return str(at_ms)


def asks(requests: list[dict[str, Any]], *, full: bool) -> dict[str, Any]:
    """Return whom a message is about, as facts; nothing where it names nobody. Not escaped yet."""
    shown = str if full else without_addresses
    return {"asks for": [f"{each['action']} {each['sender']} {each['group']} {shown(each['recipient'])}"
                         for each in requests]} if requests else {}  # fmt: skip


def content(entry: Entry, kept: bytes | None, *, full: bool) -> dict[str, Any]:
    """Return what was fetched, decoded, and what was proved; of a failed entry the requests. Not escaped yet."""
    shown = str if full else without_addresses
    facts = {"evidence": {name: shown(value) for name, value in entry.evidence.items()}}
    if entry.envelope_to is not None or entry.envelope_from is not None:
        facts["envelope"] = {"to": shown(entry.envelope_to or ""), "from": shown(entry.envelope_from or "<>")}
    if kept is None:
        return facts
    if entry.reason == FAILED:
        return facts | {"requests": [shown(kept.decode("utf-8", "replace")[:_MAX_TEXT])]}
    inbound = message.read(kept, source=entry.source)
    headers = {f"{name.lower()} header": [shown(value) for value in values] for name, values in _headers(inbound)}
    return facts | headers | {"text": [shown(line) for line in _text(inbound)]}


def _headers(inbound: InboundMessage) -> Iterator[tuple[str, list[str]]]:
    for name in HEADERS:
        values = inbound.values(name.lower())[:_MAX_VALUES]
        yield name, [" ".join(message.decoded(value[: 4 * _MAX_HEADER]).split())[:_MAX_HEADER] for value in values]


def _text(inbound: InboundMessage) -> list[str]:
    lines = message.read_text(inbound)[:_MAX_TEXT].strip().splitlines()
    return [line.rstrip() for line in lines[:_MAX_LINES]]


def printable(text: str) -> str:
    r"""Return *text* on one line, with everything that a terminal might obey spelled instead.

    Example:
        >>> print(printable("a\x1b[31mb\u202ec\x00"))
        a\x1b[31mb\u202ec\x00
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else _spelled(each) for each in text)


def _spelled(character: str) -> str:
    return ascii(character)[1:-1]


def without_addresses(text: str) -> str:
    """Return *text* with every address, and every tag that spells one, masked.

    Example:
        >>> without_addresses("Jane <jane@example.com>, mailto:u%2Bx%40d https://d/u/am33-acme-1-jane")
        'Jane <j···e@example.com>, ··· https://d/u/···'
    """
    return _WORD.sub(lambda word: _masked(word[0]), text)


def _masked(word: str) -> str:
    if "%40" in word:
        return "···"
    if "@" in word:
        return re.split(r"[?&/]", masked(word), maxsplit=1)[0]
    if _LINK.search(word):
        return _LINK.sub(r"\1/···", word)
    return "···" if is_shaped(word) else word
