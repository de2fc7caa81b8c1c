"""What the installation is doing now: the same facts for `unsubd status`, the console and the doctor."""

import time
from dataclasses import asdict
from typing import Any

from handlers.errors import QueueUnavailable
from worker import backlog, clock
from worker.endpoints import endpoint_states
from worker.forwarding.state import forwards_state
from worker.installation import Installation
from worker.owed import owed
from worker.server import away_as
from worker.sources import source_states

_DAY_S = 86400


def status(installation: Installation) -> dict[str, Any]:
    """Return queue, sources, quarantine and clock.

    Shape:   queue: RQ's counts of jobs, `requests` and `messages` by the same states, `oldest_s`.
             workers: name, state, job, `heartbeat_s`, `queues`, `faults`. sources: what each last said, webhook
             endpoints (`worker/endpoints.py`) among them.
             quarantine: `total`, `by_reason`. outgoing: jobs of events and forwarders by state, `oldest_s`.
             forwards: of each target, what it was not told yet (`worker/forwarding/state.py`).
             owed: `level`, `text`, `oldest_s`, `alarms` (`worker/owed.py`). ages_s: `count`, `p50`, `p99`, `max` of the
             requests that took effect in the last 24 hours.
             clock: the server's time and how far ours is from it.
    Errors:  QueueUnavailable  Redis is away.    temporary
    """
    with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
        seconds, micros = installation.redis.time()
        skew_ms = round(time.time() * 1000 - (seconds * 1000 + micros / 1000))
        sources = source_states(installation.redis) + endpoint_states(installation.redis, installation.hooks)
        outgoing = backlog.counts(installation.events.rq)
        ages = clock.total(installation.redis, (seconds - _DAY_S) * 1000)
    quarantined = installation.quarantine.counts()
    state = {
        "queue": installation.queue.status(),
        "workers": installation.queue.workers(),
        "sources": sources,
        "quarantine": {"total": sum(quarantined.values()), "by_reason": quarantined},
        "clock": {"server_s": seconds, "skew_ms": skew_ms},
        "durability": installation.weakness or "appendfsync always",
        "outgoing": {name: outgoing[name] for name in (*backlog.STATES, "oldest_s")},
        "ages_s": {"count": ages.count, "p50": ages.p50_s, "p99": ages.p99_s, "max": ages.max_s},
    }
    state["forwards"] = forwards_state(installation)
    return state | {"owed": asdict(owed(installation, state))}
