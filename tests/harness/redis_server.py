"""Redis and Valkey as the operator should run them: append-only file, fsync always."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import redis

from tests.harness.processes import Server, free_port, greeting


class RedisServer(Server):
    """A redis-server or valkey-server on loopback. *settings* override ours: `maxmemory_policy="noeviction"`."""

    def __init__(self, binary: Path, folder: Path, **settings: str) -> None:
        self.port = free_port()
        self.folder = folder
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._clients: list[redis.Redis] = []
        options = {
            "bind": "127.0.0.1", "port": str(self.port), "dir": str(folder), "daemonize": "no",
            "appendonly": "yes", "appendfsync": "always", "save": "",
        } | {name.replace("_", "-"): value for name, value in settings.items()}  # fmt: skip
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        super().__init__([binary, *words], folder / "server.log")

    def client(self, **options: object) -> redis.Redis:
        """Return a new client, closed together with the server."""
        client = redis.Redis.from_url(self.url, **options)
        self._clients.append(client)
        return client

    def empty(self) -> None:
        """Forget every key and every loaded script."""
        with redis.Redis.from_url(self.url) as client:
            client.flushall()
            client.script_flush()

    def __exit__(self, *_: object) -> None:
        for client in self._clients:
            client.close()
        self.stop()

    def _answers(self) -> bool:
        return greeting(self.port, b"PING\r\n").startswith(b"+PONG")  # -LOADING is not an answer yet


def killed(server: RedisServer) -> Callable[[], None]:
    """Kill it, and return what mends that."""
    server.kill()
    return server.start


def silent(server: RedisServer) -> Callable[[], None]:
    """Freeze it, and return what mends that."""
    os.kill(server.pid, signal.SIGSTOP)
    return lambda: os.kill(server.pid, signal.SIGCONT)
