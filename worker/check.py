"""The check: may this recipient be mailed? Asked before each send; it fails closed."""

from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from typing import Any, NamedTuple

from handlers.address import one_address
from handlers.errors import Rejected, UnsubdError
from worker.accounts import Group
from worker.installation import Installation
from worker.store.asking import Rows
from worker.store.row import Row

EVERY_LIST = "bypass_list_management"
GLOBAL_LIST = "bypass_unsubscribe_management"
BYPASSES = (EVERY_LIST, GLOBAL_LIST, "bypass_spam_management", "bypass_bounce_management")


class Answer(NamedTuple):
    """What a check says about one recipient.

    Shape:   scope: "group", "global", or None when mail is allowed. row: the row that stops the mail, else None.
             essential: the group is; nothing but an entry for this very group stops it. version: the same as long as the
             answer is: ask again at hand-over and compare.
    """

    recipient: str
    scope: str | None
    row: Row | None
    version: str
    essential: bool = False

    @property
    def suppressed(self) -> bool:
        """Say whether mail must not be sent."""
        return self.scope is not None

    @property
    def since(self) -> str | None:
        """When the row that stops the mail was first written, ISO 8601 UTC."""
        return (
            datetime.fromtimestamp(self.row.first_seen_s, UTC).isoformat().replace("+00:00", "Z") if self.row else None
        )


class Question(NamedTuple):
    """What is to be sent. Shape: bypass: names of the SendGrid contract, checked."""

    group: Group
    bypass: frozenset[str] = frozenset()

    @classmethod
    def of(cls, group: Group, bypass: Collection[str]) -> "Question":
        """Errors: Rejected  a bypass nobody knows, or one that stands alone with others.    permanent"""
        for name in bypass:
            if name not in BYPASSES:
                raise Rejected(f"bypass {name[:40]!r}: expected one of {', '.join(BYPASSES)}")
        if EVERY_LIST in bypass and len(set(bypass)) > 1:
            raise Rejected(f"bypass {EVERY_LIST}: ignores every list, expected no other beside it")
        return cls(group, frozenset(bypass))

    def answer(self, recipient: str, rows: Rows) -> Answer:
        """Return what *rows* (of group 0 and of the group) mean for one recipient: group 0 beats every group."""
        everything, own = rows
        essential = self.group.essential
        version = _version(
            everything.version if everything else b"", own.version if own else b"", essential, self.bypass
        )
        if EVERY_LIST in self.bypass:
            return Answer(recipient, None, None, version, essential)
        if everything and everything.suppressed and not essential and GLOBAL_LIST not in self.bypass:
            return Answer(recipient, "global", everything, version, essential)
        if own and own.suppressed and self.group.id:
            return Answer(recipient, "group", own, version, essential)
        return Answer(recipient, None, None, version, essential)


@lru_cache(1024)  # most people have no row at all
def _version(everything: bytes, own: bytes, essential: bool, bypass: frozenset[str]) -> str:
    """All that an answer depends on: so "unchanged" is never wrong, while "changed" may be."""
    parts = [everything, own, b"essential" if essential else b"", *(name.encode() for name in sorted(bypass))]
    return sha256(b"".join(len(part).to_bytes(2) + part for part in parts)).hexdigest()[:16]


class Check(NamedTuple):
    """What one call of `check` asks."""

    sender: str
    group: int
    recipients: Sequence[str]
    bypass: Collection[str] = ()


def check(
    installation: Installation, sender: str, group: int, recipients: Sequence[str], bypass: Collection[str] = ()
) -> list[Answer]:
    """Return one answer per recipient, in order, whatever the spelling of the address. One round trip for each 500.

    Errors:  UnknownAccount  a sender or group that nobody registered: never "allowed".    permanent
             AddressError    not an address.    permanent
             Rejected        a bypass that nobody knows.    permanent
             Unavailable     the store or the accounts cannot be asked.    temporary
    """
    return [*checked(installation, Check(sender, group, recipients, bypass))]


def checked(installation: Installation, asked: Check) -> Iterator[Answer]:
    """Yield what `check` returns, for a list of any length: all is asked before the first. Errors: as `check`."""
    question, exact = _read(installation, asked)
    rows = installation.store.asked(asked.sender, asked.group, exact)
    return (question.answer(*each) for each in zip(exact, rows, strict=True))


def check_each(installation: Installation, checks: Sequence[Check]) -> list[list[Answer] | Exception]:
    """Return what `check` returns for each, or what it raises. One round trip for each 500 of a sender and group."""
    read = [_read_or_error(installation, each) for each in checks]
    wanted: dict[tuple[str, int], list[str]] = {}
    for each, found in zip(checks, read, strict=True):
        if not isinstance(found, Exception):
            wanted.setdefault((each.sender, each.group), []).extend(found[1])
    rows = {place: iter(installation.store.asked(*place, recipients)) for place, recipients in wanted.items()}
    return [
        found if isinstance(found, Exception) else _answers(*found, rows[each.sender, each.group])
        for each, found in zip(checks, read, strict=True)
    ]


def _read(installation: Installation, asked: Check) -> tuple[Question, list[str]]:
    """The question and its exact recipients."""
    question = Question.of(installation.groups.group(asked.sender, asked.group), asked.bypass)
    return question, [one_address(recipient) for recipient in asked.recipients]


def _read_or_error(installation: Installation, asked: Check) -> tuple[Question, list[str]] | Exception:
    try:
        return _read(installation, asked)
    except UnsubdError as error:
        return error


def _answers(question: Question, recipients: list[str], rows: Iterator[Rows]) -> list[Answer]:
    return [question.answer(recipient, next(rows)) for recipient in recipients]


def as_json(answer: Answer) -> dict[str, Any]:
    """Return the shape that scripts and the API share."""
    return {
        "recipient": answer.recipient,
        "suppressed": answer.suppressed,
        "scope": answer.scope,
        "since": answer.since,
        "source": answer.row.source if answer.row else None,
        "version": answer.version,
        **({"essential": True} if answer.essential else {}),
    }
