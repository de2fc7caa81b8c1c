"""What `unsubd run` holds in memory, all its processes together: idle, draining a mailbox, and with a hundred mails of 25 MB.

python -m tests.bench.memory [--count 10000]. PSS, so that what processes share counts once (proc(5), smaps_rollup).
"""

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.bench.measure import Row, machine, save, table, telling
from tests.crash.processes import below
from tests.harness import processes
from tests.harness.dovecot import Dovecot, Mailbox
from tests.harness.mails import address, mail
from tests.harness.redis_server import RedisServer
from tests.harness.service import MASTERS, Service, until

_LARGE, _LARGE_OCTETS = 100, 25_000_000
_IDLE_S = 10.0


def main() -> None:
    """Measure, print the table, and keep it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000, help="mails that are drained")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="unsubd-memory-"))
    folder.chmod(0o755)
    for name in ("redis", "dovecot", "service"):
        (folder / name).mkdir()
    try:
        with (
            RedisServer(processes.require("redis-server", "redis-server"), folder / "redis") as redis,
            Dovecot(processes.require("dovecot", "dovecot-imapd"), folder / "dovecot") as dovecot,
        ):
            rows = _measured(redis.url, Mailbox(dovecot, "memory"), folder / "service", given.count)
    finally:
        shutil.rmtree(folder)
    sys.stdout.write(f"{machine()}\n{table(rows)}\n")
    save(rows, Path("bench"))


def _measured(redis_url: str, mailbox: Mailbox, folder: Path, count: int) -> list[Row]:
    service = Service(
        folder, redis_url=redis_url, secret_keys=MASTERS[0], imap_url=mailbox.url, imap_password=mailbox.password,
        imap_ca_file=str(mailbox.ca_file), imap_backlog="all", workers="2",
    )  # fmt: skip
    maildir = mailbox.server.folder / "homes" / mailbox.user / "Maildir"
    with service.running("run") as run:
        until(lambda: "state=idle" in service.log.read_text(), 60, "the poller idle")
        with telling("memory: idle"):
            idle_until = time.monotonic() + _IDLE_S
            idle = _most(run.pid, lambda: time.monotonic() > idle_until)
        with telling(f"memory: draining {count:,}"):
            mailbox.append_many(mail(address(number), f"memory-{number}") for number in range(count))
            drained = _most(run.pid, lambda: _files(maildir) == 0)
        with telling(f"memory: {_LARGE} mails of 25 MB"):
            body = ("unsubscribe " * 6 + "\r\n") * (_LARGE_OCTETS // 74)
            for number in range(_LARGE):
                mailbox.append_many([mail(address(count + number), f"large-{number}", body=body)])
            large = _most(run.pid, lambda: _files(maildir) == 0)
    return [
        Row("memory of `unsubd run`, 2 workers, idle", "MB", [idle], target=160, higher_is_better=False),
        Row(f"the same, draining {count:,} mails", "MB", [drained], "idle", [idle], 1.3, higher_is_better=False),
        Row(f"the same, with {_LARGE} mails of 25 MB", "MB", [large], "idle", [idle], 1.5, higher_is_better=False),
    ]  # fmt: skip


def _most(pid: int, ended: Callable[[], bool]) -> float:
    """Return the most that was seen until the end, in MB."""
    most = 0.0
    while not ended():
        most = max(most, sum(map(_pss_mb, (pid, *below(pid)))))
        time.sleep(0.1)
    return most


def _pss_mb(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0  # it ended meanwhile
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:")), 0.0)


def _files(maildir: Path) -> int:
    return sum(1 for each in ("cur", "new") for _ in (maildir / each).iterdir())


if __name__ == "__main__":
    main()
