"""What a sender asks for before a mail leaves: over HTTP, with the clients, by command, and through a real Postfix."""

import asyncio
import base64
import json
import os
import quopri
import shutil
import tempfile
import threading
from collections.abc import Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import UnixSocketController
from aiosmtpd.lmtp import LMTP
from unsubd import AsyncClient, AsyncRedisClient, Client, Headers, HeadersFailed, RedisClient

from handlers import tag as tags
from handlers.lint import Lint
from handlers.tag import Keyring, Tag
from tests.harness import processes
from tests.harness.postfix import Postfix
from tests.harness.redis_server import RedisServer
from tests.harness.service import MASTERS, Service, until
from tests.harness.web import Answer, Web, serving
from worker.minting import minting_at
from worker.stamping import stamp_with

KEYS = Keyring(tuple(map(bytes.fromhex, MASTERS)))
JANE, JO = "jane@example.com", "Jo@Example.com"
LONG = "somebody.with.a.rather.long.name@a-rather-long-domain.example.com"
MAIL = b"From: a@acme.example\r\nTo: Jane <jane@example.com>\r\nSubject: x\r\n\r\nStop: [unsubscribe]\r\n"


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory, redis_server: RedisServer) -> Iterator[Web]:
    """acme has a link base and groups 12, 13 (essential) and a footer; beta has no link."""
    redis_server.empty()
    with serving(tmp_path_factory.mktemp("outgoing"), redis_server.url) as found:
        accounts = found.installation.accounts
        accounts.add_sender("acme", public_url="https://unsub.example.com", footer_text="Bye: <% %>",
                            footer_html='<p><% Bye %> <a href="<%asm_preferences_raw_url%>">More</a></p>')  # fmt: skip
        accounts.add_group("acme", "Weekly news", "", 12)
        accounts.add_group("acme", "Receipts", "", 13, essential=True)
        accounts.add_sender("beta")
        yield found


def post(web: Web, path: str, question: dict[str, Any], sender: str = "acme") -> Answer:
    key = web.installation.accounts.new_api_key(sender)
    return web.post(f"/v1/{path}", json.dumps(question).encode(), {"Authorization": f"Bearer {key}"})


def read(web: Web, headers: dict[str, str]) -> Tag:
    """The tag that both URIs of a header carry."""
    mailto, https = (each.strip(" <>") for each in headers["List-Unsubscribe"].split(","))
    rows = web.installation.tags.found(tags.stored_refs(mailto))
    found = {tags.read(each, KEYS, rows).tag for each in (mailto, https.rpartition("/")[2])}
    assert headers["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    return found.pop() if len(found) == 1 else pytest.fail("two tags")


# --- POST /v1/headers


def test_each_recipient_gets_headers_of_their_own(web: Web) -> None:
    answer = post(web, "headers", {"group": 12, "recipients": [f" {JANE}", JO, LONG]})

    assert (answer.status, answer.json["warnings"]) == (200, [])
    rows = answer.json["headers"]
    assert [row["recipient"] for row in rows] == [JANE, JO, LONG]
    assert [read(web, row["headers"]) for row in rows] == [
        Tag("acme", 12, JANE), Tag("acme", 12, JO.lower()), Tag("acme", 12, LONG),
    ]  # fmt: skip


def test_sendgrid_shapes_are_made(web: Web) -> None:
    [v3] = post(web, "headers", {"group": 12, "recipients": [JANE, JO], "format": "v3"}).json["headers"]
    [v2] = post(web, "headers", {"group": 12, "recipients": [JANE], "format": "v2"}).json["headers"]

    assert [read(web, each["headers"]).recipient for each in v3["personalizations"]] == [JANE, JO.lower()]
    assert read(web, json.loads(v2["headers"])).recipient == JANE


def test_10_000_recipients_are_one_question(web: Web) -> None:
    people = [f"person{number}@example.com" for number in range(10_000)]

    rows = post(web, "headers", {"group": 12, "recipients": people}).json["headers"]

    assert len({row["headers"]["List-Unsubscribe"] for row in rows}) == 10_000
    assert post(web, "headers", {"group": 12, "recipients": [*people, JANE]}).status == 422


@pytest.mark.parametrize(
    ("question", "status", "detail"),
    [
        ({"group": 99, "recipients": [JANE]}, 404, "group 99"),
        ({"group": 13, "recipients": [JANE]}, 422, "essential"),
        ({"group": 12, "recipients": [JANE, "jane"]}, 422, "expected local-part@domain"),
        ({"group": 12, "recipients": ["a@x.example\r\nBcc: b@y.example"]}, 422, "control characters"),
        ({"group": 12, "recipients": [JANE, JO], "format": "smtpapi"}, 422, "2 recipients, expected one"),
        ({"group": 12, "recipients": []}, 422, "recipients"),
    ],
)
def test_what_cannot_be_addressed_is_refused(web: Web, question: dict[str, Any], status: int, detail: str) -> None:
    answer = post(web, "headers", question)

    assert answer.status == status
    assert detail in answer.json["detail"]
    assert "jane@" not in answer.text


@pytest.mark.parametrize("path", ["headers", "stamp"])
def test_a_stranger_is_refused(web: Web, path: str) -> None:
    assert web.post(f"/v1/{path}", b"{}").status == 401


def test_without_a_link_base_the_setting_is_named(web: Web) -> None:
    answer = post(web, "headers", {"group": 0, "recipients": [JANE]}, "beta")
    alone = post(web, "headers", {"group": 0, "recipients": [JANE], "mailto_only": True}, "beta")

    assert (answer.status, answer.json["detail"].partition(":")[0]) == (503, "UNSUBD_PUBLIC_URL")
    assert list(alone.json["headers"][0]["headers"]) == ["List-Unsubscribe"]


# --- POST /v1/stamp


def test_a_mail_is_stamped(web: Web) -> None:
    answer = post(web, "stamp", {"group": 12, "message": base64.b64encode(MAIL).decode()})

    assert (answer.status, answer.json["replaced"], answer.json["warnings"]) == (200, 1, [])
    raw = base64.b64decode(answer.json["message"])
    assert [each.code for each in Lint(raw).findings(KEYS, {})] == ["not-signed"]
    assert raw.startswith(MAIL.partition(b"\r\n\r\n")[0])


@pytest.mark.parametrize(
    ("question", "status", "detail"),
    [
        ({"group": 12, "message": "?"}, 422, "base64"),
        ({"group": 12, "message": ""}, 422, "no header"),
        ({"group": 99, "message": base64.b64encode(MAIL).decode()}, 404, "group 99"),
        ({"group": 12, "message": base64.b64encode(b"X: y\r\n\r\n").decode()}, 422, "0 addresses in To"),
        ({"group": 12, "message": base64.b64encode(MAIL).decode(), "recipient": "x"}, 422, "local-part@domain"),
        ({"group": 12, "message": base64.b64encode(MAIL).decode(), "tag": "x"}, 422, "at least 3 characters"),
    ],
)
def test_what_cannot_be_stamped_is_refused(web: Web, question: dict[str, Any], status: int, detail: str) -> None:
    answer = post(web, "stamp", question)

    assert answer.status == status
    assert detail in answer.json["detail"]


# --- import unsubd


def asked(kind: str, web: Web, group: int, *recipients: str, **options: Any) -> list[Headers]:
    url, key = f"http://127.0.0.1:{web.port}", web.installation.accounts.new_api_key("acme")

    async def ask() -> list[Headers]:
        async with AsyncClient(url, api_key=key) if kind == "async http" else AsyncRedisClient("acme") as client:
            return await client.headers(group, recipients, **options)

    if kind.startswith("async"):
        return asyncio.run(ask())
    with Client(url, api_key=key) if kind == "http" else RedisClient("acme") as client:
        return client.headers(group, recipients, **options)


@pytest.fixture
def _beside(web: Web, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"redis_url": redis_server.url, "secret_keys": ",".join(MASTERS), "address": "u+{tag}@unsub.example.com"}
    for name, value in given.items():
        monkeypatch.setenv(f"UNSUBD_{name.upper()}", value)


@pytest.mark.usefixtures("_beside")
@pytest.mark.parametrize("kind", ["http", "async http", "redis", "async redis"])
def test_every_client_gives_the_same_headers(web: Web, kind: str) -> None:
    found = asked(kind, web, 12, JANE, LONG)

    expected = minting_at(web.installation, "acme", 12).headers(12, [JANE, LONG])
    assert found == [Headers(each.recipient, dict(each.lines)) for each in expected]
    message = EmailMessage()
    found[0].put_into(message)
    assert message["List-Unsubscribe"] == found[0].headers["List-Unsubscribe"]
    assert list(asked(kind, web, 12, JANE, mailto_only=True)[0].headers) == ["List-Unsubscribe"]


@pytest.mark.usefixtures("_beside")
@pytest.mark.parametrize("kind", ["http", "async http", "redis", "async redis"])
@pytest.mark.parametrize(("group", "recipient"), [(99, JANE), (13, JANE), (12, "jane")])
def test_every_client_fails_alike(web: Web, kind: str, group: int, recipient: str) -> None:
    with pytest.raises(HeadersFailed):
        asked(kind, web, group, recipient)


# --- commands


@pytest.fixture
def offline(tmp_path: Path) -> Service:
    return Service(tmp_path, secret_keys=",".join(MASTERS), address="u+{tag}@unsub.example.com",
                   public_url="https://unsub.example.com")  # fmt: skip


def test_a_mail_is_stamped_and_linted_by_command(offline: Service) -> None:
    plain = offline.command("lint", "-", given=MAIL)
    done = offline.command("stamp", "acme", "12", given=MAIL)
    linted = offline.command("lint", "-", "--json", given=done.stdout.replace("\n", "\r\n").encode())

    assert (plain.returncode, plain.stdout.splitlines()[-1]) == (
        65, "whether a button shows is the inbox provider's choice",
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert (linted.returncode, json.loads(linted.stdout)["ok"]) == (0, True)


def test_headers_of_a_list_come_in_a_shape(offline: Service) -> None:
    people = f"email,name\n{JANE},Jane\n{JO},Jo\n".encode()
    v3 = offline.command("headers", "acme", "12", "--file", "-", "--format", "v3", given=people)
    plain = offline.command("headers", "acme", "12", "--file", "-", given=people)

    assert [each["to"][0]["email"] for each in json.loads(v3.stdout)["personalizations"]] == [JANE, JO]
    assert [block.count("\n") for block in plain.stdout.split("\n\n")] == [1, 2]
    bad = offline.command("headers", "acme", "12", "--file", "-", given=people + b"nobody,X\n")
    assert (bad.returncode, bad.stderr) == (65, "unsubd: line 4: address of 6 characters: expected local-part@domain\n")


def test_the_signing_key_is_the_last_line(offline: Service) -> None:
    done = offline.command("sender", "key", "acme", "--signing")

    assert done.stdout.splitlines()[-1] == KEYS.sender_keys("acme")[0].hex()
    assert "can unsubscribe anybody" in done.stderr
    assert offline.command("sender", "key", "Acme", "--signing").returncode == 65


# --- through a real Postfix


class Caught:
    """An LMTP server that keeps what it is given."""

    def __init__(self) -> None:
        self.mails: dict[str, bytes] = {}
        self._lock = threading.Lock()

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        with self._lock:
            self.mails |= dict.fromkeys(envelope.rcpt_tos, envelope.original_content)
        return "250 kept"


class _Lmtp(UnixSocketController):
    def factory(self) -> LMTP:
        return LMTP(self.handler, **self.SMTP_kwargs)


WORDS = {"utf-8": "Grüße, 日本 €", "iso-8859-1": "Grüße, déjà vu"}
ENCODED = {"8bit": bytes, "quoted-printable": quopri.encodestring, "base64": base64.encodebytes}
SHAPES = ["text", "html", "both"]
TAGGED = {"plain": "{words}\nStop: [unsubscribe]\n", "html": '<p>{words} <a href="[unsubscribe]">Stop</a></p>\n'}
BARE = {"plain": "{words}\n", "html": "<html><body><p>{words}</p></body></html>\n"}


def part(kind: str, charset: str, encoding: str, template: str) -> bytes:
    octets = ENCODED[encoding](template.format(words=WORDS[charset]).encode(charset))
    head = f"Content-Type: text/{kind}; charset={charset}\nContent-Transfer-Encoding: {encoding}\n\n"
    return (head.encode() + octets).replace(b"\n", b"\r\n")


def composed(to: str, shape: str, charset: str, encoding: str, templates: dict[str, str]) -> bytes:
    head = f"From: News <news@acme.example>\r\nTo: {to}\r\nSubject: {shape}\r\nMIME-Version: 1.0\r\n".encode()
    plain, markup = (part(kind, charset, encoding, templates[kind]) for kind in ("plain", "html"))
    if shape != "both":
        return head + (plain if shape == "text" else markup)
    parts = b"--b\r\n" + plain + b"\r\n--b\r\n" + markup + b"\r\n--b--\r\n"
    return head + b"Content-Type: multipart/alternative; boundary=b\r\n\r\n" + parts


def shown(raw: bytes) -> dict[str, str]:
    """The texts that the standard library reads, by subtype, with LF."""
    message = message_from_bytes(raw, policy=policy.default)
    leaves = [each for each in message.walk() if not each.is_multipart()]
    return {each.get_content_subtype(): str(each.get_content()).replace("\r\n", "\n").rstrip("\n") for each in leaves}  # type: ignore[attr-defined]


def right(kind: str, charset: str, link: str, more: str, *, tagged: bool) -> str:
    words = WORDS[charset]
    if kind == "plain":
        return f"{words}\nStop: {link}" if tagged else f"{words}\nBye: {link}"
    if tagged:
        return f'<p>{words} <a href="{link}">Stop</a></p>'
    footer = f'<p><a href="{link}">Bye</a> <a href="{more}">More</a></p>'
    return f"<html><body><p>{words}</p>{footer}</body></html>"


@pytest.mark.needs("postfix")
def test_stamped_mail_is_right_after_a_real_postfix(web: Web) -> None:
    if os.getuid():
        processes.unavailable("Postfix runs as root only")
    folder = Path(tempfile.mkdtemp(prefix="unsubd-out-"))
    folder.chmod(0o755)
    caught = Caught()
    cases = [(shape, charset, encoding, tagged) for shape in SHAPES for charset in WORDS for encoding in ENCODED
             for tagged in (True, False)]  # fmt: skip
    try:
        postfix = Postfix(processes.require("postfix", processes.PACKAGES["postfix"]), folder)
        lmtp = _Lmtp(caught, unix_socket=str(postfix.socket_folder / "lmtp"), data_size_limit=None)
        lmtp.start()
        (postfix.socket_folder / "lmtp").chmod(0o666)
        try:
            with postfix:
                for number, (shape, charset, encoding, tagged) in enumerate(cases):
                    to = f"reader{number}@unsub.example.com"
                    raw = composed(to, shape, charset, encoding, TAGGED if tagged else BARE)
                    postfix.send(stamp_with(minting_at(web.installation, "acme", 12), 12, raw).raw, to)
                until(lambda: len(caught.mails) == len(cases), 60, "every mail delivered")
        finally:
            lmtp.stop()
    finally:
        shutil.rmtree(folder)

    for number, (_, charset, _, tagged) in enumerate(cases):
        to = f"reader{number}@unsub.example.com"
        mail = caught.mails[to]
        mail_lint = Lint(mail)
        assert [each.code for each in mail_lint.findings(KEYS, {})] == ["not-signed"]
        tag = minting_at(web.installation, "acme", 12).mint(12, to).tag
        link, more = (f"https://unsub.example.com/{way}/{tag}" for way in "up")
        found = shown(mail)
        assert found == {kind: right(kind, charset, link, more, tagged=tagged) for kind in found}
