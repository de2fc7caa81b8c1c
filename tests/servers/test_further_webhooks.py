"""The further providers over HTTP, on a real Redis: what each hears, and that its mail is durable before that."""

import base64
import hmac
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote_plus

import pytest

from tests.harness.mails import address, mail, recipient
from tests.harness.posts import basic
from tests.harness.redis_server import RedisServer
from tests.harness.web import Web, ask, serving

ELSEWHERE = mail("info@elsewhere.example", "elsewhere").decode()
URL = "https://u:p@unsub.example.com/in/mandrill?a=b"
PROOFS = {
    "in_mandrill": f"KEY@{URL}",
    "in_sparkpost": "token:t0ken",
    "in_mailjet": "basic:mailjet:pass",
    "in_forwardemail": "old key",
    "in_resend": "basic:resend:pass",
    "in_mailersend": "old key",
    "in_brevo": "header:X-Unsubd:s3cret",
}
TO = [address(1), address(2)]
POSTS: dict[str, Any] = {
    "mandrill": [{"event": "inbound", "msg": {"raw_msg": ELSEWHERE, "email": each}} for each in TO],
    "sparkpost": [
        {"msys": {"relay_message": {"rcpt_to": each, "content": {"email_rfc822": ELSEWHERE}}}} for each in TO
    ],
    "mailjet": [{"Recipient": each, "Headers": {"To": "x@elsewhere.example"}} for each in TO],
    "forwardemail": {"raw": ELSEWHERE, "recipients": TO},
    "resend": {"type": "email.received", "data": {"received_for": TO, "from": "x@elsewhere.example"}},
    "mailersend": {
        "type": "inbound.message",
        "data": {"raw": ELSEWHERE, "recipients": {"rcptTo": [{"email": each} for each in TO]}},
    },
    "brevo": {"items": [{"MessageId": "<1@x>", "To": [{"Address": each}], "Subject": "unsubscribe"} for each in TO]},
}
HMAC = {"forwardemail": "X-Webhook-Signature", "mailersend": "Signature"}


@pytest.fixture(scope="module")
def _running(tmp_path_factory: pytest.TempPathFactory, redis_server: RedisServer) -> Iterator[Web]:
    with serving(tmp_path_factory.mktemp("web"), redis_server.url, **PROOFS) as running:
        yield running


@pytest.fixture
def web(_running: Web, redis_url: str) -> Web:
    """The running application, its Redis empty."""
    return _running


def _body(name: str, posted: Any) -> bytes:
    text = json.dumps(posted)
    return b"mandrill_events=" + quote_plus(text).encode() if name == "mandrill" else text.encode()


def _proof(name: str, body: bytes, posted: Any) -> dict[str, str]:
    if name in HMAC:
        return {HMAC[name]: hmac.new(b"key", body, "sha256").hexdigest()}
    if name == "mandrill":
        signed = f"{URL}mandrill_events{json.dumps(posted)}".encode()
        return {"X-Mandrill-Signature": base64.b64encode(hmac.digest(b"KEY", signed, "sha1")).decode()}
    told = {"sparkpost": {"X-MessageSystems-Webhook-Token": "t0ken"}, "brevo": {"X-Unsubd": "s3cret"}}
    return told.get(name) or basic(f"{name}:pass")


def _post(web: Web, name: str, posted: Any) -> Any:
    body = _body(name, posted)
    return web.post(f"/in/{name}", body, _proof(name, body, posted))


@pytest.mark.parametrize("name", POSTS)
def test_a_post_for_two_recipients_is_two_requests(web: Web, name: str) -> None:
    answer = _post(web, name, POSTS[name])

    assert (answer.status, answer.body) == (200, b"")
    assert web.recipients() == [recipient(1), recipient(2)]
    assert {message.source for message in web.queued()} == {f"{name}:default"}


@pytest.mark.parametrize("name", POSTS)
def test_a_look_at_the_url_is_welcome(web: Web, name: str) -> None:
    assert {ask(web.port, method, f"/in/{name}").status for method in ("GET", "HEAD")} == {200}


@pytest.mark.parametrize("name", POSTS)
def test_a_wrong_proof_gets_the_providers_own_answer(web: Web, name: str) -> None:
    expected = {"forwardemail": 503, "brevo": 429}.get(name, 401)

    assert web.post(f"/in/{name}", _body(name, POSTS[name]), basic("other:pass")).status == expected
    assert web.queued() == []


@pytest.mark.parametrize("name", POSTS)
def test_a_server_that_cannot_write_means_try_again(web: Web, name: str) -> None:
    web.installation.redis.config_set("min-replicas-to-write", "1")
    try:
        answer = _post(web, name, POSTS[name])
    finally:
        web.installation.redis.config_set("min-replicas-to-write", "0")

    assert answer.status == (429 if name == "brevo" else 503)


@pytest.mark.parametrize("name", POSTS)
def test_an_event_that_landed_here_is_given_up_by_name(web: Web, name: str) -> None:
    event = {"event": "opened", "type": "opened", "msys": {"opened": {}}}
    single = name in ("forwardemail", "resend", "mailersend", "brevo")

    answer = _post(web, name, event if single else [event])

    assert (answer.status, answer.json["error"], web.queued()) == (200, "payload_invalid", [])
    assert "opened" in answer.json["detail"] or name == "forwardemail"


@pytest.mark.parametrize(("name", "ping"), [("mandrill", []), ("sparkpost", [{"msys": {}}])])
def test_a_ping_is_accepted_without_a_message(web: Web, name: str, ping: Any) -> None:
    answer = _post(web, name, ping)

    assert (answer.status, answer.body, web.queued()) == (200, b"", [])
