"""Deliveries over HTTP, on a real Redis: a repeat needs no new work, a captured signature is good for one body."""

import hmac
import json
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import httpx2
import pytest

from handlers.errors import QueueUnavailable
from tests.harness import posts
from tests.harness.mails import address, mail, recipient
from tests.harness.mailtrap import TOKEN, Mailtrap, mailtrap
from tests.harness.redis_server import RedisServer
from tests.harness.web import Answer, Web, serving
from worker.intake import Intake
from worker.web import mailtrap as asking

PROOFS = {
    "in_relay": posts.RELAY_SECRET,
    "in_mailgun": posts.MAILGUN_KEY,
    "in_mailtrap": f"old key api:{TOKEN}",
    "in_mailtrap_bare": "key",
}


@pytest.fixture(scope="module")
def _running(tmp_path_factory: pytest.TempPathFactory, redis_server: RedisServer) -> Iterator[tuple[Web, Mailtrap]]:
    with (
        mailtrap() as there,
        serving(tmp_path_factory.mktemp("web"), redis_server.url, aws=there, **PROOFS) as running,
    ):
        yield running, there


@pytest.fixture
def there(_running: tuple[Web, Mailtrap]) -> Mailtrap:
    """Mailtrap, with no mail and in good health."""
    _running[1].reset()
    return _running[1]


@pytest.fixture
def web(_running: tuple[Web, Mailtrap], redis_url: str) -> Web:
    """The running application, its Redis empty."""
    return _running[0]


def _mailgun(number: int = 1) -> bytes:
    return posts.mailgun(recipient=address(number), sender="x@example.net", body_mime=mail(address(number), "one"))


def test_a_token_is_good_for_one_body_however_often(web: Web) -> None:
    body = _mailgun()
    forged = body.replace(b"x%40example.net", b"y%40example.net")
    answers = [web.post("/in/mailgun", each, posts.URLENCODED).status for each in (body, body, forged)]

    assert answers == [200, 200, 406]
    assert web.recipients() == [recipient(1)]
    said = [line["answer"] for line in web.journal() if line["event"] == "webhook"]
    assert said == ["payload_invalid", "repeated"]


def test_a_delivery_that_was_not_durable_is_not_remembered(web: Web) -> None:
    body = _mailgun()
    with patch.object(Intake, "accept", side_effect=QueueUnavailable("away")):
        failed = web.post("/in/mailgun", body, posts.URLENCODED).status

    assert (failed, web.post("/in/mailgun", body, posts.URLENCODED).status) == (503, 200)
    assert web.recipients() == [recipient(1)]


def test_a_relay_that_numbers_all_its_posts_alike_loses_none(web: Web) -> None:
    raws = [mail(address(number), f"m{number}") for number in (1, 2, 2)]

    assert [web.post("/in/relay", raw, posts.relay(raw, message_id="1")).status for raw in raws] == [204] * 3
    assert web.recipients() == [recipient(1), recipient(2)]


# -- mailtrap


def _events(*numbers: int | str) -> bytes:
    events: list[dict[str, Any]] = [
        {"event": "inbound.message_received", "event_id": f"e{each}", "inbox_id": 7, "message_id": str(each)}
        for each in numbers
    ]
    return json.dumps({"events": events}).encode()


def _post(web: Web, body: bytes, path: str = "/in/mailtrap") -> Answer:
    return web.post(path, body, posts.JSON | {"Mailtrap-Signature": hmac.new(b"key", body, "sha256").hexdigest()})


def test_the_mails_that_mailtrap_refers_to_are_fetched(web: Web, there: Mailtrap) -> None:
    there.mails = {"1": [address(1)], "2": ["list@example.com", address(2)]}

    assert _post(web, _events(1, 2)).status == 200
    assert web.recipients() == [recipient(1), recipient(2)]
    assert sorted(there.asked) == [f"https://mailtrap.io/api/inbound/inboxes/7/messages/{each}" for each in (1, 2)]


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 500},
        {"status": 429},
        {"status": 401},
        {"status": 302},
        {"late_s": 3.0},
        {"octets": 3000},
        {"away": True},
    ],
)
def test_a_mail_that_cannot_be_fetched_is_asked_for_again(web: Web, there: Mailtrap, fault: dict[str, Any]) -> None:
    there.mails = {"1": [address(1)]}
    for name, value in fault.items():
        setattr(there, name, value)
    with patch.object(asking, "ANSWER_S", 0.5), patch.object(asking, "MAX_BYTES", 2000):
        answer = _post(web, _events(1))

    assert (answer.status, answer.json["error"], web.recipients()) == (503, "unavailable", [])
    assert TOKEN not in answer.text
    assert there.redirected == 0


def test_one_mail_that_is_missing_keeps_its_neighbour_and_the_repeat_brings_it(web: Web, there: Mailtrap) -> None:
    there.mails = {"1": [address(1)]}
    first = _post(web, _events(1, 2)).status
    kept = web.recipients()
    there.mails["2"] = [address(2)]

    assert (first, kept) == (503, [recipient(1)])
    assert _post(web, _events(1, 2)).status == 200
    assert set(web.recipients()) == {recipient(1), recipient(2)}


@pytest.mark.parametrize("odd", ["../../accounts", "1?a=b", "", "1/2", "é"])
def test_an_id_is_one_segment_of_the_path_or_nothing_is_asked(web: Web, there: Mailtrap, odd: str) -> None:
    assert _post(web, _events(odd)).status == 503
    assert there.asked == []


def test_without_a_token_mailtrap_keeps_the_mail(web: Web, there: Mailtrap) -> None:
    assert _post(web, _events(1), "/in/mailtrap/bare").status == 503
    assert there.asked == []


def test_mailtrap_refuses_the_wrong_token_in_our_test_too(there: Mailtrap) -> None:
    there.mails = {"1": [address(1)]}
    url = f"http://127.0.0.1:{there.port}/api/inbound/inboxes/7/messages/1"

    assert [httpx2.get(url, headers={"Authorization": f"Bearer {each}"}).status_code for each in ("x", TOKEN)] == [
        401,
        200,
    ]
