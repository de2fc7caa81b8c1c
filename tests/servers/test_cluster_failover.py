"""UNSUBD_MIN_REPLICAS with a Redis Cluster: of what was acknowledged nothing is missing, whichever primary dies."""

import gc
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis.crc import key_slot

from handlers.errors import StoreUnavailable
from handlers.request import Action, Effect
from tests.harness import processes
from tests.harness.dovecot import Mailbox
from tests.harness.names import NAMES
from tests.harness.redis_cluster import ClusterServers
from tests.harness.redis_server import RedisServer, killed, silent
from tests.harness.service import Service, until
from tests.harness.trial import Trial, settings
from tests.store_model import NOW, asked
from worker import server
from worker.store import Store, layout

pytestmark = [
    pytest.mark.fault,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]
PROMISE, EACH, RECOVERS_S = "accept, then acknowledge", 30, 120


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ClusterServers]:
    (folder := tmp_path / "cluster").mkdir()
    binary = processes.require("redis-server", processes.PACKAGES["redis-server"])
    with ClusterServers(binary, folder, replicas=True, cluster_node_timeout="1000") as cluster:
        yield cluster
        gc.collect()  # redis-py drops the connections to nodes that left, and closes none: within this test, please


class _Writer(threading.Thread):
    """Suppresses one recipient after another, and keeps who was acknowledged."""

    def __init__(self, url: str, number: int) -> None:
        super().__init__(daemon=True)
        self._url, self._number = url, number
        self.acknowledged: list[str] = []
        self.refused = 0
        self.stopped = False

    def run(self) -> None:
        with server.connect(self._url) as client:
            store = Store(client, NAMES, min_replicas=1)
            while not self.stopped:
                person = f"p{self._number}.{len(self.acknowledged) + self.refused}@example.com"
                try:
                    store.apply([asked(Action.UNSUBSCRIBE, ("acme", 12, person), NOW, "page", person)])
                    self.acknowledged.append(person)
                except StoreUnavailable:
                    self.refused += 1


@pytest.mark.parametrize("breaks", [killed, silent])
def test_what_was_acknowledged_is_there_after_the_failover(
    cluster: ClusterServers, breaks: Callable[[RedisServer], Callable[[], None]]
) -> None:
    writers = [_Writer(cluster.url, number) for number in range(4)]
    for each in writers:
        each.start()
    until(lambda: all(len(each.acknowledged) > 50 for each in writers), what="writes")
    first = cluster.nodes[0]
    mend = breaks(first)
    until(lambda: len(cluster.primaries()) == 3 and first not in cluster.primaries(), what="the failover")
    with server.connect(f"redis+cluster://127.0.0.1:{cluster.nodes[1].port}") as client:
        store = Store(client, NAMES, min_replicas=1)
        before = [person for each in writers for person in list(each.acknowledged)]

        rows = until(lambda: _unless_away(store, before), RECOVERS_S, "checks again")
        assert all(own and own.suppressed for _, own in rows)

        mend()
        cluster.settle()
        counted = [len(each.acknowledged) for each in writers]
        until(lambda: all(len(each.acknowledged) > count + 20 for each, count in zip(writers, counted, strict=True)))
        for each in writers:
            each.stopped = True
        for each in writers:
            each.join(30)
        people = [person for each in writers for person in each.acknowledged]
        assert all(own and own.suppressed for _, own in store.asked("acme", 12, people))
    assert sum(each.refused for each in writers) > 0


def _unless_away(store: Store, people: list[str]) -> list[object]:
    try:
        return list(store.asked("acme", 12, people))
    except StoreUnavailable:
        return []


def test_what_no_replica_has_is_not_acknowledged(cluster: ClusterServers, monkeypatch: pytest.MonkeyPatch) -> None:
    people = [f"p{number}@example.com" for number in range(40)]
    wishes = [
        asked(Action.UNSUBSCRIBE, (sender, 12, each), NOW, "page", each) for sender in "abcdefgh" for each in people
    ]
    with server.connect(cluster.url) as client:
        store = Store(client, NAMES, min_replicas=1)
        assert set(store.apply(wishes)) == {Effect.ADDED}
        replica = cluster.nodes[4]
        os.kill(replica.pid, signal.SIGSTOP)
        try:
            with monkeypatch.context() as hurried:
                hurried.setattr(server, "_WAIT_MS", 500)
                with pytest.raises(StoreUnavailable, match="0 of 1 replicas confirmed"):
                    store.apply([asked(Action.UNSUBSCRIBE, (sender, 13, each), NOW, "page", each)
                                 for sender in "abcdefgh" for each in people])  # fmt: skip
        finally:
            os.kill(replica.pid, signal.SIGCONT)
        until(lambda: _is_confirmed(store, wishes), what="confirmed again")


def test_nothing_counts_that_is_written_to_a_slot_on_its_way(cluster: ClusterServers) -> None:
    """Its new node has it, and no WAIT of ours went there."""
    slots = {sender: key_slot(layout.bucket_key(sender, 0).encode()) for sender in "abcdefghijklmnop"}
    still, moving = [each for each, slot in slots.items() if slot < 16384 // 3][:2]
    old, new = (node.client() for node in cluster.nodes[:2])
    old_id, new_id = (client.execute_command("CLUSTER", "MYID").decode() for client in (old, new))
    new.execute_command("CLUSTER", "SETSLOT", slots[moving], "IMPORTING", old_id)
    old.execute_command("CLUSTER", "SETSLOT", slots[moving], "MIGRATING", new_id)
    wishes = [
        asked(Action.UNSUBSCRIBE, (sender, 12, "p@example.com"), NOW, "page", sender) for sender in (still, moving)
    ]
    with server.connect(cluster.url) as client:
        with pytest.raises(StoreUnavailable, match="0 of 1 replicas confirmed"):
            Store(client, NAMES, min_replicas=1).apply(wishes)

        assert Store(client, NAMES).row(moving, 12, "p@example.com")


def _is_confirmed(store: Store, wishes: list[object]) -> bool:
    try:
        return set(store.apply(wishes)) == {Effect.ADDED}  # type: ignore[arg-type]
    except StoreUnavailable:
        return False


def test_a_service_goes_on_when_primaries_of_its_cluster_die(
    tmp_path: Path, cluster: ClusterServers, own_redis: Callable[..., RedisServer], dovecot: Mailbox
) -> None:
    queue = own_redis()
    replica = own_redis(replicaof=f"127.0.0.1 {queue.port}", repl_diskless_sync_delay="0")
    until(lambda: replica.client().info("replication")["master_link_status"] == "up")
    service = Service(tmp_path, **settings(queue.url, dovecot, store_url=cluster.url, min_replicas="1"))
    trial = Trial(service, dovecot)
    trial.register()
    with service.running("run"):
        for number in range(2):
            trial.send(range(3 * EACH * number, 3 * EACH * number + EACH))
            broken = cluster.nodes[number]
            broken.kill()
            trial.send(range(3 * EACH * number + EACH, 3 * EACH * (number + 1)))
            until(lambda: len(cluster.primaries()) == 3, what="the failover")
            time.sleep(2)
            broken.start()
            cluster.settle()

        trial.verdict(cluster.url, PROMISE, "Cluster: a primary killed, under load, twice", "test_cluster_failover")
