"""One entry of the quarantine as a value, and the facts that Redis holds of it.

An entry that was shrunk has lost its message and all that is not needed to know it again: at most 300 bytes, and its
suggestion.
"""

import json
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any

from handlers.message import InboundMessage
from handlers.request import DecidedMessage, Outcome, Suggestion
from worker.counted import kind_of
from worker.quarantine.shelf import Shelf

RECORD_BYTES = 300
FAILED = "failed"  # the reason of what is our fault: its raw is an element of a job, as JSON
_ID_DIGITS = 32
_MAX_TEXT = 100
_MAX_SOURCE = 60
END_MS = 253_402_300_800_000  # the year 10000: no ledger has a month for it
_SHORT = ("detail", "author", "subject")  # what a shrunk entry keeps as much of as fits, the last first to go


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of a message that a person must see.

    Shape:   id: the first 32 digits of key, the message key; of a failed request, a digest. reason: an outcome, or
             "failed". evidence: as decided. author, subject: decoded, 100 characters at most. failures: how often a
             failed one failed. message_id: a digest of the Message-ID, "" = none. seen: the facts as they lie in Redis;
             whatever changes the entry applies to these alone.
    Units:   at_ms: event time; kept_ms: since when it is here. size_bytes: of the whole message.
    """

    id: str
    key: str
    reason: str
    detail: str
    source: str
    at_ms: int
    kept_ms: int
    size_bytes: int = 0
    suggestion: Suggestion | None = None
    evidence: dict[str, str] = field(default_factory=dict)
    envelope_to: str | None = None
    envelope_from: str | None = None
    author: str = ""
    subject: str = ""
    failures: int = 0
    message_id: str = ""
    shrunk: bool = False
    seen: bytes = field(default=b"", repr=False, compare=False)

    @property
    def shelf(self) -> Shelf:
        """Where it lies."""
        return Shelf(self.reason, self.source, suggested=self.suggestion is not None, shrunk=self.shrunk)

    @property
    def event_ms(self) -> int:
        """The event time of what a person makes of it; where deciding it broke, none was known."""
        return self.at_ms or self.kept_ms

    def first_decision(self) -> DecidedMessage:
        """Return the message as it was decided when it came: what its ledger record says."""
        outcome = Outcome.MALFORMED if self.reason == FAILED else Outcome(self.reason)
        at_ms = self.at_ms if 0 <= self.at_ms < END_MS else self.kept_ms
        return DecidedMessage(self.key, self.source, outcome, self.detail, at_ms, evidence=self.evidence)


def needs_a_person(decided: DecidedMessage) -> bool:
    """Say whether a message goes to quarantine, besides the queue."""
    return kind_of(decided.outcome, decided.evidence) == "quarantined" or "review" in decided.evidence


def entry_of(message: InboundMessage, decided: DecidedMessage, kept_ms: int) -> Entry:
    """Return the entry of *message*. Its source is cut to 60 characters: so many shelves nobody has."""
    return Entry(
        id=message.key[:_ID_DIGITS],
        key=message.key,
        reason=decided.outcome.value,
        detail=decided.reason,
        source=decided.source[:_MAX_SOURCE],
        at_ms=decided.received_ms,
        kept_ms=kept_ms,
        size_bytes=message.size_bytes,
        suggestion=decided.suggestion,
        evidence=decided.evidence,
        envelope_to=message.envelope_to,
        envelope_from=message.envelope_from,
        author=_short(message.text("from")),
        subject=_short(message.text("subject")),
        message_id=digest_of(message.text("message-id")),
    )


def digest_of(message_id: str) -> str:
    """Return 12 hex digits that stand for a Message-ID, with or without its brackets; "" for none."""
    bare = message_id.strip().strip("<>").lower()
    return sha256(bare.encode("utf-8", "surrogateescape")).hexdigest()[:12] if bare else ""


def failed_entry(entry_id: str, detail: str, wire: dict[str, Any], at_ms: int, kept_ms: int) -> Entry:
    """Return the entry of one element of a job; *entry_id* may be longer than an id."""
    key, source = str(wire.get("key") or entry_id), str(wire.get("source", ""))[:_MAX_SOURCE]
    return Entry(entry_id[:_ID_DIGITS], key, FAILED, detail, source, at_ms, kept_ms, failures=1)


def _short(text: str) -> str:
    words = " ".join(text[: 4 * _MAX_TEXT].split())
    return "".join(each for each in words if each.isprintable())[:_MAX_TEXT]


def facts_of(entry: Entry) -> bytes:
    """Return what Redis holds of *entry*; `read_facts` undoes it."""
    facts: dict[str, Any] = {name: getattr(entry, name) for name in ("reason", "source", "at_ms", "kept_ms")}
    # The id is the field's name: what the key has besides is enough, and there may be many.
    tail = {"key_tail": entry.key.removeprefix(entry.id)} if entry.key.startswith(entry.id) else {"key": entry.key}
    names = ("detail", "size_bytes", "evidence", "author", "subject", "failures", "message_id", "shrunk")
    facts |= tail | {name: value for name in names if (value := getattr(entry, name))}
    facts |= {name: value for name in ("envelope_to", "envelope_from") if (value := getattr(entry, name)) is not None}
    if suggestion := entry.suggestion:
        facts["suggestion"] = [suggestion.sender, suggestion.group, suggestion.recipient, suggestion.why]
    return _json(facts)


def _json(facts: dict[str, Any]) -> bytes:
    try:
        return json.dumps(facts, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:  # octets that came as surrogates: they must come back as they were
        return json.dumps(facts, separators=(",", ":")).encode()


def read_facts(entry_id: str, facts: bytes) -> Entry:
    """Return the entry that *facts* are of; what another release wrote besides is left out."""
    row = json.loads(facts)
    key = row.pop("key", None) or entry_id + row.pop("key_tail", "")
    suggestion = Suggestion(*row.pop("suggestion")) if row.get("suggestion") else None
    known: dict[str, Any] = {"detail": "", "kept_ms": 0, **{name: row[name] for name in Entry.__slots__ if name in row}}
    return Entry(**known, id=entry_id, key=key, suggestion=suggestion, seen=facts)


def shrunk(entry: Entry) -> Entry:
    """Return what stays of *entry* when its message must go.

    Why:     a suggestion stays, whatever its length: it is all that a person needs to act.
    """
    small = replace(entry, shrunk=True, evidence={}, envelope_to=None, envelope_from=None)
    for name in reversed(_SHORT):
        if (excess := len(facts_of(small)) - RECORD_BYTES - _suggested_bytes(small)) <= 0:
            break
        text = getattr(small, name).encode("utf-8", "replace")
        small = replace(small, **{name: text[: max(0, len(text) - excess)].decode("utf-8", "ignore")})
    return small


def _suggested_bytes(entry: Entry) -> int:
    if entry.suggestion is None:
        return 0
    return len(facts_of(entry)) - len(facts_of(replace(entry, suggestion=None)))
