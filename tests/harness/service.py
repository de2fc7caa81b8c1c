"""unsubd itself as its users run it: commands and services as processes with an environment of their own."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.harness.processes import free_port

UNSUBD = Path(sys.executable).parent / "unsubd"
MASTERS = ("11" * 32, "22" * 32)


def until(holds: Callable[[], object], seconds: float = 30.0, what: str = "it") -> Any:
    """Wait until *holds* returns something true, and return that."""
    deadline = time.monotonic() + seconds
    while not (result := holds()):
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds} s"
        time.sleep(0.05)
    return result


def children(pid: int) -> list[int]:
    """Return the process ids of the children of *pid* (Linux)."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def parts(pid: int, name: str) -> list[int]:
    """Return the process ids of the parts *name* (`worker`, `lmtp`) of the supervisor *pid* (Linux)."""
    return [each for each in children(pid) if _title(each) == f"unsubd: {name}"]


def kill_and_await(pid: int, name: str) -> None:
    """Kill the parts *name* of the supervisor *pid*, and wait until it has started another."""
    killed = parts(pid, name)
    for each in killed:
        os.kill(each, signal.SIGKILL)
    until(lambda: set(parts(pid, name)) - set(killed), 30, f"a new {name}")


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0")
    except (FileNotFoundError, ProcessLookupError):
        return ""


class Service:
    """One installation. `env` holds its settings; `log` what its services said."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder
        self.log = folder / "service.log"
        self.port = free_port()
        # PYTHONUNBUFFERED: a user's shell has none, and what it keeps in its buffers is part of the truth.
        plain = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("UNSUBD_") and name != "PYTHONUNBUFFERED"
        }
        own = {"UNSUBD_DATA_DIR": str(folder / "data"), "UNSUBD_HTTP": f"127.0.0.1:{self.port}"}
        given = {f"UNSUBD_{name.upper()}": value for name, value in settings.items()}
        self.env = plain | {"HOME": str(folder)} | own | given

    @property
    def url(self) -> str:
        """Where its web server listens."""
        return f"http://127.0.0.1:{self.port}"

    def command(self, *words: str, given: bytes = b"", seconds: float = 60) -> subprocess.CompletedProcess[str]:
        """Run one command to its end, which comes within *seconds*."""
        done = subprocess.run([UNSUBD, *words], input=given, capture_output=True, env=self.env, timeout=seconds)
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    def last_line(self, *words: str) -> str:
        """Run a command that must succeed and return the last line it printed."""
        done = self.command(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip().splitlines()[-1]

    def rows(self, *words: str) -> list[dict[str, Any]]:
        """Run a command with --json and return its lines."""
        done = self.command(*words, "--json")
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    @contextmanager
    def running(self, *words: str, ready: bool = True) -> Iterator[subprocess.Popen[bytes]]:
        """Run a service (`run`, `web`, …) for the time of the block; SIGTERM ends it."""
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [UNSUBD, *words], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.env, start_new_session=True
            )
        try:
            if ready:
                until(lambda: process.poll() is not None or self.is_ready(), 60, f"{words} ready")
                assert process.poll() is None, self.log.read_text()
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.wait(20)

    def post(self, path: str, body: bytes, content_type: str = "message/rfc822", **headers: str) -> int:
        """Post *body* and return the status. Header names are written with _ for -."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(self.url + path, body, {"Content-Type": content_type, **named})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    def is_ready(self) -> bool:
        """Say whether the web server and its Redis answer."""
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=2):
                return True
        except OSError:
            return False
