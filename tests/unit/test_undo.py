"""The undo of a change just made: signed for one tag, open for a day, and for nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.errors import Rejected
from handlers.tag import Keyring, Tag
from handlers.undo import OPEN_MS, Change, Undo, read, sign, version_of

OLD, NEW = Keyring((b"o" * 32,)), Keyring((b"n" * 32, b"o" * 32))
TAG = Tag("acme", 1, "jane@example.com")
NOW = 1_764_300_000_000
UNDO = Undo(NOW, "ab" * 16, (Change(1, True, "12345678"), Change(4294967295, False, "00000000")))


def test_it_says_what_to_undo() -> None:
    assert read(OLD, TAG, sign(OLD, TAG, UNDO), NOW + 1) == UNDO


def test_a_rotated_key_still_counts() -> None:
    assert read(NEW, TAG, sign(OLD, TAG, UNDO), NOW) == UNDO


@pytest.mark.parametrize(("age_ms", "is_open"), [(0, True), (OPEN_MS, True), (OPEN_MS + 1, False), (-1, False)])
def test_it_is_open_for_a_day(age_ms: int, is_open: bool) -> None:
    text = sign(OLD, TAG, UNDO)
    if is_open:
        assert read(OLD, TAG, text, NOW + age_ms) == UNDO
    else:
        with pytest.raises(Rejected, match="24 hours"):
            read(OLD, TAG, text, NOW + age_ms)


@pytest.mark.parametrize(
    "tag", [Tag("acme", 2, "jane@example.com"), Tag("acme", 1, "joe@example.com"), Tag("other", 1, "jane@example.com")]
)
def test_it_is_good_for_its_own_tag(tag: Tag) -> None:
    with pytest.raises(Rejected, match="not signed"):
        read(OLD, tag, sign(OLD, TAG, UNDO), NOW)


def test_no_letter_of_it_can_be_changed() -> None:
    text = sign(OLD, TAG, UNDO)
    for at in range(len(text)):
        other = "1" if text[at] != "1" else "2"
        with pytest.raises(Rejected):
            read(OLD, TAG, text[:at] + other + text[at + 1 :], NOW)


@given(st.text())
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(Rejected):
        read(OLD, TAG, text, NOW)


def test_a_row_that_changed_has_another_version() -> None:
    assert len({version_of(None), version_of(b"row"), version_of(b"rox")}) == 3
