"""What is odd, and what may be undone of it. Nothing is refused for being odd: it is suppressed meanwhile, and shown.

Two things are odd. A burst: one source brings far more than it ever did. A shared tag: many people use the tag of one
recipient, as when a newsletter was forwarded to a list.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from handlers.request import Action, request_id

SLOT_MS = 600_000
MANY_ASKERS = 5  # a person has a few addresses and networks
_KNOWN_SLOTS = 144  # a day: before, everything is new
_LEAST = 200  # requests in ten minutes that are worth a look at all
_TIMES = 10
_FEW = 10  # what counts as a habit even where it was less
_STOPS = ("added", "already-present")
Key = tuple[str, int, str]  # sender, group, pseudonym of the recipient


@dataclass(frozen=True, slots=True)
class Pace:
    """How a source brings requests. Shape: count: in this slot; most: in any slot before; known: slots since the first."""

    slot: int
    count: int
    most: int
    known: int

    @property
    def is_burst(self) -> bool:
        """Say whether this slot is far above the habit.

        Example:
            >>> Pace(9, 500, 40, known=1000).is_burst, Pace(9, 500, 60, known=1000).is_burst, Pace(9, 500, 0, known=3).is_burst
            (True, False, False)
        """
        return self.known >= _KNOWN_SLOTS and self.count >= max(_LEAST, _TIMES * max(self.most, _FEW))


@dataclass(frozen=True, slots=True)
class Anomaly:
    """One odd thing.

    Shape:   kind: "burst" or "shared-tag". source: of a burst. sender, group, who (a pseudonym): of a shared tag.
             count: requests of the burst's fullest slot, or askers. state: "open", "undone" or "dismissed". said: how it ended.
    Units:   from_ms, to_ms: event time, ms UTC, to_ms excluded; a shared tag has no end.
    """

    id: str
    kind: str
    from_ms: int
    to_ms: int = 0
    count: int = 0
    source: str = ""
    sender: str = ""
    group: int = 0
    who: str = ""
    state: str = "open"
    said: str = ""

    def holds(self, source: str, at_ms: int, key: Key) -> bool:
        """Say whether a request is one of it."""
        if self.kind == "burst":
            return source == self.source and self.from_ms <= at_ms < self.to_ms
        return at_ms >= self.from_ms and key == (self.sender, self.group, self.who)


def stopped_by(anomaly: Anomaly, records: Iterable[Mapping[str, Any]]) -> dict[Key, int | None]:
    """Return whom the anomaly stopped, with the time of its last request; None where somebody else asked for it since.

    Shape:   records: the ledger's, in any order.
    Units:   ms UTC. A row whose own time is later was moved by somebody whose record is not written yet.
    """
    made: set[Key] = set()
    last: dict[Key, int] = {}
    others: set[Key] = set()
    for record in records:
        at_ms = record["received_ms"]
        for key, effect in _stops(record["requests"]):
            if anomaly.holds(record["source"], at_ms, key):
                last[key] = max(at_ms, last.get(key, 0))
                made |= {key} if effect == "added" else set()
            elif effect == "already-present" or at_ms >= anomaly.from_ms:  # asked before, and heard of after
                others.add(key)
        others |= {key for each in record.get("resolutions", []) for key, _ in _stops(each["requests"])}
    return {key: None if key in others else last[key] for key in made}


def lift_id(anomaly_id: str, sender: str, group: int, recipient: str) -> str:
    """Return the id of the request by which an undo of the anomaly lifts a row: the row's evidence tells it from others'.

    Why:     a resubscribe that a person asked for makes everything older stale; an undo only takes back what was never
             meant, and must not make stale what somebody did mean.
    """
    return request_id(f"undo\0{anomaly_id}", sender, group, recipient, Action.RESUBSCRIBE)


def _stops(results: Iterable[Mapping[str, Any]]) -> Iterable[tuple[Key, str]]:
    for each in results:
        if each["effect"] in _STOPS:
            yield (each["sender"], each["group"], each["recipient"]), each["effect"]
