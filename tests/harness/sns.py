"""Amazon SNS: posts signed as it signs them, and a server on loopback that gives certificates and confirms.

The string to sign is made here anew, from the provider's documentation, not by the code under test.
"""

import base64
import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import ThreadingHTTPServer
from typing import Any

import httpx2
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from tests.harness.threads import Quiet, serving

KEY = rsa.generate_private_key(65537, 2048)
TOPIC = "arn:aws:sns:us-east-1:111111111111:inbound"
HOST = "https://sns.us-east-1.amazonaws.com"
CERTIFICATE_URL = f"{HOST}/SimpleNotificationService-0123456789abcdef0123456789abcdef.pem"
TOKEN = "2336412f37fb687f5d51e6e2425c464d"
_CONFIRMED = ["Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"]
_NOTIFIED = ["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"]


def certificate(
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey = KEY,
    *,
    from_s: float = 0,
    until_s: float = 2_500_000_000,
) -> bytes:
    """Return a self-signed certificate of *key*, PEM."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "sns.amazonaws.com")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(datetime.fromtimestamp(from_s, UTC))
    builder = builder.not_valid_after(datetime.fromtimestamp(until_s, UTC))
    digest = None if isinstance(key, ed25519.Ed25519PrivateKey) else SHA256()
    return builder.sign(key, digest).public_bytes(Encoding.PEM)


def iso(at_s: float) -> str:
    """Return the time as SNS writes it."""
    return datetime.fromtimestamp(round(at_s, 3), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def envelope(message: Any, *, at_s: float | None = None, **fields: Any) -> dict[str, Any]:
    """Return an unsigned envelope; a *message* that is no text goes as JSON; a field of None is left out."""
    made = {
        "Type": "Notification",
        "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324",
        "TopicArn": TOPIC,
        "Message": message if isinstance(message, str) else json.dumps(message),
        "Timestamp": iso(time.time() if at_s is None else at_s),
        "SignatureVersion": "2",
        "SigningCertURL": CERTIFICATE_URL,
    }
    return {name: value for name, value in (made | fields).items() if value is not None}


def subscription(**fields: Any) -> dict[str, Any]:
    """Return the unsigned offer of a subscription."""
    url = f"{HOST}/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token={TOKEN}"
    return envelope("You have chosen to subscribe", **{"Type": "SubscriptionConfirmation", "Token": TOKEN,
                                                      "SubscribeURL": url} | fields)  # fmt: skip


def signed(unsigned: Mapping[str, Any], key: rsa.RSAPrivateKey = KEY) -> dict[str, Any]:
    """Return *unsigned* with its Signature; text is signed, whatever else stands in its place is not."""
    names = _NOTIFIED if unsigned.get("Type") == "Notification" else _CONFIRMED
    told = "".join(f"{name}\n{unsigned[name]}\n" for name in names if unsigned.get(name) not in (None, ""))
    digest = SHA1() if unsigned.get("SignatureVersion") == "1" else SHA256()
    signature = key.sign(told.encode("utf-8", "replace"), padding.PKCS1v15(), digest)
    return {**unsigned, "Signature": base64.b64encode(signature).decode()}


def headers(signed: Mapping[str, Any]) -> dict[str, str]:
    """Return the request's headers."""
    names = {"message-type": "Type", "message-id": "MessageId", "topic-arn": "TopicArn"}
    told = {f"x-amz-sns-{name}": str(signed.get(field, "")) for name, field in names.items()}
    return told | {"Content-Type": "text/plain; charset=UTF-8"}


def received(
    *recipients: str, raw: bytes | None = None, sender: Any = "someone@example.net", **more: Any
) -> dict[str, Any]:
    """Return SES's notification of a mail: action SNS with *raw*, or action S3 when there is none."""
    action: dict[str, Any] = {"type": "S3", "bucketName": "mail-of-ours", "objectKey": "in/abc"}
    made: dict[str, Any] = {"notificationType": "Received"}
    if raw is not None:
        action = {"type": "SNS", "topicArn": TOPIC, "encoding": "BASE64"}
        made["content"] = base64.b64encode(raw).decode()
    mail = {
        "source": sender,
        "messageId": "o3vrnil0e2ic",
        "destination": ["trap@example.com"],
        "headersTruncated": False,
    }
    made["mail"] = mail | more
    made["receipt"] = {"recipients": list(recipients), "action": action, "spamVerdict": {"status": "PASS"}}
    return made


class Amazon(httpx2.AsyncBaseTransport):
    """What `worker.web.sns.Sns` takes: notes each URL that Amazon would be asked, and asks the server on loopback.

    Shape:   asked: every URL, in order. certificate: what is given. status: of every answer. late_s: before each.
             drip_s: before each octet of it.
             location: of a redirect.
    """

    def __init__(self, port: int) -> None:
        self.asked: list[str] = []
        self.certificate, self.status, self.late_s, self.location = certificate(), 200, 0.0, ""
        self.away, self.drip_s = False, 0.0
        self.port = port
        self.redirected: list[str] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Take the request to loopback, a connection for each; the answer's rules are the client's, not ours."""
        self.asked.append(str(request.url))
        url = request.url.copy_with(scheme="http", host="127.0.0.1", port=1 if self.away else self.port)
        asked = {"Connection": "close", "Host": request.url.host}
        there = httpx2.Request(request.method, url, headers=asked, extensions=request.extensions)
        return await httpx2.AsyncHTTPTransport().handle_async_request(there)


@contextmanager
def amazon() -> Iterator[Amazon]:
    """Run the server."""
    with serving(ThreadingHTTPServer(("127.0.0.1", 0), _Answers)) as port:
        transport = _Answers.amazon = Amazon(port)
        yield transport


class _Answers(Quiet):
    amazon: Amazon

    def do_GET(self) -> None:
        if self.path == "/elsewhere":
            self.amazon.redirected.append(self.path)
        if self.amazon.late_s:
            threading.Event().wait(self.amazon.late_s)
        body = self.amazon.certificate if self.path.endswith(".pem") else b"<ConfirmSubscriptionResponse/>"
        self.send_response(self.amazon.status)
        if self.amazon.location:
            self.send_header("Location", self.amazon.location)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        try:
            for octet in body if self.amazon.drip_s else ():
                threading.Event().wait(self.amazon.drip_s)
                self.wfile.write(bytes([octet]))
            self.wfile.write(b"" if self.amazon.drip_s else body)
        except OSError:
            pass  # the client had enough


def day(days: float) -> float:
    """Return the moment *days* from now, in seconds."""
    return (datetime.now(UTC) + timedelta(days=days)).timestamp()
