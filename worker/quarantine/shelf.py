"""Where entries lie: one shelf per reason and source; what has a suggestion, and what was shrunk, lies apart.

A shelf has an index by time and a count of bytes, so that nothing ever reads all entries. When the quarantine is full,
`overfull` says which shelf gives way: a flood from one source takes from itself, then from what is worth least.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_PLAIN = ("quarantine:no-tag", "quarantine:malformed")
_FAILED = "failed"  # requests that did not take effect yet: last of all
_SHARE = 4  # one reason of one source may take a quarter
_SLACK = 100  # what gives way leaves a hundredth free, so that not every message has to make room


@dataclass(frozen=True, slots=True)
class Shelf:
    """The entries of one reason and source."""

    reason: str
    source: str
    suggested: bool = False
    shrunk: bool = False

    @property
    def name(self) -> str:
        """Its part of a key.

        Example:
            >>> Shelf("quarantine:no-tag", "imap:INBOX", suggested=True).name
            'quarantine:no-tag|suggested|imap:INBOX'
        """
        marks = [word for word, holds in (("suggested", self.suggested), ("shrunk", self.shrunk)) if holds]
        return f"{self.reason}|{','.join(marks)}|{self.source}"

    @classmethod
    def parse(cls, name: str) -> "Shelf":
        """Undo `name`."""
        reason, marks, source = name.split("|", 2)
        return cls(reason, source, suggested="suggested" in marks, shrunk="shrunk" in marks)

    @property
    def needs_a_person(self) -> bool:
        """Say whether somebody may wait for what lies here: all but mail with neither tag nor suggestion."""
        return self.suggested or self.reason != _PLAIN[0]

    @property
    def worth(self) -> int:
        """What gives way first is least."""
        return 2 if self.reason == _FAILED else int(self.suggested or self.reason not in _PLAIN)


@dataclass(frozen=True, slots=True)
class Selection:
    """Which entries are meant; a field at its default leaves everything in.

    Shape:   reason: with or without "quarantine:". since_ms: kept since then. until_ms: kept by then, None = until now.
    """

    reason: str = ""
    source: str = ""
    suggested: bool = False
    since_ms: int = 0
    until_ms: int | None = None

    def takes(self, shelf: Shelf) -> bool:
        """Say whether entries of *shelf* are meant, apart from their time."""
        reasons = ("", shelf.reason, shelf.reason.removeprefix("quarantine:"))
        return self.reason in reasons and self.source in ("", shelf.source) and (shelf.suggested or not self.suggested)


def overfull(sizes: Mapping[Shelf, int], limit_bytes: int) -> tuple[Shelf, int] | None:
    """Return the shelf that gives way next and how many bytes; None when there is room.

    Example:
        >>> flood, other = Shelf("quarantine:no-tag", "a"), Shelf("quarantine:no-tag", "b")
        >>> overfull({flood: 30, other: 20}, 100)
        (Shelf(reason='quarantine:no-tag', source='a', suggested=False, shrunk=False), 5)
        >>> overfull({flood: 25, other: 20}, 100) is None
        True
    """
    shares: Counter[tuple[str, str]] = Counter()
    for shelf, size in sizes.items():
        shares[shelf.reason, shelf.source] += size
    for share, size in shares.items():
        if share[0] != _FAILED and size > limit_bytes // _SHARE:
            mine = [shelf for shelf in sizes if (shelf.reason, shelf.source) == share]
            return _least(mine, sizes), size - limit_bytes // _SHARE + limit_bytes // _SHARE // _SLACK
    if (total := sum(sizes.values())) > limit_bytes:
        return _least(sizes, sizes), total - limit_bytes + limit_bytes // _SLACK
    return None


def _least(shelves: Iterable[Shelf], sizes: Mapping[Shelf, int]) -> Shelf:
    """The least worth; of those the largest source's, so that a small one never gives way to a large one.

    Why:     then the larger of messages and records: neither do the records of a flood push out the newest messages.
    """
    found = [shelf for shelf in shelves if sizes[shelf] > 0]
    totals: Counter[tuple[int, str, str]] = Counter()
    for shelf in found:
        totals[shelf.worth, shelf.reason, shelf.source] += sizes[shelf]
    return min(found, key=lambda each: (each.worth, -totals[each.worth, each.reason, each.source], -sizes[each]))
