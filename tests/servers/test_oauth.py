"""OAuth logins, end to end: a token from a real (local) OAuth server opens a mailbox on a real Dovecot."""

import asyncio
import http.client
import json
import logging
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from handlers.errors import MailboxUnavailable
from tests.harness import processes
from tests.harness.dovecot import Dovecot, Mailbox
from tests.harness.mails import address as unsubscribe_address
from tests.harness.mails import mail
from tests.harness.oauth import CLIENT, SCOPE, SECRET, OAuthServer
from tests.harness.service import MASTERS, UNSUBD, Service, until
from worker.settings import Settings, load_settings
from worker.sources import oauth
from worker.sources.credential import Credential
from worker.sources.imap import MailboxAddress, MailboxRefused
from worker.sources.oauth import consent, endpoint
from worker.sources.oauth.provider import Provider
from worker.sources.visit import Found, visit

LOGINS = ("service_account", "client_credentials", "refresh_login")


@pytest.fixture(scope="module")
def both() -> Iterator[tuple[OAuthServer, Dovecot]]:
    """An OAuth server, and a Dovecot that asks it."""
    binary = processes.require("dovecot", processes.PACKAGES["dovecot"])
    folder = Path(tempfile.mkdtemp(prefix="unsubd-dovecot-"))
    folder.chmod(0o755)
    try:
        with OAuthServer() as server, Dovecot(binary, folder, f"{server.url}/introspect") as dovecot:
            yield server, dovecot
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def server(both: tuple[OAuthServer, Dovecot], request: pytest.FixtureRequest) -> Iterator[OAuthServer]:
    """The OAuth server, well again, for a user of the test's own."""
    found = both[0]
    found.__dict__.update(refusal=None, status=0, life_s=3600, rotates=True, pending=0, delay_s=0.0, asked=[])
    found.user = re.sub(r"\W+", "-", request.node.name)[:60]
    oauth._tokens.clear()
    yield found
    found.start()


@pytest.fixture
def inbox(both: tuple[OAuthServer, Dovecot], server: OAuthServer) -> Mailbox:
    """An empty mailbox of that user."""
    return Mailbox(both[1], server.user)


def _stored(folder: Path, content: dict[str, Any]) -> Path:
    path = folder / "login.json"
    path.touch(mode=0o600)
    path.write_text(json.dumps(content))
    return path


def _settings(path: Path) -> Settings:
    return load_settings({"UNSUBD_IMAP_OAUTH": str(path)})


def _credential(path: Path, inbox: Mailbox) -> Credential:
    return asyncio.run(oauth.credential(_settings(path), MailboxAddress.parse(inbox.url)))


def _visit(inbox: Mailbox, credential: Credential) -> Found:
    return asyncio.run(visit(MailboxAddress.parse(inbox.url), credential, inbox.ca_file))


def _no_secret(server: OAuthServer, *texts: str) -> None:
    said = "\n".join(texts)
    assert [secret for secret in server.given if secret in said] == []


# --- every grant


@pytest.mark.parametrize("login", LOGINS)
def test_a_token_of_every_grant_opens_the_mailbox(
    tmp_path: Path, server: OAuthServer, inbox: Mailbox, login: str
) -> None:
    inbox.append(mail(unsubscribe_address(1), "one"))

    credential = _credential(_stored(tmp_path, getattr(server, login)()), inbox)
    found = _visit(inbox, credential)

    assert credential.kind == "token"
    assert (found.messages, found.unmarked, found.keywords) == (1, 1, True)
    assert found.capabilities == ("IDLE", "MOVE", "UIDPLUS")
    _no_secret(server, repr(credential))


def test_a_token_is_asked_for_once_until_it_ends(tmp_path: Path, server: OAuthServer, inbox: Mailbox) -> None:
    path = _stored(tmp_path, server.client_credentials())

    assert _credential(path, inbox) == _credential(path, inbox)
    oauth.forget(MailboxAddress.parse(inbox.url))
    _credential(path, inbox)

    assert len(server.asked) == 2


@pytest.mark.parametrize("life_s", [59, "59"])
def test_a_token_is_renewed_a_minute_before_its_end(
    tmp_path: Path, server: OAuthServer, inbox: Mailbox, life_s: Any
) -> None:
    server.life_s = life_s
    path = _stored(tmp_path, server.client_credentials())

    assert _credential(path, inbox) != _credential(path, inbox)


def test_a_replaced_refresh_token_is_written_back(tmp_path: Path, server: OAuthServer, inbox: Mailbox) -> None:
    path = _stored(tmp_path, server.refresh_login() | {"note": "mine"})
    for _ in range(3):
        _credential(path, inbox)
        oauth.forget(MailboxAddress.parse(inbox.url))

    kept = json.loads(path.read_text())
    assert kept["refresh_token"] in server.refresh
    assert kept["note"] == "mine"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_mailboxes_that_share_a_refresh_token_do_not_use_it_twice(
    tmp_path: Path, server: OAuthServer, inbox: Mailbox
) -> None:
    settings = _settings(_stored(tmp_path, server.refresh_login()))

    async def all_at_once() -> list[Credential]:
        addresses = [MailboxAddress.parse(f"{inbox.url}#m{number}") for number in range(5)]
        return await asyncio.gather(*(oauth.credential(settings, address) for address in addresses))

    assert len({credential.secret for credential in asyncio.run(all_at_once())}) == 5


def test_a_process_that_ends_meanwhile_keeps_the_new_refresh_token(
    tmp_path: Path, server: OAuthServer, inbox: Mailbox
) -> None:
    path = _stored(tmp_path, server.refresh_login())
    server.delay_s = 0.3

    async def ended_early() -> None:
        async with asyncio.timeout(0.1):
            await oauth.credential(_settings(path), MailboxAddress.parse(inbox.url))

    with pytest.raises(TimeoutError):
        asyncio.run(ended_early())

    assert json.loads(path.read_text())["refresh_token"] in server.refresh


@pytest.mark.parametrize("login", LOGINS)
def test_no_log_at_any_level_holds_a_secret(
    tmp_path: Path, server: OAuthServer, inbox: Mailbox, login: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    _credential(_stored(tmp_path, getattr(server, login)()), inbox)

    _no_secret(server, caplog.text)


def test_an_expired_token_is_refused_by_the_mailbox_in_one_line(
    tmp_path: Path, server: OAuthServer, inbox: Mailbox
) -> None:
    credential = _credential(_stored(tmp_path, server.client_credentials()), inbox)
    server.active.clear()

    with pytest.raises(MailboxRefused) as caught:
        _visit(inbox, credential)

    assert "UNSUBD_IMAP_OAUTH" in str(caught.value)
    assert "\n" not in str(caught.value)
    _no_secret(server, str(caught.value))


# --- refusals and outages

REFUSED = [
    ("client_credentials", {"client_secret": "wrong-S3cret"}, "invalid_client: AADSTS7000215: Invalid client secret '***'."),
    ("client_credentials", {"scope": "x"}, "invalid_scope: AADSTS70011: The provided value for 'scope' is not valid."),
    ("refresh_login", {"refresh_token": "old-T0ken"}, "invalid_grant: AADSTS700082: The refresh token has expired"),
    ("service_account", {"client_email": "x@y"}, "unauthorized_client: Client is unauthorized to retrieve access tokens"),
    ("service_account", {"private_key": "rubbish-K3y"}, "private_key: no private RSA key"),
]  # fmt: skip


@pytest.mark.parametrize(("login", "wrong", "said"), REFUSED, ids=lambda value: str(value)[:24])
def test_a_refusal_is_one_line_that_names_the_cause(
    tmp_path: Path, server: OAuthServer, inbox: Mailbox, login: str, wrong: dict[str, str], said: str
) -> None:
    path = _stored(tmp_path, getattr(server, login)() | wrong)

    with pytest.raises(MailboxRefused) as caught:
        _credential(path, inbox)

    message = str(caught.value)
    assert message.startswith("mailbox 'default': ")
    assert said in message
    assert "\n" not in message
    assert not re.search("S3cret|T0ken|K3y", message)
    assert caught.value.__cause__ is None
    _no_secret(server, message)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_in_trouble_is_temporary(tmp_path: Path, server: OAuthServer, inbox: Mailbox, status: int) -> None:
    path = _stored(tmp_path, server.client_credentials())
    server.status = status

    with pytest.raises(MailboxUnavailable, match=f"HTTP {status}"):
        _credential(path, inbox)


@pytest.mark.parametrize(
    ("status", "said"), [(302, "a redirect"), (307, "a redirect"), (200, "no token"), (404, "no token")]
)
@pytest.mark.parametrize("login", LOGINS)
def test_an_answer_that_is_no_token_is_refused(
    tmp_path: Path, server: OAuthServer, inbox: Mailbox, login: str, status: int, said: str
) -> None:
    path = _stored(tmp_path, getattr(server, login)())
    server.status = status

    with pytest.raises(MailboxRefused, match=said):
        _credential(path, inbox)
    assert server.asked == []  # no redirect was followed


def test_a_server_without_a_trusted_certificate_gets_nothing(
    tmp_path: Path, server: OAuthServer, inbox: Mailbox
) -> None:
    url = f"https://localhost:{inbox.imaps_port}/token"
    path = _stored(tmp_path, server.client_credentials() | {"token_url": url})

    with pytest.raises(MailboxUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
        _credential(path, inbox)


def test_a_server_that_says_nothing_is_not_waited_for(
    tmp_path: Path, server: OAuthServer, inbox: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "_ANSWER_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/token"
        path = _stored(tmp_path, server.client_credentials() | {"token_url": url})
        began = time.monotonic()
        with pytest.raises(MailboxUnavailable, match="does not answer"):
            _credential(path, inbox)

    assert time.monotonic() - began < 2


def _service(folder: Path, redis_url: str, inbox: Mailbox, path: Path) -> Service:
    return Service(
        folder, redis_url=redis_url, secret_keys=",".join(MASTERS), address="u+{tag}@unsub.example.com",
        imap_url=inbox.url, imap_ca_file=str(inbox.ca_file), imap_oauth=str(path), poll_interval_s="1",
    )  # fmt: skip


@pytest.mark.fault
def test_polling_ends_with_78_when_refused_and_75_when_the_server_is_away(
    tmp_path: Path, redis_url: str, server: OAuthServer, inbox: Mailbox
) -> None:
    service = _service(tmp_path, redis_url, inbox, _stored(tmp_path, server.refresh_login()))
    good = service.command("poll", "--once")
    server.refusal = ("invalid_grant", "AADSTS50173: The provided grant has expired due to it being revoked.\r\nTrace")
    refused = service.command("poll", "--once")
    server.stop()
    away = service.command("poll", "--once")

    assert (good.returncode, refused.returncode, away.returncode) == (0, 78, 75), good.stderr + refused.stderr
    assert "invalid_grant: AADSTS50173: The provided grant has expired" in refused.stderr.splitlines()[-1]
    assert refused.stderr.splitlines()[-1].endswith("log in again: unsubd mailbox login")
    assert "127.0.0.1 does not answer" in away.stderr.splitlines()[-1]
    _no_secret(server, good.stdout, good.stderr, refused.stderr, away.stderr)


def test_polling_recovers_when_the_oauth_server_is_back(
    tmp_path: Path, redis_url: str, server: OAuthServer, inbox: Mailbox
) -> None:
    server.life_s = 30  # asked for anew at each login
    service = _service(tmp_path, redis_url, inbox, _stored(tmp_path, server.refresh_login()))

    with service.running("poll", ready=False):
        until(lambda: "state=idle" in service.log.read_text(), what="idle")
        server.stop()
        inbox.restart()
        until(lambda: "does not answer" in service.log.read_text(), what="the outage said")
        server.start()
        inbox.append(mail(unsubscribe_address(1), "after"))
        until(lambda: any("$UnsubdDone" in flags for _, flags, _ in _all(inbox)), what="the mail taken")

    _no_secret(server, service.log.read_text())


def _all(inbox: Mailbox) -> list[tuple[int, set[str], bytes]]:
    return inbox.messages() + (inbox.messages("Processed") if _has(inbox, "Processed") else [])


def _has(inbox: Mailbox, folder: str) -> bool:
    with inbox.imap() as client:
        return bool(client.list('""', folder)[1][0])


# --- unsubd mailbox login


@pytest.fixture
def login(tmp_path: Path, server: OAuthServer, inbox: Mailbox) -> Service:
    """Where `unsubd mailbox login` is typed; nothing but the authority of Dovecot's certificate is set."""
    (tmp_path / "secret").touch(mode=0o600)
    (tmp_path / "secret").write_text(SECRET + "\n")
    return Service(tmp_path, imap_ca_file=str(inbox.ca_file))


def _words(server: OAuthServer, inbox: Mailbox, folder: Path) -> list[str]:
    return [
        "mailbox", "login", f"{inbox.url}#news", "--client-id", CLIENT, "--client-secret-file", str(folder / "secret"),
        "--token-url", f"{server.url}/token", "--authorize-url", f"{server.url}/authorize",
        "--device-url", f"{server.url}/device", "--scope", SCOPE,
    ]  # fmt: skip


class _Typed:
    """A command that runs while the test looks at what it says."""

    def __init__(self, service: Service, words: list[str]) -> None:
        self._process = subprocess.Popen(
            [UNSUBD, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=service.env
        )  # fmt: skip
        self.said = ""

    def until_said(self, pattern: str) -> str:
        """Read lines until one matches, and return that match."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.said += line
            if match := re.search(pattern, line):
                return match[0]
        raise AssertionError(f"{self.said}\n{self._process.communicate()[1]}")

    def end(self) -> tuple[int, str, str]:
        """Wait for its end; return code, output and errors."""
        out, err = self._process.communicate(timeout=20)
        return self._process.returncode, self.said + out, err


def _open(url: str) -> int:
    """Do what a browser does: follow the redirect."""
    with urllib.request.urlopen(url, timeout=5) as answer:
        return int(answer.status)


@pytest.mark.fault
def test_login_by_browser_stores_visits_and_is_all_that_polling_needs(
    tmp_path: Path, redis_url: str, server: OAuthServer, inbox: Mailbox, login: Service
) -> None:
    inbox.append(mail(unsubscribe_address(1), "one"))
    typed = _Typed(login, _words(server, inbox, tmp_path))
    link = typed.until_said(r"http://\S+/authorize\?\S+")
    assert "code_challenge_method=S256" in link
    port = re.search(r"127.0.0.1%3A(\d+)", link)
    assert port is not None
    connection = http.client.HTTPConnection("127.0.0.1", int(port[1]), timeout=5)
    connection.request("GET", "/?code=forged&state=guessed")
    assert connection.getresponse().status == 404
    connection.close()
    assert _open(link) == 200
    code, out, err = typed.end()

    stored = tmp_path / "data" / "mailbox-news.oauth.json"
    assert (code, err) == (0, "")
    assert stored.stat().st_mode & 0o777 == 0o600
    assert stored.parent.stat().st_mode & 0o777 == 0o700
    assert f"stored {stored} (mode 0600)" in out
    assert "mailbox news: 1 messages, 1 not marked, IDLE, MOVE, UIDPLUS, no folder is marked" in out
    _no_secret(server, out)

    login.env |= {
        "UNSUBD_REDIS_URL": redis_url, "UNSUBD_SECRET_KEYS": MASTERS[0], "UNSUBD_IMAP_URL": f"{inbox.url}#news",
    }  # fmt: skip
    row = login.rows("mailbox", "list")[0]
    assert (row["name"], row["login"], row["state"]) == ("news", "oauth refresh_token", "never polled")
    done = login.command("poll", "--once")
    assert done.returncode == 0, done.stderr
    assert login.rows("mailbox", "list")[0]["state"] == "idle"
    _no_secret(server, done.stdout, done.stderr, login.command("mailbox", "list").stdout)


@pytest.mark.fault
def test_a_second_login_needs_no_flags(tmp_path: Path, server: OAuthServer, inbox: Mailbox, login: Service) -> None:
    for words in (_words(server, inbox, tmp_path), ["mailbox", "login", f"{inbox.url}#news"]):
        typed = _Typed(login, words)
        assert _open(typed.until_said(r"http://\S+/authorize\?\S+")) == 200
        code, _, err = typed.end()
        assert (code, err) == (0, "")


@pytest.mark.fault
def test_login_by_device_code(tmp_path: Path, server: OAuthServer, inbox: Mailbox, login: Service) -> None:
    server.pending = 1

    done = login.command(*_words(server, inbox, tmp_path), "--device")

    assert done.returncode == 0, done.stderr
    assert f"{server.url}/activate   code: WDJB-MJHT" in done.stdout
    assert "mailbox news: 0 messages" in done.stdout
    _no_secret(server, done.stdout, done.stderr)


def test_a_person_who_says_no_is_one_line(tmp_path: Path, server: OAuthServer, inbox: Mailbox, login: Service) -> None:
    server.refusal = ("access_denied", "The user denied the request.")
    typed = _Typed(login, _words(server, inbox, tmp_path))
    _open(typed.until_said(r"http://\S+/authorize\?\S+"))
    code, _, err = typed.end()

    assert code == 78
    assert err == ("unsubd: 127.0.0.1 refused (access_denied: The user denied the request.): start again and consent\n")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("flag", [[], ["--device"]], ids=["browser", "device"])
def test_a_wrong_client_secret_is_one_line(
    tmp_path: Path, server: OAuthServer, inbox: Mailbox, login: Service, flag: list[str]
) -> None:
    (tmp_path / "secret").write_text("wrong-S3cret")
    typed = _Typed(login, _words(server, inbox, tmp_path) + flag)
    if not flag:
        link = typed.until_said(r"http://\S+/authorize\?\S+")
        _open(link)
    code, out, err = typed.end()

    assert code == 78
    assert err == (
        "unsubd: 127.0.0.1 refused (invalid_client: AADSTS7000215: Invalid client secret '***'.): check --client-id,"
        " --client-secret-file and --scope\n"
    )
    assert "S3cret" not in out
    assert not (tmp_path / "data").exists()


def test_login_touches_no_file_of_another_kind(
    tmp_path: Path, server: OAuthServer, inbox: Mailbox, login: Service
) -> None:
    path = _stored(tmp_path, server.service_account())
    login.env["UNSUBD_IMAP_NEWS_OAUTH"] = str(path)
    before = path.read_bytes()

    done = login.command(*_words(server, inbox, tmp_path))

    assert done.returncode == 78
    assert "holds a service_account login" in done.stderr
    assert path.read_bytes() == before


# --- device code, without its waiting


def _by_device(server: OAuthServer, waited: list[float]) -> endpoint.Token:
    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    provider = Provider(f"{server.url}/token", device_url=f"{server.url}/device", scope=SCOPE)
    return asyncio.run(consent.by_device(provider, (CLIENT, SECRET), lambda _: None, sleep))


def test_the_device_is_asked_as_often_as_the_server_wants(server: OAuthServer, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Callable[[], None]] = [
        lambda: server.__dict__.update(refusal=("authorization_pending", "")),
        lambda: server.__dict__.update(refusal=("slow_down", "")),
        lambda: server.__dict__.update(refusal=None, status=503),
        lambda: server.__dict__.update(status=0),
    ]
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)
        answers.pop(0)()

    provider = Provider(f"{server.url}/token", device_url=f"{server.url}/device", scope=SCOPE)
    token = asyncio.run(consent.by_device(provider, (CLIENT, SECRET), lambda _: None, sleep))

    assert token.refresh in server.refresh
    assert waited == [1, 1, 6, 12]


@pytest.mark.parametrize(("code", "kind"), [("expired_token", MailboxUnavailable), ("access_denied", MailboxRefused)])
def test_a_device_code_that_ends_is_said(server: OAuthServer, code: str, kind: type[Exception]) -> None:
    server.refusal = (code, "")

    with pytest.raises(kind, match="start again"):
        _by_device(server, [])


def test_a_browser_that_hangs_up_or_says_nothing_is_no_trouble(server: OAuthServer) -> None:
    provider = Provider(f"{server.url}/token", f"{server.url}/authorize", scope=SCOPE)
    port = processes.free_port()
    said: list[str] = []

    def open_later(link: str) -> None:
        said.append(link)
        threading.Thread(
            target=lambda: (processes.greeting(port, b"nonsense\r\n\r\n"), _open(link)), daemon=True
        ).start()

    token = consent.by_browser(provider, (CLIENT, SECRET), "someone", port, open_later)

    assert token.refresh in server.refresh


def test_a_browser_that_nobody_opens_is_not_waited_for(server: OAuthServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consent, "_WAIT_S", 0.1)
    provider = Provider(f"{server.url}/token", f"{server.url}/authorize")

    with pytest.raises(MailboxUnavailable, match="nobody answered in the browser"):
        consent.by_browser(provider, (CLIENT, SECRET), "someone", 0, lambda _: None)


def test_a_taken_port_is_one_line(server: OAuthServer) -> None:
    provider = Provider(f"{server.url}/token", f"{server.url}/authorize")

    with pytest.raises(MailboxRefused, match=rf"--port {server.port}: Address already in use"):
        consent.by_browser(provider, (CLIENT, SECRET), "someone", server.port, lambda _: None)
