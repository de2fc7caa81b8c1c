"""What the installation is doing now: the same facts for `unsubd status`, the console and the doctor."""

import time
from typing import Any

from handlers.errors import QueueUnavailable
from worker.installation import Installation
from worker.server import away_as
from worker.sources import source_states


def status(installation: Installation) -> dict[str, Any]:
    """Return queue, sources, quarantine and clock.

    Shape:   queue: RQ's counts of jobs, `requests` and `messages` by the same states, `oldest_s`.
             workers: name, state, job, `heartbeat_s`, `queues`, `faults`. sources: what each last said.
             quarantine: `total`, `by_reason`.
             clock: the server's time and how far ours is from it.
    Errors:  QueueUnavailable  Redis is away.    temporary
    """
    with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
        seconds, micros = installation.redis.time()
        skew_ms = round(time.time() * 1000 - (seconds * 1000 + micros / 1000))
        sources = source_states(installation.redis)
    quarantined = installation.quarantine.counts()
    return {
        "queue": installation.queue.status(),
        "workers": installation.queue.workers(),
        "sources": sources,
        "quarantine": {"total": sum(quarantined.values()), "by_reason": quarantined},
        "clock": {"server_s": seconds, "skew_ms": skew_ms},
        "durability": installation.weakness or "appendfsync always",
    }
