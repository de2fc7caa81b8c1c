"""The request, one frozen type for every way in, and what it did; with the wire format of the queue.

A request id is a digest of what was asked, so it is the same on every repeat: after a crash the work is done again and
its effect is recognised. Nobody keeps a list of applied ids.
"""

from dataclasses import dataclass, field
from enum import Enum
from hashlib import sha256
from typing import Any


class Action(Enum):
    """What is asked for."""

    UNSUBSCRIBE = "unsubscribe"
    COMPLAINT = "complaint"
    RESUBSCRIBE = "resubscribe"


class Effect(Enum):
    """What a request did to its row; `queued` where only the enqueue is known."""

    ADDED = "added"
    ALREADY_PRESENT = "already-present"
    STALE = "stale"
    LIFTED = "lifted"
    NOT_LIFTED = "not-lifted"
    QUEUED = "queued"


class Outcome(Enum):
    """What became of a message: the closed list, the same word in code, JSON, journal, metrics and console."""

    HONOUR = "honour"
    COMPLAINT = "complaint"
    BOUNCE = "ignore:bounce"
    AUTO_REPLY = "ignore:auto-reply"
    MDN = "ignore:mdn"
    CALENDAR = "ignore:calendar"
    JOURNAL = "ignore:journal"
    CHALLENGE = "ignore:challenge"
    REPORT = "ignore:report"
    PING = "ignore:ping"
    NO_TAG = "quarantine:no-tag"
    BAD_TAG = "quarantine:bad-tag"
    MALFORMED = "quarantine:malformed"

    @property
    def quarantined(self) -> bool:
        """Say whether a person has to look."""
        return self.value.startswith("quarantine:")


@dataclass(frozen=True, slots=True)
class Request:
    """One wish about one recipient, one sender and one group.

    Shape:   id: 32 hex digits. group: as the tag carries it, 0 = global. recipient: canonical.
             source: the way in, e.g. "imap:INBOX", "relay:default", "one-click", "page", "api", "operator", "import".
             evidence: the message key or form nonce. actor: who asked ("recipient", or an operator's name).
             seen_version: for a resubscribe, the version of the row its actor saw; else "".
             undated: an import whose file names no date: it never wins over a resubscribe.
    Units:   at_ms: milliseconds UTC, never a value that the author of a mail writes.
    """

    id: str
    action: Action
    sender: str
    group: int
    recipient: str
    at_ms: int
    source: str
    evidence: str
    actor: str = "recipient"
    seen_version: str = ""
    undated: bool = False

    def as_wire(self) -> dict[str, Any]:
        """Return JSON values; `from_wire` undoes it."""
        wire: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__}
        wire["action"] = self.action.value
        return wire

    @classmethod
    def from_wire(cls, wire: dict[str, Any]) -> "Request":
        """Errors: KeyError, TypeError, ValueError  not what `as_wire` wrote."""
        _check_types(wire, _REQUEST_TYPES)
        known = {name: wire[name] for name in cls.__slots__ if name in wire}  # another release may have more, or fewer
        return cls(**{**known, "action": Action(wire["action"])})


_REQUEST_TYPES = {
    "id": str, "action": str, "sender": str, "group": int, "recipient": str, "at_ms": int, "source": str,
    "evidence": str, "actor": str, "seen_version": str, "undated": bool,
}  # fmt: skip
_MESSAGE_TYPES = {
    "key": str, "source": str, "outcome": str, "reason": str, "received_ms": int, "requests": list, "evidence": dict,
    "unread": str,
}  # fmt: skip


def _check_types(wire: dict[str, Any], types: dict[str, type]) -> None:
    for name, expected in types.items():
        if name in wire and type(wire[name]) is not expected:
            raise TypeError(f"{name}: {type(wire[name]).__name__}, expected {expected.__name__}")


def request_id(evidence: str, sender: str, group: int, recipient: str, action: Action) -> str:
    """Return the id of a request: the same for every repeat of the same wish by the same message or form.

    Example:
        >>> request_id("5f1e", "acme", 12, "jane@example.com", Action.UNSUBSCRIBE)
        '63d4086f7e4bacfdc5a7b7a1909b59b3'
    """
    parts = [evidence, sender, str(group), recipient, action.value]
    return sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Suggestion:
    """What a person might make of a message that proves nothing.

    Shape:   sender "" = not known. recipient: canonical. why: a few words, no address among them.
    """

    sender: str
    group: int
    recipient: str
    why: str


@dataclass(frozen=True, slots=True)
class DecidedMessage:
    """A message and what was decided about it: what the queue carries and the ledger records.

    Shape:   key: the message key. reason: why, in a few words without personal data. evidence: short facts, none of
             them an address. requests: possibly none. suggestion: for the quarantine; neither queue nor ledger has it.
             unread: form-h tags, a space between them, that could not be looked up: the job does, before it records.
    Units:   received_ms: event time, milliseconds UTC.
    """

    key: str
    source: str
    outcome: Outcome
    reason: str
    received_ms: int
    requests: tuple[Request, ...] = ()
    evidence: dict[str, str] = field(default_factory=dict)
    suggestion: Suggestion | None = None
    unread: str = ""

    def as_wire(self) -> dict[str, Any]:
        """Return JSON values; `from_wire` undoes it."""
        wire: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__}
        wire["outcome"] = self.outcome.value
        wire["requests"] = [request.as_wire() for request in self.requests]
        del wire["suggestion"]
        if not self.unread:
            del wire["unread"]
        return wire

    @classmethod
    def from_wire(cls, wire: dict[str, Any]) -> "DecidedMessage":
        """Errors: KeyError, TypeError, ValueError  not what `as_wire` wrote."""
        _check_types(wire, _MESSAGE_TYPES)
        requests = tuple(Request.from_wire(request) for request in wire["requests"])
        known = {name: wire[name] for name in cls.__slots__ if name in wire and name != "suggestion"}
        return cls(**{**known, "outcome": Outcome(wire["outcome"]), "requests": requests})
