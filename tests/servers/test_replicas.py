"""What UNSUBD_MIN_REPLICAS promises, on real servers: nothing counts that no replica has, whoever becomes the primary."""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
import redis
from unsubd import AsyncRedisClient, Checked, CheckFailed, RedisClient

from handlers.errors import QueueUnavailable, StoreUnavailable
from handlers.request import Action
from tests.harness.dovecot import Mailbox, write_certificate
from tests.harness.processes import free_port
from tests.harness.redis_server import RedisServer, killed, silent
from tests.harness.sentinels import NAME, SentinelServer, Watched
from tests.harness.service import Service, until
from tests.harness.trial import Trial, settings
from tests.unit.house import decided
from worker import by_hand, server
from worker.installation import Installation, open_installation
from worker.queue import RequestQueue
from worker.settings import load_settings

pytestmark = [pytest.mark.fault, pytest.mark.timeout(300)]
JANE = "jane@example.com"
PROMISE, EACH, RECOVERS_S = "accept, then acknowledge", 30, 120


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
    primary = own_redis(valkey=valkey, repl_diskless_sync_delay="0")
    replica = own_redis(valkey=valkey, replicaof=f"127.0.0.1 {primary.port}")
    client = primary.client()
    until(lambda: client.wait(1, 1000) == 1, what="the replica follows")
    queue = RequestQueue(client, limit=1000, min_replicas=1)

    for number in range(50):
        queue.enqueue([decided(f"k{number}")])
    time.sleep(1.2)  # the replica has told that it has all of it: what a WAIT within MULTI would count
    with monkeypatch.context() as hurried, _frozen(replica):
        hurried.setattr(server, "_WAIT_MS", 500)
        with pytest.raises(QueueUnavailable, match="0 of 1 replicas confirmed"):
            queue.enqueue([decided("unconfirmed")])

    assert len(queue.enqueue([decided("again")])) == 1
    assert int(redis.Redis.from_url(replica.url).llen("rq:queue:unsubd")) == 52


def test_what_people_are_told_is_kept_a_replica_has(
    tmp_path: Path, own_redis: Callable[..., RedisServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Queue and store apart, each with a replica: the ledger is on the one, accounts and keys on the other."""

    @contextmanager
    def frozen(replica: RedisServer) -> Iterator[None]:
        with _frozen(replica), monkeypatch.context() as hurried:
            hurried.setattr(server, "_WAIT_MS", 500)  # here only: a busy disk takes longer, and is no refusal
            yield

    queue, store = own_redis(repl_diskless_sync_delay="0"), own_redis(repl_diskless_sync_delay="0")
    queue_replica, store_replica = (own_redis(replicaof=f"127.0.0.1 {each.port}") for each in (queue, store))
    for each in (queue, store):
        until(lambda each=each: each.client().wait(1, 1000) == 1, what="its replica follows")
    with _installed(tmp_path, queue, store, min_replicas="1") as house:
        house.accounts.add_sender("acme")
        key = house.accounts.new_api_key("acme")
        with frozen(queue_replica):
            for refused in (
                lambda: house.accounts.add_group("acme", "Offers"),
                lambda: house.accounts.new_api_key("acme"),
                lambda: house.accounts.revoke_api_key("acme", house.accounts.api_keys("acme")[-1][0]),
            ):
                with pytest.raises(QueueUnavailable, match="0 of 1 replicas confirmed"):
                    refused()
        with frozen(store_replica), pytest.raises(StoreUnavailable, match="0 of 1 replicas confirmed"):
            house.ledger.write([(decided("unconfirmed"), [])])
        group = house.accounts.add_group("acme", "Weekly news")
        lasting = house.accounts.new_api_key("acme")
        by_hand.enter(house, Action.UNSUBSCRIBE, "acme", group.id, [JANE], actor="ops", reason="she asked")
    for primary, replica in ((queue, queue_replica), (store, store_replica)):
        primary.kill()
        replica.client().replicaof("NO", "ONE")

    with _installed(tmp_path, queue_replica, store_replica) as house:
        assert house.accounts.group("acme", group.id).name == "Weekly news"
        assert [bool(each) for each in house.accounts.keys.found([key, lasting])] == [False, True]
        [rows] = house.store.asked("acme", group.id, [JANE])
        assert any(row and row.suppressed for row in rows)
        assert [record["source"] for _, record in house.ledger.records() if record["requests"]] == ["operator"]


def _installed(
    folder: Path, queue: RedisServer, store: RedisServer, **more: str
) -> AbstractContextManager[Installation]:
    given = settings(queue.url, store_url=store.url, data_dir=str(folder), **more)
    return open_installation(load_settings({f"UNSUBD_{name.upper()}": value for name, value in given.items()}))


def _follows(client: redis.Redis) -> bool:
    return client.info("replication").get("master_link_status") == "up"


def test_roles_change_and_change_back_at_one_address(
    tmp_path: Path, own_redis: Callable[..., RedisServer], dovecot: Mailbox
) -> None:
    """As for an update: without Sentinel, ours follows the other for a while."""
    ours, other = own_redis(), own_redis(repl_diskless_sync_delay="0")
    other_follows = ("127.0.0.1", ours.port)
    one, two = ours.client(), other.client()
    one.config_set("repl-diskless-sync-delay", 0)
    two.replicaof(*other_follows)
    until(lambda: _follows(two), what="the copy")
    service = Service(tmp_path, **settings(ours.url, dovecot, min_replicas="1"))
    trial = Trial(service, dovecot)
    trial.register()
    with service.running("run"):
        trial.send(range(EACH))
        two.replicaof("NO", "ONE")
        one.replicaof("127.0.0.1", other.port)
        trial.send(range(EACH, 3 * EACH))
        until(lambda: trial.answers[503], what="a refusal")
        until(lambda: _follows(one), what="the change")
        one.replicaof("NO", "ONE")
        two.replicaof(*other_follows)
        trial.send(range(3 * EACH, 4 * EACH))

        trial.verdict(ours.url, PROMISE, "Redis: roles changed, and back, with UNSUBD_MIN_REPLICAS=1", "test_replicas")


@pytest.mark.parametrize(("fault", "breaks"), [("killed", killed), ("silent, and back with its old data", silent)])
def test_sentinel_replaces_a_primary_that_dies_under_load(
    tmp_path: Path, watched: Callable[..., Watched], dovecot: Mailbox, fault: str,
    breaks: Callable[[RedisServer], Callable[[], None]],
) -> None:  # fmt: skip
    house = watched(2)
    service = Service(tmp_path, **settings(house.url, dovecot, min_replicas="1"))
    trial = Trial(service, dovecot)
    trial.register()
    with service.running("run"):
        first = house.primary()
        first_s, mend = _broken_under_load(trial, service, lambda: breaks(first), range(3 * EACH))
        mend()
        house.settle()
        second = house.primary()
        second_s, mend = _broken_under_load(trial, service, lambda: breaks(second), range(3 * EACH, 6 * EACH))
        mend()
        house.settle()

        told = service.command("doctor").stdout
        trial.verdict(
            house.url, PROMISE, f"Redis: the primary {fault}, under load, twice; Sentinel fails over", "test_replicas",
            recovered_s=f"{max(first_s, second_s):.1f}",
        )  # fmt: skip
    assert first is not second
    assert f"primary 127.0.0.1:{house.primary().port}, as the Sentinels say" in told


def _broken_under_load(
    trial: Trial, service: Service, breaks: Callable[[], Callable[[], None]], numbers: range
) -> tuple[float, Callable[[], None]]:
    """Break something in the middle of these requests; return how many seconds the service was not ready, and what mends."""
    for start in range(numbers.start, numbers.stop, 10):
        if start == numbers.start + EACH:
            mend = breaks()
            broken_at = time.monotonic()
        trial.send(range(start, start + 10))
        time.sleep(0.15)
    until(service.is_ready, RECOVERS_S, "ready again")
    return time.monotonic() - broken_at, mend


def test_what_only_the_dead_primary_had_was_never_acknowledged(
    tmp_path: Path, watched: Callable[..., Watched], dovecot: Mailbox
) -> None:
    """Its one replica is away before, and takes over; until the old one is back as a replica of that, nothing is taken."""
    house = watched(1)
    service = Service(tmp_path, **settings(house.url, dovecot, min_replicas="1"))
    trial = Trial(service, dovecot)
    trial.register()
    with service.running("run"):
        trial.send(range(EACH))
        trial.settled(house.url)
        old = house.primary()
        replica = next(each for each in house.servers if each is not old)
        replica.kill()  # not frozen: what it has not read yet would be in its socket
        trial.send(range(EACH, 2 * EACH))
        until(lambda: trial.answers[503], what="a refusal")
        old.kill()
        replica.start()
        until(lambda: house.primary() is replica, 60, what="the failover")
        refused = trial.answers[503]
        until(lambda: trial.answers[503] > refused, what="a refusal of the new primary")
        old.start()
        house.settle()
        trial.send(range(2 * EACH, 3 * EACH))

        trial.verdict(
            house.url, PROMISE, "Redis: the primary killed while its one replica was away, and back", "test_replicas"
        )


def test_who_asks_the_store_directly_follows_to_the_new_primary(
    watched: Callable[..., Watched], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = watched(1)
    service = Service(tmp_path, **settings(house.url))
    Trial(service).register()
    assert service.last_line("suppress", "acme", "1", JANE, "--reason", "she asked")
    for name, value in service.env.items():
        monkeypatch.setenv(name, value)

    async def ask() -> None:
        with RedisClient("acme") as client:
            async with AsyncRedisClient("acme") as waiting:
                before = client.check(1, [JANE])
                assert before == await waiting.check(1, [JANE])
                house.primary().kill()

                until(lambda: _unless_away(lambda: client.check(1, [JANE])) == before, RECOVERS_S)
                assert before == await waiting.check(1, [JANE])

    asyncio.run(ask())


def _unless_away(ask: Callable[[], list[Checked]]) -> list[Checked]:
    try:
        return ask()
    except CheckFailed:
        return []


def test_sentinels_with_tls_and_passwords(tmp_path: Path, own_redis: Callable[..., RedisServer]) -> None:
    certificate, key, tls_port = tmp_path / "ca.pem", tmp_path / "key.pem", free_port()
    write_certificate(certificate, key)
    tls = {"tls_cert_file": str(certificate), "tls_key_file": str(key), "tls_ca_cert_file": str(certificate),
           "tls_auth_clients": "no", "tls_replication": "yes"}  # fmt: skip
    primary = own_redis(tls_port=str(tls_port), **tls)
    primary.client().config_set("requirepass", "p@ss")
    lines = [f"{name.replace('_', '-')} {value}" for name, value in tls.items()]
    asked_at = free_port()
    with SentinelServer(
        tmp_path / "sentinel", tls_port, f"tls-port {asked_at}", *lines, "requirepass w/atch",
        after=f"sentinel auth-pass {NAME} p@ss",
    ):  # fmt: skip
        url = f"rediss+sentinel://:p%40ss@127.0.0.1:{asked_at}/{NAME}/0?ssl_ca_certs={certificate}"
        service = Service(tmp_path, **settings(f"{url}&sentinel_password=w%2Fatch"))
        refused = Service(tmp_path, **settings(f"{url}&sentinel_password=wrong"))

        assert service.last_line("sender", "add", "acme")
        assert f"primary 127.0.0.1:{tls_port}, as the Sentinels say" in service.command("doctor").stdout
        assert "check name and password of the Sentinels" in refused.command("sender", "list").stderr


def test_a_late_answer_reaches_no_other_command(
    own_redis: Callable[..., RedisServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """redis-py's own connection for Sentinel stays open after a time-out, and the next command hears the answer."""
    monkeypatch.setitem(server._WITHIN, "socket_timeout", 1.5)
    primary = own_redis()
    patient = f"sentinel down-after-milliseconds {NAME} 60000"
    with (
        SentinelServer(tmp_path / "sentinel", primary.port, after=patient) as watch,
        server.connect(f"redis+sentinel://{watch.place}/{NAME}") as client,
    ):
        client.set("late", "the late answer")
        for _ in range(5):
            with _frozen(primary), pytest.raises(redis.TimeoutError):
                client.get("late")

            assert client.get("other") is None
