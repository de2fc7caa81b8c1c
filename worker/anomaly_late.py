"""Who asked before an anomaly was undone, by another way than it, and is heard of only now.

To the register an undo is a resubscribe, and what is older is stale. But nobody came back: the undo took away what the
anomaly had made. A request that arrived by its own, in a mailbox that was away, say, was meant, whatever its time, and
counts as made just after the undo. What the anomaly itself brought, read again, stays stale.

Limits:  known for as long as the anomaly, 30 days. A resubscribe of before the anomaly is forgotten in the row: who asked
         before that, and is heard of after the undo, is stopped; in doubt, no mail.
"""

from collections.abc import Sequence
from dataclasses import replace

from handlers.anomaly import Anomaly, lift_id
from handlers.request import Effect, Request
from worker.anomalies import Anomalies
from worker.store import Store
from worker.store.row import Row


def renewed(
    store: Store, anomalies: Anomalies, requests: Sequence[Request], effects: Sequence[Effect]
) -> dict[int, Effect]:
    """Apply again, of *requests* that had *effects*, those that only an undo made stale; return what they did, by place.

    Errors:  Unavailable  a server is away.    temporary
    Repeat:  safe: a request hears its first effect.
    """
    stale = [number for number, effect in enumerate(effects) if effect is Effect.STALE]
    every = anomalies.every() if stale else []
    if not every:
        return {}
    rows = store.rows([(each.sender, each.group, each.recipient) for each in (requests[number] for number in stale)])
    meant = {
        number: replace(requests[number], at_ms=row.time_ms, undated=False)
        for number, row in zip(stale, rows, strict=True)
        if row is not None and _is_meant(requests[number], row, every, anomalies)
    }
    return dict(zip(meant, store.apply(list(meant.values())), strict=True))


def _is_meant(request: Request, row: Row, every: Sequence[Anomaly], anomalies: Anomalies) -> bool:
    """Say whether an undo lifted the row, and the request is none of that anomaly's."""
    names = (request.sender, request.group, request.recipient)
    undone = [each for each in every if bytes.fromhex(lift_id(each.id, *names))[:8] == row.evidence]
    key = anomalies.key_of(request)
    return bool(undone) and not any(each.holds(request.source, request.at_ms, key) for each in undone)
