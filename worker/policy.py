"""The policy of the moment: what the settings say, and what `sender add` and `sender source add` changed since."""

import time
from dataclasses import replace

from handlers.decision import Policy
from handlers.tag import AddressTemplate
from worker.accounts import Accounts
from worker.sender_sources import SenderSources
from worker.settings import Settings

_FRESH_S = 5.0


def settled(settings: Settings) -> Policy:
    """Return the part that the settings decide; it needs no server."""
    return Policy(
        templates=(AddressTemplate.parse(settings.address),) if settings.address else (),
        authserv_id=settings.authserv_id,
        reporters=frozenset(settings.reporters.lower().split()),
        feedback_loops=frozenset(settings.feedback_loops.split()),
    )


class Policies:
    """One process's view, at most 5 s old.

    Errors:  QueueUnavailable  Redis is away.    temporary
    """

    def __init__(self, settings: Settings, accounts: Accounts, sources: SenderSources) -> None:
        self._settled = settled(settings)
        self._accounts = accounts
        self._sources = sources
        self._known: tuple[float, Policy] | None = None

    def now(self) -> Policy:
        """Return the policy to decide by."""
        if self._known is None or time.monotonic() - self._known[0] > _FRESH_S:
            self._known = time.monotonic(), self._read()
        return self._known[1]

    def _read(self) -> Policy:
        senders = self._accounts.senders()
        chosen = [AddressTemplate.parse(sender.address) for sender in senders if sender.address]
        return replace(
            self._settled,
            templates=tuple(dict.fromkeys((*self._settled.templates, *chosen))),
            sources=tuple(self._sources.sources()),
            senders=tuple(sender.id for sender in senders),
        )
