"""Who sends links that do not work, counted by source: guessing is answered 429, a valid link always passes.

Only failures count, after the tag was read; so nobody who shares a network with a guesser is kept from leaving. A process
counts by itself, and forgets within a minute.
"""

import time
from collections import Counter

from starlette.requests import Request

from worker.web.peers import Peers

WINDOW_S = 60
MAX_FAILURES = 30
_MAX_SOURCES = 10_000


class Guesses:
    """The failures of the current minute."""

    def __init__(self, peers: Peers) -> None:
        self._peers = peers
        self._minute = 0
        self._failures: Counter[str] = Counter()

    def failed(self, request: Request) -> bool:
        """Count a link that did not work; say whether its source had too many of them this minute."""
        minute = int(time.monotonic()) // WINDOW_S
        if minute != self._minute or len(self._failures) >= _MAX_SOURCES:
            self._minute = minute
            self._failures.clear()
        source = self._peers.source(request)
        self._failures[source] += 1
        return self._failures[source] > MAX_FAILURES
