"""The audit trail of the console: who did what to whom, and when. Nobody can take a line out of it by the console.

| key            | type | holds                                                                    | lives    |
|----------------|------|--------------------------------------------------------------------------|----------|
| `unsubd:trail` | LIST | the last 10,000 actions, newest first: JSON {at_ms, who, role, action, …} | for good |
"""

import json
import time
from typing import Any, cast

from worker.installation import Installation
from worker.points import point
from worker.web.ops.session import Session

_TRAIL = "unsubd:trail"
_KEPT = 10_000


def note(installation: Installation, session: Session, action: str, target: str, outcome: str = "") -> None:
    """Write down an action: a line here and one in the journal.

    Shape:   target: an id, a name, or a pseudonym; never an address. outcome: what it did, in a word.
    """
    facts = {"who": session.who, "role": session.role.value, "action": action, "target": target, "outcome": outcome}
    row = {"at_ms": time.time_ns() // 1_000_000, **facts}
    pipeline = installation.redis.pipeline(transaction=True)
    pipeline.lpush(_TRAIL, json.dumps(row))
    pipeline.ltrim(_TRAIL, 0, _KEPT - 1)
    with point("console.note"):
        pipeline.execute()
    installation.journal.service("console", **facts)


def actions(installation: Installation, start: int, count: int) -> list[dict[str, Any]]:
    """Return *count* actions, newest first, from number *start*."""
    rows = cast(list[bytes], installation.redis.lrange(_TRAIL, start, start + count - 1))
    return [json.loads(row) for row in rows]


def count(installation: Installation) -> int:
    """Return how many actions are remembered."""
    return installation.redis.llen(_TRAIL)
