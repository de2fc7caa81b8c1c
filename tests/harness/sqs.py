"""Amazon SQS on loopback, as far as a consumer asks it, by its JSON protocol; GET gives objects, as S3 does.

No time passes here: `show_again` is what the visibility time-out does.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import md5
from http.server import ThreadingHTTPServer
from typing import Any

from tests.harness.threads import Quiet, serving

SENT_MS = 1_790_000_000_000


class Sqs:
    """One queue. Shape: error: (status, code) that every request meets. objects: path -> content, of S3."""

    def __init__(self, port: int) -> None:
        self.base = f"http://127.0.0.1:{port}"
        self.url = f"{self.base}/111111111111/mail"
        self.error: tuple[int, str] | None = None
        self.error_of_delete: tuple[int, str] | None = None
        self.objects: dict[str, bytes] = {}
        self.bodies: list[str] = []
        self.asked: list[dict[str, Any]] = []
        self.hold = threading.Event()  # cleared: an empty answer waits, as a long poll does
        self.hold.set()
        self.polled = threading.Event()
        self._hidden: dict[str, str] = {}
        self._receipts = 0

    def send(self, *bodies: Any) -> None:
        """Put messages into the queue; one that is no text goes as JSON."""
        self.bodies += [body if isinstance(body, str) else json.dumps(body) for body in bodies]

    def show_again(self) -> None:
        """Let what was received and not deleted be received again."""
        self.bodies += self._hidden.values()
        self._hidden.clear()

    def left(self) -> int:
        """How many messages the queue still holds, hidden ones too."""
        return len(self.bodies) + len(self._hidden)

    def answer(self, action: str, asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Return status and JSON for one request."""
        self.asked.append({"action": action, **asked})
        error = self.error or (self.error_of_delete if action.startswith("Delete") else None)
        if error:
            return error[0], {"__type": f"com.amazonaws.sqs#{error[1]}", "message": "for jane@example.com"}
        return 200, self._received(asked) if action == "ReceiveMessage" else self._deleted(asked)

    def _received(self, asked: dict[str, Any]) -> dict[str, Any]:
        self.polled.set()
        if not self.bodies:
            self.hold.wait(asked.get("WaitTimeSeconds", 0))
        count = asked["MaxNumberOfMessages"]
        taken, self.bodies = self.bodies[:count], self.bodies[count:]
        return {"Messages": [self._hide(body) for body in taken]} if taken else {}

    def _hide(self, body: str) -> dict[str, Any]:
        self._receipts += 1
        receipt = f"receipt-{self._receipts}"
        self._hidden[receipt] = body
        digest = md5(body.encode(), usedforsecurity=False).hexdigest()
        told = {"MessageId": receipt, "ReceiptHandle": receipt, "Body": body, "MD5OfBody": digest}
        return told | {"Attributes": {"SentTimestamp": str(SENT_MS)}}

    def _deleted(self, asked: dict[str, Any]) -> dict[str, Any]:
        done: dict[str, list[dict[str, Any]]] = {"Successful": [], "Failed": []}
        for entry in asked["Entries"]:
            if self._hidden.pop(entry["ReceiptHandle"], None) is None:
                done["Failed"].append({"Id": entry["Id"], "SenderFault": True, "Code": "ReceiptHandleIsInvalid"})
            else:
                done["Successful"].append({"Id": entry["Id"]})
        return done


@contextmanager
def sqs() -> Iterator[Sqs]:
    """Run the server."""
    with serving(ThreadingHTTPServer(("127.0.0.1", 0), _Answers)) as port:
        queue = _Answers.queue = Sqs(port)
        try:
            yield queue
        finally:
            queue.hold.set()


class _Answers(Quiet):
    queue: Sqs

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status, told = self.queue.answer(self.headers["X-Amz-Target"].removeprefix("AmazonSQS."), asked)
        self._send(status, json.dumps(told).encode(), "application/x-amz-json-1.0")

    def do_GET(self) -> None:
        found = self.queue.objects.get(self.path)
        self._send(404 if found is None else 200, found or b"", "application/octet-stream")

    def _send(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.write(body)
