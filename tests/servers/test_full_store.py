"""A full store makes no page slow: far more in it costs a page neither more commands, nor more of Redis, nor a longer page."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bench import pages
from tests.bench.pages import Cost
from worker.store import ledger

pytestmark = [pytest.mark.fault, pytest.mark.timeout(300), pytest.mark.needs("redis-server")]


def test_a_page_costs_the_same_whatever_is_in_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # So that commands tell how many records of the ledger are looked through: each looks through 30.
    monkeypatch.setattr(ledger, "_AT_ONCE", 30)
    monkeypatch.setattr(ledger, "_MOST", 1_000)
    with pages.opened(tmp_path) as web:
        web.installation.redis.config_set("hash-max-listpack-entries", 0)  # a packed hash is looked through at once
        pages.fill(web.installation, 2_000, 1_500)  # enough for a full page of most shelves
        few = pages.pages(web)
        pages.fill(web.installation, 28_000, 6_000, start=2_000)
        many = pages.pages(web)

    assert {each.status for each in many.values()} == {200}
    assert _dearer(few, many, lambda cost: cost.commands, 20) == {}
    assert (
        _dearer(few, many, lambda cost: cost.redis_bytes, 30_000) == {}
    )  # the shelves that filled up meanwhile: 50 ids each
    assert _dearer(few, many, lambda cost: cost.page_bytes, 2_000) == {}


def _dearer(
    few: dict[str, Cost], many: dict[str, Cost], measure: Callable[[Cost], int], spare: int
) -> dict[str, tuple[int, int]]:
    """The pages that cost a fifth more than before, and *spare*: what they did and what they do."""
    costs = {path: (measure(few[path]), measure(cost)) for path, cost in many.items()}
    return {path: (before, now) for path, (before, now) in costs.items() if now > before * 1.2 + spare}
