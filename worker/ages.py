"""Ages in a histogram with four steps per doubling, and what is said of them.

A percentile is the upper end of its step: never too low, and at most 19 % too high.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, log2

_STEPS = 4  # per doubling of the age
_MAX_STEP = 40 * _STEPS  # 35 years


@dataclass(frozen=True, slots=True)
class Figures:
    """Ages of requests, event to effect. Shape: all 0.0 where count is 0."""

    count: int = 0
    p50_s: float = 0.0
    p99_s: float = 0.0
    max_s: float = 0.0


def step_of(age_ms: int) -> int:
    """Return the step of an age.

    Example:
        >>> [step_of(each) for each in (0, 1, 2, 1000, 60_000)], round(step_end_s(step_of(60_000)), 1)
        ([0, 0, 4, 40, 64], 65.5)
    """
    return min(_MAX_STEP, max(0, ceil(_STEPS * log2(max(1, age_ms)))))


def step_end_s(step: int) -> float:
    """Return the greatest age of a step, in seconds."""
    return float(2 ** (step / _STEPS)) / 1000


def figures_of(steps: Mapping[int, int], max_ms: int) -> Figures:
    """Return the figures of a histogram; no percentile is above the greatest age."""
    if not (count := sum(steps.values())):
        return Figures()
    max_s = max_ms / 1000
    return Figures(count, _percentile(steps, count, 50, max_s), _percentile(steps, count, 99, max_s), max_s)


def _percentile(steps: Mapping[int, int], count: int, percent: int, max_s: float) -> float:
    wanted, seen = -(-count * percent // 100), 0
    for step in sorted(steps):
        seen += steps[step]
        if seen >= wanted:
            return round(min(step_end_s(step), max_s), 3)
    return max_s


def spell(seconds: float) -> str:
    """Return a length of time as people say it.

    Example:
        >>> [spell(each) for each in (0.4, 12, 130, 7800, 400_000)]
        ['0.4 s', '12 s', '2 min', '2 h 10 min', '4 d 15 h']
    """
    if seconds < 60:
        return f"{seconds:.1f} s" if 0 < seconds < 10 and seconds != int(seconds) else f"{seconds:.0f} s"
    minutes = int(seconds) // 60
    if minutes < 60:
        return f"{minutes} min"
    hours_, minutes = divmod(minutes, 60)
    if hours_ < 48:
        return f"{hours_} h {minutes} min" if minutes else f"{hours_} h"
    return f"{hours_ // 24} d {hours_ % 24} h" if hours_ % 24 else f"{hours_ // 24} d"
