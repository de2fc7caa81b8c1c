"""Child processes of the tests. Hides how a server is found, awaited and ended."""

import fcntl
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NoReturn, Self

import pytest

# Binaries that tests need, and the Debian package that brings each.
PACKAGES = {
    "redis-server": "redis-server", "dovecot": "dovecot-imapd", "chromium": "chromium", "swaks": "swaks",
    "postfix": "postfix", "node": "nodejs", "php": "php-cli", "ruby": "ruby", "go": "golang-go",
    "systemd-analyze": "systemd", "nginx": "nginx-light", "caddy": "caddy",
}  # fmt: skip

_START_S = 20
_STOP_S = 15


def unavailable(reason: str) -> NoReturn:
    """Skip the test and say why; in CI fail it, because a skipped test there proves nothing."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason}; in CI nothing is skipped", pytrace=False)
    pytest.skip(reason)


def require(binary: str, package: str) -> Path:
    """Return the path of *binary*; without it the test is skipped, naming the Debian *package* (in CI it fails)."""
    # An ordinary user's PATH lacks the sbin folders, where Debian keeps dovecot.
    places = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin"])
    found = shutil.which(binary, path=places)
    if found is None:
        unavailable(f"{binary} is not installed: apt-get install {package}")
    return Path(found)


def free_port() -> int:
    """Return a loopback port that nobody listens on, and that no other run of these tests gets while we live."""
    # Below the kernel's range for outgoing connections: a client that retries a stopped server within that range can
    # connect to itself, and takes the port that the server wants back.
    while True:
        port = random.randrange(20_000, 32_000)
        if port in _PORTS or not _reserved(port):
            continue
        with socket.socket() as candidate:
            try:
                candidate.bind(("127.0.0.1", port))
            except OSError:
                continue
            _PORTS.add(port)
            return port


# Between looking and listening another process could take the same port. Of two servers one then dies, and its tests
# talk to the other's. So a port is a byte of this file, which the first to want it locks; the lock ends with us.
_PORTS: set[int] = set()
_RESERVED = Path(tempfile.gettempdir()) / f"unsubd-test-ports-{os.getuid()}"


@cache
def _reservations() -> int:
    return os.open(_RESERVED, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _reserved(port: int) -> bool:
    try:
        fcntl.lockf(_reservations(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    return True


class Server:
    """A server in the foreground as our child. Every start uses the same arguments: port and data stay."""

    def __init__(self, arguments: list[str | Path], log: Path) -> None:
        self._arguments = arguments
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        assert self._process is not None, "the server is stopped"
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it answers. Repeat: safe."""
        if self._process is not None:
            if self._process.poll() is None:
                return
            self.kill()  # it died on its own: end what it left
        with self._log.open("ab") as log:
            # A session, and so a group, of its own: Ctrl-C reaches pytest alone, whose teardown then ends the server.
            self._process = subprocess.Popen(
                self._arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + _START_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"{self._arguments[0]} does not start:\n{self.log()[-2000:]}")
            time.sleep(0.01)

    def stop(self) -> None:
        """End it in order: SIGTERM, and SIGKILL for what is left. Repeat: safe."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it without warning: SIGKILL. Repeat: safe."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        self._signal(how)
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._signal(signal.SIGKILL)
        self._process = None

    def _signal(self, which: signal.Signals) -> None:
        # The whole group: Dovecot's sessions outlive their master, and a stopped server must answer nobody.
        with suppress(ProcessLookupError):
            os.killpg(self.pid, which)

    def restart(self) -> None:
        """Stop it if it runs, then start it on the same port with the same data."""
        self.stop()
        self.start()

    def log(self) -> str:
        """Return what the server has said so far."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def _answers(self) -> bool:
        raise NotImplementedError

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def greeting(port: int, question: bytes = b"") -> bytes:
    """Return the first bytes that a server on loopback says, empty when it does not listen."""
    with socket.socket() as connection:
        connection.settimeout(2)
        try:
            connection.connect(("127.0.0.1", port))
            connection.sendall(question)
            return connection.recv(256)
        except OSError:
            return b""
