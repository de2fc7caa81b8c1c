"""The dates that files of other systems are written with, as milliseconds.

ISO 8601 and RFC 3339, SQL's with a space, Go's (a space before the offset, the zone's name behind it), RFC 5322's as mail
writes it, seconds and milliseconds since 1970. Nothing is guessed: whatever else there is, is rejected.
"""

import re
from datetime import UTC, datetime, timedelta

from handlers.errors import Rejected

_EPOCH, _MS = datetime(1970, 1, 1, tzinfo=UTC), timedelta(milliseconds=1)
_YEAR_2000_MS, _YEAR_10000_MS = 946_684_800_000, 253_402_300_800_000
_LEAST_MS = 10**11  # a bare number from here on counts milliseconds: as seconds it would be in the year 5138
_ISO_DATE = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?)"
    r"(?: ?(?:Z|UTC|GMT)| ?([+-]\d\d(?::?\d\d)?)(?: (?:[A-Z]{1,5}|[+-]\d{2,4}))?)?)?",
    re.IGNORECASE,
)
_MAIL_DATE = re.compile(
    r"(?:[a-z]{3}, ?)?(\d{1,2}) ([a-z]{3}) (\d{4}) (\d\d:\d\d(?::\d\d)?)(?: (?:UTC|GMT|UT|Z|([+-]\d{4})))?",
    re.IGNORECASE,
)
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")


def read_ms(text: str, column: str) -> int:
    """Return the moment that *text* names.

    Shape:   column: what an error calls the text, which itself it does not quote.
    Units:   milliseconds since 1970, UTC. A text without a zone is UTC; a bare number counts seconds, or milliseconds.
    Errors:  Rejected  not a date, a zone that only has a name, or not in the years 2000 to 9999.    permanent
    Example:
        >>> read_ms("Sat, 31 Jan 2026 13:00:00 +0100", "created_at") == read_ms("1769860800", "created")
        True
    """
    try:
        at_ms = _number_ms(text) if text[:9].isdecimal() else (datetime.fromisoformat(_iso(text)) - _EPOCH) // _MS
    except ValueError:  # "from None": its message quotes the cell, and who knows what is in it
        raise Rejected(
            f"{column} of {len(text)} characters: expected a date, e.g. 2026-01-31T12:00:00Z or 1769860800"
        ) from None
    if not _YEAR_2000_MS <= at_ms < _YEAR_10000_MS:
        raise Rejected(f"{column} of {len(text)} characters: expected a date from 2000 to 9999")
    return at_ms


def _number_ms(text: str) -> int:
    whole, _, fraction = text.partition(".")
    if not (text.isascii() and len(text) <= 30 and whole.isdecimal() and (fraction or "0").isdecimal()):
        raise ValueError
    return int(whole) if int(whole) >= _LEAST_MS else int(whole) * 1000 + int((fraction + "000")[:3])


def _iso(text: str) -> str:
    if text.isascii() and (match := _ISO_DATE.fullmatch(text)):
        day, time, offset = match.groups()
    elif text.isascii() and (match := _MAIL_DATE.fullmatch(text)):
        number, month, year, time, offset = match.groups()
        day = f"{year}-{_MONTHS.index(month.lower()) + 1:02}-{int(number):02}"
    else:
        raise ValueError
    return f"{day}T{time or '00:00'}{offset or '+00:00'}"
