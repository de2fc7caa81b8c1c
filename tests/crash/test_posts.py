"""2,000 posts over 64 connections, and Redis is away for 5 s in the middle: what was answered 2xx is in effect or in
quarantine, once; every other post got the provider's "try again", and repeated it is in effect too."""

import http.client
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from handlers.providers import PROVIDERS
from tests.harness.mails import NEW, OLD, address, mail, recipient
from tests.harness.redis_server import RedisServer
from tests.harness.service import MASTERS, Service, until
from worker.installation import open_installation
from worker.quarantine.shelf import Selection
from worker.settings import load_settings

POSTS, CONNECTIONS, AWAY_S = 2000, 64, 5.0
FORGED_EVERY = 10  # these name a key that the service does not have


class Crowd:
    """The posts of a campaign: each number once, until somebody asks for it again."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.statuses: dict[int, int] = {}
        self._lock = threading.Lock()

    def post(self, numbers: list[int], meanwhile: Callable[[], None] = lambda: None) -> None:
        waiting: queue.Queue[int] = queue.Queue()
        for number in numbers:
            waiting.put(number)
        threads = [threading.Thread(target=self._work, args=(waiting,)) for _ in range(CONNECTIONS)]
        for thread in threads:
            thread.start()
        meanwhile()
        for thread in threads:
            thread.join(120)

    def _work(self, waiting: "queue.Queue[int]") -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        while True:
            try:
                number = waiting.get_nowait()
            except queue.Empty:
                connection.close()
                return
            status = self._one(connection, number)
            with self._lock:
                self.statuses[number] = status

    @staticmethod
    def _one(connection: http.client.HTTPConnection, number: int) -> int:
        keys = OLD if number % FORGED_EVERY == 0 else NEW
        headers = {"Content-Type": "message/rfc822", "Authorization": "Bearer t"}
        connection.request("POST", "/in/relay", mail(address(number, keys), f"post {number}"), headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status


def test_posts_while_redis_is_away_for_a_moment(tmp_path: Path, own_redis: Callable[..., RedisServer]) -> None:
    server = own_redis()
    service = Service(
        tmp_path, redis_url=server.url, secret_keys=MASTERS[0], address="u+{tag}@unsub.example.com", in_relay="bearer:t"
    )
    service.last_line("sender", "add", "acme")
    service.last_line("group", "add", "acme", "Weekly news")
    with service.running("run"):
        crowd = Crowd(service.port)

        def away() -> None:
            until(lambda: len(crowd.statuses) > POSTS // 8, 60, "an eighth of the posts")
            server.stop()
            time.sleep(AWAY_S)
            server.restart()

        crowd.post(list(range(POSTS)), away)
        first = Counter(crowd.statuses.values())
        codes = PROVIDERS["relay"].CODES
        assert set(first) <= {codes.ack, codes.retry}, first
        accepted = {number for number, status in crowd.statuses.items() if status == codes.ack}
        assert len(crowd.statuses) == POSTS
        assert 0 < len(accepted) < POSTS, "Redis was away for somebody, and not for everybody"
        _settled(server, accepted)

        refused = sorted(set(range(POSTS)) - accepted)
        crowd.post(refused)
        assert {crowd.statuses[number] for number in refused} == {codes.ack}
        _settled(server, set(range(POSTS)))
    print(f"{POSTS} posts, {CONNECTIONS} connections, {AWAY_S:g} s without Redis: {dict(first)}, all in effect once")


def _settled(server: RedisServer, numbers: set[int]) -> None:
    """Every one of *numbers* is in effect, or in quarantine, and has one record."""
    asked = {number for number in numbers if number % FORGED_EVERY}
    given = {"UNSUBD_REDIS_URL": server.url, "UNSUBD_SECRET_KEYS": MASTERS[0]}
    with open_installation(load_settings(given)) as installation:
        store = installation.store
        until(lambda: asked <= _stopped(store, asked), 90, "every effect")
        until(lambda: installation.queue.status()["requests"]["queued"] == 0, 60, "an empty queue")
        kept = installation.quarantine.entries(installation.quarantine.ids(Selection()))
        keys = Counter(key for key, _ in installation.ledger.records())

        assert {entry.reason for entry in kept.values()} <= {"quarantine:bad-tag"}
        assert len(kept) >= len(numbers - asked)
        assert max(keys.values()) == 1
        assert len(keys) >= len(numbers)
        assert store.counted("acme", [1])[0] >= len(asked)


def _stopped(store: object, numbers: set[int]) -> set[int]:
    order = sorted(numbers)
    rows = store.rows([("acme", 1, recipient(number)) for number in order])  # type: ignore[attr-defined]
    return {number for number, row in zip(order, rows, strict=True) if row and row.suppressed}
