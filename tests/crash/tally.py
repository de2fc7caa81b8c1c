"""What the crash matrix did, for its closing line."""

from dataclasses import dataclass, field

import pytest

from tests.crash.ways import Sent


@dataclass
class Tally:
    """Shape: sent: what every case brought. lost, duplicated: requests, messages and effects, counted at the end."""

    kills: int = 0
    points: set[str] = field(default_factory=set)
    sent: list[Sent] = field(default_factory=list)
    lost: int | None = None
    duplicated: int | None = None

    def __str__(self) -> str:
        requests = sum(len(each.who) for each in self.sent)
        messages = sum(len(each.mails) for each in self.sent)
        counted = f"lost={self.lost} duplicated={self.duplicated}"
        ended = "not counted, the last test did not run" if self.lost is None else counted
        return f"{len(self.points)} points, {self.kills} kills, {requests} requests, {messages} mails: {ended}"


TALLY = pytest.StashKey[Tally]()
