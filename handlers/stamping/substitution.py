"""Substitution tags: SendGrid's, those of its Marketing Campaigns, and one of the sender's own.

Matching is exact: what is nearly a tag stays as it is. In HTML a link is escaped for an attribute; a tag that reads as
words becomes an element there, and words with the link behind them in plain text.
"""

import html
import re
from collections.abc import Mapping
from enum import Enum

from handlers.errors import Rejected

_MIN_CUSTOM = 3  # a shorter one would stand in half of all words


class Link(Enum):
    """Where a tag leads: to the unsubscribe page of this mail's group, of everything, or to the preferences."""

    OWN = "own"
    EVERYTHING = "everything"
    PREFERENCES = "preferences"


_TAGS: Mapping[str, tuple[Link, str]] = {
    "<%asm_group_unsubscribe_raw_url%>": (Link.OWN, ""),
    "<%asm_group_unsubscribe_url%>": (Link.OWN, "Unsubscribe From This List"),
    "<%asm_global_unsubscribe_raw_url%>": (Link.EVERYTHING, ""),
    "<%asm_global_unsubscribe_url%>": (Link.EVERYTHING, "Unsubscribe From All Emails"),
    "<%asm_preferences_raw_url%>": (Link.PREFERENCES, ""),
    "<%asm_preferences_url%>": (Link.PREFERENCES, "Manage Email Preferences"),
    "{{{unsubscribe}}}": (Link.OWN, ""),
    "{{{unsubscribe_preferences}}}": (Link.PREFERENCES, ""),
    "[unsubscribe]": (Link.OWN, ""),
}
_URL = r"<%\s+%>"
_WORDS = r"<%\s+(?P<words>[^%<>\s](?:[^%<>]{0,300}[^%<>\s])?)\s{1,20}%>"  # HTML alone; in plain text it is no tag


class Tags:
    """The tags of one sender. Errors: Rejected  *custom* is shorter than three characters.    permanent"""

    def __init__(self, custom: str = "") -> None:
        if custom and len(custom.strip()) < _MIN_CUSTOM:
            raise Rejected(f"tag {custom[:20]!r}: expected at least {_MIN_CUSTOM} characters, e.g. [unsubscribe]")
        exact = "|".join(re.escape(each) for each in sorted({*_TAGS, *filter(None, [custom])}, key=len, reverse=True))
        self._plain = re.compile(f"{exact}|{_URL}")
        self._html = re.compile(f"{exact}|{_URL}|{_WORDS}")

    def wanted(self, text: str, *, is_html: bool) -> set[Link]:
        """Return which links the tags in *text* need."""
        return {_meaning(match)[0] for match in self._pattern(is_html).finditer(text)}

    def replaced(self, text: str, links: Mapping[Link, str], *, is_html: bool) -> tuple[str, int]:
        """Return *text* with a link for each tag, and how many there were.

        Example:
            >>> Tags().replaced("Stop: [unsubscribe] <% %>", {Link.OWN: "https://d/u/x"}, is_html=False)
            ('Stop: https://d/u/x https://d/u/x', 2)
            >>> Tags().replaced("<% Stop it %>", {Link.OWN: "https://d/?a&b"}, is_html=True)[0]
            '<a href="https://d/?a&amp;b">Stop it</a>'
        """

        def link(match: re.Match[str]) -> str:
            kind, words = _meaning(match)
            if not is_html:
                return f"{words}: {links[kind]}" if words else links[kind]
            url = html.escape(links[kind])
            return f'<a href="{url}">{words}</a>' if words else url

        return self._pattern(is_html).subn(link, text)

    def _pattern(self, is_html: bool) -> re.Pattern[str]:
        return self._html if is_html else self._plain


def _meaning(match: re.Match[str]) -> tuple[Link, str]:
    return _TAGS.get(match[0]) or (Link.OWN, match.groupdict().get("words") or "")
