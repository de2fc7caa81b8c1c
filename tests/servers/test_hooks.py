"""Endpoints over HTTP: forwarded posts, posts passed on, a test of one, and the commands."""

import base64
import hmac
import http.server
import re
import threading
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

import pytest

from handlers.providers import PROVIDERS
from handlers.providers.samples import SAMPLES
from tests.harness.mails import address, mail, recipient
from tests.harness.service import MASTERS, Service
from tests.harness.web import Web, serving
from worker.hook_test import run
from worker.hooks import Hook

KEY = b"between our own application and unsubd"
SECRET = "whsec_" + base64.b64encode(KEY).decode()


class Application(http.server.BaseHTTPRequestHandler):
    """A customer's application: it remembers what is posted to it, and answers as it is told."""

    posts: ClassVar[list[tuple[str, dict[str, str], bytes]]] = []
    status = 200

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.posts.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def application() -> Iterator[str]:
    Application.posts, Application.status = [], 200
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Application) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/inbound?key=1"
        server.shutdown()
        thread.join()


@pytest.fixture
def web(tmp_path: Path, redis_url: str) -> Iterator[Web]:
    with serving(tmp_path, redis_url, in_relay="bearer:t") as found:
        found.installation.accounts.add_sender("acme")
        found.installation.accounts.add_group("acme", "Weekly news", "", 1)
        yield found


def signed(body: bytes) -> dict[str, str]:
    stamp = str(int(time.time()))
    signature = base64.b64encode(hmac.digest(KEY, f"one.{stamp}.".encode() + body, sha256)).decode()
    return {"webhook-id": "one", "webhook-timestamp": stamp, "webhook-signature": f"v1,{signature}"}


# --- forwarded


def test_a_forwarded_post_proves_our_own_application(web: Web) -> None:
    web.installation.hooks.add(Hook("sendgrid", "app", (SECRET,), forwarded=True))
    kind, body = SAMPLES["sendgrid"](address(7))

    assert web.post("/in/sendgrid/app", body, {"Content-Type": kind} | signed(body)).status == 200
    assert web.recipients() == [recipient(7)]
    assert web.post("/in/sendgrid/app", body + b" ", {"Content-Type": kind} | signed(body)).status == 503
    assert web.post("/in/sendgrid/app", body, {"Content-Type": kind}).status == 503


def test_a_word_in_the_setting_makes_an_endpoint_forwarded(tmp_path: Path, redis_url: str) -> None:
    with serving(tmp_path, redis_url, in_sendgrid="forwarded bearer:own") as web:
        kind, body = SAMPLES["sendgrid"](address(7))
        assert web.post("/in/sendgrid", body, {"Content-Type": kind, "Authorization": "Bearer own"}).status == 200
        assert web.recipients() == [recipient(7)]


# --- passed on


def post(web: Web, raw: bytes, path: str = "/in/relay/app") -> int:
    headers = {"Content-Type": "message/rfc822", "Authorization": "Bearer own", "X-Envelope-To": "someone@example.com"}
    return web.post(path, raw, headers).status


def test_what_is_not_ours_goes_on_unchanged(web: Web, application: str) -> None:
    web.installation.hooks.add(Hook("relay", "app", ("bearer:own",), pass_on_url=application))
    raw = b"From: a@b.example\r\nSubject: \xff\xfe order 17\r\n\r\nhello\0"

    assert post(web, raw) == 204
    [(path, headers, body)] = Application.posts
    assert (path, body) == ("/inbound?key=1", raw)
    assert (headers["content-type"], headers["x-envelope-to"]) == ("message/rfc822", "someone@example.com")
    assert headers["authorization"] == "Bearer own"
    assert (web.queued(), web.quarantined()) == ([], [])


def test_what_is_ours_stays_here(web: Web, application: str) -> None:
    web.installation.hooks.add(Hook("relay", "app", ("bearer:own",), pass_on_url=application))

    assert post(web, mail(address(7), "ours")) == 204
    assert Application.posts == []
    assert web.recipients() == [recipient(7)]


def test_what_asks_in_words_is_kept_and_goes_on(web: Web, application: str) -> None:
    web.installation.hooks.add(Hook("relay", "app", ("bearer:own",), pass_on_url=application))
    raw = mail("info@example.com", "words", body="please remove me from your list\r\n")

    assert post(web, raw) == 204
    assert [body for _, _, body in Application.posts] == [raw]
    assert web.quarantined() == [raw]


def test_a_batch_is_taken_and_passed_on(web: Web, application: str) -> None:
    web.installation.hooks.add(Hook("sendgrid", "app", ("bearer:own",), pass_on_url=application))
    kind, body = SAMPLES["sendgrid"]("someone@example.com")
    body = body.replace(b'"someone@example.com"', b'"%s", "someone@example.com"' % address(7).encode())

    answer = web.post("/in/sendgrid/app", body, {"Content-Type": kind, "Authorization": "Bearer own"})

    assert answer.status == 200
    assert len(Application.posts) == 1
    assert web.recipients() == [recipient(7)]


@pytest.mark.parametrize("status", [500, 404, 302])
def test_what_the_application_does_not_take_is_tried_again(web: Web, application: str, status: int) -> None:
    web.installation.hooks.add(Hook("relay", "app", ("bearer:own",), pass_on_url=application))
    Application.status = status
    raw = b"From: a@b.example\r\n\r\nhello"

    assert post(web, raw) == 503
    Application.status = 202
    assert post(web, raw) == 204
    assert len(Application.posts) == 2


def test_an_application_that_is_away_costs_nothing(web: Web, free_port: Any) -> None:
    web.installation.hooks.add(Hook("relay", "app", ("bearer:own",), pass_on_url=f"http://127.0.0.1:{free_port()}/"))

    assert post(web, b"From: a@b.example\r\n\r\nhello") == 503
    assert post(web, mail(address(7), "ours")) == 204


def test_a_body_of_another_kind_goes_on_and_one_without_proof_does_not(web: Web, application: str) -> None:
    web.installation.hooks.add(Hook("sendgrid", "app", ("bearer:own",), pass_on_url=application))
    event = b'[{"event": "delivered"}]'

    headers = {"Content-Type": "application/json", "Authorization": "Bearer own"}
    assert web.post("/in/sendgrid/app", event, headers).status == 200
    assert web.post("/in/sendgrid/app", event, headers | {"Authorization": "Bearer x"}).status == 503
    assert [body for _, _, body in Application.posts] == [event]


# --- a test of one


@pytest.mark.parametrize("name", sorted(PROVIDERS))
def test_a_test_follows_a_sample_to_its_effect(web: Web, name: str) -> None:
    hook = web.installation.hooks.add(Hook(name, "default", ("basic:un:used",)))
    worker = threading.Thread(target=_work, args=(web,))
    worker.start()

    lines = run(web.installation, hook, f"http://127.0.0.1:{web.port}{hook.path}")

    worker.join()
    assert [hop for hop, _ in lines] == ["sample", "read", "answer", "effect"], lines


def _work(web: Web) -> None:
    """Do what a worker would: record what is queued."""
    deadline = time.monotonic() + 10
    while not (found := web.queued()) and time.monotonic() < deadline:
        time.sleep(0.05)
    web.installation.intake.record(found)


def test_a_test_says_where_it_ended(web: Web, free_port: Any) -> None:
    hook = web.installation.hooks.add(Hook("relay", "eu", ("bearer:unused",)))

    nobody = run(web.installation, hook, f"http://127.0.0.1:{free_port()}/in/relay/eu")
    nowhere = run(web.installation, hook, f"http://127.0.0.1:{web.port}/in/relay/other")

    assert nobody[-1][0] == nowhere[-1][0] == "failed"
    assert "start unsubd run" in nobody[-1][1]
    assert nowhere[-1][1].endswith("is no whole endpoint, expected /in/relay/eu at its end")


@pytest.mark.fault
def test_the_commands(tmp_path: Path, redis_url: str) -> None:
    service = Service(
        tmp_path, redis_url=redis_url, secret_keys=MASTERS[0], address="u+{tag}@unsub.example.com",
        public_url="https://unsub.example.com",
    )  # fmt: skip
    added = service.command("hook", "add", "sendgrid", "eu")
    relay = service.command("hook", "add", "relay")

    assert added.returncode == relay.returncode == 0, added.stderr + relay.stderr
    url = added.stdout.split()[1]
    assert url.startswith("https://unsubd:")
    assert url.endswith("@unsub.example.com/in/sendgrid/eu")
    assert "unsub.example.com. MX 10 mx.sendgrid.net." in added.stdout
    assert "whsec_" in relay.stdout
    forwarded = service.command("hook", "add", "sendgrid", "app", "--forwarded").stdout
    token = re.search(r"Authorization: Bearer (\S+)", forwarded)
    assert token, forwarded
    listed = service.command("hook", "list").stdout
    assert "https://unsub.example.com/in/relay  secret" in listed
    assert "https://unsub.example.com/in/sendgrid/eu  basic" in listed
    assert url.partition("unsubd:")[2].partition("@")[0] not in listed
    with service.running("run"):
        tested = service.command("hook", "test", "relay", "--url", f"{service.url}/in/relay")
        assert tested.returncode == 0, tested.stdout + tested.stderr
        assert tested.stdout.splitlines()[-1].startswith("effect")
        kind, body = SAMPLES["sendgrid"](address(7))  # what the README's ten lines post on
        assert service.post("/in/sendgrid/app", body, kind, authorization=f"Bearer {token[1]}") == 200
    assert service.command("hook", "remove", "relay").returncode == 0
    assert service.command("hook", "test", "relay").returncode == 65
    assert service.command("hook", "add", "nobody").returncode == 65
