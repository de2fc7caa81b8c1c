"""The catalogue: what an entry is found by, so that nothing ever looks through all of them.

A word is 12 hex digits: the first of an id, a digest of the Message-ID, or one of an address that is known of the mail. Its
first three name a drawer, a key; its others and the id are a card in it. 100,000 entries fill 4,096 drawers with some 80
cards each, which Redis packs at about 50 bytes a card.
Limits:  16 addresses of one entry. A word that very many mails share makes its drawer a large one, and slower to look
         through, until they are gone.
"""

import re
from itertools import islice

from handlers.address import canonical
from handlers.errors import AddressError
from worker.quarantine.entry import Entry, digest_of

DIGITS = 12
_DRAWER = 3
_ADDRESSES = 16
_ADDRESS = re.compile(r"[^\s<>\"',;:()\[\]?&/]+@[^\s<>\"',;:()\[\]?&/@]+")

Card = tuple[str, str]
"""A drawer's key, and a field of it."""


def drawer_of(word: str) -> str:
    """Return the key that the cards of a word lie in."""
    return f"unsubd:quarantine:find:{word[:_DRAWER]}"


def beginning(word: str) -> str:
    """Return what the cards of a word begin with; an id follows."""
    return word[_DRAWER:DIGITS]


def id_on(card: str) -> str:
    """Return the id that a card stands for."""
    return card[DIGITS - _DRAWER :]


def cards(entry: Entry) -> set[Card]:
    """Return what an entry is found by: of the same facts always the same."""
    words = {entry.id[:DIGITS], entry.message_id, *names(entry)} - {""}
    return {(drawer_of(word), beginning(word) + entry.id) for word in words}


def names(entry: Entry) -> set[str]:
    """Return the words of the addresses in an entry: who wrote it, of what, whom it was delivered to, whom it may mean."""
    suggested = entry.suggestion.recipient if entry.suggestion else ""
    texts = (entry.author, entry.subject, entry.envelope_to or "", entry.envelope_from or "", suggested)
    found = (address.rstrip(".") for text in texts for address in _ADDRESS.findall(text))
    return set(map(word_of, islice(found, _ADDRESSES)))


def word_of(address: str) -> str:
    """Return the word of an address, whatever its spelling; "" when it is none."""
    try:
        return digest_of(canonical(address))
    except AddressError:
        return ""
