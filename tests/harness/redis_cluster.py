"""A Redis Cluster of three primaries on loopback."""

import time
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import redis

from tests.harness.processes import free_port
from tests.harness.redis_server import RedisServer

_SLOTS = 16384
_JOIN_S = 30


class ClusterServers:
    """Three redis-servers that know each other, each a process and a folder of its own. *settings* override ours."""

    def __init__(self, binary: Path, folder: Path, **settings: str) -> None:
        # The nodes' own port is the clients' and 10,000 else, which somebody may have.
        self._ports = [free_port() for _ in range(3)]
        self.nodes = [
            RedisServer(binary, _made(folder / str(port)), cluster_enabled="yes", cluster_port=str(port), **settings)
            for port in self._ports
        ]
        self.url = f"redis+cluster://127.0.0.1:{self.nodes[0].port}"
        self._started = ExitStack()

    def __enter__(self) -> Self:
        for number, node in enumerate(self.nodes):
            client = self._started.enter_context(node).client()
            first, last = (_SLOTS * each // 3 for each in (number, number + 1))
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last - 1)
            client.execute_command("CLUSTER", "MEET", "127.0.0.1", self.nodes[0].port, self._ports[0])
        deadline = time.monotonic() + _JOIN_S
        while not all(_is_joined(node.client()) for node in self.nodes):
            assert time.monotonic() < deadline, "the nodes do not find each other"
            time.sleep(0.05)
        return self

    def __exit__(self, *_: object) -> None:
        self._started.close()


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _is_joined(client: redis.Redis) -> bool:
    info = client.execute_command("CLUSTER INFO")
    return bool(info["cluster_state"] == "ok" and info["cluster_known_nodes"] == "3")
