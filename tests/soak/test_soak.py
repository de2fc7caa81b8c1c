"""`make soak SECONDS=120`: five ways in, bad input beside them, faults at random, then quiet; and the accounts must add up.

`UNSUBD_CRASH_SEED=… make soak` repeats the people, the bad input and the plan of the faults.
"""

import os
import random
import re
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.crash.processes import Part, below
from tests.harness.dovecot import Mailbox
from tests.harness.mails import recipient
from tests.harness.processes import free_port
from tests.harness.redis_server import RedisServer
from tests.harness.service import MASTERS, Service, until
from tests.soak.crowd import Crowd
from tests.soak.faults import Faults
from worker import clock
from worker.installation import Installation, open_installation
from worker.settings import load_settings

# Read here: tests get an environment without our names.
SEED = int(os.environ.get("UNSUBD_CRASH_SEED") or random.SystemRandom().randrange(2**32))
SECONDS = float(os.environ.get("UNSUBD_SOAK_SECONDS") or 120)
_REST_S = 120.0
_ABSENT = {"ConnectionRefusedError", "ConnectionResetError", "BrokenPipeError", "TimeoutError"}


class Accounts:
    """What there is in the end, against who was accepted."""

    def __init__(self, installation: Installation, accepted: dict[int, str]) -> None:
        self._installation = installation
        self._accepted = accepted
        self._names = {installation.pseudonyms.bare(recipient(number)): number for number in accepted}

    def rest(self) -> bool:
        """Say whether nothing is under way any more: the queue is empty, and everybody is stopped."""
        queued = self._installation.queue.status()["messages"]
        return not any(queued[each] for each in ("queued", "started", "scheduled")) and not self.lost()

    def stopped(self) -> set[str | None]:
        return {name for group in (0, 1) for name, _ in self._installation.store.listed("acme", group)}

    def lost(self) -> list[str]:
        """Return who was accepted and is not stopped."""
        there = self.stopped()
        return [f"{way} {number}" for number, way in self._accepted.items() if recipient(number) not in there]

    def strangers(self) -> list[str]:
        """Return who is stopped although nobody asked."""
        known = {recipient(number) for number in self._accepted}
        return [f"a stopped stranger: {name}" for name in self.stopped() - known]

    def duplicated(self) -> list[str]:
        """Return who was stopped twice, or has two records of one mail."""
        added: Counter[int] = Counter()
        mails: Counter[int] = Counter()
        for _, record in self._installation.ledger.records():
            for each in record["requests"]:
                if (number := self._names.get(each["recipient"])) is not None:
                    added[number] += each["effect"] == "added"
                    mails[number] += self._accepted[number] != "one-click"
        return [f"{self._accepted[number]} {number}: stopped {count} times" for number, count in added.items() if count != 1] + [
            f"{self._accepted[number]} {number}: {count} records" for number, count in mails.items() if count > 1
        ]  # fmt: skip


def _memory_mb(pid: int) -> float:
    """Resident memory of a process and all below it."""
    pages = 0
    for each in (pid, *below(pid)):
        try:
            pages += int(Path(f"/proc/{each}/statm").read_text().split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _bugs(log: str) -> list[str]:
    """What broke, other than by a server's absence: RQ's worker ends with redis-py's traceback then, and is started again."""
    ends = re.findall(r"^([A-Za-z_][\w.]*(?:Error|Exception))\b", log, re.M)
    return [each for each in ends if each not in _ABSENT and not each.startswith("redis.exceptions.")]


def _service(folder: Path, redis: RedisServer, dovecot: Mailbox) -> Service:
    for each in ("new", "cur", "tmp"):
        (folder / "mail" / each).mkdir(parents=True)
    service = Service(
        folder, redis_url=redis.url, secret_keys=MASTERS[0], address="u+{tag}@unsub.example.com", in_relay="bearer:t",
        imap_url=dovecot.url, imap_password=dovecot.password, imap_ca_file=str(dovecot.ca_file), imap_backlog="all",
        poll_interval_s="2", maildir=str(folder / "mail"), lmtp=f"127.0.0.1:{free_port()}", workers="2",
    )  # fmt: skip
    service.last_line("sender", "add", "acme")
    service.last_line("group", "add", "acme", "Weekly news")
    return service


@pytest.mark.timeout(SECONDS + 600)
def test_soak(
    tmp_path: Path, own_redis: Callable[..., RedisServer], dovecot: Mailbox, capsys: pytest.CaptureFixture[str]
) -> None:
    redis = own_redis()
    service = _service(tmp_path, redis, dovecot)
    run = Part(service, "run")
    crowd = Crowd(tmp_path / "mail", service.port, service.env["UNSUBD_LMTP"], dovecot, SEED)
    faults = Faults(run, redis, dovecot, SEED)
    given = {name: value for name, value in service.env.items() if name.startswith("UNSUBD_")}
    run.start()
    try:
        until(service.is_ready, 60, "the start")
        until(lambda: len(run.parts("worker")) == 2, 30, "the workers")
        before_mb = _memory_mb(run.pid)
        crowd.start()
        faults.go_on(time.monotonic() + SECONDS)
        begun = time.monotonic()
        crowd.end()
        all_taken = crowd.join(_REST_S)
        with open_installation(load_settings(given)) as installation:
            accounts = Accounts(installation, crowd.accepted)
            deadline = time.monotonic() + _REST_S
            while not accounts.rest() and time.monotonic() < deadline:
                time.sleep(0.5)
            rest_s = time.monotonic() - begun
            lost, duplicated = accounts.lost(), accounts.duplicated()
            escapes = [*crowd.escaped, *accounts.strangers()]
            ages = clock.total(installation.redis, 0)
            by = {source: f"{each.p99_s:.0f} s" for (source, _), each in clock.figures(installation.redis, 0).items()}
            grown_mb = _memory_mb(run.pid) - before_mb
    finally:
        crowd.end()
        run.end()
    escapes += _bugs(service.log.read_text(errors="replace"))
    with capsys.disabled():
        print(
            f"\nways in: {dict(Counter(crowd.accepted.values()))}; tries: {dict(crowd.tries)};"
            f" faults: {dict(faults.done)}; at rest {rest_s:.0f} s later; p99 by source: {by}"
        )
        print(f"bad inputs tried {crowd.bad}, escapes={len(escapes)}")
        print(
            f"soak: {SECONDS:.0f} s, seed {SEED}, faults {faults.done.total()}, requests {len(crowd.accepted)},"
            f" honoured {len(crowd.accepted) - len(lost)}, lost={len(lost)} duplicated={len(duplicated)},"
            f" p99 {ages.p99_s:.1f} s, RSS {grown_mb:+.0f} MB",
            flush=True,
        )

    assert all_taken, f"seed {SEED}: somebody asks still, {_REST_S:.0f} s after the last fault"
    assert (lost[:20], duplicated[:20], escapes[:20]) == ([], [], []), f"seed {SEED}"
    assert faults.done.total() > 0
    assert set(crowd.accepted.values()) == {"imap", "lmtp", "relay", "one-click", "maildir"}
