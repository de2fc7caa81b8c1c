"""One kill -9 at a known moment, and how long until all is well again."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.crash.processes import Part, alive, below, kill, kill_alone, kill_tree
from tests.harness.mails import address, mail, recipient
from tests.harness.names import NAMES
from tests.harness.redis_server import RedisServer
from tests.harness.service import MASTERS, Service, until
from worker.store import Store

_EFFECT_S = 30.0


@contextmanager
def _started(part: Part) -> Iterator[Part]:
    part.start()
    try:
        yield part
    finally:
        part.end()


def _strike(part: Part, victims: str) -> None:
    """Kill -9 *victims*, who have a job in hand."""
    if victims == "everything":
        part.kill(kill_tree)
        part.start()
        return
    worker, horse = next(part.horses())
    if victims != "worker":
        kill(horse)
    if victims != "horse":
        kill(worker)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("victims", ["worker and horse", "worker", "horse", "everything"])
def test_requests_of_a_killed_worker_take_effect_within_30_s(
    tmp_path: Path, own_redis: Callable[..., RedisServer], victims: str
) -> None:
    queue, rows = own_redis(), own_redis()
    service = Service(
        tmp_path, redis_url=queue.url, store_url=rows.url, secret_keys=MASTERS[0], in_relay="bearer:t", workers="1"
    )
    store, client = Store(rows.client(), NAMES), queue.client()
    with _started(Part(service, "run")) as part:
        until(service.is_ready, what="the start")
        os.kill(rows.pid, signal.SIGSTOP)  # the job waits for the store
        service.post("/in/relay", mail(address(1), "killed"), authorization="Bearer t")
        until(lambda: client.zcard("rq:wip:unsubd") and any(part.horses()), what="the job in hand")

        _strike(part, victims)
        os.kill(rows.pid, signal.SIGCONT)

        until(lambda: recipient(1) in {name for name, _ in store.listed("acme", 1)}, _EFFECT_S, "the effect")


@pytest.mark.parametrize("moment", ["starting", "at work"])
def test_a_killed_supervisor_takes_its_parts_along(
    tmp_path: Path, own_redis: Callable[..., RedisServer], moment: str
) -> None:
    redis = own_redis()
    service = Service(tmp_path, redis_url=redis.url, secret_keys=MASTERS[0], workers="2")
    client = redis.client()
    with _started(Part(service, "work")) as part:
        until(lambda: len(part.parts("worker")) == 2, what="both workers started")
        if moment == "at work":
            until(lambda: client.scard("rq:workers:unsubd") == 2, what="both workers at work")
        parts = below(part.pid)

        part.kill(kill_alone)

        try:
            until(lambda: not any(alive(pid) for pid in parts), 15, "the end of its parts")
        finally:
            for pid in parts:
                kill(pid)
