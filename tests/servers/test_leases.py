"""Several pollers on one mailbox, frozen, killed and stopped: one works at a time, and a mail has one effect and one copy."""

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count, islice
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.crash.processes import Part, kill_tree, pause, resume
from tests.harness.dovecot import Mailbox
from tests.harness.figures import figure
from tests.harness.mails import address, mail, recipient
from tests.harness.redis_server import RedisServer
from tests.harness.service import Service, until
from tests.harness.trial import settings
from tests.servers.test_mailbox import _outcomes, _suppressed
from worker.sources import source_states

pytestmark = [pytest.mark.fault, pytest.mark.timeout(300)]
FAILOVER_S = 30
SOURCE = "imap:default"

# Freezes the process itself at a point, once; a lease of 4 s spares the test 16. The signal goes to the thread that is
# there: one to the process is taken by whichever thread comes first, and this one goes on for as long as that takes.
FREEZER = """
import pathlib, signal, threading
from worker import points
from worker.sources import lease
lease.LIFE_S, lease._RENEW_S, lease._SURE_S = 4, 1.0, 3.0
plan = pathlib.Path({plan!r})
def watch(point, moment):
    if moment == "before" and plan.exists() and plan.read_text() == point:
        plan.unlink()
        signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
points.watch = watch
"""


class Pollers:
    """Several `unsubd poll`, each of a box of its own, on one mailbox and one Redis."""

    def __init__(self, folder: Path, url: str, mailbox: Mailbox, boxes: int) -> None:
        self._client = redis.Redis.from_url(url)
        self.folders = [folder / f"box{number}" for number in range(boxes)]
        for each in self.folders:
            each.mkdir()
        services = [Service(each, **settings(url, mailbox)) for each in self.folders]
        for each in services:
            each.env["PYTHONPATH"] = str(each.folder)
        self.parts = [Part(each, "poll") for each in services]

    def start(self) -> None:
        """Start them all, until one works and the others stand by."""
        for part in self.parts:
            part.start()
        until(lambda: self.active() and len(self.standbys()) == len(self.parts) - 1, 60, "one works, two stand by")

    def active(self) -> int:
        """Return the process id of the one that works, 0 when none does."""
        row: Any = self._client.hget("unsubd:sources", SOURCE)
        facts = json.loads(row or b"{}")
        lives = time.time() * 1000 - facts.get("beat_ms", 0) < 10_000
        return int(facts["by"].rpartition("-")[2]) if lives and facts.get("state") in ("idle", "working") else 0

    def standbys(self) -> list[int]:
        """Return the process ids of those that stand by."""
        states = source_states(self._client)
        names = [
            each["name"] for each in states if each["state"] == "standby" and each["name"].startswith(SOURCE + "@")
        ]
        return [int(name.rpartition("-")[2]) for name in names]

    def another_than(self, pid: int) -> float:
        """Wait until another one than *pid* works; return how long that took."""
        begun = time.monotonic()
        until(lambda: self.active() not in (0, pid), FAILOVER_S, "another one works")
        return time.monotonic() - begun

    def close(self) -> None:
        """End what is left, and the connection."""
        for part in self.parts:
            with suppress(ProcessLookupError):  # it was killed or stopped, and is gone
                part.end()
        self._client.close()


@contextmanager
def _pollers(folder: Path, url: str, mailbox: Mailbox, boxes: int = 3) -> Iterator[Pollers]:
    found = Pollers(folder, url, mailbox, boxes)
    try:
        yield found
    finally:
        found.close()


def _copies(mailbox: Mailbox, folder: str = "Processed") -> Counter[bytes]:
    return Counter(raw for _, _, raw in mailbox.messages(folder))


def _once(url: str, mailbox: Mailbox, mails: int, fault: str, **more: object) -> None:
    """All took effect once, and each mail is in Processed, once."""
    until(lambda: len(_copies(mailbox)) == mails and len(_outcomes(url)) >= mails, 60, "all moved and recorded")
    assert _suppressed(url) == {recipient(number) for number in range(mails)}
    assert _outcomes(url) == ["honour"] * mails
    assert set(_copies(mailbox).values()) == {1}
    assert mailbox.messages() == []
    figure("one poller at a time", fault, "test_leases", requests=mails, lost=0, duplicated=0, **more)


def test_the_active_one_frozen_and_awake_again_has_no_double_effect(
    tmp_path: Path, own_redis: Callable[..., RedisServer], dovecot: Mailbox
) -> None:
    """The real times: a frozen one is replaced within 30 s, wakes, notices, and stands by."""
    url = own_redis().url
    worker = Service(tmp_path, **settings(url))
    numbers = count()
    waits = []

    def deliver(many: int) -> None:
        dovecot.append_many([mail(address(number), f"m-{number}") for number in islice(numbers, many)])

    with worker.running("work", ready=False), _pollers(tmp_path, url, dovecot) as pollers:
        pollers.start()
        for delay_s in (0.05, 0.4):
            deliver(40)
            time.sleep(delay_s)  # it is somewhere between finding and moving them
            pause(frozen := until(pollers.active))
            deliver(20)
            waits.append(pollers.another_than(frozen))
            resume(frozen)
            deliver(20)
            until(lambda: frozen in pollers.standbys(), 30, "the one that was frozen stands by")
        delivered = next(numbers)
        _once(
            url, dovecot, delivered, "the active of three frozen and awake again, twice", failover_s=round(max(waits))
        )


@pytest.mark.parametrize("point", ["queue.enqueue", "imap.mark", "imap.move"])
def test_one_frozen_at_the_very_effect_does_nothing_twice(
    tmp_path: Path, own_redis: Callable[..., RedisServer], dovecot: Mailbox, point: str
) -> None:
    url, mails = own_redis().url, 30
    worker, plan = Service(tmp_path, **settings(url)), tmp_path / "plan"
    with ExitStack() as stack:
        pollers = stack.enter_context(_pollers(tmp_path, url, dovecot, 2))
        for folder in pollers.folders:
            (folder / "sitecustomize.py").write_text(FREEZER.format(plan=str(plan)))
        pollers.start()
        plan.write_text(point)
        frozen = until(pollers.active)
        dovecot.append_many([mail(address(number), f"m-{number}") for number in range(mails)])
        until(lambda: not plan.exists(), 30, "the freeze")
        in_hand = _messages_queued(url)
        pollers.another_than(frozen)
        until(lambda: len(_copies(dovecot)) == mails, 60, "all moved by the other")
        queued = _messages_queued(url)
        # Between queue and mark, nothing in the mailbox tells of what it queued: the next one queues that again, once.
        assert queued == mails + (in_hand if point == "imap.mark" else 0)
        resume(frozen)
        until(lambda: frozen in pollers.standbys(), 30, "the one that was frozen stands by")

        assert _messages_queued(url) == queued, "what it had in hand was not refused"
        stack.enter_context(worker.running("work", ready=False))
        _once(url, dovecot, mails, f"frozen before {point}")


def _messages_queued(url: str) -> int:
    with redis.Redis.from_url(url) as client:
        keys = list(client.scan_iter("rq:job:*"))
        told = [client.hget(key, "description") for key in keys]
    return sum(int(text.split()[-2]) for text in told if text)


def test_a_stop_hands_over_at_once_and_a_kill_within_30_s(
    tmp_path: Path, own_redis: Callable[..., RedisServer], dovecot: Mailbox
) -> None:
    url = own_redis().url
    worker = Service(tmp_path, **settings(url))
    with worker.running("work", ready=False), _pollers(tmp_path, url, dovecot) as pollers:
        pollers.start()
        dovecot.append_many([mail(address(number), f"m-{number}") for number in range(20)])
        os.kill(stopped := until(pollers.active), signal.SIGTERM)
        stop_s = pollers.another_than(stopped)
        dovecot.append_many([mail(address(number), f"m-{number}") for number in range(20, 40)])
        os.kill(killed := until(pollers.active), signal.SIGKILL)
        kill_s = pollers.another_than(killed)
        dovecot.append_many([mail(address(number), f"m-{number}") for number in range(40, 60)])
        _once(
            url, dovecot, 60, "the active one stopped, the next killed", stop_s=round(stop_s, 1), kill_s=round(kill_s)
        )


def test_a_kill_and_a_restart_on_the_same_box_wait_for_nobody(
    tmp_path: Path, own_redis: Callable[..., RedisServer], dovecot: Mailbox
) -> None:
    url = own_redis().url
    with _pollers(tmp_path, url, dovecot, 1) as pollers:
        pollers.start()
        (part,) = pollers.parts
        with redis.Redis.from_url(url) as client:
            for key in client.keys("unsubd:lease:*"):
                client.persist(key)  # nobody gets it by waiting
            part.kill(kill_tree)
            dovecot.append(mail(address(1), "after"))
            part.start()
            until(lambda: len(_copies(dovecot)) == 1, 60, "it works at once")
