"""Lists of any length, a page at a time: no page ever holds more than `PAGE` rows."""

from dataclasses import dataclass
from urllib.parse import urlencode

PAGE = 50


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list. Shape: path and query: where the list is. start: number of its first row. total: rows there are."""

    path: str
    query: dict[str, str]
    start: int
    total: int

    @property
    def number(self) -> int:
        """The page's number, from 1."""
        return self.start // PAGE + 1

    @property
    def count(self) -> int:
        """How many pages there are."""
        return max(1, -(-self.total // PAGE))

    @property
    def newer(self) -> str:
        """Where the page before is, "" on the first."""
        return self._at(max(1, self.number - 1)) if self.start > 0 else ""

    @property
    def older(self) -> str:
        """Where the next page is, "" on the last."""
        return self._at(self.number + 1) if self.start + PAGE < self.total else ""

    def _at(self, number: int) -> str:
        query = {name: value for name, value in self.query.items() if value}
        return f"{self.path}?{urlencode(query | {'page': str(number)})}"


def page_of(path: str, query: dict[str, str], number: int, total: int) -> Page:
    """Return page *number* of a list, or its last one when it has fewer."""
    last = max(0, (total - 1) // PAGE)
    return Page(path, query, min(max(number - 1, 0), last) * PAGE, total)
