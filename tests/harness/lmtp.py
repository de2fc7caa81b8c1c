"""The LMTP server in a thread of the test's own process, and a client that says exactly what it is told."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from handlers.request import DecidedMessage
from tests.harness.service import MASTERS, until
from worker.installation import Installation, open_installation
from worker.listening import listening
from worker.settings import load_settings
from worker.sources.lmtp import Limits, Server


class Client:
    """One connection, greeted."""

    def __init__(self, address: str, *, greeted: bool = True) -> None:
        if address.startswith("unix:"):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(30)
            try:
                self.socket.connect(address.removeprefix("unix:"))
            except OSError:
                self.socket.close()
                raise
        else:
            host, _, port = address.rpartition(":")
            self.socket = socket.create_connection((host, int(port)), 30)
        self._file = self.socket.makefile("rb")
        try:
            if greeted and not (self.reply().startswith("220 ") and self.say("LHLO client").startswith("250")):
                raise ConnectionError("no greeting")
        except OSError:
            self.close()
            raise

    def send(self, data: bytes) -> None:
        """Send octets."""
        self.socket.sendall(data)

    def reply(self) -> str:
        """Return the next reply, its lines joined by a space; "" when the server has hung up."""
        lines = []
        while line := self._file.readline():
            lines.append(line.decode().strip())
            if line[3:4] != b"-":
                break
        return " ".join(lines)

    def say(self, line: str) -> str:
        """Send a command and return its reply."""
        self.send(line.encode("utf-8", "surrogateescape") + b"\r\n")
        return self.reply()

    def begin(self, *recipients: str, sender: str = "someone@example.net") -> None:
        """Say everything up to the 354."""
        for line in (f"MAIL FROM:<{sender}>", *(f"RCPT TO:<{each}>" for each in recipients)):
            answer = self.say(line)
            assert answer.startswith("250 "), answer
        assert self.say("DATA").startswith("354 ")

    def deliver(self, content: bytes, *recipients: str, sender: str = "someone@example.net") -> list[str]:
        """Deliver *content*, already dot-stuffed, and return the code for each recipient."""
        self.begin(*recipients, sender=sender)
        self.send(content + b"\r\n.\r\n")
        return [self.reply()[:3] for _ in recipients]

    def close(self) -> None:
        """Hang up."""
        self._file.close()
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True)
class Lmtp:
    """The running server: `client()` speaks to it, the rest looks at what it left in Redis."""

    address: str
    installation: Installation

    def client(self, *, greeted: bool = True) -> Client:
        """Connect."""
        return Client(self.address, greeted=greeted)

    def queued(self) -> list[DecidedMessage]:
        """Return every message in the queue, in order."""
        jobs = self.installation.queue.rq.get_jobs()
        return [DecidedMessage.from_wire(wire) for job in jobs for wire in job.kwargs["batch"]]

    def recipients(self) -> list[str]:
        """Return whom the queued messages ask for, sorted."""
        return sorted(each.recipient for message in self.queued() for each in message.requests)


@contextmanager
def receiving(folder: Path, redis_url: str, limits: Limits | None = None, **settings: str) -> Iterator[Lmtp]:
    """Take mail for an installation on *redis_url*; *settings* as `Service` takes them."""
    given = {"redis_url": redis_url, "data_dir": str(folder), "secret_keys": ",".join(MASTERS)}
    given |= {"address": "u+{tag}@unsub.example.com", "lmtp": f"unix:{folder}/lmtp"} | settings
    own = load_settings({f"UNSUBD_{name.upper()}": value for name, value in given.items()})
    assert own.lmtp is not None
    with open_installation(own) as installation, listening(own.lmtp, "UNSUBD_LMTP") as listener:
        loops: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

        async def run() -> None:
            stop = asyncio.Event()
            loops.append((asyncio.get_running_loop(), stop))
            await Server(installation, limits).run(listener, stop)

        thread = threading.Thread(target=lambda: asyncio.run(run()))
        thread.start()
        try:
            until(lambda: loops or not thread.is_alive(), 10, "the LMTP server's start")
            yield Lmtp(own.lmtp, installation)
        finally:
            for loop, stop in loops:
                loop.call_soon_threadsafe(stop.set)
            thread.join(20)
