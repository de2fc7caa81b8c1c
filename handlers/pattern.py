"""Patterns of foreign unsubscribe addresses and subjects: `u.{job}.{queue}.{token}@civi.example.org`.

Literals and named fields in turn. No regular expression of a user ever runs: literals are searched from the end, once
each, so a match costs linear time. `{user}`, `{host}` and `{token}` carry meaning; other names match and are forgotten.
"""

import re
from dataclasses import dataclass

from handlers.errors import Rejected

_FIELD = re.compile(r"\{([a-z]{1,20})\}")
_MAX_PATTERN, _MAX_FIELDS = 320, 8


@dataclass(frozen=True, slots=True)
class Pattern:
    """A compiled pattern. Shape: one literal more than fields; the inner ones are not empty."""

    literals: tuple[str, ...]
    fields: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> "Pattern":
        """Return the pattern that *text* spells.

        Errors:  Rejected  no field, a name twice, two fields with nothing between, or braces that name nothing.  permanent
        Example:
            >>> Pattern.parse("u.{job}.{token}@x.example").match("U.12.5.0f3a@X.example")
            {'job': '12.5', 'token': '0f3a'}
        """
        literals, fields = tuple(_FIELD.split(text)[::2]), tuple(_FIELD.findall(text))
        if len(text) > _MAX_PATTERN or not 1 <= len(fields) <= _MAX_FIELDS or len(set(fields)) < len(fields):
            raise Rejected(f"pattern {text[:60]!r}: expected 1 to {_MAX_FIELDS} fields, each once, e.g. {{token}}")
        if not all(literals[1:-1]) or any(re.search(r"[{}]", literal) for literal in literals):
            raise Rejected(f"pattern {text[:60]!r}: expected fields like {{token}} with text between any two")
        return cls(tuple(_lowered(literal) for literal in literals), fields)

    def match(self, text: str) -> dict[str, str] | None:
        """Return the fields of *text*, none of them empty or with a space or "@"; None when it is of another shape.

        Shape:   literals match in any case, fields keep theirs; the last fields are the shortest.
        """
        folded = _lowered(text)
        start, end = len(self.literals[0]), len(text) - len(self.literals[-1])
        if start >= end or not (folded.startswith(self.literals[0]) and folded.endswith(self.literals[-1])):
            return None
        values: list[str] = []
        for literal in reversed(self.literals[1:-1]):
            found = folded.rfind(literal, start + 1, end - 1)  # no field is empty
            if found < 0:
                return None
            values.append(text[found + len(literal) : end])
            end = found
        values.append(text[start:end])
        if not all(values) or any(re.search(r"[\s@]", value) for value in values):
            return None
        return dict(zip(self.fields, reversed(values), strict=True))


def _lowered(text: str) -> str:
    # Not str.lower(): it makes two characters of some, and positions must stay.
    return re.sub(r"[A-Z]+", lambda capitals: capitals[0].lower(), text)
