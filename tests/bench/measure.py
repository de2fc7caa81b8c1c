"""A figure beside its limit: both measured in turn, in one run, because the machine drifts more than most changes gain.

A row holds every sample, so that the table can tell the median and its spread, and the JSON all there was.
"""

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeVar

RUNS = 7
T = TypeVar("T")


@dataclass(frozen=True)
class Row:
    """One figure. Shape: ours, limit: a sample each run, per second unless `unit` says else; limit may be missing.

    higher_is_better: of `ours`, and so of the ratio. target: of the ratio, of `ours` where there is no limit.
    """

    what: str
    unit: str
    ours: list[float]
    against: str = ""
    limit: list[float] = field(default_factory=list)
    target: float | None = None
    higher_is_better: bool = True
    note: str = ""

    @property
    def ratios(self) -> list[float]:
        """Return ours / limit, run by run."""
        return [ours / limit for ours, limit in zip(self.ours, self.limit, strict=True)]

    @property
    def judged(self) -> list[float]:
        """Return what the target is about."""
        return self.ratios if self.limit else self.ours

    @property
    def holds(self) -> bool | None:
        """Say whether the median keeps the target; None where there is none."""
        if self.target is None:
            return None
        middle = statistics.median(self.judged)
        return middle >= self.target if self.higher_is_better else middle <= self.target


def in_turn(ours: Callable[[], T], limit: Callable[[], T], runs: int = RUNS) -> tuple[list[T], list[T]]:
    """Measure both *runs* times, taking turns at who is first."""
    ours_found: list[T] = []
    limit_found: list[T] = []
    for number in range(runs):
        for first in (True, False) if number % 2 else (False, True):
            (ours_found if first else limit_found).append((ours if first else limit)())
    return ours_found, limit_found


def per_second(count: int, work: Callable[[], object]) -> float:
    """Return how many of *count* things a second *work* does."""
    begun = time.perf_counter()
    work()
    return count / (time.perf_counter() - begun)


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a Markdown table: medians, and the lowest and highest of the runs."""
    lines = ["| what | unsubd | limit, in the same run | ratio | target | |", "|---|---|---|---|---|---|"]
    return "\n".join(lines + [_line(row) for row in rows])


def _line(row: Row) -> str:
    limit = f"{_spread(row.limit)} {row.against}" if row.limit else row.against
    ratio = _spread(row.ratios) if row.limit else ""
    sign = "≥" if row.higher_is_better else "≤"
    target = "" if row.target is None else f"{sign} {_short(row.target)}"
    verdict = {None: "", True: "holds", False: "falls short"}[row.holds]
    cells = (row.what, f"{_spread(row.ours)} {row.unit}", limit, ratio, target, f"{verdict} {row.note}".strip())
    return "| " + " | ".join(cells) + " |"


def _spread(samples: Sequence[float]) -> str:
    middle = _short(statistics.median(samples))
    return middle if len(samples) == 1 else f"{middle} ({_short(min(samples))}–{_short(max(samples))})"


def _short(number: float) -> str:
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"


def save(rows: Sequence[Row], folder: Path) -> None:
    """Write the rows beside those of other parts: *folder*/PART.json for each part that ran."""
    folder.mkdir(exist_ok=True)
    content = {
        "machine": machine(),
        "rows": [asdict(row) | {"ratios": row.ratios if row.limit else []} for row in rows],
    }
    (folder / f"{Path(sys.argv[0]).stem}.json").write_text(json.dumps(content, indent=1) + "\n")


def machine() -> str:
    """Return what ran this, and how busy it was with other things."""
    return f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}"


@contextmanager
def telling(what: str) -> Iterator[None]:
    """Say on standard error what is being measured, and how long it took."""
    begun = time.monotonic()
    sys.stderr.write(f"bench: {what} …")
    sys.stderr.flush()
    yield
    sys.stderr.write(f" {time.monotonic() - begun:.0f} s\n")
