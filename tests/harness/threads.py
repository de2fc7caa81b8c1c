"""HTTP servers of the tests' own process: served by a thread, and ended with their block."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Quiet(BaseHTTPRequestHandler):
    """A handler that prints nothing."""

    def log_message(self, *_: object) -> None:
        """Print nothing."""

    def write(self, body: bytes) -> None:
        """Send a body, or what of it the client still wants."""
        with suppress(OSError):
            self.wfile.write(body)


@contextmanager
def serving(server: ThreadingHTTPServer) -> Iterator[int]:
    """Serve for the time of the block; gives the port."""
    server.daemon_threads = True
    with server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()
