"""The overview's charts: every hour has its place, and nothing leaves the plot, whatever the numbers are."""

import pytest

from worker.clock import Hour
from worker.web.ops import charts
from worker.web.ops.paging import PAGE, page_of


def _hours(counts: tuple[int, int, int, int] = (0, 0, 0, 0), p99_s: float = 0.0) -> list[Hour]:
    return [Hour(3600 * number, *counts, p99_s, p99_s, p99_s) for number in range(48)]


@pytest.mark.parametrize("counts", [(1, 0, 0, 0), (3, 2, 1, 4), (1_000_000, 1, 0, 999)])
def test_bars_are_stacked_within_the_plot(counts: tuple[int, int, int, int]) -> None:
    chart = charts.requests_chart(_hours(counts))

    assert len(chart.bars) == 48 * sum(count > 0 for count in counts)
    assert all(10 <= bar.y <= bar.y + bar.height <= chart.foot + 0.2 for bar in chart.bars)
    assert all(chart.left <= bar.x <= bar.x + bar.width <= chart.width for bar in chart.bars)


@pytest.mark.parametrize("p99_s", [0.001, 1.0, 3599.0, 3601.0, 500_000.0])
def test_a_second_and_a_week_are_both_seen(p99_s: float) -> None:
    chart = charts.p99_chart(_hours(p99_s=p99_s))

    assert {bar.kind for bar in chart.bars} == {"late" if p99_s > 3600 else "clock"}
    assert all(0 < bar.height <= charts.HEIGHT for bar in chart.bars)


def test_without_a_message_there_is_no_bar() -> None:
    assert (charts.requests_chart(_hours()).bars, charts.p99_chart(_hours()).bars) == ([], [])


@pytest.mark.parametrize(
    ("number", "total", "start"),
    [(1, 0, 0), (-5, 10, 0), (2, PAGE, 0), (2, PAGE + 1, PAGE), (10**9, 3 * PAGE, 2 * PAGE)],
)
def test_a_page_that_is_not_there_is_the_last_one(number: int, total: int, start: int) -> None:
    assert page_of("/ops/audit", {}, number, total).start == start
