"""A mailbox drained to the last effect and the last MOVE, beside fetching it by a bare socket, a plain program and GNU Mailman.

python -m tests.bench.drained [--count 10000] [--runs 3]
"""

import argparse
import imaplib
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from redis import Redis

from tests.bench import mailman, rival
from tests.bench.measure import Row, machine, save, table, telling
from tests.harness import processes
from tests.harness.dovecot import Dovecot, Mailbox
from tests.harness.mails import address, mail
from tests.harness.names import NAMES
from tests.harness.redis_server import RedisServer
from tests.harness.service import MASTERS, Service, until
from worker.queue import RequestQueue
from worker.store import Store

_FEW = 1_000
_BODY = "unsubscribe\r\n" * 20


def main() -> None:
    """Measure, print the table, and keep it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000, help="messages in the mailbox")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--many", type=int, default=100_000, help="messages in the mailbox that is drained once")
    given = parser.parse_args()
    rows = [_beside_a_socket(given.count, given.runs), _beside_a_socket(given.many, 1), *_beside_rivals()]
    sys.stdout.write(f"{machine()}\n{table(rows)}\n")
    save(rows, Path("bench"))


def _beside_a_socket(count: int, runs: int) -> Row:
    ours, fetched = [], []
    for number in range(runs):
        with telling(f"drain of {count:,}: run {number + 1} of {runs}"), _servers() as (redis, dovecot, folder):
            large = _filled(Mailbox(dovecot, "large"), count)
            fetched.append(count / _fetch(large))
            ours.append(_drain(redis, large, folder / "large", count))
    return Row(f"drain of {count:,} mails, suppressed and moved, 2 workers", "mails/s", ours,
               "fetching them by a bare socket", fetched, 0.12)  # fmt: skip


def _beside_rivals() -> list[Row]:
    """Once: the plain program needs minutes."""
    with mailman.installed() as programs, telling(f"drain of {_FEW:,}, and rivals"), _servers() as servers:
        redis, dovecot, folder = servers
        ours = _drain(redis, _filled(Mailbox(dovecot, "few"), _FEW), folder / "few", _FEW)
        straight = _straight(redis, _filled(Mailbox(dovecot, "rival"), _FEW), folder)
        left = mailman.drain(programs, _FEW)
    what = f"drain of {_FEW:,} mails"
    return [
        Row(what, "mails/s", [ours], "imap-tools, mail-parser, a job and a MOVE each", [straight]),
        Row(what, "mails/s", [ours], f"GNU Mailman {mailman.VERSION}: LMTP to `-leave`, a farewell each", [left]),
    ]


@contextmanager
def _servers() -> Iterator[tuple[RedisServer, Dovecot, Path]]:
    folder = Path(tempfile.mkdtemp(prefix="unsubd-drained-"))
    folder.chmod(0o755)
    for name in ("redis", "dovecot", "large", "few"):
        (folder / name).mkdir()
    try:
        with (
            RedisServer(processes.require("redis-server", "redis-server"), folder / "redis") as redis,
            Dovecot(processes.require("dovecot", "dovecot-imapd"), folder / "dovecot") as dovecot,
        ):
            yield redis, dovecot, folder
    finally:
        shutil.rmtree(folder)


def _filled(mailbox: Mailbox, count: int) -> Mailbox:
    mailbox.append_many(mail(address(number), f"drained-{number}", body=_BODY) for number in range(count))
    with mailbox.imap() as client:
        client.create("Processed")
        client.select("INBOX")  # Dovecot's index of it is no part of what is measured
    return mailbox


def _fetch(mailbox: Mailbox) -> float:
    """Seconds until the last octet of all messages, asked for in one command, was read and thrown away."""
    with mailbox.imap() as client:
        client.select("INBOX", readonly=True)
        assert isinstance(client, imaplib.IMAP4_SSL)
        line = client.socket()
        begun, end = time.perf_counter(), b""
        line.sendall(b"raw UID FETCH 1:* (BODY.PEEK[])\r\n")
        while b"\r\nraw OK" not in end:
            end = (end + line.recv(1 << 20))[-200:]
        return time.perf_counter() - begun


def _drain(redis: RedisServer, mailbox: Mailbox, folder: Path, count: int) -> float:
    """Mails a second, from the first that was taken to the last that is suppressed and moved."""
    redis.empty()
    service = Service(
        folder, redis_url=redis.url, secret_keys=MASTERS[0], imap_url=mailbox.url, imap_password=mailbox.password,
        imap_ca_file=str(mailbox.ca_file), imap_backlog="all",
    )  # fmt: skip
    maildir = mailbox.server.folder / "homes" / mailbox.user / "Maildir"
    with service.running("work", ready=False), Redis.from_url(redis.url) as client:
        store = Store(client, NAMES)
        until(lambda: len(RequestQueue(client, limit=1).workers()) >= 2, 60, "the workers")
        with service.running("poll", ready=False):
            until(lambda: b"imap:default" in (client.hgetall("unsubd:sources") or {}), 60, "the poller")
            until(lambda: client.llen("rq:queue:unsubd") or client.zcard("rq:wip:unsubd"), 60, "the first job")
            begun = time.perf_counter()
            until(lambda: _files(maildir) == 0, 600, "the last move")
            until(lambda: sum(1 for _ in store.listed("acme", 1)) == count, 600, "the last effect")
            return count / (time.perf_counter() - begun)


def _straight(redis: RedisServer, mailbox: Mailbox, folder: Path) -> float:
    redis.empty()
    with rival.worker(redis.url, folder), Redis.from_url(redis.url) as client:
        until(lambda: client.scard("rq:workers:rival") == 1, 60, "RQ's worker")
        begun = time.perf_counter()
        rival.drain(mailbox, redis.url)
        until(lambda: client.scard(rival.STOPPED) == _FEW, 600, "the last effect")
        return _FEW / (time.perf_counter() - begun)


def _files(maildir: Path) -> int:
    return sum(1 for each in ("cur", "new") for _ in (maildir / each).iterdir())


if __name__ == "__main__":
    main()
