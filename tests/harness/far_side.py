"""Providers' suppression APIs, as their documentation tells them: they refuse another shape, and can be told to fail."""

import hmac
import json
import random
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from http.server import ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from tests.harness.threads import Quiet, serving

KEY = "far-side-key"
GROUPS = {"103", "104"}
STREAMS = {"broadcast", "outbound"}
AWS_ID, AWS_SECRET = "AKIDEXAMPLE", "aws-secret"
TOPICS = {"news", "offers"}
_CONTACTS = ["v2", "email", "contact-lists", "people", "contacts"]
_SIGNED = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8}/us-east-1/ses/aws4_request), SignedHeaders=([^,]+), Signature=(\w+)"
)


class FarSide(ThreadingHTTPServer):
    """One provider. `lists`: place -> who is suppressed there. `fails`: so often a call is answered 503, or dropped."""

    def __init__(self, provider: str, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.provider = provider
        self.answer = getattr(self, f"_{provider}")
        self.lists: dict[str, set[str]] = {}
        self.calls: list[str] = []
        self.fails = 0.0
        self.per_s = 0.0  # so many calls a second it takes of an account; 0 = any
        self.contacts: dict[str, dict[str, Any]] = {}
        self.by_itself: set[str] = set()  # who SES itself put on the account's list
        self._last = 0.0
        self.random = random.Random(1)
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def _change(self, place: str, added: list[str], lifted: list[str]) -> None:
        self.lists.setdefault(place, set()).update(added)
        self.lists[place].difference_update(lifted)

    def _sendgrid(self, method: str, path: list[str], query: Any, headers: Any, content: Any) -> tuple[int, Any]:
        if headers["Authorization"] != f"Bearer {KEY}":
            return 401, {"errors": [{"message": "authorization required", "field": None}]}
        match method, path:
            case "GET", ["v3", "asm", "groups", group]:
                return (200, {"id": int(group)}) if group in GROUPS else (404, {"errors": []})
            case "POST", ["v3", "asm", "suppressions", "global"]:
                place = "global"
            case "POST", ["v3", "asm", "groups", group, "suppressions"]:
                place = group if group in GROUPS else "global"  # the trap
            case "DELETE", ["v3", "asm", "suppressions", "global", email]:
                self._change("global", [], [email])
                return 204, None
            case "DELETE", ["v3", "asm", "groups", group, "suppressions", email] if group in GROUPS:
                self._change(group, [], [email])
                return 204, None
            case _:
                return 404, {"errors": []}
        emails = content["recipient_emails"]
        if not emails or len(emails) > 1000:
            return 400, {"errors": [{"field": "recipient_emails"}]}
        self._change(place, emails, [])
        return 201, content

    def _mailgun(self, method: str, path: list[str], query: Any, headers: Any, content: Any) -> tuple[int, Any]:
        if headers["Authorization"] != "Basic YXBpOmZhci1zaWRlLWtleQ==":
            return 401, {"message": "Forbidden"}
        match method, path:
            case "POST", ["v3", "mg.example.com", "unsubscribes"]:
                if not isinstance(content, list) or not 0 < len(content) <= 1000:
                    return 400, {"message": "no"}
                for each in content:
                    (tag,) = each["tags"]
                    self._change(tag, [each["address"]], [])
                return 200, {"message": f"{len(content)} addresses have been added to the unsubscribes table"}
            case "DELETE", ["v3", "mg.example.com", "unsubscribes", email]:
                (tag,) = query["tag"]
                found = email in self.lists.get(tag, set())
                self._change(tag, [], [email])
                return (200, {"message": "removed"}) if found else (404, {"message": "Address not found"})
        return 404, {"message": "Domain not found"}

    def _postmark(self, method: str, path: list[str], query: Any, headers: Any, content: Any) -> tuple[int, Any]:
        if headers["X-Postmark-Server-Token"] != KEY:
            return 401, {"ErrorCode": 10}
        stream = path[1]
        who = [each["EmailAddress"] for each in content["Suppressions"]]
        if method != "POST" or stream not in STREAMS or not 0 < len(who) <= 50:
            return 422, {"ErrorCode": 1}
        match path[2:]:
            case ["suppressions"]:
                self._change(stream, who, [])
                status = "Suppressed"
            case ["suppressions", "delete"]:
                self._change(stream, [], who)
                status = "Deleted"
            case _:
                return 404, None
        refused = [each for each in who if each.startswith("complained")]
        self._change(stream, refused, [])
        return 200, {"Suppressions": [
            {"EmailAddress": each, "Status": "Failed" if each in refused else status, "Message": None} for each in who
        ]}  # fmt: skip

    def _sparkpost(self, method: str, path: list[str], query: Any, headers: Any, content: Any) -> tuple[int, Any]:
        if headers["Authorization"] != KEY:
            return 401, {"errors": [{"message": "Unauthorized."}]}
        match method, path:
            case "PUT", ["api", "v1", "suppression-list"]:
                self._change("non_transactional", [each["recipient"] for each in content["recipients"]], [])
                assert {each["type"] for each in content["recipients"]} == {"non_transactional"}
                return 200, {"results": {"message": "Suppression List successfully updated"}}
            case "DELETE", ["api", "v1", "suppression-list", email]:
                found = email in self.lists.get(content["type"], set())
                self._change(content["type"], [], [email])
                return (204, None) if found else (404, {"errors": []})
        return 404, {"errors": []}

    def _ses(self, method: str, path: list[str], query: Any, headers: Any, content: Any) -> tuple[int, Any]:
        now, last = time.monotonic(), self._last
        self._last = now
        if self.per_s and now - last < 1 / self.per_s:
            return _aws(429, "TooManyRequestsException")
        match method, path:
            case "GET", ["v2", "email", "contact-lists", "people"]:
                return 200, {"ContactListName": "people"}
            case "POST", found if found == _CONTACTS:
                who = content.pop("EmailAddress")
                return _aws(400, "AlreadyExistsException") if who in self.contacts else self._contact(who, content)
            case method, [*found, who] if found == _CONTACTS:
                if who not in self.contacts:
                    return _aws(404, "NotFoundException")
                return (
                    (200, {"EmailAddress": who, **self.contacts[who]})
                    if method == "GET"
                    else self._contact(who, content)
                )
            case "PUT", ["v2", "email", "suppression", "addresses"]:
                assert content["Reason"] == "COMPLAINT"
                self._change("account-suppression-list", [content["EmailAddress"]], [])
                return 200, {}
            case method, ["v2", "email", "suppression", "addresses", who]:
                if who not in self.lists.get("account-suppression-list", set()):
                    return _aws(404, "NotFoundException")
                if method == "GET":
                    why = {"Attributes": {"MessageId": "m", "FeedbackId": "f"}} if who in self.by_itself else {}
                    return 200, {"SuppressedDestination": {"EmailAddress": who, "Reason": "COMPLAINT", **why}}
                self._change("account-suppression-list", [], [who])
                return 200, {}
        return _aws(404, "NotFoundException")

    def _contact(self, who: str, content: dict[str, Any]) -> tuple[int, Any]:
        """What is given is all there is from now on: topics that an update does not name are gone."""
        assert content.keys() <= {"TopicPreferences", "UnsubscribeAll", "AttributesData"}
        topics = {each["TopicName"]: each["SubscriptionStatus"] for each in content["TopicPreferences"]}
        if not set(topics.values()) <= {"OPT_IN", "OPT_OUT"} or not topics.keys() <= TOPICS | {"theirs"}:
            return _aws(400, "BadRequestException")
        self.contacts[who] = content
        out = {topic for topic, status in topics.items() if status == "OPT_OUT"}
        out |= {"*"} if content["UnsubscribeAll"] else set()
        for place in (*TOPICS, "*"):
            self._change(place, [who] if place in out else [], [] if place in out else [who])
        return 200, {}


def _aws(status: int, kind: str) -> tuple[int, Any]:
    return status, {"__type": kind, "message": ""}


def _is_signed(method: str, target: str, headers: Any, body: bytes) -> bool:
    """Signature version 4, worked out anew: AWS encodes a path once more than it is sent."""
    match = _SIGNED.fullmatch(headers["Authorization"] or "")
    if not match or match[1] != AWS_ID or not {"host", "x-amz-date"} <= set(match[3].split(";")):
        return False
    at = headers["X-Amz-Date"]
    late_s = abs((datetime.now(UTC) - datetime.strptime(at, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)).total_seconds())
    lines = "".join(f"{name}:{headers[name]}\n" for name in match[3].split(";"))
    asked = [method, quote(target, safe="/~"), "", lines, match[3], sha256(body).hexdigest()]
    scope, key = match[2], f"AWS4{AWS_SECRET}".encode()
    said = f"AWS4-HMAC-SHA256\n{at}\n{scope}\n{sha256(chr(10).join(asked).encode()).hexdigest()}"
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), sha256)
    return late_s < 300 and hmac.compare_digest(hmac.digest(key, said.encode(), sha256).hex(), match[4])


class _Handler(Quiet):
    server: FarSide
    protocol_version = "HTTP/1.1"

    def _any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(self.path)
        path = [unquote(each) for each in parts.path.strip("/").split("/")]
        with self.server.lock:
            self.server.calls.append(f"{self.command} {self.path}")
            before = self.server.random.random() < self.server.fails
            answer = (503, None)
            if not before:
                content = json.loads(body) if body else None
                answer = self._answer(path, parse_qs(parts.query), content, body)
            after = self.server.random.random() < self.server.fails  # done, and the answer is lost
        if after:
            self.close_connection = True
            return
        said = b"" if answer[1] is None else json.dumps(answer[1]).encode()
        self.send_response(answer[0])
        self.send_header("Content-Type", "application/json")
        if answer[0] != 204:
            self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def _answer(self, path: list[str], query: Any, content: Any, body: bytes) -> tuple[int, Any]:
        if self.server.provider == "ses" and not _is_signed(self.command, self.path, self.headers, body):
            return _aws(403, "InvalidSignatureException")
        return self.server.answer(self.command, path, query, self.headers, content)

    do_GET = do_POST = do_PUT = do_DELETE = _any


@contextmanager
def far_side(provider: str, before: FarSide | None = None) -> Iterator[FarSide]:
    """Serve for the time of the block; with the port, the lists and the failures of one that was stopped *before*."""
    server = FarSide(provider, before.server_port if before else 0)
    if before:
        server.lists, server.fails, server.random = before.lists, before.fails, before.random
    with serving(server):
        yield server
