"""The texts of a recipient's page: complete in every language, chosen as the browser asks, replaceable and never a program."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.errors import Rejected
from handlers.texts import built_in, checked, choose, direction, filled, spoken

LANGUAGES = ["en", "de", "fr", "es", "it", "pt", "nl", "pl", "ja", "zh"]
PLACE = re.compile(r"\{\w+\}")


def test_there_are_ten_languages() -> None:
    assert list(built_in()) == LANGUAGES


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_language_says_everything_with_the_same_places(language: str) -> None:
    english, texts = built_in()["en"], built_in()[language]

    assert list(texts) == list(english)
    differing = [
        name for name in english if sorted(set(PLACE.findall(texts[name]))) != sorted(set(PLACE.findall(english[name])))
    ]
    assert differing == []
    assert [name for name, text in texts.items() if not text.strip() or text != text.strip()] == []
    assert checked({language: dict(texts)}) == {language: texts}


@pytest.mark.parametrize("language", LANGUAGES[1:])
def test_a_language_is_translated(language: str) -> None:
    assert [name for name, text in built_in()[language].items() if text == built_in()["en"][name]] == []


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("", "en"), ("de", "de"), ("DE-at", "de"), ("fr-CH, fr;q=0.9, en;q=0.8, de;q=0.7, *;q=0.5", "fr"),
        ("tr, pl;q=0.3", "pl"), ("en;q=0.1, ja;q=0.2", "ja"), ("zh-Hant-TW", "zh"), ("*", "en"), ("de;q=0, nl;q=0.001", "nl"),
        ("de;q=2", "en"), ("de;q=nan, it;q=0.5", "it"), ("es ; q=0.9", "es"), (";;;,,q=,", "en"), ("x" * 5000 + ",de", "en"),
        ("de;q=0.5;q=1, fr;q=0.7", "fr"),
    ],
)  # fmt: skip
def test_the_browser_chooses(header: str, language: str) -> None:
    assert choose(header, LANGUAGES) == language


@given(st.text())
def test_any_header_chooses_a_language(header: str) -> None:
    assert choose(header, LANGUAGES) in LANGUAGES


def test_a_senders_text_takes_the_place_of_ours_alone() -> None:
    found = spoken({"de": {"stop": "Schluss damit"}})

    assert found["de"]["stop"] == "Schluss damit"
    assert found["de"]["undo"] == built_in()["de"]["undo"]
    assert found["en"] == built_in()["en"]


def test_a_language_of_the_senders_own_is_whole() -> None:
    whole = {"ar": {name: text.replace("Stop", "قف") for name, text in built_in()["en"].items()}}

    assert choose("ar-EG", spoken(checked(whole))) == "ar"
    assert (direction("ar"), direction("de")) == ("rtl", "ltr")


@pytest.mark.parametrize(
    ("replaced", "problem"),
    [
        ([], "expected JSON"), ("x", "expected JSON"), ({"de": "x"}, "expected a code"), ({"../de": {}}, "expected a code"),
        ({"de": {"stopp": "x"}}, "expected one of"), ({"de": {"stop": ""}}, "a line of"), ({"de": {"stop": 5}}, "a line of"),
        ({"de": {"stop": "x" * 501}}, "a line of"), ({"de": {"stop": "two\nlines"}}, "a line of"),
        ({"de": {"stop": "Stop {address}"}}, "stands for nothing"), ({"de": {"ask_group": "{group.__class__}"}}, ""),
        ({"tr": {"stop": "Dur"}}, "all texts are needed"), ({f"a{n:x}a": {} for n in range(16)} | {"bb": {}, "cc": {}, "dd": {},
         "ee": {}, "ff": {}}, "at most"),
    ],
)  # fmt: skip
def test_what_cannot_be_shown_is_refused(replaced: Any, problem: str) -> None:
    if not problem:  # no place, just odd text: shown as it stands
        assert checked(replaced) == replaced
        return
    with pytest.raises(Rejected, match=problem):
        checked(replaced)


def test_a_text_is_no_program() -> None:
    text = "{sender.__class__} {sender!r} {0} {group} {sender}"

    assert filled(text, {"sender": "{group}", "group": "News"}) == "{sender.__class__} {sender!r} {0} News {group}"
