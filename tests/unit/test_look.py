"""How a sender's pages look: what it may choose, and what is refused."""

from typing import Any

import fakeredis
import pytest

from handlers.errors import Rejected
from worker.accounts.look import MAX_LOGO_BYTES, REASONS, Look, Looks

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 50
SVG = b'<?xml version="1.0"?>\n<!-- a mark --> <svg xmlns="http://www.w3.org/2000/svg"><circle r="9"/></svg>'


@pytest.fixture
def looks() -> Looks:
    return Looks(fakeredis.FakeRedis())


def test_nobody_chose_anything(looks: Looks) -> None:
    assert (looks.of("acme"), looks.logo("acme")) == (Look(), None)


def test_what_is_chosen_holds_until_it_is_taken_away(looks: Looks) -> None:
    looks.change("acme", colour="#C03", contact="Hello@Acme.example", texts={"de": {"stop": "Schluss"}}, logo=PNG)
    looks.change("acme")

    assert looks.of("acme") == Look("#cc0033", "hello@acme.example", "image/png", {"de": {"stop": "Schluss"}})
    assert looks.logo("acme") == ("image/png", PNG)
    assert looks.of("other") == Look()

    looks.change("acme", colour="", contact="", texts={}, logo=b"")
    assert (looks.of("acme"), looks.logo("acme")) == (Look(), None)


def test_an_svg_of_shapes_is_a_logo(looks: Looks) -> None:
    looks.change("acme", logo=SVG)

    assert looks.logo("acme") == ("image/svg+xml", SVG)


@pytest.mark.parametrize(
    "given",
    [
        {"logo": PNG + b"x" * MAX_LOGO_BYTES}, {"logo": b"GIF89a"}, {"logo": b"<html><svg></svg></html>"},
        {"logo": b"<svg><script>alert(1)</script></svg>"}, {"logo": b"<svg onload='alert(1)'></svg>"},
        {"logo": b'<!DOCTYPE svg [<!ENTITY x "y">]><svg></svg>'}, {"logo": b"<svg><foreignObject/></svg>"},
        {"logo": b"<svg><a href='javascript:alert(1)'/></svg>"}, {"logo": b"<svg><svg:script/></svg>"},
        {"colour": "red"}, {"contact": "nobody"}, {"contact": "a@b.example?cc=x"}, {"texts": {"de": {"x": "y"}}},
    ],
)  # fmt: skip
def test_what_cannot_be_shown_is_refused_and_nothing_changes(looks: Looks, given: dict[str, Any]) -> None:
    with pytest.raises(Rejected):
        looks.change("acme", **{"colour": "#123456", **given})

    assert looks.of("acme") == Look()


def test_reasons_of_the_list_are_counted(looks: Looks) -> None:
    for reason in ("other", "too_many", "other"):
        looks.count_reason("acme", reason)
    with pytest.raises(Rejected):
        looks.count_reason("acme", "because of <script>")

    assert looks.reasons("acme") == dict.fromkeys(REASONS, 0) | {"other": 2, "too_many": 1}
