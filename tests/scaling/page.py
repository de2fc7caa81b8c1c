"""The tables of deploy/SCALING.md, made from figures, model and simulation: `python -m tests.scaling.page` writes them."""

import math
from collections.abc import Iterator
from functools import cache
from itertools import chain
from pathlib import Path

from tests.scaling import spread
from tests.scaling.figures import PAGE_FIGURES
from tests.scaling.model import (
    ONE_MACHINE,
    PEAK,
    SIZES,
    Load,
    Plan,
    plan,
    queue_octets,
    store_octets,
    strain,
)  # fmt: skip
from tests.scaling.simulation import Day, simulate

PAGE = Path(__file__).parents[2] / "deploy" / "SCALING.md"
SENDERS = 10  # of which the ledger's homes are spread
_GIGA = 1e9
_SHARDS = (3, 6, 24)


@cache
def ledger_skew(shards: int) -> float:
    """Return how much fuller than the mean the fullest shard is with the ledgers of ten senders."""
    return spread.fullest(chain.from_iterable(spread.homes(f"sender{number}") for number in range(SENDERS)), shards)


@cache
def day(load: Load, run: Plan) -> Day:
    """Return a simulated day."""
    return simulate(load, run, skew=ledger_skew(run.shards))


@cache
def tables() -> dict[str, list[str]]:
    """Return the rows of each table by its header."""
    return {
        "| size | suppressions | requests a day (busiest second) | checks a second | ledger days | store | queue | workers |"
        " web | takers | mailboxes |": [_size(load) for load in SIZES],
        "| size | at its end with one of each | what is fullest in the plan, at the busiest second |": [
            _ends(load) for load in SIZES
        ],
        "| size | p99 of the worst hour | oldest of all | most jobs that wait in a queue | queue's cores, busiest hour |": [
            _simulated(load) for load in SIZES
        ],
        "| what lies in the shards | 3 | 6 | 24 |": list(_spreads()),
        "| measured | of what | where |": [
            f"| {each.value:,.{0 if each.value >= 100 else 1}f} {each.unit} | {each.what} | {each.where} |"
            for each in PAGE_FIGURES
        ],
    }


def _size(load: Load) -> str:
    run = plan(load)
    return (
        f"| {load.name} | {load.suppressions:,.0f} | {load.requests_a_day:,.0f} ({_rounded(load.requests_a_day * PEAK)})"
        f" | {_rounded(load.checks_a_second)} | {load.ledger_days} | {_giga(store_octets(load))}, {_count(run.shards, 'shard')}"
        f" | {_giga(queue_octets(load))}, {_count(run.installations, 'server')} | {run.workers} | {run.web}"
        f" | {run.takers or '-'} | {run.mailboxes or '-'} |"
    )


def _ends(load: Load) -> str:
    over = [f"{name} ({used:.1f} times)" for name, used in strain(load, ONE_MACHINE).items() if used > 1]
    part, used = next(iter(strain(load, plan(load)).items()))
    return f"| {load.name} | {', '.join(over) or 'nothing'} | {part}, {used:.0%} |"


def _simulated(load: Load) -> str:
    found = day(load, plan(load))
    return (
        f"| {load.name} | {found.p99_s:.1f} s | {found.oldest_s:.1f} s | {found.most_jobs:,.0f}"
        f" | {max(found.queue_busy):.0%} |"
    )


def _spreads() -> Iterator[str]:
    small = [f"s{number}" for number in range(20_000)]
    kinds = {
        "buckets of one sender of 6,000,000": lambda: spread.buckets("acme", 50_000),
        "the only buckets of 20,000 small senders": lambda: chain.from_iterable(spread.buckets(s, 1) for s in small),
        "ledger of ten senders": lambda: chain.from_iterable(spread.homes(f"sender{n}") for n in range(SENDERS)),
        "ledger of one sender": lambda: spread.homes("acme"),
    }
    for name, keys in kinds.items():
        yield f"| {name} | {' | '.join(f'{spread.fullest(keys(), shards):.2f}' for shards in _SHARDS)} |"


def _giga(octets: float) -> str:
    return f"{octets / _GIGA:,.0f} GB" if octets >= _GIGA else f"{octets / _GIGA:.1g} GB"


def _rounded(rate: float) -> str:
    """Two digits are all that the model knows."""
    digits = max(0, 1 - math.floor(math.log10(rate)))
    return f"{round(rate, 1 - math.floor(math.log10(rate))):,.{digits}f}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number > 1)}"


def written(text: str) -> str:
    """Return the page with its tables made anew; what stands around them stays."""
    lines, made, rows = [], tables(), False
    for line in text.splitlines():
        if line in made:
            lines += [line, "|" + "---|" * (line.count("|") - 1), *made[line]]
            rows = True
        elif not (rows := rows and line.startswith("|")):
            lines.append(line)
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
