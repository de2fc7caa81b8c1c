"""From the queue to the store: our jobs beside a consumer of a Redis stream that records the same, and one RQ job per request.

python -m tests.bench.queued [--count 10000] [--runs 7]
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from handlers.request import DecidedMessage
from tests.bench.measure import Row, machine, save, table, telling
from tests.harness import processes
from tests.harness.redis_server import RedisServer
from tests.harness.service import MASTERS, Service, until
from tests.unit.house import decided
from worker.installation import Installation, open_installation
from worker.journal import configure_logging
from worker.queue import BATCH
from worker.settings import load_settings

_SINGLE = 500
_STREAM, _GROUP = "rival:stream", "rival"


def main() -> None:
    """Measure, print the table, and keep it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000, help="requests")
    parser.add_argument("--runs", type=int, default=7)
    given = parser.parse_args()
    binary = processes.require("redis-server", processes.PACKAGES["redis-server"])
    configure_logging(quiet=True)
    ours, streamed, single = [], [], []
    for number in range(given.runs):
        with (
            telling(f"queue to store: run {number + 1} of {given.runs}"),
            tempfile.TemporaryDirectory() as folder,
            RedisServer(binary, Path(folder)) as redis,
        ):
            environ = {"UNSUBD_REDIS_URL": redis.url, "UNSUBD_SECRET_KEYS": MASTERS[0], "UNSUBD_DATA_DIR": folder}
            with open_installation(load_settings(environ)) as installation:
                installation.accounts.add_sender("acme")
                installation.accounts.add_group("acme", "News", "", 12)
                service = Service(Path(folder), redis_url=redis.url, secret_keys=MASTERS[0], workers="1")
                for measure in (_jobs, _consumer)[:: 1 if number % 2 else -1]:
                    rate = measure(installation, service, _messages(f"{number}.{measure.__name__}", given.count))
                    (ours if measure is _jobs else streamed).append(rate)
                single.append(_jobs(installation, service, _messages(f"{number}.single", _SINGLE), size=1))
    rows = [
        Row(f"queue to store, {given.count:,} requests, 1 worker", "requests/s", ours,
            "a stream's consumer with the same writes", streamed, 0.5),
        Row("queue to store, one job per request", "requests/s", single),
    ]  # fmt: skip
    sys.stdout.write(f"{machine()}\n{table(rows)}\n")
    save(rows, Path("bench"))


def _messages(name: str, count: int) -> list[DecidedMessage]:
    now_ms = time.time_ns() // 1_000_000
    return [
        decided(f"{name}.{number}", recipient=f"{name}.{number}@example.com", received_ms=now_ms)
        for number in range(count)
    ]


def _jobs(installation: Installation, service: Service, messages: list[DecidedMessage], *, size: int = BATCH) -> float:
    """Requests a second of `unsubd work` with one worker, after its first job."""
    for start in range(0, len(messages), size):
        installation.queue.enqueue(messages[start : start + size], limited=False)
    with service.running("work", ready=False):
        key = installation.queue.rq.key
        jobs = len(messages) // size
        until(lambda: installation.redis.llen(key) < jobs - 1, 60, "the second job")
        begun = time.perf_counter()
        until(lambda: not any(_open(installation)), 600, "the last job")
        return (len(messages) - size) / (time.perf_counter() - begun)


def _open(installation: Installation) -> list[int]:
    queued = installation.queue.status()
    return [queued["queued"], queued["started"], queued["scheduled"]]


def _consumer(installation: Installation, service: Service, messages: list[DecidedMessage]) -> float:
    """Requests a second of a consumer in this process: read a batch, record it, acknowledge it."""
    client: Any = installation.redis
    client.xgroup_create(_STREAM, _GROUP, mkstream=True)
    for start in range(0, len(messages), BATCH):
        with client.pipeline(transaction=False) as pipeline:
            for message in messages[start : start + BATCH]:
                pipeline.xadd(_STREAM, {"message": json.dumps(message.as_wire())})
            pipeline.execute()
    begun, done = time.perf_counter(), 0
    while done < len(messages):
        [(_, entries)] = client.xreadgroup(_GROUP, "one", {_STREAM: ">"}, count=BATCH)
        installation.intake.record([DecidedMessage.from_wire(json.loads(each[b"message"])) for _, each in entries])
        client.xack(_STREAM, _GROUP, *(entry for entry, _ in entries))
        done += len(entries)
    seconds = time.perf_counter() - begun
    client.delete(_STREAM)
    return len(messages) / seconds


if __name__ == "__main__":
    main()
