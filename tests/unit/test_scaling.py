"""deploy/SCALING.md says what the model says, and a simulated day shows that its plans hold and smaller ones do not."""

from dataclasses import replace

import pytest

from tests.scaling import figures, page, spread
from tests.scaling.figures import Step
from tests.scaling.model import DAY_S, PEAK, SIZES, SKEW, Load, Plan, plan, wave
from tests.scaling.page import PAGE, day, ledger_skew, tables, written

_, TEN_MILLION, HUNDRED_MILLION, BILLION = SIZES


def test_the_page_is_what_the_model_says() -> None:
    text = PAGE.read_text()

    assert {header for header in tables() if header not in text.splitlines()} == set()
    assert text == written(text)


@pytest.mark.parametrize(
    "said",
    [
        f"takes {figures.JOB_WALL.seconds(1, 0) * 1e3:.0f} ms of a worker",
        f"{figures.JOB_WALL.seconds(0, 1) * 1e3:.1f} ms a message more",
        f"{figures.JOB_OURS.seconds(1, 0) * 1e3:.0f} of the ms are a core's",
        f"A one-click post takes {figures.CLICK_OURS * 1e3:.1f} ms",
        f"{1e6 / figures.CHECK_HTTP.value:.0f} µs",
        f"A job takes {figures.JOB_QUEUE.seconds(1, 0) * 1e3:.1f} ms of it and its taking "
        f"{figures.ACCEPT_QUEUE.seconds(1, 0) * 1e3:.1f}, a one-click post {figures.CLICK_QUEUE * 1e3:.1f} ms",
        f"{PEAK * DAY_S:.1f} times the mean",
        f"takes {figures.LEDGER.value / figures.SUPPRESSION.value:.0f} times what a suppression takes",
    ],
)
def test_the_words_say_the_figures(said: str) -> None:
    assert said in " ".join(PAGE.read_text().split()).replace("eight times", "8 times")


@pytest.mark.parametrize("load", SIZES, ids=lambda load: load.name)
def test_a_plan_holds_through_a_day_with_failures(load: Load) -> None:
    assert day(load, plan(load)).broken() == []


@pytest.mark.parametrize(
    ("load", "part"),
    [(TEN_MILLION, "workers"), (HUNDRED_MILLION, "shards"), (HUNDRED_MILLION, "workers"),
     (BILLION, "shards"), (BILLION, "workers"),
     (BILLION, "web"), (BILLION, "installations")],
)  # fmt: skip
def test_half_of_a_part_does_not(load: Load, part: str) -> None:
    run = plan(load)

    assert day(load, replace(run, **{part: getattr(run, part) // 2})).broken() != []


@pytest.mark.parametrize(("load", "smaller"), [(HUNDRED_MILLION, TEN_MILLION), (BILLION, HUNDRED_MILLION)])
def test_the_plan_of_the_size_before_does_not(load: Load, smaller: Load) -> None:
    broken = day(load, plan(smaller)).broken()

    assert any("shard" in each for each in broken), broken
    assert len(broken) > 1


def test_the_failure_is_what_makes_people_wait() -> None:
    assert 30 < day(TEN_MILLION, plan(TEN_MILLION)).oldest_s < 40  # a shard's 30 s, found within a step


def test_everybody_of_a_day_is_told_of_once() -> None:
    found = day(TEN_MILLION, plan(TEN_MILLION))

    told = sum(sum(hour.values()) for hour in found.ages) + found.left
    assert told == pytest.approx(TEN_MILLION.requests_a_day, rel=0.01)


def test_a_day_has_all_its_requests() -> None:
    assert sum(wave(second) for second in range(0, DAY_S, 10)) * 10 == pytest.approx(1, rel=1e-3)


def test_more_of_anything_needs_no_less() -> None:
    for load in SIZES:
        more = replace(load, requests_a_day=3 * load.requests_a_day, suppressions=3 * load.suppressions)
        assert all(getattr(plan(more), part) >= getattr(plan(load), part) for part in Plan.__dataclass_fields__)


def test_a_step_costs_what_was_measured_at_both_sizes() -> None:
    step = Step(by_20=224, by_500=10.5)

    assert step.seconds(1, 20) == pytest.approx(20 * 224e-6)
    assert step.seconds(1, 500) == pytest.approx(500 * 10.5e-6)


def test_the_plan_allows_for_the_fullest_shard() -> None:
    assert max(ledger_skew(plan(load).shards) for load in SIZES) < SKEW
    assert spread.fullest(spread.buckets("acme", 20_000), plan(BILLION).shards) < SKEW
    assert spread.fullest(spread.homes("acme"), plan(BILLION).shards) > SKEW  # what the page says about one sender


def test_the_weights_of_buckets_are_what_linear_hashing_gives() -> None:
    counted = [0] * 6
    for hash_ in range(8):
        counted[page.spread.layout.bucket_of(hash_, 6)] += 1

    assert [weight for _, weight in spread.buckets("acme", 6)] == counted
