"""What stands behind MAIL FROM: and RCPT TO:, read more generously than an SMTP grammar allows.

Why:     a refusal here is a bounce, and it would go to the person who pressed Unsubscribe. Tags make long local parts,
         other systems' tags longer ones (up to 230 octets seen), and mangled addresses are quarantine's business.
RFC:     5321 4.1.1.2, 4.1.1.3 (source routes are ignored), 6531 (UTF-8).
"""

import re
from collections.abc import Sequence

# A quoted local part may hold ">"; each alternative begins with another character, so this runs in linear time.
_QUOTED_PATH = re.compile(r'<((?:"(?:[^"\\]|\\.)*"|[^">])*)>', re.S)
_ROUTE = re.compile(r"@[^:\"]*:")


def read_path(argument: str, keyword: str) -> tuple[str, dict[str, str]] | None:
    """Return the address of a MAIL or RCPT command, "" for `<>`, and its parameters by upper-case name.

    Shape:   argument: what follows the verb, undecodable octets as surrogates. None: no path at all.
    Example:
        >>> read_path("TO:<@relay.example:u+a-b@unsub.example.com> SIZE=12", "TO:")
        ('u+a-b@unsub.example.com', {'SIZE': '12'})
    """
    if argument[: len(keyword)].upper() != keyword:
        return None
    text = _mended(argument[len(keyword) :]).strip()
    address, words = _split(text)
    if address is None:
        return None
    return _ROUTE.sub("", address, count=1) if address.startswith("@") else address, _parameters(words)


def _split(text: str) -> tuple[str | None, Sequence[str]]:
    if not text.startswith("<"):
        first, *words = text.split() or [""]
        return first or None, words
    if quoted := _QUOTED_PATH.match(text):
        return quoted[1], text[quoted.end() :].split()
    address, closed, words_text = text[1:].rpartition(">")  # a quote that is never closed
    return (address, words_text.split()) if closed else (None, ())


def _parameters(words: Sequence[str]) -> dict[str, str]:
    return {name.upper(): value for name, _, value in (word.partition("=") for word in words)}


def _mended(text: str) -> str:
    """Octets that are no UTF-8 cannot be a tag; as lone surrogates they would only trouble everybody behind."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
