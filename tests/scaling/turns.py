"""How many jobs a taker of posts and a poller make at which rate, without workers: `python -m tests.scaling.turns`.

Mails come at a fixed rate, whether the last ones were taken or not, as from a provider or a mail server.
"""

import asyncio
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from redis import Redis

from handlers import message
from tests.harness import processes
from tests.harness.dovecot import Dovecot, Mailbox
from tests.harness.mails import address, mail
from tests.harness.redis_server import RedisServer
from tests.harness.service import MASTERS, Service, until
from worker import gather
from worker.gather import Gatherer
from worker.installation import Installation, open_installation
from worker.settings import load_settings

_SECONDS = 4
_POSTS, _MAILS = (50, 200, 500, 1000, 1500), (10, 50, 200)
_JOBS = "rq:queue:unsubd"


def main() -> None:
    """Measure and print."""
    with _folder() as folder, RedisServer(processes.require("redis-server", "redis-server"), folder / "redis") as redis:
        settings = load_settings({
            "UNSUBD_REDIS_URL": redis.url, "UNSUBD_SECRET_KEYS": MASTERS[0], "UNSUBD_DATA_DIR": str(folder),
            "UNSUBD_ADDRESS": "u+{tag}@unsub.example.com",
        })  # fmt: skip
        with open_installation(settings) as installation:
            for many, when in ((sys.maxsize, "none wait"), (-1, "many wait")):
                gather._MANY_JOBS = many
                for rate in _POSTS:
                    asyncio.run(_posts(installation, rate, when))
            _mails(redis, folder)


@contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="unsubd-turns-"))
    folder.chmod(0o755)
    for name in ("redis", "dovecot", "service"):
        (folder / name).mkdir()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


async def _posts(installation: Installation, rate: int, when: str) -> None:
    gatherer, seconds = Gatherer(installation.intake), list[float]()
    raws = [(address(number), mail(address(number), f"{when}-{rate}-{number}")) for number in range(rate * _SECONDS)]
    messages = [message.read(raw, source="relay:default", envelope_to=to) for to, raw in raws]

    async def deliver(number: int) -> None:
        await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
        asked = time.monotonic()
        await gatherer.accept([messages[number]])
        seconds.append(time.monotonic() - asked)

    installation.redis.delete(_JOBS)
    began = time.monotonic()
    await asyncio.gather(*(deliver(number) for number in range(len(messages))))
    took, jobs = time.monotonic() - began, installation.queue.waiting()
    middle = sorted(seconds)[len(seconds) // 2] * 1e3
    _line(
        f"{rate} posts/s while {when}: {len(messages) / took:.0f}/s, {jobs / took:.0f} jobs/s, median {middle:.0f} ms"
    )


def _mails(redis: RedisServer, folder: Path) -> None:
    with Dovecot(processes.require("dovecot", "dovecot-imapd"), folder / "dovecot") as dovecot:
        mailbox = Mailbox(dovecot, "bench")
        service = Service(
            folder / "service", redis_url=redis.url, secret_keys=MASTERS[0], imap_url=mailbox.url,
            imap_password=mailbox.password, imap_ca_file=str(mailbox.ca_file), imap_backlog="all",
        )  # fmt: skip
        with service.running("poll", ready=False), Redis.from_url(redis.url) as client:
            until(lambda: "state=idle" in service.log.read_text(), what="the poller idle")
            for rate in _MAILS:
                time.sleep(1.5)  # until it is idle again
                client.delete(_JOBS)
                count = _appended(mailbox, rate)
                time.sleep(1.5)
                _line(f"{rate} mails/s into a mailbox: {count} mails, {client.llen(_JOBS) / _SECONDS:.0f} jobs/s")


def _appended(mailbox: Mailbox, rate: int) -> int:
    began, count = time.monotonic(), 0
    while (since := time.monotonic() - began) < _SECONDS:
        due = range(count, int(since * rate))
        if due:
            mailbox.append_many([mail(address(number), f"mail-{rate}-{number}") for number in due])
            count = due.stop
        time.sleep(0.02)
    return count


def _line(text: str) -> None:
    sys.stderr.write(text + "\n")


if __name__ == "__main__":
    main()
