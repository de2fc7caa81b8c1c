"""Who wrote it, as far as our own mail server proved it: the author in From, and the Authentication-Results about it.

A mail may claim anything. Believed is only the block of Authentication-Results that begins with the topmost one of the
message, as far as each bears the configured authserv-id; a Received, another id or an unreadable field ends it. In it
each method is believed where it stands first. The server must remove foreign fields that bear its id (RFC 8601 5).

Chosen, because no list of public suffixes is at hand: domains are compared for equality. What a mail server knows about
organisational domains counts through its own `dmarc=pass`, never through a parent domain that we would guess.

RFC: 8601 (Authentication-Results), 7489 (DMARC), 6376 (DKIM), 5322 3.4 (From).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise

from handlers.address import canonical
from handlers.message import InboundMessage, once

MICROSOFT_365 = "microsoft-365"  # configured as authserv-id: fields that name none, as only Microsoft 365 writes them
_MAX_FIELD = 16384
_LONE_CR = re.compile(rb"\r(?!\n)")
_PIECE = re.compile(r"(?P<space>\s+)|(?P<quoted>\"[^\"\\]*(?:\\.[^\"\\]*)*\")|(?P<word>[^\s;\"()\\]+)|(?P<end>;)", re.S)
_IN_COMMENT = re.compile(r"\\.|[()]", re.S)
_ENCODED_WORD = re.compile(r"=\?[^?\s<>@]+\?[bBqQ]\?[^?\s<>@]*\?=")  # a phrase may hide a comma in one
_ADDRESS = r"\s*([^\s<>@,;:]+@[^\s<>@,;:]+)\s*"
_ONE_MAILBOX = re.compile(rf"[^<>@,;:]*<{_ADDRESS}>\s*|{_ADDRESS}")
_NO_POLICY = ("none", "bestguesspass")  # the domain publishes no DMARC policy: nothing speaks against an aligned DKIM


class Proof(Enum):
    """What our own mail server found about the author's domain."""

    DMARC = "DMARC pass"
    DKIM = "aligned DKIM pass"


class _Unreadable(ValueError):
    """Not the grammar of a header field."""


@dataclass(frozen=True, slots=True)
class _Result:
    """One `method=verdict property=value …`; a value that something is glued to is "?"."""

    method: str
    verdict: str
    properties: tuple[tuple[str, str], ...]

    def only(self, name: str) -> str:
        """Return the property of that name, "" unless there is exactly one."""
        values = [value for each, value in self.properties if each == name]
        return values[0] if len(values) == 1 else ""


@once
def author(message: InboundMessage) -> str | None:
    """Return the canonical address of From, None unless there is exactly one From with exactly one address.

    Why:     groups, two mailboxes and a second From are read differently by different software; so nobody's word counts.
    """
    values = message.values("from")
    if _is_cut_by_cr(message) or len(values) != 1 or not message.header_complete or len(values[0]) > _MAX_FIELD:
        return None
    try:
        mailbox = _ONE_MAILBOX.fullmatch(_ENCODED_WORD.sub("", _without_phrases(values[0])))
        address = (mailbox[1] or mailbox[2]) if mailbox else ""
        return canonical(address.encode("utf-8", "surrogateescape").decode("utf-8")) if len(address) < 1000 else None
    except ValueError:  # neither a field nor an address, nor UTF-8
        return None


def proves(message: InboundMessage, authserv_id: str, author: str) -> Proof | None:
    """Return how *authserv_id*'s results prove the domain of *author*; None when they do not.

    Shape:   authserv_id: as our server writes it, any case, or `MICROSOFT_365`. author: as the function `author` gave it.
             DMARC: the only dmarc verdict is pass and its header.from is that very domain. DKIM: a pass whose header.d
             (where there is none, the domain of header.i) is that very domain, and no DMARC policy says otherwise.
    Errors:  none, whatever the fields hold; linear in their length.
    Why:     two verdicts of dmarc, a property twice and a value with a comment glued to it (`d=bank.example(.evil.example)`)
             are how results are forged through a careless server: they prove nothing.
    """
    if _is_cut_by_cr(message):
        return None
    domain = author.rpartition("@")[2]
    results = _believed(message, authserv_id)
    policies = [each for each in results if each.method == "dmarc"]
    if [each.verdict for each in policies] == ["pass"]:
        return Proof.DMARC if _domain(policies[0].only("header.from")) == domain else None
    if any(each.verdict not in _NO_POLICY for each in policies):
        return None
    signed = any(each.method == "dkim" and each.verdict == "pass" and _signer(each) == domain for each in results)
    return Proof.DKIM if signed else None


def _is_cut_by_cr(message: InboundMessage) -> bool:
    """Say whether a CR alone stands in the header: our server saw one field there where a reader may see two."""
    header = message.raw[: len(message.raw) - len(message.body)].rstrip(b"\r\n")
    return b"\n" in header and _LONE_CR.search(header) is not None


def _signer(result: _Result) -> str | None:
    named = any(name == "header.d" for name, _ in result.properties)
    return _domain(result.only("header.d" if named else "header.i"))


def _domain(value: str) -> str | None:
    try:
        return canonical("x@" + value.rpartition("@")[2][:320]).rpartition("@")[2]
    except ValueError:
        return None


def _believed(message: InboundMessage, authserv_id: str) -> list[_Result]:
    believed: list[_Result] = []
    methods: set[str] = set()
    begun = False
    for name, value in message.headers:
        if begun and name == "received":
            break
        if name == "authentication-results":
            begun = True
            results = _results(value, authserv_id.lower())
            if results is None:
                break
            believed += [each for each in results if each.method not in methods]
            methods |= {each.method for each in results}
    return believed


def _results(value: str, authserv_id: str) -> list[_Result] | None:
    """The results of a field, None when it is not of that id or is unreadable."""
    try:
        if len(value) > _MAX_FIELD:
            return None
        (first, *others) = (_joined(words) for words in _segments(value))
        if authserv_id == MICROSOFT_365:
            others.insert(0, first)  # no id before the first result: a field with one fails to read
        elif not authserv_id or [word.lower() for word in first[:1]] != [authserv_id] or first[1:] not in ([], ["1"]):
            return None  # RFC 8601 2.2: a version that we do not know is not read either
        return [_result(words) for words in others if words not in ([], ["none"])]
    except _Unreadable:
        return None


def _result(words: list[str]) -> _Result:
    if not all("=" in word for word in words):
        raise _Unreadable
    (method, verdict), *properties = [
        (name.lower(), value) for name, _, value in (word.partition("=") for word in words)
    ]
    return _Result(method.removesuffix("/1"), verdict.lower(), tuple(properties))


def _joined(words: list[str]) -> list[str]:
    """RFC 8601 allows space around the "="."""
    joined: list[str] = []
    for word in words:
        if joined and (word.startswith("=") or joined[-1].find("=") == len(joined[-1]) - 1):
            joined[-1] += word
        else:
            joined.append(word)
    return joined


def _segments(value: str) -> Iterator[list[str]]:
    """Yield the words between semicolons."""
    words: list[str] = []
    run: list[tuple[str, str]] = []
    for kind, text in (*_pieces(value), ("end", ";")):
        if kind not in ("space", "end"):
            run.append((kind, text))
            continue
        words += _word(run, first=not words)
        run = []
        if kind == "end":
            yield words
            words = []


def _word(run: list[tuple[str, str]], *, first: bool) -> list[str]:
    while run and run[0][0] == "comment":
        run = run[1:]
    kinds = [kind for kind, _ in run]
    if not run:
        return []
    if kinds in (["word"], ["quoted"]) or (kinds == ["word", "comment"] and first):
        return [_unquoted(run[0][1])]
    if kinds == ["word", "quoted"] and run[0][1].endswith("="):
        return [run[0][1] + _unquoted(run[1][1])]
    return [run[0][1].partition("=")[0] + "=?"]


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1], flags=re.S) if text.startswith('"') else text


def _without_phrases(value: str) -> str:
    """*value* without comments and quoted strings, but for those that are a local part."""
    pieces = [*_pieces(value), ("end", "")]
    return "".join(
        text if kind in ("word", "end") or (kind == "quoted" and after.startswith("@")) else " "
        for (kind, text), (_, after) in pairwise(pieces)
    )


def _pieces(text: str) -> Iterator[tuple[str, str]]:
    """Yield what a structured field consists of; the first thing that cannot be is the end: no rescanning."""
    position = 0
    while position < len(text):
        if text[position] == "(":
            position = _after_comment(text, position)
            yield "comment", " "
            continue
        piece = _PIECE.match(text, position)
        if piece is None:
            raise _Unreadable
        yield str(piece.lastgroup), piece[0]
        position = piece.end()


def _after_comment(text: str, start: int) -> int:
    depth = 0
    for mark in _IN_COMMENT.finditer(text, start):
        depth += {"(": 1, ")": -1}.get(mark[0], 0)
        if depth == 0:
            return mark.end()
    raise _Unreadable
