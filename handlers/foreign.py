"""Addresses and subjects that other systems mailed, per sender: plain VERP, CiviCRM, Mautic, opaque tokens, one fixed
address for everybody. What they prove:

- an opaque token that stands in the sender's imported table is as good as signed: nobody could guess it;
- VERP and a fixed address prove nothing: they count only under trust "dmarc", if there is exactly one author, our own
  mail server proved the author's domain, and (VERP) the address names that very author;
- all else is a suggestion at most.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import Any

from handlers.address import canonical, undamaged
from handlers.authentication import author, proves
from handlers.message import InboundMessage
from handlers.pattern import Pattern
from handlers.request import Suggestion
from handlers.sender_source import Kind, SenderSource, Trust
from handlers.tag import Tag

_MAX_READ = 1000
_MAX_CANDIDATES = 200  # times each source, in two passes


@dataclass(frozen=True, slots=True)
class ForeignToken:
    """Lookup: the row (a `Tag`) of a sender's imported token. Shape: digest: see `token_digest`."""

    sender: str
    digest: str


@dataclass(frozen=True, slots=True)
class KnownRecipient:
    """Lookup: present (1) when the canonical *recipient* is in the sender's imported set."""

    sender: str
    recipient: str


ForeignLookup = ForeignToken | KnownRecipient


@dataclass(frozen=True, slots=True)
class ForeignRequest:
    """An identification that counts. Shape: where, repair: as of a tag's `Candidate` and `Reading`; source: its id."""

    tag: Tag
    reason: str
    where: str
    repair: str
    source: str


@dataclass(frozen=True, slots=True)
class ForeignReading:
    """What foreign identifications make of a message: requests, else why there is none, and perhaps a suggestion.

    Shape:   refusal: what the first of them lacks, "" where none matched or one counts.
    """

    requests: tuple[ForeignRequest, ...] = ()
    suggestion: Suggestion | None = None
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class _Refused:
    """An identification that does not count: why, and whom it may mean."""

    why: str
    suggestion: Suggestion | None


@dataclass(frozen=True, slots=True)
class Match:
    """A source whose pattern an address or the subject has. Shape: fields: empty for a fixed address."""

    source: SenderSource
    fields: Mapping[str, str]
    where: str
    repair: str


def token_digest(token: str) -> str:
    """Return the 32 hex digits under which an imported token is kept: the table spells no token."""
    return sha256(token.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def matches(message: InboundMessage, sources: Sequence[SenderSource]) -> Iterator[Match]:
    """Yield each source that the message's recipients or subject match, once per value, the least repair first."""
    if not sources:
        return  # as nearly everywhere, and each message is asked three times
    seen: set[tuple[SenderSource, tuple[str, ...]]] = set()
    for match in (*_in_addresses(message, sources), *_in_subject(message, sources)):
        value = match.source, tuple(match.fields.values())
        if value not in seen:
            seen.add(value)
            yield match


def _in_addresses(message: InboundMessage, sources: Sequence[SenderSource]) -> Iterator[Match]:
    wanted = [source for source in sources if source.kind is not Kind.SUBJECT]
    for candidate in message.candidates[:_MAX_CANDIDATES] if wanted else ():
        spellings = undamaged(candidate.address[:_MAX_READ])
        for source in wanted:
            found = ((repair, _fields(source, text)) for repair, text in spellings)
            yield from [
                Match(source, fields, candidate.where, repair) for repair, fields in found if fields is not None
            ][:1]


def _in_subject(message: InboundMessage, sources: Sequence[SenderSource]) -> Iterator[Match]:
    wanted = [source for source in sources if source.kind is Kind.SUBJECT]
    subject = message.text("subject").strip()[:_MAX_READ] if wanted else ""
    for source in wanted:
        if (fields := _fields(source, subject)) is not None:
            yield Match(source, fields, "subject", "")


def _fields(source: SenderSource, text: str) -> Mapping[str, str] | None:
    if source.kind is Kind.ADDRESS:
        return {} if _is(text, source.pattern) else None
    fields = _compiled(source.pattern).match(text)
    if fields is None or (source.kind is Kind.VERP and _verp_recipient(fields) is None):
        return None
    return fields


def _is(text: str, address: str) -> bool:
    bare = text.strip().lower().rstrip(".")
    return bare == address or (not bare.isascii() and _canonical(text) == address)


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> Pattern:
    return Pattern.parse(pattern)


def _canonical(text: str) -> str | None:
    try:
        return canonical(text) if len(text) <= _MAX_READ else None
    except ValueError:
        return None


def _verp_recipient(fields: Mapping[str, str]) -> str | None:
    return _canonical(f"{fields['user']}@{fields['host']}")


def _tokens(match: Match) -> list[ForeignToken]:
    """The token as it came, and as software that folds case may have made it."""
    token = match.fields["token"]
    return [ForeignToken(match.source.sender, token_digest(text)) for text in dict.fromkeys((token, token.lower()))]


def foreign_lookups(message: InboundMessage, sources: Sequence[SenderSource]) -> list[ForeignLookup]:
    """Return the typed keys that `read_foreign` needs, each once; none, and almost free, where nothing matches."""
    found = list(matches(message, sources))
    wanted: list[ForeignLookup] = [key for match in found if match.source.kind.opaque for key in _tokens(match)]
    choosy = [match.source.sender for match in found if match.source.known_only]
    writer = author(message) if choosy else None
    wanted += [KnownRecipient(sender, writer) for sender in choosy if writer]
    return list(dict.fromkeys(wanted))


def read_foreign(
    message: InboundMessage, sources: Sequence[SenderSource], found: Mapping[Any, Tag | int]
) -> ForeignReading:
    """Return what the foreign identifications in *message* ask for.

    Shape:   found: what `foreign_lookups` asked for; a key that is absent is unknown. requests: each tag once; one that
             the envelope recipient proves stands alone.
    Errors:  none: whoever is not proved is a suggestion.
    """
    requests: dict[Tag, ForeignRequest] = {}
    refused: list[_Refused] = []
    matched = list(matches(message, sources))
    writer = author(message) if matched else None
    for match in matched:
        read = (
            _read_opaque(match, writer, found)
            if match.source.kind.opaque
            else _read_open(message, match, writer, found)
        )
        if isinstance(read, _Refused):
            refused.append(read)
        elif match.where == "envelope":
            return ForeignReading((read,))
        else:
            requests.setdefault(read.tag, read)
    if requests or not refused:
        return ForeignReading(tuple(requests.values()))
    return ForeignReading((), next((each.suggestion for each in refused if each.suggestion), None), refused[0].why)


def _read_opaque(match: Match, writer: str | None, found: Mapping[Any, Tag | int]) -> ForeignRequest | _Refused:
    for key in _tokens(match):
        if isinstance(row := found.get(key), Tag):
            return _request(match, row, f"{match.source.kind.words} of the imported table")
    return _refused(match, writer, "the imported table does not hold it, recipient taken from From")


def _read_open(
    message: InboundMessage, match: Match, writer: str | None, found: Mapping[Any, Tag | int]
) -> ForeignRequest | _Refused:
    source = match.source
    named = writer if source.kind is Kind.ADDRESS else _verp_recipient(match.fields)
    if source.trust is Trust.NONE:
        return _refused(match, named, "nothing proves who wrote it")
    if writer is None or named is None:
        return _refused(match, named, "From does not name exactly one author")
    if writer != named:
        return _refused(match, named, "its author is somebody else")
    if source.known_only and not found.get(KnownRecipient(source.sender, writer)):
        return _refused(match, named, "its author is not among the known recipients")
    if proof := proves(message, source.authserv_id, writer):
        return _request(
            match, Tag(source.sender, source.group, named), f"{source.kind.words}, {proof.value} for its author"
        )
    return _refused(match, named, "no trusted result proves its author")


def _request(match: Match, tag: Tag, reason: str) -> ForeignRequest:
    return ForeignRequest(tag, reason, match.where, match.repair, match.source.id)


def _refused(match: Match, recipient: str | None, why: str) -> _Refused:
    source = match.source
    words = f"{source.kind.words}: {why}"
    return _Refused(words, Suggestion(source.sender, source.group, recipient, words) if recipient else None)
