"""Processes to kill, found from outside: by /proc, and by what they leave in Redis and in the Maildir (Linux)."""

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from redis import Redis

from tests.harness.dovecot import Mailbox
from tests.harness.service import UNSUBD, Service, children, parts


def alive(pid: int) -> bool:
    """Say whether *pid* runs: a process that ended and was not fetched yet does not."""
    return _read(f"/proc/{pid}/stat").rpartition(")")[2].split()[:1] not in ([], ["Z"])


def below(pid: int) -> list[int]:
    """Return the processes below *pid*, children before grandchildren."""
    own = _children(pid)
    return own + [each for child in own for each in below(child)]


def _children(pid: int) -> list[int]:
    try:
        return children(pid)
    except (FileNotFoundError, ProcessLookupError):
        return []


def kill(pid: int) -> bool:
    """Kill -9 one process, and say whether it was there to be killed."""
    with suppress(ProcessLookupError):
        if alive(pid):
            os.kill(pid, signal.SIGKILL)
            return True
    return False


def pause(pid: int) -> None:
    """Hold a process; one that ended is left alone."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)


def resume(pid: int) -> None:
    """Let a held process go on."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


class Part:
    """One command of unsubd (`poll`, `work`) as a service that is killed and started again."""

    def __init__(self, service: Service, *words: str) -> None:
        self._service = service
        self._words = words
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, in a session of its own; it is not ready yet."""
        assert self._process is None, "it runs"
        with self._service.log.open("ab") as log:
            self._process = subprocess.Popen(
                [UNSUBD, *self._words], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._service.env,
                start_new_session=True,
            )  # fmt: skip

    @property
    def pid(self) -> int:
        """The process id of the command itself."""
        assert self._process is not None, "it does not run"
        return self._process.pid

    def parts(self, name: str) -> list[int]:
        """Return the processes that the supervisor started as *name* (`worker`, `reaper`)."""
        with suppress(FileNotFoundError, ProcessLookupError):
            return parts(self.pid, name)
        return []

    def horses(self) -> Iterator[tuple[int, int]]:
        """Yield (worker, horse) of every job that is being done."""
        for worker in self.parts("worker"):
            yield from ((worker, horse) for horse in _children(worker) if alive(horse))

    def kill(self, how: Callable[[int], None]) -> bool:
        """End it by *how* and forget it; False: it had ended before (nothing may)."""
        assert self._process is not None, "it does not run"
        ran = self._process.poll() is None
        how(self._process.pid)
        self._process.wait(30)
        self._process = None
        return ran

    def end(self) -> None:
        """End whatever is left of it. Repeat: safe."""
        if self._process is not None:
            self.kill(kill_tree)


def kill_group(pid: int) -> None:
    """Kill the process group; a work horse has one of its own and goes on without its worker."""
    os.killpg(pid, signal.SIGKILL)


def kill_tree(pid: int) -> None:
    """Kill the process and all below it, horses too, as a container's end does."""
    doomed = below(pid)
    os.killpg(pid, signal.SIGKILL)
    for each in doomed:
        kill(each)


def kill_alone(pid: int) -> None:
    """Kill the one process: what a supervisor started is told by the kernel to stop."""
    os.kill(pid, signal.SIGKILL)


def imap_sessions(mailbox: Mailbox) -> list[int]:
    """Return Dovecot's processes that serve a login."""
    return [pid for pid in below(mailbox.server.pid) if _read(f"/proc/{pid}/comm") == "imap\n"]


def _read(path: str) -> str:
    """What a file below /proc says, "" when its process is gone."""
    try:
        return Path(path).read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


class Signs:
    """How far the work is, each as a number that changes while it goes on."""

    def __init__(self, client: Redis, mailbox: Mailbox) -> None:
        self._redis = client
        self._maildir = mailbox.server.folder / "homes" / mailbox.user / "Maildir"

    def of_poller(self) -> dict[str, Callable[[], int]]:
        """Return the steps of taking a batch."""
        return {
            "connecting": self.said, "accepting": self.known, "accepted": partial(self.calls, "rpush"),
            "marking": self.marked, "moving": self.moved,
        }  # fmt: skip

    def of_jobs(self) -> dict[str, Callable[[], int]]:
        """Return the steps of doing a job: suppressions are written, then the ledger, then the journal."""
        steps = {"applying": "evalsha", "recording": "hsetnx", "told": "hincrby"}
        return {step: partial(self.calls, command) for step, command in steps.items()}

    def calls(self, command: str) -> int:
        """How often Redis was asked to do *command*."""
        facts: Any = self._redis.info("commandstats")
        return int(facts.get(f"cmdstat_{command}", {"calls": 0})["calls"])

    def said(self) -> int:
        """It told its state: connecting, working, idle."""
        row: Any = self._redis.hget("unsubd:sources", "imap:default")
        return int(json.loads(row)["at_ms"]) if row else 0

    def known(self) -> int:
        """A batch came to our door: keys appear."""
        size: Any = self._redis.dbsize()
        return int(size)

    def marked(self) -> int:
        """Messages in INBOX with a keyword, which a Maildir spells as a small letter behind the flags."""
        names = _listed(self._maildir / "cur")
        return sum(any(letter.islower() for letter in name.rpartition(":2,")[2]) for name in names if ":2," in name)

    def moved(self) -> int:
        """Messages in Processed."""
        return sum(len(_listed(self._maildir / ".Processed" / each)) for each in ("cur", "new", "tmp"))


def _listed(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []
