"""What UNSUBD_MIN_REPLICAS promises, on real servers: nothing counts that no replica has, whoever becomes the primary."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import redis

from handlers.errors import QueueUnavailable
from tests.harness.redis_server import RedisServer
from tests.unit.house import decided
from worker import server
from worker.queue import RequestQueue

pytestmark = [pytest.mark.fault, pytest.mark.timeout(300)]


@contextmanager
def _frozen(server: RedisServer) -> Iterator[None]:
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


@pytest.mark.parametrize("valkey", [False, True], ids=["redis", "valkey"])
def test_a_job_counts_when_a_replica_has_it_and_not_before(
    own_redis: Callable[..., RedisServer], monkeypatch: pytest.MonkeyPatch, *, valkey: bool
) -> None:
    monkeypatch.setattr(server, "_WAIT_MS", 3000)
    primary = own_redis(valkey=valkey, repl_diskless_sync_delay="0")
    replica = own_redis(valkey=valkey, replicaof=f"127.0.0.1 {primary.port}")
    client = primary.client()
    client.wait(1, 4000)
    queue = RequestQueue(client, limit=1000, min_replicas=1)

    for number in range(50):
        queue.enqueue([decided(f"k{number}")])
    time.sleep(1.2)  # the replica has told that it has all of it: what a WAIT within MULTI would count
    with _frozen(replica), pytest.raises(QueueUnavailable, match="0 of 1 replicas confirmed"):
        queue.enqueue([decided("unconfirmed")])

    assert len(queue.enqueue([decided("again")])) == 1
    assert int(redis.Redis.from_url(replica.url).llen("rq:queue:unsubd")) == 52
