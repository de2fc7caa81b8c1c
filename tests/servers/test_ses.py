"""Amazon SES through the running application; Amazon is a server on loopback, its URLs are judged as in production."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from handlers.request import Outcome
from tests.harness import sns as aws
from tests.harness.mails import address, mail, recipient
from tests.harness.posts import basic
from tests.harness.web import Answer, Web, serving
from worker import s3
from worker.web import sns as asking

ONE = mail(address(1), "one")
OTHER_TOPIC = aws.TOPIC + "-of-somebody"


@pytest.fixture
def amazon() -> Iterator[aws.Amazon]:
    with aws.amazon() as running:
        yield running


@pytest.fixture
def web(tmp_path: Path, redis_url: str, amazon: aws.Amazon) -> Iterator[Web]:
    with serving(
        tmp_path, redis_url, aws=amazon, in_ses=aws.TOPIC, in_ses_safe=f"{aws.TOPIC} basic:sns:pass"
    ) as running:
        yield running


def _post(web: Web, unsigned: dict[str, Any], path: str = "/in/ses", **headers: str) -> Answer:
    post = aws.signed(unsigned)
    return web.post(path, json.dumps(post).encode(), aws.headers(post) | headers)


def _notified(*recipients: str, raw: bytes | None = ONE, **fields: Any) -> dict[str, Any]:
    return aws.envelope(aws.received(*recipients, raw=raw), **fields)


def _error(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.json["error"]


def _events(web: Web, event: str) -> list[dict[str, Any]]:
    return [line for line in web.journal() if line["event"] == event]


# -- notifications


def test_a_notification_is_a_queued_request_dated_by_its_publishing(web: Web, amazon: aws.Amazon) -> None:
    answer = _post(web, _notified(address(1), at_s=aws.day(-0.5)))
    [message] = web.queued()
    [request] = message.requests

    assert (answer.status, answer.body, message.outcome) == (200, b"", Outcome.HONOUR)
    assert (request.recipient, request.source) == (recipient(1), "ses:default")
    assert abs(request.at_ms / 1000 - aws.day(-0.5)) < 60
    assert amazon.asked == [aws.CERTIFICATE_URL]


def test_two_recipients_are_two_requests_and_the_certificate_is_fetched_once(web: Web, amazon: aws.Amazon) -> None:
    assert _post(web, _notified(address(1), address(2), raw=mail("list@example.com", "bcc"))).status == 200
    assert _post(web, _notified(address(3), SignatureVersion="1")).status == 200

    assert web.recipients() == [recipient(1), recipient(2), recipient(3)]
    assert amazon.asked == [aws.CERTIFICATE_URL]


def test_posts_at_once_wait_for_one_certificate(web: Web, amazon: aws.Amazon) -> None:
    amazon.late_s = 0.3
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda number: _post(web, _notified(address(number))).status, range(10)))

    assert answers == [200] * 10
    assert (amazon.asked, len(web.recipients())) == ([aws.CERTIFICATE_URL], 10)


def test_a_mail_in_s3_is_a_request_without_its_text(web: Web) -> None:
    head = [{"name": "Message-ID", "value": "<a@b>"}, {"name": "Subject", "value": "unsubscribe"}]
    for told in ({"headers": head}, {"headers": head[:1], "headersTruncated": True}, {}):
        assert _post(web, aws.envelope(aws.received(address(1), **told))).status == 200

    assert web.recipients() == [recipient(1)] * 3


class _Bucket:
    """boto3's client, as far as we use it."""

    def __init__(self, raw: bytes | None) -> None:
        self.raw, self.asked = raw, [("", "")]

    def get_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:
        self.asked.append((Bucket, Key))
        if self.raw is None:
            raise PermissionError("AccessDenied for jane@example.com")
        return {"Body": self, "ContentLength": len(self.raw)}

    def read(self, count: int) -> bytes:
        assert self.raw is not None
        return self.raw[:count]


def test_with_boto3_the_stored_message_is_read(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = mail("info@elsewhere.example", "stored", body="x" * 300_000)
    bucket = _Bucket(raw)
    monkeypatch.setattr(s3, "find_spec", lambda name: name)
    monkeypatch.setattr(s3, "client", lambda: bucket)

    answers = [_post(web, aws.envelope(aws.received(to))).status for to in (address(1), "other@elsewhere.example")]

    assert (answers, web.recipients(), bucket.asked[-1]) == ([200, 200], [recipient(1)], ("mail-of-ours", "in/abc"))
    assert [each[:200] for each in web.quarantined()] == [raw[:200]]


def test_a_stored_message_that_cannot_be_had_costs_nothing(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "find_spec", lambda name: name)
    monkeypatch.setattr(s3, "client", lambda: _Bucket(None))

    answer = _post(web, aws.envelope(aws.received(address(1))))
    [line] = _events(web, "source")

    assert (answer.status, web.recipients(), line["state"]) == (200, [recipient(1)], "incomplete")
    assert "jane" not in json.dumps(web.journal())


def test_without_boto3_s3_is_never_asked(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "find_spec", lambda name: None)
    monkeypatch.setattr(s3, "client", lambda: pytest.fail("asked"))

    assert _post(web, aws.envelope(aws.received(address(1)))).status == 200
    assert web.journal() == []


@pytest.mark.parametrize(
    "message", [{"notificationType": "Bounce"}, {"eventType": "Click"}, "hello", {"notificationType": "Received"}]
)
def test_a_notification_of_anything_else_is_given_up_and_said(web: Web, message: Any) -> None:
    answer = _post(web, aws.envelope(message))

    assert _error(answer) == (200, "payload_invalid")
    assert [line["detail"] for line in web.journal()] == [answer.json["detail"]]


def test_ses_own_words_are_accepted_and_ignored(web: Web) -> None:
    validated = "Successfully validated SNS topic for Amazon SES event publishing."

    assert _post(web, aws.envelope(validated)).status == 200
    assert (
        _post(web, _notified("recipient@example.com", raw=b"Subject: Amazon SES Setup Notification\r\n\r\n")).status
        == 200
    )
    assert web.recipients() == []


# -- what is refused without asking anybody


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b"{}", b"hello", b"[" * 100_000, b'{"Type": 3, "Message": "x"}'])
def test_a_body_that_is_no_envelope_is_given_up(web: Web, amazon: aws.Amazon, body: bytes) -> None:
    assert _error(web.post("/in/ses", body)) == (200, "payload_invalid")
    assert amazon.asked == []


@pytest.mark.parametrize(
    "fields",
    [
        {"TopicArn": OTHER_TOPIC}, {"TopicArn": ""}, {"TopicArn": None}, {"Timestamp": aws.iso(aws.day(-1.1))},
        {"SigningCertURL": "https://sns.us-east-1.amazonaws.com.evil.example/x.pem"}, {"SigningCertURL": "http://169.254.169.254/x.pem"},
        {"SigningCertURL": f"{aws.HOST}:8443/x.pem"}, {"SigningCertURL": aws.CERTIFICATE_URL + "\n"}, {"SigningCertURL": None},
        {"SigningCertURL": "https://sns.eu-west-1.amazonaws.com/x.pem"}, {"SigningCertURL": f"{aws.HOST}.cn/x.pem"},
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["Notification", "SubscriptionConfirmation"])
def test_no_network_is_touched_for_what_is_not_ours(
    web: Web, amazon: aws.Amazon, kind: str, fields: dict[str, Any]
) -> None:
    unsigned = _notified(address(1)) if kind == "Notification" else aws.subscription()
    answer = _post(web, {name: value for name, value in (unsigned | fields).items() if value is not None})

    assert _error(answer) == (503, "signature_invalid")
    assert (amazon.asked, web.queued()) == ([], [])


def test_raw_message_delivery_keeps_the_mail_until_it_is_switched_off(web: Web, amazon: aws.Amazon) -> None:
    answer = web.post("/in/ses", json.dumps(aws.received(address(1))).encode(), {"x-amz-sns-rawdelivery": "true"})

    assert _error(answer) == (503, "signature_invalid")
    assert "raw message delivery" in answer.json["detail"]


def test_a_bad_signature_is_no_mail(web: Web) -> None:
    post = aws.signed(_notified(address(1)))
    body = json.dumps(post).encode().replace(b"22b80b92", b"22b80b93")

    assert _error(web.post("/in/ses", body)) == (503, "signature_invalid")
    assert web.queued() == []


def test_a_source_without_proofs_refuses(web: Web) -> None:
    answer = _post(web, _notified(address(1)), "/in/ses/news")

    assert (answer.status, "UNSUBD_IN_SES_<NAME>: not set" in answer.json["detail"]) == (503, True)


def test_credentials_are_asked_for_and_then_required(web: Web) -> None:
    missing = _post(web, _notified(address(1)), "/in/ses/safe")
    wrong = _post(web, _notified(address(1)), "/in/ses/safe", **basic("sns:guess"))
    unsigned = web.post("/in/ses/safe", json.dumps(_notified(address(1))).encode(), basic("sns:pass"))
    right = _post(web, _notified(address(1)), "/in/ses/safe", **basic("sns:pass"))

    assert (*_error(missing), missing.headers["www-authenticate"]) == (
        401,
        "credentials_missing",
        'Basic realm="unsubd"',
    )
    assert [_error(each) for each in (wrong, unsigned)] == [(503, "signature_invalid")] * 2
    assert (right.status, len(web.queued())) == (200, 1)
    assert not any("www-authenticate" in each.headers for each in (wrong, unsigned, right))


# -- the certificate


def test_an_absent_certificate_host_means_try_again_and_is_left_in_peace_for_a_moment(
    web: Web, amazon: aws.Amazon, monkeypatch: pytest.MonkeyPatch
) -> None:
    amazon.away = True
    answers = [_error(_post(web, _notified(address(1)))) for _ in range(3)]
    amazon.away = False
    still = _post(web, _notified(address(1)))
    monkeypatch.setattr(asking.time, "monotonic", lambda now=asking.time.monotonic: now() + 11)
    later = _post(web, _notified(address(1)))

    assert answers == [(503, "unavailable")] * 3
    assert (still.status, later.status, amazon.asked) == (503, 200, [aws.CERTIFICATE_URL] * 2)
    assert "sns.us-east-1.amazonaws.com does not answer" in still.json["detail"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"status": 302, "location": "/elsewhere"}, "HTTP 302"), ({"status": 404}, "HTTP 404"), ({"status": 503}, "HTTP 503"),
        ({"certificate": b"x" * 65_537}, "more than 65536"), ({"certificate": b"x" * 9_000_000}, "more than 65536"),
        ({"certificate": b"<html>captive portal"}, "expected PEM"), ({"certificate": b""}, "expected PEM"),
        ({"certificate": aws.certificate(until_s=1)}, "not valid today"), ({"late_s": 1.0}, "does not answer"),
        ({"drip_s": 0.1}, "does not answer"),
    ],
)  # fmt: skip
def test_an_odd_answer_instead_of_the_certificate_means_try_again(
    web: Web, amazon: aws.Amazon, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], said: str
) -> None:
    monkeypatch.setattr(asking, "ANSWER_S", 0.5)
    for name, value in change.items():
        setattr(amazon, name, value)

    answer = _post(web, _notified(address(1)))

    assert _error(answer) == (503, "unavailable")
    assert said in answer.json["detail"]
    assert (web.queued(), amazon.redirected) == ([], [])


def test_few_certificates_are_fetched_at_once(web: Web, amazon: aws.Amazon) -> None:
    amazon.late_s = 1.5
    posts = [_notified(address(1), SigningCertURL=f"{aws.HOST}/x{number}.pem") for number in range(12)]
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda unsigned: _post(web, unsigned), posts))

    refused = [each for each in answers if each.status == 503]
    assert (len(refused), len(amazon.asked)) == (12 - asking._AT_ONCE, asking._AT_ONCE)
    assert all("are being fetched already" in each.json["detail"] for each in refused)


@pytest.mark.fault
def test_certificates_are_not_collected_without_end(web: Web, amazon: aws.Amazon) -> None:
    for number in range(asking._KEPT_COUNT + 5):
        _post(web, _notified(address(1), SigningCertURL=f"{aws.HOST}/x{number}.pem"))
    asked = len(amazon.asked)
    _post(web, _notified(address(1), SigningCertURL=f"{aws.HOST}/x{asked - 1}.pem"))
    kept = len(amazon.asked)
    _post(web, _notified(address(1), SigningCertURL=f"{aws.HOST}/x0.pem"))

    assert (asked, kept, len(amazon.asked)) == (asking._KEPT_COUNT + 5, asked, asked + 1)


# -- subscriptions


def test_a_subscription_is_confirmed_once_at_sns_and_nowhere_else(web: Web, amazon: aws.Amazon) -> None:
    offered = aws.subscription(SubscribeURL="http://169.254.169.254/latest/meta-data/")

    answers = [_post(web, offered).status for _ in range(2)]
    [line] = _events(web, "source")

    topic = aws.TOPIC.replace(":", "%3A")
    asked = f"{aws.HOST}/?Action=ConfirmSubscription&TopicArn={topic}&Token={aws.TOKEN}"
    assert (answers, amazon.asked) == ([200, 200], [aws.CERTIFICATE_URL, asked])
    assert (line["source"], line["state"], aws.TOPIC in line["detail"]) == ("ses:default", "subscribed", True)
    assert aws.TOKEN not in json.dumps(web.journal())


def test_a_subscription_nobody_signed_is_not_confirmed(web: Web, amazon: aws.Amazon) -> None:
    post = aws.signed(aws.subscription()) | {"Token": "other"}

    assert _error(web.post("/in/ses", json.dumps(post).encode())) == (503, "signature_invalid")
    assert amazon.asked == [aws.CERTIFICATE_URL]


def test_a_subscription_is_accepted_only_when_confirmed(web: Web, amazon: aws.Amazon) -> None:
    assert _post(web, _notified(address(1))).status == 200  # the certificate is known
    answers = []
    for change in (
        {"status": 500},
        {"status": 302, "location": "/elsewhere"},
        {"away": True},
        {"status": 200, "away": False},
    ):
        for name, value in change.items():
            setattr(amazon, name, value)
        answers.append(_post(web, aws.subscription()).status)

    assert (answers, amazon.redirected) == ([503, 503, 503, 200], [])
    assert aws.TOKEN not in json.dumps(web.journal())


def test_the_end_of_a_subscription_is_said_aloud(web: Web) -> None:
    answer = _post(web, aws.subscription(Type="UnsubscribeConfirmation"))
    [line] = _events(web, "source")

    assert (answer.status, line["state"]) == (200, "unsubscribed")
