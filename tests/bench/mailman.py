"""GNU Mailman 3 as a rival: mails to the `-leave` address of a list, by LMTP, until its last member is gone.

For each mail four processes write three queue files with an fsync each (the command, the farewell, the farewell on its way
out), commit the departure to SQLite with four fdatasyncs, and send the farewell. The time ends with the last departure;
farewells may still be under way.

It is installed for the run and no dependency of ours. Root may run this too: only the command `mailman` refuses root, and
nothing here calls it. Limits: one process per queue, as Mailman comes; queues that no leave passes have none.
"""

import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from smtplib import LMTP

from tests.bench.measure import telling
from tests.harness.mta import sink
from tests.harness.processes import Server, free_port, greeting
from tests.harness.service import until

VERSION = "3.3.10"
_PACKAGES = (f"mailman=={VERSION}", "SQLAlchemy==2.0.58")
_LEAVE = "news-leave@lists.example.com"
_CONNECTIONS = 4
_NEEDED = ("lmtp", "command", "virgin", "out")
# By setting, because `master --runners` of this version fails on every name.
_IDLE = ("archive", "bounces", "digest", "in", "pipeline", "rest", "retry", "task")
_CONFIGURATION = """
[mailman]
layout: bench
[paths.bench]
var_dir: {folder}
[mta]
incoming: mailman.mta.null.NullMTA
lmtp_host: 127.0.0.1
lmtp_port: {lmtp_port}
smtp_host: 127.0.0.1
smtp_port: {smtp_port}
"""
# Mailman's Python runs this. An open policy, so that one mail is enough; verified, because others may not leave by mail.
_SUBSCRIBE = """
import sys
from mailman.config import config
from mailman.core.initialize import initialize
initialize(sys.argv[1])
from mailman.app.lifecycle import create_list
from mailman.interfaces.domain import IDomainManager
from mailman.interfaces.mailinglist import SubscriptionPolicy
from mailman.interfaces.usermanager import IUserManager
from mailman.utilities.datetime import now
from zope.component import getUtility
getUtility(IDomainManager).add("lists.example.com")
news = create_list("news@lists.example.com")
news.unsubscription_policy = SubscriptionPolicy.open
news.send_welcome_message = False  # else the welcomes wait in the queue of the farewells
for number in range(int(sys.argv[2])):
    (address,) = getUtility(IUserManager).make_user(f"person.{number}@example.com").addresses
    address.verified_on = now()
    news.subscribe(address)
config.db.commit()
"""


class Mailman(Server):
    """The server with one list, whose farewells go to *smtp_port*. *programs*: what `installed` yields."""

    def __init__(self, programs: Path, folder: Path, smtp_port: int, members: int) -> None:
        self.port = free_port()
        self._folder = folder
        configuration = folder / "mailman.cfg"
        text = _CONFIGURATION.format(folder=folder / "var", lmtp_port=self.port, smtp_port=smtp_port)
        configuration.write_text(text + "".join(f"[runner.{each}]\nstart: no\n" for each in _IDLE))
        _run(programs / "python", "-c", _SUBSCRIBE, configuration, str(members))
        super().__init__([programs / "master", "--config", configuration], folder / "master.log")

    def members(self) -> int:
        """Return how many have not left."""
        with closing(sqlite3.connect(f"file:{self._folder}/var/data/mailman.db?mode=ro", uri=True)) as database:
            return int(database.execute("SELECT count(*) FROM member").fetchone()[0])

    def _answers(self) -> bool:
        log = self._folder / "var/logs/mailman.log"
        said = log.read_text() if log.exists() else ""
        return all(f"{each} runner started" in said for each in _NEEDED) and greeting(self.port).startswith(b"220")


@contextmanager
def installed() -> Iterator[Path]:
    """Install Mailman into an environment of its own, and yield the folder of its programs."""
    with tempfile.TemporaryDirectory(prefix="unsubd-mailman-") as folder:
        programs = Path(folder, "bin")
        with telling(f"installing GNU Mailman {VERSION}"):
            _run(sys.executable, "-m", "venv", folder)
            _run(programs / "python", "-m", "pip", "install", "--quiet", *_PACKAGES)
        yield programs


def _run(*words: str | Path) -> None:
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{words[0]} ended with {done.returncode}, expected 0:\n{done.stderr[-2000:]}")


def drain(programs: Path, count: int) -> float:
    """Mails a second, from the first delivery to the last of *count* members gone."""
    with (
        tempfile.TemporaryDirectory(prefix="unsubd-mailman-") as name,
        sink() as (_, smtp_port),
        Mailman(programs, Path(name), smtp_port, count) as mailman,
    ):
        assert mailman.members() == count
        begun = time.perf_counter()
        _deliver(mailman.port, count)
        until(lambda: mailman.members() == 0, 600, "the last departure")
        return count / (time.perf_counter() - begun)


def _deliver(port: int, count: int) -> None:
    """Deliver everybody's mail, over a few connections as fast as they take it."""
    shares = [range(first, count, _CONNECTIONS) for first in range(_CONNECTIONS)]
    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        for done in [pool.submit(_leave, port, share) for share in shares]:
            done.result()


def _leave(port: int, people: Iterable[int]) -> None:
    with LMTP("127.0.0.1", port) as client:
        for number in people:
            person = f"person.{number}@example.com"
            head = f"From: <{person}>\r\nTo: {_LEAVE}\r\nSubject: unsubscribe\r\nMessage-ID: <leave-{number}@example.com>\r\n"
            client.sendmail(person, [_LEAVE], f"{head}\r\nunsubscribe\r\n")
