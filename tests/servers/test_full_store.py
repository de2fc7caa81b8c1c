"""A full store makes no page slow: ten times as much in it costs a page neither more commands nor a longer page."""

from pathlib import Path

import pytest

from tests.bench import pages

pytestmark = [pytest.mark.fault, pytest.mark.needs("redis-server")]


def test_a_page_costs_the_same_whatever_is_in_the_store(tmp_path: Path) -> None:
    with pages.opened(tmp_path) as web:
        pages.fill(web.installation, 2_000, 600)
        few = pages.pages(web)
        pages.fill(web.installation, 18_000, 5_400, start=2_000)
        many = pages.pages(web)

    assert {each.status for each in many.values()} == {200}
    assert {path: cost.commands for path, cost in many.items() if cost.commands > few[path].commands * 1.2 + 20} == {}
    assert {
        path: cost.page_bytes for path, cost in many.items() if cost.page_bytes > few[path].page_bytes * 1.2 + 2_000
    } == {}
