"""`unsubd run`: every part in one process group under one supervisor.

A part is a fork of the supervisor: what all of them load is loaded once, and its memory is shared (measured: 154 MB for seven
processes, 385 when each loads its own). One that dies is started again, later each time; one that says "configuration" (78) while
the service starts stops all. SIGTERM or Ctrl-C stops all within 10 s: work in progress ends or is handed back.
"""

import ctypes
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from multiprocessing import get_context
from multiprocessing.context import ForkProcess
from pathlib import Path

from setproctitle import setproctitle

from handlers.errors import EX_CONFIG, ConfigError, Unavailable
from worker import embedded
from worker.cli.failure import explained
from worker.journal import Stderr, configure_logging, write_through
from worker.service import PARTS
from worker.settings import Settings
from worker.stopping import on_stop
from worker.store.format import NewerStore
from worker.systemd import Systemd

_REVIVE_EVERY_S = 1.0
_NO_FORK_S = 10.0  # CPython leaks four files at each fork that fails
_STARTING_S = 60.0
_EX_NEWER_STORE = 76  # EX_PROTOCOL of sysexits; only the supervisor hears it
_SAME = 60  # of what a server said, before its process id and time
_GRACE_S = 7.0
_KILL_S = 2.0

# What a part would load at its start or at its first job, and its own copy of then.
_LOADS = {
    "web": ("worker.web.app", "worker.web.doors", "uvicorn.protocols.http.auto", "uvicorn.loops.auto"),
    "lmtp": ("worker.sources.lmtp",), "policy": ("worker.mta.policy",), "milter": ("worker.mta.milter",),
    "worker": ("rq.utils", "worker.forwarding.jobs"), "events": ("worker.events.jobs", "worker.forwarding.jobs"),
}  # fmt: skip


@dataclass(slots=True)
class _Child:
    name: str
    process: ForkProcess
    started_at: float
    failures: int = 0
    restart_at: float = 0.0
    is_first: bool = True

    def ends_all(self) -> bool:
        """Say whether only a person can help. What once worked is tried again: full disks and rights at Redis come and go."""
        is_start = self.is_first and time.monotonic() - self.started_at < _STARTING_S
        return self.process.exitcode == _EX_NEWER_STORE or (self.process.exitcode == EX_CONFIG and is_start)


class Supervisor:
    """The parts of one service, kept running."""

    def __init__(self, settings: Settings, names: Sequence[str], log: Path | None = None) -> None:
        """Start them; *log*: where their journal goes instead of stderr."""
        self._settings = settings
        self._log = log
        for module in {module for name in names for module in _LOADS.get(name, ())}:
            import_module(module)
        gc.collect()
        gc.freeze()  # a collection in a part writes to what it looks at, and would copy all of it
        # Of a caller who lets the kernel forget its children we would never hear that one ended.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._children: list[_Child] = []
        try:
            for name in names:
                self._children.append(self._spawn(name))
        except BaseException:
            self.stop()
            raise

    def _spawn(self, name: str, failures: int = 0, *, is_first: bool = True) -> _Child:
        words = (name, self._settings, os.getpid(), self._log)
        # daemon: should the supervisor itself fail, Python ends it and waits for it.
        process = get_context("fork").Process(target=_run_part, args=words, name=name, daemon=True)
        # Ctrl-C reaches the whole process group: a part never hears it (its mask is inherited), the supervisor ends the
        # parts in order. Held back rather than ignored: one that came in this moment would be lost for the supervisor too.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return _Child(name, process, time.monotonic(), failures, is_first=is_first)

    def watch(self, until: Callable[[], bool], tend: Callable[[], None]) -> int:
        """Keep the parts running until *until* says so; return the exit code: 78 when a part could not be configured at
        the start, or a newer unsubd works on the store.

        Shape:   tend: called between two looks, ten times a second.
        """
        while not until():
            tend()
            for child in self._children:
                if child.process.exitcode is None:
                    continue
                if child.ends_all():
                    return EX_CONFIG
                self._restart(child)
            time.sleep(0.1)
        return 0

    def _restart(self, child: _Child) -> None:
        now = time.monotonic()
        if not child.restart_at:
            quick = now - child.started_at < 10
            child.failures = child.failures + 1 if quick else 0
            child.restart_at = now + min(30.0, 0.5 * 2**child.failures)
            note = f"unsubd: part {child.name} ended with {child.process.exitcode}, starting it again\n"
            Stderr().write(note)
        elif now >= child.restart_at:
            try:
                self._children[self._children.index(child)] = self._spawn(child.name, child.failures, is_first=False)
            except OSError as error:  # no process, no file to be had: the others go on, and this one is tried later
                child.restart_at = now + _NO_FORK_S
                Stderr().write(f"unsubd: part {child.name} cannot be started ({error.strerror}), trying again\n")

    def stop(self) -> None:
        """Stop every part: politely, then firmly, then by force. Repeat: safe."""
        deadline = time.monotonic() + _GRACE_S
        self._signal(signal.SIGTERM)
        self._wait(deadline)
        self._signal(signal.SIGTERM)  # RQ gives its job back at the second one
        self._wait(time.monotonic() + _KILL_S)
        self._signal(signal.SIGKILL)
        for child in self._children:
            child.process.join()

    def _signal(self, number: int) -> None:
        for child in self._children:
            if child.process.exitcode is None and child.process.pid:
                os.kill(child.process.pid, number)

    def _wait(self, deadline: float) -> None:
        while time.monotonic() < deadline and any(child.process.exitcode is None for child in self._children):
            time.sleep(0.05)


def _run_part(name: str, settings: Settings, parent: int, log: Path | None) -> None:
    """Be the part *name*, in a process that was forked off a moment ago."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    end_with_parent(parent)
    _leave_its_files()
    if log:
        with open(log, "ab") as file:
            os.dup2(file.fileno(), sys.stderr.fileno())
    setproctitle(f"unsubd: {name}")  # `ps` and `top` name the part, as they name a program
    configure_logging()
    with explained():
        try:
            PARTS[name](settings)
        except NewerStore as error:
            Stderr().write(f"unsubd: {error}\n")
            raise SystemExit(_EX_NEWER_STORE) from None


def end_with_parent(parent: int) -> None:
    """Ask the kernel for SIGTERM when the supervisor dies, so that a kill -9 of it leaves no part behind (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGTERM)


def _leave_its_files() -> None:
    """Put /dev/null into the place of each file that the supervisor has open: its locks and connections are its own.

    Why:     the number of a file that is merely closed goes to the next one that is opened, and an object of the
             supervisor that still knows it would write there, or close it.
    """
    nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    os.dup2(nowhere, 0)
    for number in map(int, os.listdir("/dev/fd")):
        if number > 2:
            with suppress(OSError):  # the folder that was listed
                os.dup2(nowhere, number, inheritable=False)


def supervise(
    settings: Settings, names: Sequence[str], tend: Callable[[], None], is_ready: Callable[[], bool] = lambda: True
) -> int:
    """Run the parts *names* until SIGTERM or Ctrl-C and return the exit code.

    Shape:   tend: see `Supervisor.watch`; is_ready: whether all that was asked for is there, as systemd wants to know.
    """
    write_through()
    stopped = threading.Event()
    on_stop(stopped.set)
    systemd = Systemd(os.environ)  # before the parts, which inherit the environment

    def tend_and_tell() -> None:
        tend()
        if is_ready():
            systemd.beat()

    supervisor = Supervisor(settings, names)
    try:
        return supervisor.watch(stopped.is_set, tend_and_tell)
    finally:
        supervisor.stop()


def reviver(settings: Settings) -> Callable[[], None]:
    """Return what keeps the embedded Valkey alive: a look a second; nothing for a server of the operator's own."""
    looked_at, said = time.monotonic(), ""

    def look() -> None:
        nonlocal looked_at, said
        if not settings.embedded or time.monotonic() - looked_at < _REVIVE_EVERY_S:
            return
        try:
            embedded.revive(settings.data_dir)
            said = ""
        # A disk that is full has room again: what runs waits, and stays.
        except (Unavailable, ConfigError, OSError) as error:
            if str(error)[:_SAME] != said[:_SAME]:
                Stderr().write(f"unsubd: {error}\n")
            said = str(error)
        looked_at = time.monotonic()

    return look
