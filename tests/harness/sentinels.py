"""A primary, its replicas and three Redis Sentinels: who dies is replaced by itself."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from redis import Redis
from redis.sentinel import MasterNotFoundError, Sentinel

from tests.harness.processes import PACKAGES, Server, free_port, greeting, require
from tests.harness.redis_server import RedisServer
from tests.harness.service import until

NAME, DOWN_AFTER_MS = "unsubd", 1000


class SentinelServer(Server):
    """One Sentinel that watches the server on a port of loopback. *lines*: more configuration; *after*: of that server."""

    def __init__(self, folder: Path, watches: int, *lines: str, after: str = "") -> None:
        self.port = free_port()
        self.place = f"127.0.0.1:{self.port}"
        folder.mkdir()
        configuration = folder / "sentinel.conf"  # which it writes again itself
        configuration.write_text(
            "\n".join([
                f"port {self.port}", "bind 127.0.0.1", f"dir {folder}", *lines,
                f"sentinel monitor {NAME} 127.0.0.1 {watches} 2",
                f"sentinel down-after-milliseconds {NAME} {DOWN_AFTER_MS}", f"sentinel failover-timeout {NAME} 5000", after, "",
            ])
        )  # fmt: skip
        binary = require("redis-server", PACKAGES["redis-server"])
        super().__init__([binary, configuration, "--sentinel"], folder / "sentinel.log")

    def _answers(self) -> bool:
        return greeting(self.port, b"PING\r\n")[:1] in (b"+", b"-")  # "-NOAUTH" is an answer


class Watched:
    """Some Redis servers, one of them the primary. `url` is what UNSUBD_REDIS_URL takes."""

    def __init__(self, servers: list[RedisServer], sentinels: list[SentinelServer]) -> None:
        self.servers = servers
        self.sentinels = sentinels
        self.url = f"redis+sentinel://{','.join(each.place for each in sentinels)}/{NAME}/0"

    def primary(self) -> RedisServer:
        """Return who the Sentinels say it is; in the middle of a failover, who it will be."""
        port = until(self._port, what="a primary")
        return next(each for each in self.servers if each.port == port)

    def _port(self) -> int:
        with Sentinel([("127.0.0.1", each.port) for each in self.sentinels]) as asked:  # type: ignore[no-untyped-call]
            try:
                return int(asked.discover_master(NAME)[1])  # type: ignore[no-untyped-call]
            except MasterNotFoundError:
                return 0

    def settle(self) -> None:
        """Wait until every server that runs but the primary follows it, and every Sentinel knows that."""
        until(lambda: all(self._sees_all(each) for each in self.sentinels), 120, "what the Sentinels know")

    def _sees_all(self, sentinel: SentinelServer) -> bool:
        with Redis(port=sentinel.port) as client:
            state = client.sentinel_master(NAME)
            followers = client.sentinel_slaves(NAME)
        up = [each for each in followers if not each["is_sdown"] and each["master-link-status"] == "ok"]
        return len(up) == len(self.servers) - 1 and state["num-other-sentinels"] == len(self.sentinels) - 1


@contextmanager
def watched(own_redis: Callable[..., RedisServer], folder: Path, replicas: int) -> Iterator[Watched]:
    """Start a primary, its replicas and three Sentinels, and wait until they know each other."""
    primary = own_redis(repl_diskless_sync_delay="0")
    followers = [
        own_redis(replicaof=f"127.0.0.1 {primary.port}", repl_diskless_sync_delay="0") for _ in range(replicas)
    ]
    with ExitStack() as stack:
        sentinels = [
            stack.enter_context(SentinelServer(folder / f"sentinel-{number}", primary.port)) for number in range(3)
        ]
        house = Watched([primary, *followers], sentinels)
        house.settle()
        yield house
