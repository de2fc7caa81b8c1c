"""Every way in which a real Redis fails while requests come by mail, webhook and one-click: none is lost, each counts once."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from redis import Redis

from tests.harness.dovecot import Mailbox
from tests.harness.meanwhile import Meanwhile
from tests.harness.redis_server import RedisServer
from tests.harness.service import Service, until
from tests.harness.trial import Trial, settings

pytestmark = [pytest.mark.fault, pytest.mark.timeout(240)]
PROMISE, EACH, AWAY_S = "accept, then acknowledge", 30, 3.0


def _killed(redis: RedisServer) -> None:
    redis.kill()
    time.sleep(AWAY_S)
    redis.start()


def _restarted(redis: RedisServer) -> None:
    redis.restart()


def _full(redis: RedisServer) -> None:
    with Redis.from_url(redis.url) as client:
        client.config_set("maxmemory", "1mb")
        time.sleep(AWAY_S)
        client.config_set("maxmemory", "0")


def _slow(redis: RedisServer) -> None:
    """Twice it says nothing for longer than we wait."""
    with Redis.from_url(redis.url) as client:
        for _ in range(2):
            client.client_pause(6500)
            time.sleep(7.5)


def _busy(redis: RedisServer) -> None:
    with Redis.from_url(redis.url, socket_timeout=30) as client:
        client.execute_command("DEBUG", "SLEEP", "6")


FAULTS = {"killed for 3 s": _killed, "restarted": _restarted, "full (maxmemory, noeviction)": _full,
          "slow: silent twice for 6.5 s": _slow, "hangs for 6 s": _busy}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_redis_fails_and_nothing_is_lost(
    tmp_path: Path, own_redis: Callable[..., RedisServer], dovecot: Mailbox, fault: str
) -> None:
    redis = own_redis(maxmemory_policy="noeviction", enable_debug_command="yes")
    service = Service(tmp_path, **settings(redis.url, dovecot))
    trial = Trial(service, dovecot)
    trial.register()
    with service.running("run"):
        trial.send(range(EACH))
        time.sleep(0.1)
        broken = Meanwhile(lambda: FAULTS[fault](redis))
        for start in range(EACH, 4 * EACH, 10):
            trial.send(range(start, start + 10))
            time.sleep(0.15)
        broken.join()
        trial.send(range(4 * EACH, 5 * EACH))

        trial.verdict(redis.url, PROMISE, f"Redis {fault}", "test_redis_faults")


def test_a_primary_that_became_read_only_loses_nothing(
    tmp_path: Path, own_redis: Callable[..., RedisServer], dovecot: Mailbox
) -> None:
    """After a failover ours follows the one that was promoted, until it is the primary again."""
    ours, other = own_redis(), own_redis()
    with Redis.from_url(ours.url) as one, Redis.from_url(other.url) as two:
        service = Service(tmp_path, **settings(ours.url, dovecot))
        trial = Trial(service, dovecot)
        trial.register()
        with service.running("run"):
            trial.send(range(EACH))
            trial.settled(ours.url)
            two.replicaof("127.0.0.1", ours.port)
            until(lambda: two.info("replication")["master_link_status"] == "up", what="the copy")
            two.replicaof("NO", "ONE")
            one.replicaof("127.0.0.1", other.port)
            trial.send(range(EACH, 3 * EACH))
            until(lambda: one.info("replication")["master_link_status"] == "up", what="the roles changed")
            until(lambda: trial.answers[503], what="a refusal")
            one.replicaof("NO", "ONE")
            trial.send(range(3 * EACH, 4 * EACH))

            trial.verdict(ours.url, PROMISE, "Redis: read-only replica after a failover", "test_redis_faults")
