"""A rolling restart under load: two of each part, replaced one after another, while requests come by every way in."""

import http.client
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path

import pytest
import redis

from tests.crash.processes import Part
from tests.harness import posts
from tests.harness.dovecot import Mailbox
from tests.harness.lmtp import Client
from tests.harness.mails import address, mail
from tests.harness.processes import free_port
from tests.harness.redis_server import RedisServer
from tests.harness.service import Service, until
from tests.harness.trial import ONE_CLICK, Trial, settings
from worker.queue import RequestQueue
from worker.sources import source_states

KINDS = ("web", "lmtp", "work", "poll")
BOXES = 2
LOST = -1  # an answer that never came to what was sent
PAUSE_S = 0.3  # so that the workers keep up: what is tried are the seams, not the speed


class Load:
    """Clients that ask without a break, each as its kind does: who is connected to nobody asks the next box at once."""

    def __init__(self, ports: list[int], lmtps: list[str], mailbox: Mailbox) -> None:
        self._ports, self._lmtps, self._mailbox = ports, lmtps, mailbox
        self._numbers, self._turns = count(), count()
        self._stop = threading.Event()
        self.sent: set[int] = set()
        self.mails: list[bytes] = []
        self.answers: Counter[tuple[str, int]] = Counter()
        self.refused: list[tuple[str, int]] = []

    @contextmanager
    def on(self) -> Iterator[None]:
        """Ask for the time of the block; on leaving, everybody who may repeat has done so."""
        ways = (self._one_click, self._one_click, self._webhook, self._lmtp, self._mail)
        threads = [threading.Thread(target=self._ask, args=(way,)) for way in ways]
        for each in threads:
            each.start()
        try:
            yield
        finally:
            self._stop.set()
            for each in threads:
                each.join(60)

    def _ask(self, way: Callable[[int], None]) -> None:
        while not self._stop.is_set():
            number = next(self._numbers)
            self.sent.add(number)
            way(number)
            time.sleep(PAUSE_S)

    def _one_click(self, number: int) -> None:
        """A mail client: it asks once."""
        tag = address(number).partition("+")[2].partition("@")[0]
        status = self._post(f"/u/{tag}", b"List-Unsubscribe=One-Click", {"Content-Type": ONE_CLICK})
        self.answers["one-click", status] += 1
        if not 200 <= status < 300:
            self.refused.append(("one-click", status))

    def _webhook(self, number: int) -> None:
        """A provider: it comes again after a 5xx and after no answer, and after nothing else."""
        raw = mail(address(number), f"rolling-{number}")
        while not 200 <= (status := self._post("/in/relay", raw, posts.RFC822 | {"Authorization": "Bearer t"})) < 300:
            self.answers["webhook", status] += 1
            if status != LOST and status < 500:
                self.refused.append(("webhook", status))
                return
            time.sleep(0.1)
        self.answers["webhook", status] += 1

    def _post(self, path: str, body: bytes, headers: dict[str, str]) -> int:
        first = next(self._turns)
        for turn in range(len(self._ports)):
            port = self._ports[(first + turn) % len(self._ports)]
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            try:
                connection.connect()
            except OSError:
                continue
            try:
                connection.request("POST", path, body, headers)
                return connection.getresponse().status
            except (OSError, http.client.HTTPException):
                return LOST
            finally:
                connection.close()
        return 0

    def _lmtp(self, number: int) -> None:
        """A mail server: it comes again after 4xx and when it was hung up on."""
        raw = mail(address(number), f"rolling-{number}")
        while (code := self._delivered(raw, address(number))) != "250":
            self.answers["lmtp", int(code or LOST)] += 1
            if code.startswith("5"):
                self.refused.append(("lmtp", int(code)))
                return
            time.sleep(0.1)
        self.answers["lmtp", 250] += 1

    def _delivered(self, raw: bytes, to: str) -> str:
        try:
            with Client(self._lmtps[next(self._turns) % len(self._lmtps)]) as client:
                return client.deliver(raw, to)[0]
        except (OSError, AssertionError):
            return ""

    def _mail(self, number: int) -> None:
        raw = mail(address(number), f"rolling-{number}")
        self._mailbox.append(raw)
        self.mails.append(raw)


@pytest.mark.fault
@pytest.mark.timeout(420)
def test_a_rolling_restart_under_load_loses_nothing(
    tmp_path: Path, own_redis: Callable[..., RedisServer], dovecot: Mailbox
) -> None:
    url = own_redis().url
    lmtps = [f"127.0.0.1:{free_port()}" for _ in range(BOXES)]
    boxes = []
    for number, place in enumerate(lmtps):
        (tmp_path / f"box{number}").mkdir()
        boxes.append(Service(tmp_path / f"box{number}", **settings(url, dovecot, lmtp=place, workers="1")))
    trial = Trial(boxes[0], dovecot)
    trial.register()
    load = Load([box.port for box in boxes], lmtps, dovecot)
    parts = {(kind, number): Part(box, kind) for kind in KINDS for number, box in enumerate(boxes)}
    with redis.Redis.from_url(url) as client, ExitStack() as stack:
        for (kind, number), part in parts.items():
            stack.callback(_end, part)
            part.start()
            _await(client, boxes[number], kind, part)
        with load.on():
            for (kind, number), part in parts.items():
                time.sleep(0.5)
                assert part.kill(lambda pid: os.kill(pid, signal.SIGTERM)), "it ended by itself"
                part.start()
                _await(client, boxes[number], kind, part)
        trial.sent = load.sent

        assert load.refused == []
        trial.settled(url, 150)
        trial.verdict(
            url, "upgrades", "two web, work, poll and LMTP replaced one after another under load", "test_rolling",
            answers={f"{way} {code}": times for (way, code), times in sorted(load.answers.items())},
        )  # fmt: skip
        until(lambda: len(dovecot.messages("Processed")) >= len(load.mails), 60, "all moved")
        assert Counter(raw for _, _, raw in dovecot.messages("Processed")) == Counter(load.mails)


def _end(part: Part) -> None:
    with suppress(ProcessLookupError):
        part.end()


def _await(client: redis.Redis, box: Service, kind: str, part: Part) -> None:
    """Wait until the part is there, as whoever replaces parts does."""
    ready: dict[str, Callable[[], object]] = {
        "web": box.is_ready,
        "lmtp": lambda: _greets(box.env["UNSUBD_LMTP"]),
        "work": lambda: any(
            each["name"].endswith(f"-{pid}") for pid in part.parts("worker")
            for each in RequestQueue(client, limit=1).workers()
        ),
        "poll": lambda: any(
            each.get("by", each["name"]).endswith(f"-{part.pid}") for each in source_states(client)
        ),
    }  # fmt: skip
    until(ready[kind], 60, f"{kind} of {box.folder.name}")


def _greets(place: str) -> bool:
    try:
        Client(place).close()
    except OSError:
        return False
    return True
