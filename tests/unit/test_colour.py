"""A sender's colour is kept, as far as people can read it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.colour import checked, contrast, ink, shade
from handlers.errors import Rejected

COLOURS = st.integers(0, 0xFFFFFF).map(lambda number: f"#{number:06x}")


@given(COLOURS)
def test_text_on_any_colour_is_readable(colour: str) -> None:
    assert contrast(ink(colour), colour) >= 4.5


@given(COLOURS, st.sampled_from(["#f6f6f3", "#ffffff", "#1f2124", "#151618"]), st.sampled_from([3.0, 4.5]))
def test_a_shade_is_readable_on_its_ground(colour: str, ground: str, ratio: float) -> None:
    assert contrast(shade(colour, ground, ratio), ground) >= ratio


def test_a_colour_that_is_readable_stays() -> None:
    assert shade("#0b7a4b", "#f6f6f3", 4.5) == "#0b7a4b"


def test_contrast_is_wcags() -> None:
    assert [round(contrast("#ffffff", each), 2) for each in ("#ffffff", "#777777", "#000000")] == [1.0, 4.48, 21.0]


@pytest.mark.parametrize("text", ["", "red", "#12", "#1234567", "#12345g", "#fff;}", "url(x)", "#０００"])
def test_what_is_no_colour_is_refused(text: str) -> None:
    with pytest.raises(Rejected, match="expected e"):
        checked(text)
