"""The headers that mail of a route needs, as the sender chose them: what was asked is known for 5 s."""

import time

from handlers.headers import unsubscribe_headers
from handlers.route import Route
from worker.installation import Installation
from worker.minting import Minting

STAMPED = ("List-Unsubscribe", "List-Unsubscribe-Post")
_FRESH_S = 5.0


class Stamping:
    """Makes headers, in any thread."""

    def __init__(self, installation: Installation) -> None:
        self._installation = installation
        self._known: dict[str, tuple[float, Minting]] = {}

    def headers(self, route: Route, recipient: str) -> list[tuple[str, str]]:
        """Return the headers of one recipient's mail; none for an essential group, which no header may stop.

        Errors:  Rejected     not an address.    permanent
                 Unavailable  what the sender chose cannot be asked, or a stored tag cannot be kept.    temporary
        """
        if self._installation.groups.group(route.sender, route.group).essential:
            return []
        minting = self._minting(route.sender)
        minted = minting.mint(route.group, recipient)
        return list(unsubscribe_headers(minted, minting.link(minted)))

    def _minting(self, sender: str) -> Minting:
        read_at, minting = self._known.get(sender, (0.0, None))
        if minting is None or time.monotonic() - read_at > _FRESH_S:
            minting = Minting(self._installation.settings, self._installation.accounts.sender(sender))
            self._known[sender] = time.monotonic(), minting
        return minting
