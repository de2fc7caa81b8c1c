"""A Redis Cluster on loopback."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import redis

from tests.harness.processes import free_port
from tests.harness.redis_server import RedisServer

_SLOTS = 16384
_PRIMARIES = 3
_JOIN_S = 30


class ClusterServers:
    """Three primaries that know each other, and, when asked for, a replica of each behind them; each a process of its own.

    Shape:   nodes: the primaries first. *settings* override ours.
    """

    def __init__(self, binary: Path, folder: Path, *, replicas: bool = False, **settings: str) -> None:
        # The nodes' own port is the clients' and 10,000 else, which somebody may have.
        self._ports = [free_port() for _ in range(2 * _PRIMARIES if replicas else _PRIMARIES)]
        own = {"cluster_enabled": "yes", "repl_diskless_sync_delay": "0"} | settings
        self.nodes = [
            RedisServer(binary, _made(folder / str(port)), cluster_port=str(port), **own) for port in self._ports
        ]
        self.url = f"redis+cluster://127.0.0.1:{self.nodes[0].port}"
        self._started = ExitStack()

    def __enter__(self) -> Self:
        clients = [self._started.enter_context(node).client() for node in self.nodes]
        for number, client in enumerate(clients[:_PRIMARIES]):
            first, last = (_SLOTS * each // _PRIMARIES for each in (number, number + 1))
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last - 1)
        for client in clients:
            client.execute_command("CLUSTER", "MEET", "127.0.0.1", self.nodes[0].port, self._ports[0])
        _wait(lambda: all(_is_joined(client, len(clients)) for client in clients), "the nodes do not find each other")
        for primary, replica in zip(clients, clients[_PRIMARIES:], strict=False):
            replica.execute_command("CLUSTER", "REPLICATE", primary.execute_command("CLUSTER", "MYID"))
        self.settle()
        return self

    def settle(self) -> None:
        """Wait until every replica follows its primary, and every node says that all is well."""
        clients = [node.client() for node in self.nodes]
        _wait(lambda: all(_is_joined(each, len(clients)) and _follows(each) for each in clients), "no whole Cluster")

    def primaries(self) -> list[RedisServer]:
        """Return who is one now, of those that answer."""
        return [node for node in self.nodes if _role(node) == "master"]

    def __exit__(self, *_: object) -> None:
        self._started.close()


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _wait(holds: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + _JOIN_S
    while not holds():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.05)


def _is_joined(client: redis.Redis, nodes: int) -> bool:
    info = client.execute_command("CLUSTER INFO")
    return bool(info["cluster_state"] == "ok" and info["cluster_known_nodes"] == str(nodes))


def _follows(client: redis.Redis) -> bool:
    info = client.info("replication")
    return info["role"] == "master" or info["master_link_status"] == "up"


def _role(node: RedisServer) -> str:
    try:
        return str(node.client().info("replication")["role"])
    except redis.RedisError:
        return ""
