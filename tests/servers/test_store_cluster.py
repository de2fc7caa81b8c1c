"""The store on a Redis Cluster of three nodes: the rules and histories of the other servers, and how a sender spreads."""

import gc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from handlers.errors import ConfigError, StoreUnavailable
from handlers.request import Action, Effect
from tests import store_model
from tests.harness import processes
from tests.harness.redis_cluster import ClusterServers
from tests.harness.redis_server import RedisServer
from tests.harness.service import MASTERS, until
from tests.store_model import NOW, asked

pytest.register_assert_rewrite("tests.store_rules")
from tests.harness.names import NAMES  # noqa: E402
from tests.store_rules import LedgerRules, NeighbourRules, RegisterRules  # noqa: E402
from tests.unit import house  # noqa: E402
from worker import server  # noqa: E402
from worker.doctor.server import look  # noqa: E402
from worker.installation import open_installation  # noqa: E402
from worker.settings import Settings, load_settings  # noqa: E402
from worker.store import Store  # noqa: E402

pytestmark = [pytest.mark.fault, pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")]
PEOPLE = [f"p{number}@example.com" for number in range(5000)]


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterServers]:
    binary = processes.require("redis-server", processes.PACKAGES["redis-server"])
    with ClusterServers(binary, tmp_path_factory.mktemp("cluster")) as nodes:
        yield nodes


@pytest.fixture
def client(nodes: ClusterServers) -> Iterator[redis.Redis]:
    for node in nodes.nodes:
        node.empty()
    with server.connect(nodes.url) as client:
        yield client


@pytest.fixture
def store(client: redis.Redis) -> Store:
    return Store(client, NAMES)


class TestRegister(RegisterRules):
    pass


class TestNeighbours(NeighbourRules):
    pass


class TestLedger(LedgerRules):
    pass


def test_store_and_model_agree_on_random_histories(store: Store) -> None:
    store_model.run_histories(store, examples=5, steps=20)


def test_a_sender_spreads_over_all_nodes(store: Store, client: redis.Redis) -> None:
    wishes = [asked(Action.UNSUBSCRIBE, ("acme", 12, each), NOW, "page", each) for each in PEOPLE]

    assert set(store.apply(wishes)) == {Effect.ADDED}
    other = Store(client, NAMES)
    assert all(own for _, own in other.asked("acme", 12, PEOPLE))
    assert sorted(name for name, _ in other.stopped("acme", 12)) == sorted(PEOPLE)
    assert (other.counted("acme", [12, 0]), other.groups("acme"), other.senders()) == ([5000, 0], [12], ["acme"])
    assert other.forget(PEOPLE[0], ["acme"]) == 1
    assert other.is_forgotten("acme", PEOPLE[0])
    rows = [len(each.keys("unsubd:supp:*")) for each in server.servers(client)]
    assert min(rows) >= 8


@pytest.fixture
def settings(nodes: ClusterServers, own_redis: Callable[..., RedisServer]) -> Settings:
    return load_settings({
        "UNSUBD_REDIS_URL": own_redis().url, "UNSUBD_STORE_URL": nodes.url, "UNSUBD_SECRET_KEYS": MASTERS[0],
        "UNSUBD_ADDRESS": "u+{tag}@unsub.example.com",
    })  # fmt: skip


def test_an_installation_keeps_its_store_on_a_cluster(settings: Settings, client: redis.Redis) -> None:
    with open_installation(settings) as installation:
        installation.accounts.add_sender("acme")
        installation.intake.record([house.decided("k1", group=0, recipient=PEOPLE[1])])
        found = installation.ledger.records()

        assert [record["requests"][0]["effect"] for _, record in found] == ["added"]
        assert installation.store.row("acme", 0, PEOPLE[1])
        assert installation.tags.forget(PEOPLE[1], installation.names) == 0
        layers = [each.layer for each in look("store", installation.store_redis, settings, "")]
        assert layers == ["store"] * 9


def test_a_node_that_is_gone_is_unavailable(tmp_path: Path) -> None:
    binary = processes.require("redis-server", processes.PACKAGES["redis-server"])
    with ClusterServers(binary, tmp_path, cluster_node_timeout="500") as nodes, server.connect(nodes.url) as client:
        store = Store(client, NAMES)
        wishes = [asked(Action.UNSUBSCRIBE, ("acme", 12, each), NOW, "page", each) for each in PEOPLE[:2000]]
        store.apply(wishes)
        nodes.nodes[1].kill()

        with pytest.raises(StoreUnavailable):
            store.asked("acme", 12, PEOPLE[:2000])
        with pytest.raises(StoreUnavailable):
            store.apply(wishes)
    gc.collect()  # redis-py drops the connections to nodes that left, and closes none


def test_only_the_store_may_be_a_cluster(settings: Settings) -> None:
    with pytest.raises(ConfigError, match="only UNSUBD_STORE_URL may be a Cluster"):
        load_settings({"UNSUBD_REDIS_URL": settings.store_url or "", "UNSUBD_SECRET_KEYS": MASTERS[0]})


def test_a_cluster_that_is_told_as_one_server_is_named(own_redis: Callable[..., RedisServer]) -> None:
    """As a managed one with a single node: it answers, until a call is about two of its slots."""
    node = own_redis(cluster_enabled="yes")
    alone = node.client()
    alone.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
    until(lambda: alone.cluster("INFO")["cluster_state"] == "ok", what="the cluster")
    wishes = [asked(Action.UNSUBSCRIBE, (each, 12, PEOPLE[0]), NOW, "page", each) for each in ("acme", "other")]

    with pytest.raises(ConfigError, match=r"UNSUBD_STORE_URL: the server is one of a Cluster, expected redis\+cluster"):
        Store(server.connect(node.url), NAMES).apply(wishes)
