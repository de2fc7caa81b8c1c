"""A sender's own program that hears of events, in a thread of the test's process."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer

from tests.harness.threads import Quiet, serving


class Receiver(ThreadingHTTPServer):
    """A sender's own program: keeps what was posted, and answers as it is told, as late as it is told."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status = 200
        self.wait_s = 0.0
        self.got: list[tuple[dict[str, str], bytes]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/events"


class _Handler(Quiet):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        # As it was told when the post came: who sees the post may tell it otherwise at once.
        status = self.server.status
        self.server.got.append((dict(self.headers), body))
        time.sleep(self.server.wait_s)
        self.send_response(status)
        self.send_header("Location", self.server.url)
        self.send_header("Content-Length", "0")
        self.end_headers()


@contextmanager
def receiving() -> Iterator[Receiver]:
    """Receive for the time of the block."""
    server = Receiver()
    with serving(server):
        yield server
