"""`unsubd audit`: what years of a neglected mailbox hold. Who asked, who of them can be proved, and who still gets mail.

The messages are decided by the functions that production calls, and nothing is written: neither in the mailbox nor in
the store. What can be proved is what carries a tag that verifies; the rest is counted by its author, who proves nothing.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from handlers import message
from handlers.address import canonical
from handlers.errors import Rejected
from handlers.message import InboundMessage
from handlers.request import DecidedMessage, Outcome
from worker.installation import Installation

Person = tuple[str, int, str]  # sender, group, recipient; ("", -1, author) where no tag proves it
COLUMNS = ("asked_at", "last_at", "sender", "group", "recipient", "provable", "suppressed", "messages")


@dataclass(slots=True)
class Asked:
    """One person's requests. Units: ms UTC, 0 where the mailbox does not tell."""

    first_ms: int
    last_ms: int
    messages: int = 0
    suppressed: bool = False


@dataclass(frozen=True, slots=True)
class Share:
    """The requests of one sender and group, or (sender "") those that nothing proves."""

    sender: str
    group: int
    people: int
    not_suppressed: int
    messages: int
    oldest_ms: int


@dataclass(slots=True)
class Audit:
    """The tally. `outcomes`: messages by outcome; `asked`: by person."""

    outcomes: Counter[str] = field(default_factory=Counter)
    asked: dict[Person, Asked] = field(default_factory=dict)

    def take(self, installation: Installation, messages: Mapping[int, InboundMessage]) -> dict[int, InboundMessage]:
        """Count *messages* and return those that can be honoured.

        Errors:  Unavailable  Redis is away.    temporary
        """
        decided = installation.intake.decide(list(messages.values()), remember=False)
        honoured = {}
        for (uid, inbound), each in zip(messages.items(), decided, strict=True):
            self.outcomes[each.outcome.value] += 1
            if each.requests:
                honoured[uid] = inbound
            for person in _people(inbound, each):
                self._count(person, each.received_ms if inbound.received_ms is not None else 0)
        return honoured

    def _count(self, person: Person, at_ms: int) -> None:
        asked = self.asked.setdefault(person, Asked(at_ms, at_ms))
        asked.first_ms, asked.last_ms = min(asked.first_ms, at_ms), max(asked.last_ms, at_ms)
        asked.messages += 1

    def look_up(self, installation: Installation) -> None:
        """Find out who of the provable is suppressed already, by the rows that a check reads.

        Errors:  Unavailable  the store is away.    temporary
        """
        groups: dict[tuple[str, int], list[str]] = {}
        for sender, group, recipient in self.asked:
            if sender:
                groups.setdefault((sender, group), []).append(recipient)
        for (sender, group), recipients in groups.items():
            for start in range(0, len(recipients), 1000):
                some = recipients[start : start + 1000]
                for recipient, rows in zip(some, installation.store.asked(sender, group, some), strict=True):
                    self.asked[sender, group, recipient].suppressed = any(row and row.suppressed for row in rows)

    def shares(self) -> list[Share]:
        """Return the requests by sender and group, the unprovable last."""
        keys = sorted({(sender, group) for sender, group, _ in self.asked}, key=lambda key: (key[1] < 0, key))
        return [self._share(sender, group) for sender, group in keys]

    def _share(self, sender: str, group: int) -> Share:
        asked = [each for person, each in self.asked.items() if person[:2] == (sender, group)]
        return Share(
            sender,
            group,
            people=len(asked),
            not_suppressed=sum(not each.suppressed for each in asked),
            messages=sum(each.messages for each in asked),
            oldest_ms=min((each.first_ms for each in asked if each.first_ms), default=0),
        )

    def rows(self) -> Iterator[tuple[str, ...]]:
        """Yield a line of COLUMNS for each person, oldest first."""
        for (sender, group, recipient), each in sorted(self.asked.items(), key=lambda item: item[1].first_ms):
            yield (
                day_of(each.first_ms), day_of(each.last_ms), sender, str(group) if sender else "", recipient,
                "yes" if sender else "no", "yes" if each.suppressed else "no", str(each.messages),
            )  # fmt: skip


def _people(inbound: InboundMessage, decided: DecidedMessage) -> list[Person]:
    """Whom a message is about: its requests' recipients; of what only looks like a request, its author."""
    if decided.requests:
        return [(each.sender, each.group, each.recipient) for each in decided.requests]
    asks = decided.outcome is Outcome.BAD_TAG or decided.suggestion is not None
    return [("", -1, author) for author in _authors(inbound.values("from"))] if asks else []


def _authors(values: Sequence[str]) -> list[str]:
    found = (address for value in values for address in message.addresses(value))
    try:
        return [canonical(next(found))]
    except (StopIteration, Rejected):
        return []


def day_of(at_ms: int) -> str:
    """Return the UTC day, "" for an unknown time.

    Example:
        >>> day_of(1_700_000_000_000)
        '2023-11-14'
    """
    return datetime.fromtimestamp(at_ms / 1000, UTC).date().isoformat() if at_ms else ""
