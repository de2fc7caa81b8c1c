"""A large mailbox drained by `unsubd poll`: is memory flat, and does a late message cost what an early one does?

`python -m tests.bench.drain [--count 100000]`. Every second mail is ours, the others are strangers' (a shared mailbox: the
worst case for what is remembered of it); no worker runs, so that the poller is measured alone. Prints progress and a
table; asserts nothing. `--server` measures Dovecot alone at that size: SELECT, SEARCH, STORE, and MOVE in several batches.
"""

import argparse
import imaplib
import json
import os
import shutil
import sys
import tempfile
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis import Redis

from tests.bench.measure import Row, machine, save, table
from tests.harness import processes
from tests.harness.dovecot import Dovecot, Mailbox
from tests.harness.mails import address, mail
from tests.harness.redis_server import RedisServer
from tests.harness.service import MASTERS, Service, until

EDGE = 10_000  # messages at either end that are compared
_TICKS_S = os.sysconf("SC_CLK_TCK")
_SAMPLE_EVERY_S = 0.05
_SAY_EVERY_S = 10.0
_BODY = "unsubscribe\r\n" * 20
_MOVE_BATCHES = (50, 200, 500, 1000, 2000, 5000)


@dataclass(frozen=True)
class Sample:
    """The poller at one moment."""

    at_s: float
    messages: int
    cpu_s: float
    rss_kb: int
    commands: int


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000, help="messages in the mailbox")
    parser.add_argument("--foreign", type=float, default=0.5, help="share of mail that is not ours")
    parser.add_argument("--untagged", default="leave", help="UNSUBD_IMAP_UNTAGGED")
    parser.add_argument("--server", action="store_true", help="measure Dovecot alone")
    parser.add_argument("--stay", action="store_true", help="end when all is taken, without waiting for the moves")
    given = parser.parse_args()
    _say(f"machine: {os.cpu_count()} cores, Python {sys.version.split()[0]}; {given.count} messages")
    with _servers() as (redis, mailbox, folder):
        begun = time.monotonic()
        mailbox.append_many(_mails(given.count, given.foreign))
        _say(f"delivered in {time.monotonic() - begun:.0f} s")
        if given.server:
            _measure_server(mailbox)
        else:
            _drain(redis, mailbox, folder, given)


@contextmanager
def _servers() -> Iterator[tuple[RedisServer, Mailbox, Path]]:
    folder = Path(tempfile.mkdtemp(prefix="unsubd-drain-"))
    folder.chmod(0o755)
    for name in ("redis", "dovecot", "service"):
        (folder / name).mkdir()
    try:
        with (
            RedisServer(processes.require("redis-server", "redis-server"), folder / "redis") as redis,
            Dovecot(processes.require("dovecot", "dovecot-imapd"), folder / "dovecot") as dovecot,
        ):
            yield redis, Mailbox(dovecot, "drain"), folder / "service"
    finally:
        shutil.rmtree(folder)


def _mails(count: int, foreign: float) -> Iterator[bytes]:
    """Strangers' mails spread evenly over ours."""
    for number in range(count):
        ours = int((number + 1) * foreign) == int(number * foreign)
        yield mail(address(number) if ours else "info@example.com", f"drain-{number}", body=_BODY)


def _drain(redis: RedisServer, mailbox: Mailbox, folder: Path, given: argparse.Namespace) -> None:
    service = Service(
        folder, redis_url=redis.url, secret_keys=MASTERS[0], imap_url=mailbox.url, imap_password=mailbox.password,
        imap_ca_file=str(mailbox.ca_file), imap_backlog="all", imap_untagged=given.untagged,
    )  # fmt: skip
    maildir = mailbox.server.folder / "homes" / mailbox.user / "Maildir"
    with service.running("poll", ready=False) as poller, Redis.from_url(redis.url) as client:
        samples = _sampled(client, poller.pid, given.count)
        rows = _told(samples, given.count, given.foreign)
        _say(f"{machine()}\n{table(rows)}")
        save(rows, Path("bench"))
        if not given.stay:
            kept = int(given.count * given.foreign) if given.untagged == "leave" else 0
            _tell_moves(maildir, poller.pid, kept)


def _sampled(client: Redis, pid: int, count: int) -> list[Sample]:
    """Look at the poller until it has taken *count* messages."""
    samples = [_sample(client, pid)]
    said_at = time.monotonic()
    while samples[-1].messages < count:
        time.sleep(_SAMPLE_EVERY_S)
        samples.append(_sample(client, pid))
        if time.monotonic() - said_at > _SAY_EVERY_S:
            said_at = time.monotonic()
            now = samples[-1]
            _say(f"  {now.messages} taken, {now.cpu_s:.1f} s CPU, {now.rss_kb // 1024} MB")
    return samples


def _sample(client: Redis, pid: int) -> Sample:
    row: Any = client.hget("unsubd:sources", "imap:default")
    messages = int(json.loads(row)["messages"]) if row else 0
    stats: Any = client.info("stats")
    return Sample(time.monotonic(), messages, _cpu_s(pid), _rss_kb(pid), int(stats["total_commands_processed"]))


def _cpu_s(pid: int) -> float:
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / _TICKS_S


def _rss_kb(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def _told(samples: list[Sample], count: int, foreign: float) -> list[Row]:
    edge = min(EDGE, count // 4)
    start = next(each for each in samples if each.messages)  # imports, login, SELECT and the first SEARCH left out
    first, last = (start, _at(samples, edge)), (_at(samples, count - edge), samples[-1])
    seconds = samples[-1].at_s - start.at_s
    _say(f"{count} messages in {seconds:.1f} s ({count / seconds:.0f}/s), before the first: {start.cpu_s:.1f} s CPU")
    for share in (0.1, 0.5, 1.0):
        _say(f"RSS at {share:4.0%}: {_at(samples, int(count * share)).rss_kb / 1024:.1f} MB")
    of = f"the last {edge:,} of {count:,}, {foreign:.0%} foreign"
    return [
        Row(f"poller's CPU per message, {of}", "us", [_us_per_message(*last)], f"the first {edge:,}",
            [_us_per_message(*first)], 1.15, higher_is_better=False),
        Row(f"Redis commands per message, {of}", "", [_commands_per_message(*last)], f"the first {edge:,}",
            [_commands_per_message(*first)], 1.15, higher_is_better=False),
        Row(f"poller's memory at most, {count:,} messages", "MB", [max(each.rss_kb for each in samples) / 1024]),
    ]  # fmt: skip


def _at(samples: list[Sample], messages: int) -> Sample:
    """The first sample with at least *messages*."""
    return samples[min(len(samples) - 1, bisect_left([each.messages for each in samples], messages))]


def _us_per_message(begin: Sample, end: Sample) -> float:
    return (end.cpu_s - begin.cpu_s) / max(1, end.messages - begin.messages) * 1e6


def _commands_per_message(begin: Sample, end: Sample) -> float:
    # A sample asks twice itself.
    own = 2 * (end.at_s - begin.at_s) / _SAMPLE_EVERY_S
    return (end.commands - begin.commands - own) / max(1, end.messages - begin.messages)


def _tell_moves(maildir: Path, pid: int, kept: int) -> None:
    """Wait until all but *kept* messages were moved."""
    begun, cpu_s = time.monotonic(), _cpu_s(pid)
    before = _files(maildir)
    until(lambda: _files(maildir) <= kept, 3600, "the moves")
    seconds = time.monotonic() - begun
    _say(f"moved {before - kept} in {seconds:.1f} s, {_cpu_s(pid) - cpu_s:.1f} s CPU, RSS {_rss_kb(pid) / 1024:.1f} MB")


def _files(maildir: Path) -> int:
    return sum(len(os.listdir(maildir / each)) for each in ("cur", "new"))


def _measure_server(mailbox: Mailbox) -> None:
    for attempt in ("cold", "warm"):
        with mailbox.imap() as client:
            _timed(f"SELECT, {attempt}", lambda: client.select("INBOX"))
    with mailbox.imap() as client:
        client.create("Processed")
        client.select("INBOX")
        uids = _timed("UID SEARCH UNKEYWORD", lambda: client.uid("search", "UNKEYWORD", "$UnsubdDone"))[0].split()
        for turn in range(3):
            chosen = _set(uids[turn * 50 : turn * 50 + 50])
            _timed("STORE of 50", lambda: client.uid("store", chosen, "+FLAGS.SILENT", "($UnsubdDone)"))  # noqa: B023
        _timed("UID SEARCH KEYWORD", lambda: client.uid("search", "KEYWORD", "$UnsubdDone"))
        _measure_moves(client, uids)


def _measure_moves(client: imaplib.IMAP4, uids: list[bytes]) -> None:
    """Move the oldest messages, three times in each batch size."""
    for size in _MOVE_BATCHES:
        for attempt in range(3):
            chosen, uids = uids[:size], uids[size:]
            seconds = _seconds(lambda: client.uid("move", _set(chosen), "Processed"))  # noqa: B023
            _say(f"UID MOVE of {size}, {attempt + 1}: {seconds:.3f} s, {seconds / size * 1e6:.0f} us/message")


def _set(uids: list[bytes]) -> str:
    return b",".join(uids).decode()


def _timed(what: str, call: Callable[[], tuple[str, list[Any]]]) -> list[Any]:
    begun = time.monotonic()
    state, answer = call()
    assert state == "OK", answer
    _say(f"{what}: {time.monotonic() - begun:.3f} s")
    return answer


def _seconds(call: Callable[[], tuple[str, list[Any]]]) -> float:
    begun = time.monotonic()
    state, answer = call()
    assert state == "OK", answer
    return time.monotonic() - begun


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
