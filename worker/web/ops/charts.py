"""Charts as numbers that a template draws in SVG: 48 hours stacked by outcome, and the clock's p99. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import ceil, floor, log10

from worker.clock import Hour
from worker.counted import KINDS

WIDTH, HEIGHT = 720, 180  # of the plot, in the SVG's own units
_TOP, _LEFT = 20, 100
_LIMITS_S = ((60, "1 min"), (3600, "1 h"), (12 * 3600, "12 h"), (48 * 3600, "48 h"))


@dataclass(frozen=True, slots=True)
class Box:
    """One part of a bar. Shape: kind: its outcome, which is its class in the stylesheet."""

    kind: str
    x: float
    y: float
    width: float
    height: float
    title: str


@dataclass(frozen=True, slots=True)
class Line:
    """A line across the plot, with its word. Shape: at: from the top."""

    at: float
    word: str


@dataclass(frozen=True, slots=True)
class Chart:
    """Shape: bars, lines across, and hours below as (x, word)."""

    bars: list[Box]
    lines: list[Line]
    hours: list[tuple[float, str]]
    left: int = _LEFT
    width: int = WIDTH + _LEFT + 8
    height: int = HEIGHT + _TOP + 26
    foot: int = HEIGHT + _TOP


def requests_chart(hours: Sequence[Hour]) -> Chart:
    """Return messages per hour, stacked by outcome."""
    top = _round_up(max([sum(_counts(each)) for each in hours], default=0))
    bars = [box for place, hour in enumerate(hours) for box in _stack(place, len(hours), hour, top)]
    lines = [Line(_y(value / top), f"{value:,}") for value in sorted({0, top // 2, top})]
    return Chart(bars, lines, _hour_words(hours))


def _counts(hour: Hour) -> list[int]:
    return [getattr(hour, kind) for kind in KINDS]


def _stack(place: int, count: int, hour: Hour, top: int) -> list[Box]:
    below, found = 0, []
    for kind, value in zip(KINDS, _counts(hour), strict=True):
        if value:
            height = value / top * HEIGHT
            found.append(
                Box(kind, *_bar(place, count, (below + value) / top), height, f"{_clock(hour)}: {value:,} {kind}")
            )
        below += value
    return found


def p99_chart(hours: Sequence[Hour]) -> Chart:
    """Return the clock's p99 by hour, on a logarithmic scale from 0.1 s: a second and a day are both seen."""
    top = max(
        [48 * 3600.0 if each.p99_s > 12 * 3600 else 12 * 3600.0 if each.p99_s > 3600 else 3600.0 for each in hours],
        default=3600.0,
    )
    share = _share_up_to(top)
    bars = [
        Box("late" if hour.p99_s > 3600 else "clock", *_bar(place, len(hours), share(hour.p99_s)),
            share(hour.p99_s) * HEIGHT, f"{_clock(hour)}: p99 {hour.p99_s:,.1f} s")
        for place, hour in enumerate(hours) if hour.p99_s > 0
    ]  # fmt: skip
    words = [(1.0, "1 s"), *((float(at), word) for at, word in _LIMITS_S if at <= top)]
    return Chart(bars, [Line(_y(0), "0.1 s"), *(Line(_y(share(at)), word) for at, word in words)], _hour_words(hours))


def _share_up_to(top: float) -> Callable[[float], float]:
    return lambda value: min(1.0, max(0.01, log10(max(value, 0.1) / 0.1) / log10(top / 0.1)))


def _bar(place: int, count: int, share: float) -> tuple[float, float, float]:
    step = WIDTH / max(1, count)
    return round(_LEFT + place * step + step * 0.1, 1), round(_y(share), 1), round(step * 0.8, 1)


def _y(share: float) -> float:
    return round(_TOP + HEIGHT * (1 - share), 1)


def _round_up(value: int) -> int:
    """The next number that reads well. Example: _round_up(37) is 40."""
    size = 10 ** floor(log10(value)) if value else 1
    return max(2, ceil(value / size) * size)


def _hour_words(hours: Sequence[Hour]) -> list[tuple[float, str]]:
    step = WIDTH / max(1, len(hours))
    return [(round(_LEFT + place * step, 1), _clock(each)) for place, each in enumerate(hours) if place % 8 == 0]


def _clock(hour: Hour) -> str:
    return f"{datetime.fromtimestamp(hour.start_s, UTC):%a %H:%M}"
