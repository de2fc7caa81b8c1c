"""deploy/MTA.md: what it points to is there, what it names exists, and each recipe ends with the way to verify it."""

import re
from pathlib import Path

import pytest

from worker.settings import unknown_names

DEPLOY = Path(__file__).parents[2] / "deploy"
TEXT = (DEPLOY / "MTA.md").read_text()
_RECIPES = ("Postfix", "Exim", "Stalwart", "Microsoft 365", "Exchange Server", "Google Workspace")


def _section(title: str) -> str:
    return TEXT.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_every_link_leads_somewhere() -> None:
    anchors = {
        re.sub(r"[^a-z0-9 -]", "", head.lower()).replace(" ", "-") for head in re.findall(r"^## (.+)$", TEXT, re.M)
    }
    links = set(re.findall(r"\]\(([^)]+)\)", TEXT))

    assert {link for link in links if link.startswith("#") and link[1:] not in anchors} == set()
    assert {link for link in links if not link.startswith("#") and not (DEPLOY / link).exists()} == set()


def test_every_setting_exists() -> None:
    assert unknown_names(dict.fromkeys(re.findall(r"UNSUBD_[A-Z_]+", TEXT), "")) == []


@pytest.mark.parametrize("title", _RECIPES)
def test_a_recipe_ends_with_the_canary_and_says_whether_it_was_run(title: str) -> None:
    anchor = title.lower().replace(" ", "-")
    row = next(line for line in TEXT.splitlines() if line.startswith(f"| [{title}](#{anchor})"))

    assert "[verify](#verify)" in _section(title)
    assert ("tests/servers/test_recipes.py" in row) != ("not run" in row)


def test_the_way_to_verify_is_the_canary() -> None:
    assert "unsubd doctor --canary" in _section("Verify")
    assert "60 messages a minute, 3,600 an hour" in _section("Google Workspace")
