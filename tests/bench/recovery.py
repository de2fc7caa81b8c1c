"""How long until a job is done whose worker was killed with the job in hand.

python -m tests.bench.recovery. Asserts nothing.
"""

import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from redis import Redis

from tests.bench.measure import Row, machine, save, table
from tests.harness import processes
from tests.harness.mails import address, mail, recipient
from tests.harness.names import NAMES
from tests.harness.redis_server import RedisServer
from tests.harness.service import MASTERS, Service, children, until
from worker.store import Store

ROUNDS = 3


def main() -> None:
    """Measure and print."""
    folder = Path(tempfile.mkdtemp(prefix="unsubd-bench-"))
    for name in ("queue", "store", "service"):
        (folder / name).mkdir()
    binary = processes.require("redis-server", "redis-server")
    try:
        with RedisServer(binary, folder / "queue") as queue, RedisServer(binary, folder / "store") as store:
            service = Service(
                folder / "service",
                redis_url=queue.url,
                store_url=store.url,
                secret_keys=MASTERS[0],
                in_relay="bearer:t",
            )
            with service.running("run"), Redis.from_url(queue.url) as client, Redis.from_url(store.url) as rows:
                seconds = [_round(service, client, Store(rows, NAMES), store.pid, number) for number in range(ROUNDS)]
    finally:
        shutil.rmtree(folder)
    rows = [Row("a worker killed with a job in hand, kill to effect", "s", seconds)]
    sys.stdout.write(f"{machine()}\n{table(rows)}\n")
    save(rows, Path("bench"))


def _round(service: Service, client: Redis, store: Store, store_pid: int, number: int) -> float:
    worker = until(lambda: _living_worker(service), what="a worker")
    os.kill(store_pid, signal.SIGSTOP)  # the job waits for the store
    service.post("/in/relay", mail(address(number), f"killed-{number}"), authorization="Bearer t")
    until(lambda: client.zcard("rq:wip:unsubd"), what="the job started")
    for pid in (worker, *children(worker)):
        os.kill(pid, signal.SIGKILL)
    begun = time.monotonic()
    os.kill(store_pid, signal.SIGCONT)
    until(lambda: recipient(number) in {name for name, _ in store.listed("acme", 1)}, 120, "the effect")
    return time.monotonic() - begun


def _living_worker(service: Service) -> int:
    """RQ lists a killed worker until its key expires: take one whose process is there."""
    pids = [int(each["name"].rpartition("-")[2]) for each in service.rows("status")[0]["workers"]]
    return next((pid for pid in pids if Path(f"/proc/{pid}").exists()), 0)


if __name__ == "__main__":
    main()
