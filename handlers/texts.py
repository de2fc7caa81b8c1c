"""What a recipient's page says: the texts of `texts.json` in ten languages, any of them replaceable by the sender.

A text is plain: whoever shows it escapes it, then puts values in the place of `{sender}`, `{group}` and `{address}`.
Adding a language is adding it to the file.

RFC: 9110 12.5.4 (Accept-Language), 4647 3.4 (lookup: "de-AT" finds "de").
"""

import json
import re
from collections.abc import Collection, Mapping
from functools import lru_cache
from importlib.resources import files
from typing import Any

from handlers.errors import Rejected

Texts = Mapping[str, str]
DEFAULT = "en"
_MAX_TEXT = 500
_MAX_HEADER = 500
_MAX_LANGUAGES = 20
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[a-z0-9]{2,8})*")
_PLACE = re.compile(r"\{(\w+)\}")
_QUALITY = re.compile(r"[01](\.[0-9]{0,3})?")
_RIGHT_TO_LEFT = {"ar", "dv", "fa", "he", "ps", "ur", "yi"}


@lru_cache(maxsize=1)
def built_in() -> Mapping[str, Texts]:
    """Return every language of the file, texts by name. Read when it is first asked for."""
    found: dict[str, dict[str, str]] = json.loads(files("handlers").joinpath("texts.json").read_text("utf-8"))
    return found


def spoken(replaced: Mapping[str, Texts]) -> dict[str, Texts]:
    """Return the texts by language with the sender's in the place of ours."""
    ours = built_in()
    return {name: {**ours.get(name, {}), **replaced.get(name, {})} for name in {**ours, **replaced}}


def choose(accept_language: str, languages: Collection[str]) -> str:
    """Return which of *languages* a browser's Accept-Language likes best; English when it likes none.

    Example:
        >>> choose("fr;q=0.5, de-AT, *;q=0.1", ["en", "de", "fr"]), choose("de;q=0, xx", ["en", "de"])
        ('de', 'en')
    """
    wishes = [_wish(each) for each in accept_language[:_MAX_HEADER].lower().split(",")]
    for _, wanted in sorted((wish for wish in wishes if wish[0] > 0), key=lambda wish: -wish[0]):
        while wanted:
            if wanted in languages:
                return wanted
            wanted = wanted.rpartition("-")[0]
    return DEFAULT


def _wish(text: str) -> tuple[float, str]:
    name, *parameters = (part.strip() for part in text.split(";"))
    quality = next((each[2:].strip() for each in parameters if each.startswith("q=")), "1")
    return (float(quality) if _QUALITY.fullmatch(quality) else 0.0), name


def direction(language: str) -> str:
    """Return how a language is written, as HTML's `dir` says it."""
    return "rtl" if language.partition("-")[0] in _RIGHT_TO_LEFT else "ltr"


def filled(text: str, values: Mapping[str, Any]) -> str:
    """Return *text* with each `{name}` replaced by its value; a name without one stays as it is.

    Why:     not str.format: a sender writes these texts, and "{sender.__class__}" would reach into the program.
    """
    return _PLACE.sub(lambda place: str(values.get(place[1], place[0])), text)


def checked(replaced: Any) -> dict[str, dict[str, str]]:
    """Return what a sender wants said instead, as {language: {name: text}}, if it can be used.

    Shape:   a language of ours: any of its texts. Another: all of them, or people would read two languages on a page.
    Errors:  Rejected  another shape, an unknown name or place, a text that is empty or over 500 characters.    permanent
    """
    if not isinstance(replaced, dict) or len(replaced) > _MAX_LANGUAGES:
        raise Rejected(f"texts: expected JSON of at most {_MAX_LANGUAGES} languages, e.g. {_EXAMPLE}")
    return {language: _checked_language(language, texts) for language, texts in replaced.items()}


_EXAMPLE = '{"en": {"stop": "No more of these"}}'


def _checked_language(language: str, texts: Any) -> dict[str, str]:
    if not _LANGUAGE.fullmatch(language) or not isinstance(texts, dict):
        raise Rejected(
            f"texts: language {language[:20]!r}: expected a code such as de or pt-br, with texts: {_EXAMPLE}"
        )
    pattern = built_in()[DEFAULT]
    if unknown := sorted(set(texts) - set(pattern)):
        raise Rejected(f"texts: {language}: {unknown[0][:40]!r}, expected one of {', '.join(pattern)}")
    if language not in built_in() and (missing := sorted(set(pattern) - set(texts))):
        raise Rejected(
            f"texts: {language}: not one of our languages, so all texts are needed: {missing[0]!r} is missing"
        )
    return {name: _checked_text(f"{language}: {name}", text, pattern[name]) for name, text in texts.items()}


def _checked_text(where: str, text: Any, pattern: str) -> str:
    if not isinstance(text, str) or not 1 <= len(text.strip()) <= _MAX_TEXT or not text.isprintable():
        raise Rejected(f"texts: {where}: expected a line of 1 to {_MAX_TEXT} characters")
    if unknown := sorted(set(_PLACE.findall(text)) - set(_PLACE.findall(pattern))):
        raise Rejected(f"texts: {where}: {{{unknown[0][:40]}}} stands for nothing here, expected those of {pattern!r}")
    return text.strip()
