"""`/metrics`: Prometheus text from what lies in Redis, so that every process of the installation is in it.

Labels are bounded: 200 senders and 100 reasons and sources at most, the most frequent; the rest counts as `other`. Of
more than 200 sources the gauge shows those that do not work first.
"""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from fastapi import APIRouter, Request
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.responses import Response

from handlers.errors import QueueUnavailable, Unavailable
from worker import clock, sent
from worker.backlog import STATES
from worker.clock import OTHER
from worker.crew import REQUESTS, is_alive
from worker.forwarding.state import told_by_level
from worker.installation import Installation
from worker.journal import METRICS, Journal
from worker.owed import LEVELS
from worker.server import away_as
from worker.status import status

router = APIRouter()
GAUGES = {
    "unsubd_queue_requests": ("state", "Requests in the queue, by RQ state of their job"),
    "unsubd_queue_messages": ("state", "Messages in the queue, by RQ state of their job"),
    "unsubd_queue_jobs": ("state", "Jobs by RQ state"),
    "unsubd_queue_oldest_seconds": ("", "Age of the oldest waiting job"),
    "unsubd_quarantine_messages": ("reason", "Messages that wait for a person"),
    "unsubd_owed_level": ("", "Is anything owed: 0 good, 1 late, 2 alarm, 3 page, 4 red"),
    "unsubd_owed_seconds": ("", "Age of the oldest message not yet decided or applied, wherever it waits"),
    "unsubd_alarms": ("level", "What ops should look at, by level"),
    "unsubd_source_up": ("source", "1 when a source works, 0 when it is refused, silent, waiting or unproved"),
    "unsubd_forward_waiting": ("target", "Changes that a forward target was not told yet"),
    "unsubd_forward_oldest_seconds": ("target", "Age of the oldest of them, from its event; other: the greatest"),
    "unsubd_forward_failing_seconds": ("target", "How long every try has failed, 0 when the last one succeeded"),
    "unsubd_workers": ("", "Living workers of the requests"),
}
COUNTERS = {
    "unsubd_source_messages_total": ("source, outcome", "Messages by source and what became of them, each once"),
    "unsubd_sender_requests_total": ("sender, effect", "Requests by sender and effect, each once"),
    "unsubd_reasons_total": ("outcome, reason", "Messages by outcome and why, each once"),
    "unsubd_forward_told_total": (
        "target, level",
        "Changes by how late the provider knew: good, late, alarm, page, red",
    ),
    "unsubd_mailed_after_total": ("sender", "Mails reported as sent after a suppression took effect"),
}
HISTOGRAMS = {
    "unsubd_request_age_seconds": ("source", "From the event to the effect of a request"),
    "unsubd_forward_age_seconds": ("target", "From the event of a change until the target's provider knows"),
    "unsubd_hop_seconds": ("hop", "Parts of that: arrival (until it is in the queue) and queue (until its effect)"),
}
ALL = METRICS | GAUGES | COUNTERS | HISTOGRAMS
_MOST_SENDERS, _MOST_OTHERS, _MOST_SOURCES = 200, 100, 200
Names = tuple[str, str]


class _Installation(Collector):
    def __init__(self, installation: Installation) -> None:
        self._installation = installation

    def collect(self) -> Iterator[Metric]:
        client = self._installation.redis
        yield from self._journal()
        yield from self._gauges(status(self._installation))
        for name, kind, most in (
            ("unsubd_source_messages_total", "source", _MOST_OTHERS),
            ("unsubd_sender_requests_total", "sender", _MOST_SENDERS),
        ):
            yield _counter(name, bounded(clock.totals(client, kind), 0, most))
        yield _counter("unsubd_reasons_total", bounded(clock.totals(client, "reason"), 1, _MOST_OTHERS))
        mailed = bounded({(sender, ""): count for sender, count in self._mailed_after().items()}, 0, _MOST_SENDERS)
        yield _counter("unsubd_mailed_after_total", mailed)
        yield _histogram("unsubd_request_age_seconds", bounded(clock.totals(client, "age"), 0, _MOST_OTHERS))
        forwarded = bounded(clock.totals(client, clock.FORWARD), 0, _MOST_OTHERS)
        yield _counter("unsubd_forward_told_total", told_by_level(forwarded))
        yield _histogram("unsubd_forward_age_seconds", forwarded)
        yield _histogram("unsubd_hop_seconds", clock.totals(client, "hop"))

    def _journal(self) -> Iterator[Metric]:
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
            counters = Journal.counters(self._installation.redis)
        for name, (label, text) in METRICS.items():
            family = CounterMetricFamily(name, text, labels=[label])
            for (metric, value), count in counters.items():
                if metric == name:
                    family.add_metric([value], count)
            yield family

    def _gauges(self, state: dict[str, Any]) -> Iterator[Metric]:
        queue, found = state["queue"], state["owed"]
        yield _gauge("unsubd_queue_requests", queue["requests"])
        yield _gauge("unsubd_queue_messages", queue["messages"])
        yield _gauge("unsubd_queue_jobs", {each: queue[each] for each in STATES})
        yield _gauge("unsubd_queue_oldest_seconds", {"": queue["oldest_s"]})
        yield _gauge("unsubd_quarantine_messages", state["quarantine"]["by_reason"])
        yield _gauge("unsubd_owed_level", {"": LEVELS.index(found["level"])})
        yield _gauge("unsubd_owed_seconds", {"": found["oldest_s"]})
        levels = Counter(each["level"] for each in found["alarms"])
        yield _gauge("unsubd_alarms", {level: levels[level] for level in LEVELS[1:]})
        yield _gauge("unsubd_source_up", _up(state["sources"]))
        yield from _forwards(state["forwards"])
        yield _gauge(
            "unsubd_workers", {"": sum(REQUESTS in each["queues"] and is_alive(each) for each in state["workers"])}
        )

    def _mailed_after(self) -> Counter[str]:
        counts: Counter[str] = Counter()
        for (sender, _), count in sent.counts(self._installation.redis).items():
            counts[sender] += count
        return counts


def _up(sources: list[dict[str, Any]]) -> dict[str, bool]:
    """Whether each source works; of more than there may be labels, those that do not. Who stands by is no source."""
    known = {each["name"]: each["state"] for each in sources if each["state"] != "standby"}
    up = {name: state not in ("refused", "silent", "waiting", "unproved") for name, state in known.items()}
    return dict(sorted(up.items(), key=lambda row: row[1])[:_MOST_SOURCES])


def bounded(counts: Mapping[Names, int], place: int, most: int) -> dict[Names, int]:
    """Return *counts* with the name at *place* (0 or 1) replaced by "other" where it is none of the *most* frequent.

    Example:
        >>> bounded({("a", "x"): 3, ("b", "x"): 2, ("c", "x"): 1}, 0, 1)
        {('a', 'x'): 3, ('other', 'x'): 3}
    """
    sizes: Counter[str] = Counter()
    for names, count in counts.items():
        sizes[names[place]] += 0 if names[1] == "sum" else count
    kept = {name for name, _ in sizes.most_common(most)}
    found: Counter[Names] = Counter()
    for names, count in counts.items():
        shown = [name if at != place or name in kept else OTHER for at, name in enumerate(names)]
        found[shown[0], shown[1]] += count
    return dict(found)


def _gauge(name: str, values: Mapping[str, float]) -> GaugeMetricFamily:
    label, text = GAUGES[name]
    family = GaugeMetricFamily(name, text, labels=[label] if label else [])
    for value, number in values.items():
        family.add_metric([value] if label else [], number)
    return family


def _forwards(forwards: list[dict[str, Any]]) -> Iterator[Metric]:
    """Of the targets that wait longest; of the rest together the worst."""
    now_s = time.time()
    shown: dict[str, dict[str, float]] = {"waiting": {}, "oldest_seconds": {}, "failing_seconds": {}}
    for at, each in enumerate(forwards):
        name = each["target"] if at < _MOST_OTHERS else OTHER
        failing_s = now_s - each["failing_ms"] / 1000 if each["failing_ms"] else 0.0
        shown["waiting"][name] = shown["waiting"].get(name, 0) + each["changes"]
        for kind, value in (("oldest_seconds", each["age_s"]), ("failing_seconds", failing_s)):
            shown[kind][name] = max(value, shown[kind].get(name, 0.0))
    for kind, values in shown.items():
        yield _gauge(f"unsubd_forward_{kind}", values)


def _counter(name: str, counts: Mapping[Names, int]) -> CounterMetricFamily:
    labels, text = COUNTERS[name]
    family = CounterMetricFamily(name, text, labels=labels.split(", "))
    for names, count in counts.items():
        family.add_metric(list(names[: len(labels.split(", "))]), count)
    return family


def _histogram(name: str, counts: Mapping[Names, int]) -> HistogramMetricFamily:
    label, text = HISTOGRAMS[name]
    family = HistogramMetricFamily(name, text, labels=[label])
    rows: dict[str, dict[str, int]] = defaultdict(dict)
    for (value, level), count in counts.items():
        rows[value][level] = count
    for value, levels in sorted(rows.items()):
        buckets, seen = [], 0
        for number, border in enumerate([*map(str, clock.LEVELS_S), "+Inf"]):
            seen += levels.get(str(number), 0)
            buckets.append((border, float(seen)))
        family.add_metric([value], buckets, levels.get("sum", 0) / 1000)
    return family


@router.get("/metrics", include_in_schema=False)
async def metrics(request: Request) -> Response:
    """Counters of all processes, and how much waits."""
    try:
        text = await asyncio.to_thread(exposition, request.app.state.installation)
    except Unavailable as error:
        return Response(str(error), status_code=503)
    return Response(text, media_type=CONTENT_TYPE_LATEST)


def exposition(installation: Installation) -> bytes:
    """Return every metric in Prometheus' text format. Errors: Unavailable  a server is away.    temporary"""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Installation(installation))
    return generate_latest(registry)
