"""A real TLS server whose certificate nobody trusts: whatever calls out refuses it, and tells it nothing.

IMAP's and OAuth's own refusals have tests beside their code too; here every way out stands in one table.
"""

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from urllib.parse import urlsplit

import fakeredis
import httpx2
import pytest
import redis
from cryptography.hazmat.primitives.asymmetric import ec

from handlers.errors import ConfigError, Unavailable
from tests.harness.dovecot import write_certificate
from tests.harness.service import until
from tests.unit import house
from worker import hook_test
from worker.doctor import canary
from worker.events import EventHook
from worker.events import jobs as events
from worker.forwarding import Target
from worker.forwarding import jobs as forwards
from worker.installation import Installation
from worker.server import connect
from worker.sources.imap.address import MailboxAddress
from worker.sources.imap.connection import ImapConnection
from worker.sources.oauth import endpoint
from worker.web import outside, passing

SECRET = "s3cret-of-the-test"


class Stranger:
    """Listens with a certificate of its own making. Shape: heard: what came through TLS, which is nothing if all is well."""

    def __init__(self, folder: Path) -> None:
        certificate, key = folder / "certificate.pem", folder / "key.pem"
        write_certificate(certificate, key)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate, key)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        self.callers, self.heard = 0, b""
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        while True:
            try:
                caller, _ = self._socket.accept()
            except OSError:
                return
            self.callers += 1
            caller.settimeout(5)
            try:
                with caller, self._context.wrap_socket(caller, server_side=True) as link:
                    self.heard += link.recv(65536)
            except OSError:
                continue

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self.thread.join(10)


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stranger]:
    found = Stranger(tmp_path_factory.mktemp("stranger"))
    yield found
    found.close()


@pytest.fixture(scope="module")
def installation() -> Iterator[Installation]:
    with house.opened(fakeredis.FakeServer()) as found:
        yield found


def _redis(port: int, _: Installation) -> None:
    with connect(f"rediss://:{SECRET}@127.0.0.1:{port}/0") as client:
        client.ping()


def _imap(port: int, _: Installation) -> None:
    address = MailboxAddress.parse(f"imaps://user@127.0.0.1:{port}/INBOX")
    asyncio.run(ImapConnection.open(address, SECRET, None))  # type: ignore[arg-type]


def _events(port: int, _: Installation) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    events._post(EventHook("acme", f"https://127.0.0.1:{port}/{SECRET}", "", key, every=False), b"[]")


def _forward(port: int, _: Installation) -> None:
    target = Target("t", "acme", "postmark", SECRET, {}, base=f"https://127.0.0.1:{port}")
    with forwards._client(target) as client:
        client.get("/")


def _pass_on(port: int, _: Installation) -> None:
    asyncio.run(passing._post(f"https://127.0.0.1:{port}/{SECRET}", {}, SECRET.encode()))


def _outside(port: int, _: Installation) -> None:
    place = f"https://127.0.0.1:{port}/"
    asyncio.run(outside.fetch(None, place, "certificate", limit_bytes=9, answer_s=5, headers={"Authorization": SECRET}))


def _hook_test(port: int, installation: Installation) -> None:
    hook_test.post(installation, f"https://127.0.0.1:{port}/in/relay", "message/rfc822", SECRET.encode())


def _oauth(port: int, _: Installation) -> None:
    asyncio.run(endpoint.ask(f"https://127.0.0.1:{port}/token", "id", SECRET, grant_type="client_credentials"))


def _smtps(port: int, _: Installation) -> None:
    with canary._smtp(urlsplit(f"smtps://user:{SECRET}@127.0.0.1:{port}")) as link:
        link.login("user", SECRET)


WAYS_OUT = (_redis, _imap, _events, _forward, _pass_on, _outside, _hook_test, _oauth, _smtps)
REFUSALS = (Unavailable, ConfigError, ssl.SSLCertVerificationError, httpx2.ConnectError, redis.ConnectionError)


@pytest.mark.parametrize("way_out", WAYS_OUT)
def test_a_certificate_that_nobody_trusts_is_refused(
    stranger: Stranger, installation: Installation, way_out: Callable[[int, Installation], None]
) -> None:
    before = stranger.callers

    with pytest.raises(REFUSALS) as refused:
        way_out(stranger.port, installation)

    until(lambda: stranger.callers > before, 5, "the stranger hears that somebody came")
    assert stranger.heard == b""
    assert SECRET not in str(refused.value)


class _Smtp(threading.Thread):
    """A mail server for one caller. Shape: context: it offers STARTTLS with that certificate. heard: in clear, and within TLS."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, context: ssl.SSLContext | None = None) -> None:
        super().__init__(daemon=True)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._context = context
        self.port, self.heard, self.tls_heard, self.refused = int(self._socket.getsockname()[1]), b"", b"", ""
        there = socket.create_connection
        monkeypatch.setattr(
            "smtplib.socket.create_connection", lambda _, *more, **kw: there(("127.0.0.1", self.port), *more)
        )  # whatever name it is called by
        self.start()

    def run(self) -> None:
        caller, _ = self._socket.accept()
        with self._socket, caller:
            caller.sendall(b"220 hello\r\n")
            while line := caller.recv(1000):
                self.heard += line
                if self._context and line.upper().startswith(b"STARTTLS"):
                    caller.sendall(b"220 go ahead\r\n")
                    self._talk_in_tls(caller, self._context)
                    break
                caller.sendall(
                    b"250-hello\r\n250-STARTTLS\r\n250 AUTH PLAIN\r\n" if self._context else b"250 AUTH PLAIN\r\n"
                )

    def _talk_in_tls(self, caller: socket.socket, context: ssl.SSLContext) -> None:
        try:
            with context.wrap_socket(caller, server_side=True) as link:
                while line := link.recv(1000):
                    self.tls_heard += line
                    link.sendall(b"250 AUTH PLAIN\r\n")
        except OSError as error:
            self.refused = str(error)


def test_a_password_is_not_sent_where_tls_is_not_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    server = _Smtp(monkeypatch)

    with pytest.raises(ConfigError, match="offers no TLS"):
        canary._smtp(urlsplit(f"smtp://user:{SECRET}@mail.example.com:{server.port}"))

    server.join(5)
    assert SECRET.encode() not in server.heard


@pytest.mark.parametrize(("trusts", "called"), [(False, "localhost"), (True, "mail.example.com"), (True, "localhost")])
def test_starttls_goes_on_with_a_trusted_certificate_of_that_name_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trusts: bool, called: str
) -> None:  # fmt: skip
    """Not with one that nobody trusts, nor with a trusted one of another name: no octet after the handshake."""
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    write_certificate(certificate, key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    monkeypatch.setattr(canary, "_LOOPBACK", ())  # its certificate names localhost
    if trusts:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    server, url = _Smtp(monkeypatch, context), f"smtp://user:{SECRET}@{called}"
    is_good = trusts and called == "localhost"

    with nullcontext() if is_good else pytest.raises(ssl.SSLCertVerificationError):
        link = canary._smtp(urlsplit(f"{url}:{server.port}"))
        link.ehlo()
        link.close()

    server.join(5)
    assert (bool(server.tls_heard), bool(server.refused)) == (is_good, not is_good)
    assert SECRET.encode() not in server.heard
