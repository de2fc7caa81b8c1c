"""Workers that die with a job in hand: another does it. `test_recovery.py` times the same for every victim."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

from redis import Redis

from tests.harness.mails import address, mail
from tests.harness.redis_server import RedisServer
from tests.harness.service import MASTERS, Service, children, until

KEYS = {"secret_keys": ",".join(MASTERS), "address": "u+{tag}@unsub.example.com"}


def _registered(service: Service) -> Service:
    service.last_line("sender", "add", "acme")
    service.last_line("group", "add", "acme", "Weekly news")
    return service


def _workers(service: Service) -> list[int]:
    return [int(each["name"].rpartition("-")[2]) for each in service.rows("status")[0]["workers"]]


def _is_suppressed(service: Service, number: int) -> bool:
    return bool(service.rows("check", "acme", "1", f"person.{number}@example.com")[0]["suppressed"])


def test_a_job_taken_by_a_worker_that_died_at_once_is_done_by_another(tmp_path: Path, redis_url: str) -> None:
    service = _registered(Service(tmp_path, redis_url=redis_url, **KEYS))
    (tmp_path / "one.eml").write_bytes(mail(address(1), "one"))
    assert service.command("deliver", str(tmp_path / "one.eml")).returncode == 0
    with Redis.from_url(redis_url) as client:
        taken = client.lmove("rq:queue:unsubd", "rq:queue:unsubd:intermediate", "LEFT", "RIGHT")  # as BLMOVE does
    assert taken is not None

    with service.running("work", ready=False):
        until(lambda: _is_suppressed(service, 1), 40)


def test_a_job_whose_worker_was_killed_in_the_middle_is_done_by_another(
    tmp_path: Path, redis_url: str, own_redis: Callable[..., RedisServer]
) -> None:
    store = own_redis()
    settings = {"redis_url": redis_url, "store_url": store.url, "in_relay": "bearer:t"} | KEYS
    service = _registered(Service(tmp_path, **settings))

    with service.running("run"), Redis.from_url(redis_url) as client:
        worker = until(lambda: _workers(service))[0]
        os.kill(store.pid, signal.SIGSTOP)  # the job waits for the store, which uses up no try
        assert service.post("/in/relay", mail(address(1), "one"), authorization="Bearer t") == 204
        until(lambda: client.zcard("rq:wip:unsubd"), what="the job started")
        for pid in (worker, *children(worker)):
            os.kill(pid, signal.SIGKILL)
        os.kill(store.pid, signal.SIGCONT)
        until(lambda: _is_suppressed(service, 1), 60)
