"""Mailtrap's Messages API on loopback: one GET per mail, a bearer token, JSON; what it does not know is 404."""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer

import httpx2

from tests.harness.threads import Quiet, serving

TOKEN = "an-api-token-of-Mailtrap"
_PATH = re.compile(r"/api/inbound/inboxes/7/messages/([^/?]+)")


class Mailtrap(httpx2.AsyncBaseTransport):
    """The transport that takes every request to the server on loopback, and what the server does.

    Shape:   mails: id -> recipients. asked: every URL. status: of every answer. octets: of padding. away: no server.
    Units:   late_s before each answer.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.reset()

    def reset(self) -> None:
        """Forget what happened."""
        self.mails: dict[str, list[str]] = {}
        self.asked: list[str] = []
        self.status, self.late_s, self.octets, self.away, self.redirected = 200, 0.0, 0, False, 0

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Ask the server, each time over a connection of its own."""
        self.asked.append(str(request.url))
        url = request.url.copy_with(scheme="http", host="127.0.0.1", port=1 if self.away else self.port)
        asked = {"Connection": "close", "Authorization": request.headers.get("Authorization", "")}
        there = httpx2.Request(request.method, url, headers=asked, extensions=request.extensions)
        return await httpx2.AsyncHTTPTransport().handle_async_request(there)


@contextmanager
def mailtrap() -> Iterator[Mailtrap]:
    """Run the server."""
    with serving(ThreadingHTTPServer(("127.0.0.1", 0), _Answers)) as port:
        transport = _Answers.mailtrap = Mailtrap(port)
        yield transport


class _Answers(Quiet):
    mailtrap: Mailtrap

    def do_GET(self) -> None:
        if self.path == "/elsewhere":
            self.mailtrap.redirected += 1
        if self.mailtrap.late_s:
            threading.Event().wait(self.mailtrap.late_s)
        status, body = self._answer()
        self.send_response(status)
        self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.write(body)

    def _answer(self) -> tuple[int, bytes]:
        if self.mailtrap.status != 200:
            return self.mailtrap.status, b"{}"
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return 401, b'{"error": "Incorrect API token"}'
        found = _PATH.fullmatch(self.path)
        if found is None or found[1] not in self.mailtrap.mails:
            return 404, b'{"error": "Not Found"}'
        told = {"id": found[1], "inbox_id": 7, "from": "x@example.net", "to": self.mailtrap.mails[found[1]], "cc": [],
                "bcc": [], "subject": "unsubscribe", "headers": {"X-Padding": "x" * self.mailtrap.octets},
                "rfc_message_id": f"<{found[1]}@example.net>", "text_body": "unsubscribe", "html_body": None}  # fmt: skip
        return 200, json.dumps(told).encode()
