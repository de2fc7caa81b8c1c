"""`/metrics`: Prometheus text from the counters in Redis, so that every process of the installation is in it."""

import asyncio
from collections.abc import Iterator

from fastapi import APIRouter, Request
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.responses import Response

from handlers.errors import QueueUnavailable, Unavailable
from worker.backlog import STATES
from worker.installation import Installation
from worker.journal import METRICS, Journal
from worker.server import away_as

router = APIRouter()
GAUGES = {
    "unsubd_queue_requests": ("state", "Requests in the queue, by RQ state of their job"),
    "unsubd_queue_messages": ("state", "Messages in the queue, by RQ state of their job"),
    "unsubd_queue_jobs": ("state", "Jobs by RQ state"),
    "unsubd_queue_oldest_seconds": ("", "Age of the oldest waiting job"),
    "unsubd_quarantine_messages": ("reason", "Messages that wait for a person"),
}


class _Installation(Collector):
    def __init__(self, installation: Installation) -> None:
        self._installation = installation

    def collect(self) -> Iterator[Metric]:
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
            counters = Journal.counters(self._installation.redis)
        for name, (label, text) in METRICS.items():
            family = CounterMetricFamily(name, text, labels=[label])
            for (metric, value), count in counters.items():
                if metric == name:
                    family.add_metric([value], count)
            yield family
        status = self._installation.queue.status()
        yield _by_state("unsubd_queue_requests", status["requests"])
        yield _by_state("unsubd_queue_messages", status["messages"])
        yield _by_state("unsubd_queue_jobs", {state: status[state] for state in STATES})
        oldest = "unsubd_queue_oldest_seconds"
        yield GaugeMetricFamily(oldest, GAUGES[oldest][1], value=status["oldest_s"])
        name = "unsubd_quarantine_messages"
        waiting = GaugeMetricFamily(name, GAUGES[name][1], labels=["reason"])
        for reason, count in self._installation.quarantine.counts().items():
            waiting.add_metric([reason], count)
        yield waiting


def _by_state(name: str, counts: dict[str, int]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, GAUGES[name][1], labels=["state"])
    for state, count in counts.items():
        family.add_metric([state], count)
    return family


@router.get("/metrics", include_in_schema=False)
async def metrics(request: Request) -> Response:
    """Counters of all processes, and how much waits."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Installation(request.app.state.installation))
    try:
        text = await asyncio.to_thread(generate_latest, registry)
    except Unavailable as error:
        return Response(str(error), status_code=503)
    return Response(text, media_type=CONTENT_TYPE_LATEST)
