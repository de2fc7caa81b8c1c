"""The web application in a thread of the test's own process: real HTTP and a real Redis, and a test may patch it."""

import http.client
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import httpx2

from handlers.request import DecidedMessage
from tests.harness.processes import free_port
from tests.harness.service import MASTERS, until
from worker.installation import Installation, open_installation
from worker.quarantine.shelf import Selection
from worker.settings import load_settings
from worker.web.app import server
from worker.web.doors import listen

Headers = Mapping[str, str | Sequence[str]]


@dataclass(frozen=True)
class Answer:
    """What the server said. Shape: headers: lower-case name -> the last value of that name."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def cookie(self) -> str:
        """The one cookie that was set, as a client sends it back."""
        return "; ".join(f"{name}={each.value}" for name, each in SimpleCookie(self.headers["set-cookie"]).items())


def ask(
    port: int, method: str, path: str, body: Any = None, headers: Headers | None = None, *, seconds: float = 30
) -> Answer:
    """Send one request, and wait *seconds* for its answer.

    Shape:   a header with several values is sent several times; a body that is an iterator goes in chunks.
    """
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=seconds)) as connection:
        chunked = body is not None and not isinstance(body, bytes)
        connection.putrequest(method, path, skip_accept_encoding=True)
        for name, values in (headers or {}).items():
            for value in [values] if isinstance(values, str) else values:
                connection.putheader(name, value.encode("latin-1"))
        if chunked:
            connection.putheader("Transfer-Encoding", "chunked")
        elif body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body, encode_chunked=chunked)
        answer = connection.getresponse()
        return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())


@dataclass(frozen=True)
class Web:
    """The running application: `get` and `post` ask it, the rest looks at what it left in Redis."""

    port: int
    installation: Installation

    def get(self, path: str, headers: Headers | None = None) -> Answer:
        """GET *path*; redirects are answers too."""
        return ask(self.port, "GET", path, None, headers)

    def post(self, path: str, body: Any = b"", headers: Headers | None = None) -> Answer:
        """POST *body* to *path*."""
        return ask(self.port, "POST", path, body, headers)

    def queued(self) -> list[DecidedMessage]:
        """Return every message in the queue, in order."""
        jobs = self.installation.queue.rq.get_jobs()
        return [DecidedMessage.from_wire(wire) for job in jobs for wire in job.kwargs["batch"]]

    def recipients(self) -> list[str]:
        """Return whom the queued messages ask for, sorted."""
        return sorted(each.recipient for message in self.queued() for each in message.requests)

    def quarantined(self) -> list[bytes]:
        """Return the raw bytes of every message in quarantine."""
        quarantine = self.installation.quarantine
        return list(quarantine.raws(quarantine.ids(Selection())).values())

    def journal(self) -> list[dict[str, Any]]:
        """Return the journal's lines, newest first."""
        return [json.loads(line) for line in self.installation.redis.lrange("unsubd:journal", 0, -1)]

    def records(self) -> list[dict[str, Any]]:
        """Return the ledger."""
        return [record for _, record in self.installation.ledger.records()]


@contextmanager
def serving(
    folder: Path, redis_url: str, *, aws: httpx2.AsyncBaseTransport | None = None, **settings: str
) -> Iterator[Web]:
    """Serve an installation on *redis_url*; *aws* stands for Amazon; *settings* as `Service` takes them."""
    given = {"redis_url": redis_url, "data_dir": str(folder), "secret_keys": ",".join(MASTERS)}
    given |= {"address": "u+{tag}@unsub.example.com", **settings}
    environ = {f"UNSUBD_{name.upper()}": value for name, value in given.items()}
    port = free_port()
    with open_installation(load_settings(environ)) as installation, closing(listen(f"127.0.0.1:{port}")) as listener:
        running = server(installation, aws)
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            until(lambda: running.started or not thread.is_alive(), 10, "the web server's start")
            yield Web(port, installation)
        finally:
            running.should_exit = True
            thread.join(20)
