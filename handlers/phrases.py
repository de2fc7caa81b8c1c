"""The words of `phrases.json`, ready to compare: how people of twelve languages ask to be left alone.

A text and a phrase are compared folded: any case, no accents, no punctuation inside. Japanese and Chinese have no
spaces, so their phrases match anywhere, all others as whole words. Adding a phrase is adding it to the file.
"""

import json
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

_NO_SPACES = re.compile("[\u2e80-\u9fff]")
_NO_WORD = re.compile(r"[\W_]+")
_MAX_BETWEEN = 5


@dataclass(frozen=True, slots=True)
class Language:
    """What one language says, folded.

    Shape:   asks: matches a request wherever it stands. alone: words that ask only when nothing else is said. polite: words
             that are nothing else. not_before, not_after: what turns a request round; between: what may stand between.
             wrote, original, from_, sent: how mail programs introduce a quotation.
    """

    name: str
    asks: re.Pattern[str]
    alone: frozenset[str]
    polite: frozenset[str]
    not_before: tuple[str, ...]
    between: tuple[str, ...]
    not_after: tuple[str, ...]
    wrote: tuple[str, ...]
    original: frozenset[str]
    from_: frozenset[str]
    sent: frozenset[str]

    def request_in(self, sentence: str) -> str:
        """Return the phrase with which a folded *sentence* asks; "" when none does, or each is negated."""
        for found in self.asks.finditer(sentence):
            if not self._negated(sentence[: found.start()].rstrip(), sentence[found.end() :].lstrip()):
                return found[0]
        return ""

    def request_alone(self, sentence: str) -> str:
        """Return the request that is all that a folded *sentence* says, "" when it says more or none."""
        if sentence in self.alone:
            return sentence
        words = [word for word in sentence.split() if word not in self.polite]
        return " ".join(words) if " ".join(words) in self.alone else ""

    def _negated(self, before: str, after: str) -> bool:
        for _ in range(_MAX_BETWEEN):
            if any(ends_with(before, words) for words in self.not_before):
                return True
            shorter = next((before[: -len(words)] for words in self.between if ends_with(before, words)), None)
            if shorter is None:
                break
            before = shorter.rstrip()
        return any(starts_with(after, words) for words in self.not_after)


def folded(text: str) -> str:
    """Return *text* as words in lower case without accents, one space between them.

    Example:
        >>> folded("  Désabonnez-moi, s'il vous plaît! "), folded("Don’t")
        ('desabonnez moi s il vous plait', 'don t')
    """
    return _NO_WORD.sub(" ", unaccented(text)).strip()


def unaccented(text: str) -> str:
    """Return *text* in lower case without accents, punctuation kept."""
    if text.isascii():
        return text.lower()
    decomposed = unicodedata.normalize("NFKD", text.casefold().replace("ł", "l"))
    return "".join(letter for letter in decomposed if not unicodedata.combining(letter))


def ends_with(text: str, words: str) -> bool:
    """Say whether folded *text* ends with *words*, as whole words where the language has words."""
    return text.endswith(words) if _NO_SPACES.search(words) else f" {text}".endswith(f" {words}")


def starts_with(text: str, words: str) -> bool:
    """Say whether folded *text* begins with *words*, as whole words where the language has words."""
    return text.startswith(words) if _NO_SPACES.search(words) else f"{text} ".startswith(f"{words} ")


def _language(name: str, words: dict[str, list[str]]) -> Language:
    lists = {key: tuple(dict.fromkeys(folded(text) for text in texts)) for key, texts in words.items()}
    return Language(
        name=name,
        asks=_any_of(lists["asks"]),
        alone=frozenset(lists["alone"]),
        polite=frozenset(word for text in lists["polite"] for word in text.split()),
        not_before=lists["not_before"],
        between=lists["between"],
        not_after=lists["not_after"],
        wrote=lists["wrote"],
        original=frozenset(lists["original"]),
        from_=frozenset(lists["from"]),
        sent=frozenset(lists["sent"]),
    )


def _any_of(phrases: Sequence[str]) -> re.Pattern[str]:
    """One pattern of literals, the longest first: linear in the text."""
    ordered = sorted(phrases, key=len, reverse=True)
    spaced = "|".join(re.escape(text) for text in ordered if not _NO_SPACES.search(text))
    unspaced = "|".join(re.escape(text) for text in ordered if _NO_SPACES.search(text))
    return re.compile("|".join(part for part in (rf"\b(?:{spaced})\b" if spaced else "", unspaced) if part))


@lru_cache(maxsize=1)
def languages() -> tuple[Language, ...]:
    """Return every language of the file. Made when it is first asked for: most commands never read a mail's words."""
    words = json.loads(files("handlers").joinpath("phrases.json").read_text("utf-8"))
    return tuple(_language(name, lists) for name, lists in words.items())
