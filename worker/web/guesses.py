"""Who sends links that do not work, counted by source: guessing is answered 429, a valid link always passes.

Only failures count, after the tag was read; so nobody who shares a network with a guesser is kept from leaving. A process
counts by itself, and forgets within a minute.
"""

import time
from collections import Counter
from ipaddress import IPv6Address, ip_address, ip_network

from starlette.requests import Request

WINDOW_S = 60
MAX_FAILURES = 30
_MAX_SOURCES = 10_000
_MAX_HOPS = 20


class Guesses:
    """The failures of the current minute. Shape: trusted: networks of proxies, separated by spaces."""

    def __init__(self, trusted: str) -> None:
        self._trusted = [ip_network(word) for word in trusted.split()]
        self._minute = 0
        self._failures: Counter[str] = Counter()

    def failed(self, request: Request) -> bool:
        """Count a link that did not work; say whether its source had too many of them this minute."""
        minute = int(time.monotonic()) // WINDOW_S
        if minute != self._minute or len(self._failures) >= _MAX_SOURCES:
            self._minute = minute
            self._failures.clear()
        source = self.source(request)
        self._failures[source] += 1
        return self._failures[source] > MAX_FAILURES

    def source(self, request: Request) -> str:
        """Return where *request* comes from: an address, of IPv6 its network, as a household has one.

        Shape:   the last address of X-Forwarded-For that no trusted proxy has, if a trusted proxy speaks to us at all.
        """
        peer = request.client.host if request.client else ""
        forwarded = ",".join(request.headers.getlist("x-forwarded-for")).split(",")[-_MAX_HOPS:]
        for hop in reversed(["", *(each.strip() for each in forwarded)]):
            if not self._is_trusted(peer) or not hop:
                break
            peer = hop
        return _household(peer)

    def _is_trusted(self, address: str) -> bool:
        try:
            found = ip_address(address)
        except ValueError:
            return False
        return any(found in network for network in self._trusted)


def _household(address: str) -> str:
    try:
        found = ip_address(address)
    except ValueError:
        return address[:45]
    return str(ip_network((found, 64), strict=False)) if isinstance(found, IPv6Address) else str(found)
