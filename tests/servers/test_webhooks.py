"""Webhooks over HTTP, on a real Redis: accepted means durable, and every other answer keeps its promise to the provider."""

import json
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from handlers.providers import PROVIDERS, relay
from handlers.request import Outcome
from tests.harness import posts
from tests.harness.mails import address, mail, recipient
from tests.harness.redis_server import RedisServer
from tests.harness.service import MASTERS, Service, until
from tests.harness.web import Web, ask, serving
from worker.web import webhooks

ONE = mail(address(1), "one")
ELSEWHERE = mail("info@elsewhere.example", "elsewhere")
PROOFS = {
    "in_relay": posts.RELAY_SECRET,
    "in_cloudmailin": "basic:cloudmailin:pass",
    "in_mailgun": posts.MAILGUN_KEY,
    "in_postal": posts.POSTAL_PEM,
    "in_postmark": "basic:postmark:old basic:postmark:pass",
    "in_sendgrid": posts.public(posts.SENDGRID_KEY) + " basic:sendgrid:pa\N{SNOWMAN}ss",
}
KEYS = {"secret_keys": ",".join(MASTERS), "address": "u+{tag}@unsub.example.com"}


@pytest.fixture(scope="module")
def _running(tmp_path_factory: pytest.TempPathFactory, redis_server: RedisServer) -> Iterator[Web]:
    with serving(tmp_path_factory.mktemp("web"), redis_server.url, **PROOFS) as running:
        yield running


@pytest.fixture
def web(_running: Web, redis_url: str) -> Web:
    """The running application, its Redis empty."""
    return _running


def _sendgrid(web: Web, body: bytes) -> Any:
    return web.post("/in/sendgrid", body, posts.sendgrid(body))


# -- accepted means durable


def test_the_job_is_in_redis_before_the_answer(tmp_path: Path, redis_url: str) -> None:
    service = Service(tmp_path, redis_url=redis_url, **KEYS, **PROOFS)
    with service.running("web"), Redis.from_url(redis_url) as client, ThreadPoolExecutor(1) as pool:
        client.client_pause(20_000, all=False)  # reads go on, writes wait
        answer = pool.submit(ask, service.port, "POST", "/in/relay", ONE, posts.relay(ONE))
        until(lambda: client.info("clients")["blocked_clients"], what="the write waits")
        unanswered, before = not answer.done(), client.llen("rq:queue:unsubd")
        client.client_unpause()

        assert answer.result().status == 204
        assert (unanswered, before, client.llen("rq:queue:unsubd")) == (True, 0, 1)


def test_an_accepted_post_is_a_request_dated_by_its_signature(web: Web) -> None:
    headers = posts.relay(ONE, age_s=100)

    answer = web.post("/in/relay", ONE, headers)
    [message] = web.queued()
    [request] = message.requests

    assert (answer.status, answer.body, message.outcome) == (204, b"", Outcome.HONOUR)
    assert (request.sender, request.group, request.recipient) == ("acme", 1, recipient(1))
    assert (request.source, request.at_ms) == ("relay:default", int(headers["webhook-timestamp"]) * 1000)


def test_a_repeated_post_asks_for_the_same_request(web: Web) -> None:
    for age_s in (20, 10):
        assert web.post("/in/relay", ONE, posts.relay(ONE, message_id=f"try{age_s}", age_s=age_s)).status == 204

    [first, second] = [message.requests for message in web.queued()]

    assert [each.id for each in first] == [each.id for each in second]


def test_fifty_posts_at_once_are_each_accepted_once(tmp_path: Path, redis_url: str) -> None:
    service = Service(tmp_path, redis_url=redis_url, **KEYS, **PROOFS)
    mails = [mail(address(number), f"m{number}") for number in range(50)]

    def post(raw: bytes) -> int:
        body = posts.form(email=raw, envelope=posts.envelope("info@elsewhere.example"))
        via_relay = ask(service.port, "POST", "/in/relay", raw, posts.relay(raw)).status
        return via_relay + ask(service.port, "POST", "/in/sendgrid", body, posts.sendgrid(body)).status

    with service.running("web"), ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(post, mails))

    with serving(tmp_path, redis_url) as looking:
        named = [message.requests[0].recipient for message in looking.queued()]
    assert answers == [204 + 200] * 50
    assert sorted(named) == sorted([recipient(number) for number in range(50)] * 2)


def test_redis_away_means_try_again_and_its_return_means_accepted(
    tmp_path: Path, own_redis: Callable[..., RedisServer]
) -> None:
    redis = own_redis()
    service = Service(tmp_path, redis_url=redis.url, **KEYS, **PROOFS)
    form = posts.form(email=ONE, envelope=posts.envelope(address(1)))

    def answers() -> list[int]:
        both = (("relay", ONE, posts.relay(ONE)), ("sendgrid", form, posts.sendgrid(form)))
        return [ask(service.port, "POST", f"/in/{name}", body, headers).status for name, body, headers in both]

    with service.running("web"):
        before = answers()
        redis.stop()
        during = answers()
        redis.start()
        after = answers()

    assert (before, during, after) == ([204, 200], [503, 503], [204, 200])
    assert redis.client().llen("rq:queue:unsubd") == 4


def test_a_full_queue_means_try_again(tmp_path: Path, redis_url: str) -> None:
    with serving(tmp_path, redis_url, queue_limit="1", **PROOFS) as web:
        answers = [web.post("/in/relay", ONE, posts.relay(ONE)) for _ in range(2)]

        assert [answer.status for answer in answers] == [204, 503]
        assert "UNSUBD_QUEUE_LIMIT" in answers[1].json["detail"]
        assert len(web.queued()) == 1


def test_a_server_that_cannot_write_means_try_again(web: Web) -> None:
    web.installation.redis.config_set("min-replicas-to-write", "1")
    try:
        answer = web.post("/in/relay", ONE, posts.relay(ONE))
    finally:
        web.installation.redis.config_set("min-replicas-to-write", "0")

    assert (answer.status, answer.json["error"]) == (503, "unavailable")


# -- the proof


def _doubled(headers: dict[str, str], name: str) -> dict[str, Any]:
    return headers | {name: [headers[name], headers[name]]}


_BAD_PROOFS: dict[str, Callable[[Callable[..., dict[str, str]], bytes, str], dict[str, Any]]] = {
    "none": lambda sign, body, name: posts.FORM | posts.RFC822,
    "of another body": lambda sign, body, name: sign(body + b" "),
    "stale": lambda sign, body, name: sign(body, age_s=4 * 86400),
    "from the future": lambda sign, body, name: sign(body, age_s=-4 * 86400),
    "signature sent twice": lambda sign, body, name: _doubled(sign(body), name),
    "timestamp sent twice": lambda sign, body, name: _doubled(
        sign(body), name.replace("ignature", "imestamp").replace("-s", "-t").replace("-S", "-T")
    ),
    "not base64": lambda sign, body, name: sign(body) | {name: "v1,\xe9\xff"},
    "empty": lambda sign, body, name: sign(body) | {name: ""},
    "basic for another user": lambda sign, body, name: posts.RFC822 | posts.basic("other:password"),
    "basic without base64": lambda sign, body, name: posts.RFC822 | {"Authorization": "Basic \xfc"},
    "authorization sent twice": lambda sign, body, name: posts.RFC822 | {"Authorization": ["Bearer a", "Bearer b"]},
}


@pytest.mark.parametrize("proof", _BAD_PROOFS)
def test_a_wrong_proof_costs_time_and_no_mail(web: Web, proof: str) -> None:
    form = posts.form(email=ONE, envelope=posts.envelope(address(1)))
    relayed = _BAD_PROOFS[proof](posts.relay, ONE, "webhook-signature")
    parsed = _BAD_PROOFS[proof](posts.sendgrid, form, "X-Twilio-Email-Event-Webhook-Signature")

    answers = [web.post("/in/relay", ONE, relayed), web.post("/in/sendgrid", form, parsed)]

    assert [(each.status, each.json["error"]) for each in answers] == [
        (401, "signature_invalid"),
        (503, "signature_invalid"),
    ]
    assert web.queued() == []
    assert [line["answer"] for line in web.journal()] == ["signature_invalid"] * 2


def test_another_secret_does_not_sign(web: Web) -> None:
    form = posts.form(email=ONE, envelope=posts.envelope(address(1)))
    other = posts.generate_private_key(posts.SECP256R1())

    relayed = web.post("/in/relay", ONE, posts.relay(ONE, "whsec_b3RoZXI="))
    parsed = web.post("/in/sendgrid", form, posts.sendgrid(form, other))

    assert (relayed.status, parsed.status) == (401, 503)


def test_a_source_that_is_not_configured_keeps_the_mail_where_it_is(web: Web) -> None:
    form = posts.form(email=ONE, envelope=posts.envelope(address(1)))

    relayed = web.post("/in/relay/news", ONE, posts.relay(ONE))
    parsed = web.post("/in/sendgrid/news", form, posts.sendgrid(form))

    assert (relayed.status, parsed.status) == (401, 503)
    assert "not set" in relayed.json["detail"]


def test_a_named_source_has_its_own_secret(tmp_path: Path, redis_url: str) -> None:
    with serving(tmp_path, redis_url, in_relay="bearer:one", in_relay_news="bearer:two bearer:three") as web:
        tokens = ("one", "two", "three")
        answers = [
            web.post("/in/relay/news", ONE, posts.RFC822 | {"Authorization": f"Bearer {token}"}).status
            for token in tokens
        ]

        assert answers == [401, 204, 204]  # two secrets at once: rotation
        assert {message.source for message in web.queued()} == {"relay:news"}


def test_basic_authentication_takes_a_password_outside_ascii(web: Web) -> None:
    form = posts.form(email=ONE, envelope=posts.envelope(address(1)))

    right = web.post("/in/sendgrid", form, posts.FORM | posts.basic("sendgrid:pa\N{SNOWMAN}ss"))
    wrong = web.post("/in/sendgrid", form, posts.FORM | posts.basic("sendgrid:pa\xdfs", "latin-1"))

    assert (right.status, wrong.status) == (200, 503)


# -- the URL


@pytest.mark.parametrize("path", ["/in/relay", "/in/sendgrid", "/in/relay/news", "/in/sendgrid/news", "/in/mailgun/mime",
                                  "/in/mailgun/news/mime"])  # fmt: skip
def test_a_look_at_the_url_is_welcome_without_a_proof(web: Web, path: str) -> None:
    for method in ("GET", "HEAD"):
        answer = ask(web.port, method, path)

        assert (answer.status, answer.body) == (200, b"")


def test_an_unknown_provider_is_not_found(web: Web) -> None:
    answers = [ask(web.port, method, "/in/nobody") for method in ("GET", "HEAD", "POST")]

    assert [answer.status for answer in answers] == [404] * 3
    assert answers[2].json["error"] == "unknown_provider"
    assert ask(web.port, "PUT", "/in/relay").status == 405


# -- the relay


def test_a_relay_of_the_wrong_type_keeps_the_mail(web: Web) -> None:
    for kind in ("application/x-www-form-urlencoded", "text/plain", ""):
        answer = web.post("/in/relay", ONE, posts.relay(ONE) | {"Content-Type": kind})

        assert (answer.status, answer.json["error"]) == (415, "content_type_invalid")
    assert web.queued() == []


@pytest.mark.parametrize("body", [b"", b"\r\n \r\n"])
def test_a_relay_gives_up_an_empty_body(web: Web, body: bytes) -> None:
    answer = web.post("/in/relay", body, posts.relay(body))

    assert (answer.status, answer.json["error"], web.queued()) == (200, "payload_invalid", [])


def test_each_envelope_recipient_is_a_message(web: Web) -> None:
    envelope = {"X-Envelope-To": [address(1), f"<{address(2)}>"], "X-Envelope-From": "someone@example.net"}

    answer = web.post("/in/relay", ELSEWHERE, posts.relay(ELSEWHERE) | envelope)

    assert (answer.status, web.recipients()) == (204, [recipient(1), recipient(2)])
    assert len({message.key for message in web.queued()}) == 2


def test_prepended_lines_tell_the_envelope(web: Web) -> None:
    trace = f"Return-Path: <someone@example.net>\r\nX-Original-To: {address(1)}\r\nX-Original-To: {address(2)}\r\n"
    below = f"Delivered-To: {address(3)}\r\nReceived: by mx.example.com\r\nX-Original-To: {address(4)}\r\n"
    body = (trace + below).encode() + ELSEWHERE

    web.post("/in/relay", body, posts.relay(body))

    assert web.recipients() == [recipient(1), recipient(2)]
    assert {message.evidence["tag_in"] for message in web.queued()} == {"envelope"}


def test_the_null_sender_marks_a_bounce(web: Web) -> None:
    told = posts.relay(ONE) | {"X-Envelope-To": address(1), "X-Envelope-From": "<>"}

    web.post("/in/relay", ONE, told)

    assert [message.outcome for message in web.queued()] == [Outcome.BOUNCE]


# -- SendGrid


def test_raw_mode_is_read_from_its_envelope(web: Web) -> None:
    answer = _sendgrid(web, posts.form(email=ELSEWHERE, envelope=posts.envelope(address(1), address(2))))

    assert (answer.status, answer.body) == (200, b"")
    assert web.recipients() == [recipient(1), recipient(2)]
    assert {message.source for message in web.queued()} == {"sendgrid:default"}


def test_parsed_mode_is_read_from_its_headers(web: Web) -> None:
    headers, _, _ = mail(address(1), "parsed").partition(b"\r\n\r\n")

    _sendgrid(
        web, posts.form(headers=headers, text="Bitte l\xf6schen".encode("cp1252"), envelope=posts.envelope("i@x"))
    )
    _sendgrid(web, posts.form(headers=headers, text=b"", charsets={"text": "no-such"}, dkim=b"{@example.org : pass}"))

    assert web.recipients() == [recipient(1)] * 2


def test_one_recipient_without_a_tag_loses_no_neighbour(web: Web) -> None:
    envelope = posts.envelope("info@elsewhere.example", address(1), "\ud800@\x00", "")

    answer = _sendgrid(web, posts.form(email=ELSEWHERE, envelope=envelope))

    assert (answer.status, len(web.queued()), web.recipients()) == (200, 4, [recipient(1)])


_MALFORMED = {
    "an event webhook": b'[{"event":"dropped","email":"x@example.com"}]',
    "nothing": b"",
    "no field": posts.form(),
    "neither raw nor parsed": posts.form(envelope=posts.envelope(address(1)), subject=b"hello"),
    "no envelope and no headers": posts.form(headers=b" \r\n"),
    "envelope is not JSON": posts.form(email=ONE, envelope=b"{to"),
    "envelope is not UTF-8": posts.form(email=ONE, envelope=b'{"to":\xff}'),
    "envelope is a list": posts.form(email=ONE, envelope=[address(1)]),
    "envelope is null": posts.form(email=ONE, envelope=None),
    "envelope without to": posts.form(email=ONE, envelope={"from": "a@b"}),
    "to is a string": posts.form(email=ONE, envelope={"to": address(1)}),
    "to is empty": posts.form(email=ONE, envelope={"to": []}),
    "to holds a number": posts.form(email=ONE, envelope={"to": [address(1), 42]}),
    "to holds null": posts.form(email=ONE, envelope={"to": [None]}),
    "deep nesting": posts.form(email=ONE, envelope=b"[" * 100_000),
    "a number of 5,000 digits": posts.form(email=ONE, envelope=b'{"to":' + b"9" * 5000 + b"}"),
    "line ends of LF": posts.form(email=ONE, envelope=posts.envelope(address(1))).replace(b"\r\n", b"\n"),
    "no final boundary": posts.form(email=ONE, envelope=posts.envelope(address(1)))[:-20],
    "too many fields": posts.form(**{f"f{number}": b"" for number in range(600)}),
    "a header line without end": b"--xYzZY\r\nContent-Disposition: " + b"x" * 10_000,
}


@pytest.mark.parametrize("shape", _MALFORMED)
def test_what_can_never_be_understood_is_given_up_and_journalled(web: Web, shape: str) -> None:
    answer = _sendgrid(web, _MALFORMED[shape])

    assert (answer.status, answer.json["error"]) == (200, "payload_invalid")
    assert [line["answer"] for line in web.journal()] == ["payload_invalid"]
    assert web.queued() == []


@pytest.mark.parametrize(
    "kind", ["", "application/json", "multipart/form-data", 'multipart/form-data; boundary=""', "multipart/\xe9; boundary=\xe9",
             "multipart/form-data; boundary*=utf-8''%ff", "multipart/form-data; boundary=" + "x" * 5000],
)  # fmt: skip
def test_a_form_without_its_boundary_is_given_up(web: Web, kind: str) -> None:
    body = posts.form(email=ONE, envelope=posts.envelope(address(1)))

    answer = web.post("/in/sendgrid", body, posts.sendgrid(body) | {"Content-Type": kind})

    assert (answer.status, answer.json["error"]) == (200, "payload_invalid")


# -- every provider and its four codes

FOUR_CODES = {
    "relay": (204, 503, 200, 401),
    "sendgrid": (200, 503, 200, 503),
    "mailgun": (200, 503, 406, 401),
    "postmark": (200, 503, 403, 401),
    "postal": (200, 503, 200, 503),
    "cloudmailin": (200, 503, 200, 503),
    "ses": (200, 503, 200, 503),
    "mandrill": (200, 503, 200, 401),
    "sparkpost": (200, 503, 200, 401),
    "mailjet": (200, 503, 200, 401),
    "forwardemail": (200, 503, 200, 503),
    "resend": (200, 503, 200, 401),
    "mailersend": (200, 503, 200, 401),
    "brevo": (200, 429, 200, 429),
    "mailtrap": (200, 503, 200, 401),
}
POSTED = ("relay", "sendgrid", "mailgun", "postmark", "postal", "cloudmailin")  # the others: test_hooks.py, test_ses.py
# What each can never understand, with a good proof.
NEVER_UNDERSTOOD = {"relay": (b"", posts.RFC822), "postal": (b"[]", posts.JSON), "postmark": (b"[" * 9999, posts.JSON)}


def test_every_provider_has_its_row() -> None:
    rows = {name: module.CODES for name, module in PROVIDERS.items()}
    assert {name: (row.ack, row.retry, row.drop, row.auth_fail) for name, row in rows.items()} == FOUR_CODES


@pytest.mark.parametrize("provider", POSTED)
def test_a_post_is_accepted_by_its_envelope(web: Web, provider: str) -> None:
    body, headers = posts.of(provider, ELSEWHERE, address(1))

    answer = web.post(f"/in/{provider}", body, headers)

    assert (answer.status, web.recipients()) == (FOUR_CODES[provider][0], [recipient(1)])
    assert [message.evidence["tag_in"] for message in web.queued()] == ["envelope"]


@pytest.mark.parametrize("provider", POSTED)
def test_a_mail_for_nobody_is_accepted_and_kept_for_a_person(web: Web, provider: str) -> None:
    body, headers = posts.of(provider, ELSEWHERE, "info@elsewhere.example")

    assert web.post(f"/in/{provider}", body, headers).status == FOUR_CODES[provider][0]
    assert web.quarantined() == [ELSEWHERE]


@pytest.mark.parametrize("provider", POSTED)
def test_a_store_that_cannot_write_means_try_again_to_everybody(web: Web, provider: str) -> None:
    body, headers = posts.of(provider, ELSEWHERE, address(1))
    web.installation.redis.config_set("min-replicas-to-write", "1")
    try:
        answer = web.post(f"/in/{provider}", body, headers)
    finally:
        web.installation.redis.config_set("min-replicas-to-write", "0")

    assert (answer.status, answer.json["error"]) == (FOUR_CODES[provider][1], "unavailable")
    assert web.post(f"/in/{provider}", body, headers).status == FOUR_CODES[provider][0]


@pytest.mark.parametrize("provider", sorted(set(POSTED) - {"sendgrid"}))  # there an empty recipient is one
def test_what_says_nothing_is_given_up_with_the_providers_own_code(web: Web, provider: str) -> None:
    body, headers = posts.of(provider, ELSEWHERE, "")
    if provider in NEVER_UNDERSTOOD:
        body, headers = NEVER_UNDERSTOOD[provider][0], headers | NEVER_UNDERSTOOD[provider][1]
        headers |= posts.relay(body) if provider == "relay" else posts.postal(body)

    answer = web.post(f"/in/{provider}", body, headers)

    assert (answer.status, answer.json["error"]) == (FOUR_CODES[provider][2], "payload_invalid")
    assert web.queued() == []


@pytest.mark.parametrize("provider", POSTED)
def test_a_wrong_proof_hears_the_providers_own_code(web: Web, provider: str) -> None:
    body, headers = posts.of(provider, ELSEWHERE, address(1))
    kind = {name: headers[name] for name in headers if name == "Content-Type"}
    changed = body.replace(b"signature=", b"signature=0")

    answers = [web.post(f"/in/{provider}", changed, kind | proof) for proof in ({}, posts.basic("postmark:guess"))]

    assert [(each.status, each.json["error"]) for each in answers] == [
        (FOUR_CODES[provider][3], "signature_invalid")
    ] * 2
    assert web.queued() == []


@pytest.mark.parametrize("provider", POSTED)
def test_a_slash_at_the_end_of_the_url_is_no_redirect(web: Web, provider: str) -> None:
    body, headers = posts.of(provider, ELSEWHERE, address(1))
    ack, _, _, auth_fail = FOUR_CODES[provider]

    answers = [web.post(f"/in/{provider}/{path}", body, headers).status for path in ("", "unknown/")]

    assert answers == [ack, auth_fail]


def test_postmarks_check_is_welcome_and_no_message(web: Web) -> None:
    check = json.dumps({"MessageID": "00000000-0000-0000-0000-000000000000", "OriginalRecipient": "x@y"}).encode()

    answer = web.post("/in/postmark", check, posts.JSON | posts.basic("postmark:pass"))

    assert (answer.status, web.queued(), web.quarantined()) == (200, [], [])


# -- Mailgun


@pytest.mark.parametrize("path", ["", "/mime"])
def test_mailgun_posts_to_a_url_that_ends_in_mime(web: Web, path: str) -> None:
    body = posts.mailgun(recipient=address(1), sender="x@example.net", body_mime=ELSEWHERE)

    answer = web.post(f"/in/mailgun{path}", body, posts.URLENCODED)

    assert (answer.status, web.recipients()) == (200, [recipient(1)])
    assert {message.source for message in web.queued()} == {"mailgun:default"}


def test_mailgun_raw_mode_has_named_sources(tmp_path: Path, redis_url: str) -> None:
    body = posts.mailgun(recipient=address(1), body_mime=ELSEWHERE, key="another")
    with serving(tmp_path, redis_url, in_mailgun_news="another") as web:
        answers = [
            web.post(f"/in/mailgun/{path}", body, posts.URLENCODED).status for path in ("news/mime", "news", "mime")
        ]

        assert answers == [200, 200, 401]
        assert {message.source for message in web.queued()} == {"mailgun:news"}


def test_mailgun_is_told_to_stop_by_406_only(web: Web) -> None:
    signed = posts.mailgun(recipient=address(1), body_mime=ONE)
    event = b'{"signature": {}, "event-data": {"event": "opened"}}'
    answers = [
        web.post("/in/mailgun/mime", posts.mailgun(body_mime=ONE), posts.URLENCODED),
        web.post("/in/mailgun/mime", event, {"Content-Type": "application/json"}),
        web.post("/in/mailgun/mime", signed.replace(b"signature=", b"signature=0"), posts.URLENCODED),
        web.post(
            "/in/mailgun/mime", posts.mailgun(recipient=address(1), body_mime=ONE, age_s=44_000), posts.URLENCODED
        ),
    ]

    assert [(each.status, each.json["error"]) for each in answers] == [
        (406, "payload_invalid"),
        (406, "payload_invalid"),
        (401, "signature_invalid"),
        (401, "signature_invalid"),
    ]
    assert "event webhooks" in answers[1].json["detail"]
    assert (web.queued(), len(web.journal())) == ([], 4)


# -- samples


def _samples(shared: Path, provider: str) -> list[dict[str, Any]]:
    index = json.loads((shared / "samples/webhooks/index.json").read_text())
    found = [each for each in index if each["path"].startswith(f"{provider}/")]
    return [each | {"body": (shared / "samples/webhooks" / each["path"]).read_bytes()} for each in found]


def test_the_sendgrid_samples_are_accepted_or_given_up(web: Web, shared: Path) -> None:
    samples = _samples(shared, "sendgrid")
    for sample in samples:
        before = len(web.queued())
        headers = posts.sendgrid(sample["body"]) | {"Content-Type": sample["content_type"]}
        answer = web.post("/in/sendgrid", sample["body"], headers)
        given_up = bool(answer.body) and answer.json["error"] == "payload_invalid"
        expected = sample["expect"]

        assert (answer.status, given_up) == (200, "reject" in expected), sample["path"]
        assert len(web.queued()) - before == (not given_up) * len(expected["envelope_to"] or ["a header's"])
    assert len(samples) == 7


def test_the_relay_samples_are_accepted(web: Web, shared: Path) -> None:
    samples = _samples(shared, "relay_rfc822")
    for sample in samples:
        headers = posts.relay(sample["body"]) | {"X-Envelope-To": address(1)}

        assert web.post("/in/relay", sample["body"], headers).status == 204
    assert (len(samples), web.recipients()) == (2, [recipient(1)] * 2)


def test_bytes_outside_utf8_reach_the_quarantine_unchanged(web: Web, shared: Path) -> None:
    [sample] = [each for each in _samples(shared, "sendgrid") if each["path"].endswith("raw_mime_non_utf8.form")]
    [letter] = [each for each in _samples(shared, "relay_rfc822") if each["path"].endswith("invalid_utf.eml")]
    every = b"From: a@example.com\r\nSubject: \xff\xfe\r\n\r\n" + bytes(range(256))

    web.post("/in/sendgrid", sample["body"], posts.sendgrid(sample["body"]) | {"Content-Type": sample["content_type"]})
    web.post("/in/relay", letter["body"], posts.relay(letter["body"]) | {"X-Envelope-To": "other@example.com"})
    _sendgrid(web, posts.form(email=every, envelope=posts.envelope("info@elsewhere.example")))
    kept = {sha256(raw).hexdigest() for raw in web.quarantined()}

    assert kept == {sample["expect"]["raw_sha256"], sha256(letter["body"]).hexdigest(), sha256(every).hexdigest()}


# -- size and length


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_the_cap_is_given_up_and_journalled(
    web: Web, monkeypatch: pytest.MonkeyPatch, chunked: bool
) -> None:
    monkeypatch.setattr(webhooks, "MAX_BODY_BYTES", 100_000)
    body = ONE + b"x" * 300_000
    sent = [body[start : start + 50_000] for start in range(0, len(body), 50_000)] if chunked else body

    answers = [web.post(f"/in/{provider}", sent, posts.relay(body)) for provider in ("relay", "sendgrid")]

    assert [(each.status, each.json["error"]) for each in answers] == [(200, "payload_invalid")] * 2
    assert [line["detail"][:31] for line in web.journal()] == ["body of more than 100000 octets"] * 2
    assert web.queued() == []


def _raw(port: int, head: str, body: bytes, *, hang_up: bool = False) -> bytes:
    """Send a request of our own making; return the status line, b"" when none comes."""
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.sendall(f"POST /in/relay HTTP/1.1\r\nHost: x\r\n{head}\r\n".encode() + body)
        if hang_up:
            connection.shutdown(socket.SHUT_WR)
        return connection.recv(12)


def _head(headers: dict[str, str]) -> str:
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items())


def test_a_length_that_lies_never_makes_half_a_message_count(web: Web) -> None:
    head = _head(posts.relay(ONE))

    absent = _raw(web.port, head, ONE)
    short = _raw(web.port, f"{head}Content-Length: {len(ONE) - 5}\r\n", ONE)
    beyond = _raw(web.port, f"{head}Content-Length: 99999999999\r\n", ONE)
    nonsense = _raw(web.port, f"{head}Content-Length: -1\r\n", ONE)
    assert web.queued() == []
    long = _raw(web.port, f"{head}Content-Length: {len(ONE) + 5}\r\n", ONE, hang_up=True)
    until(lambda: web.journal()[0]["answer"] == "disconnected", what="the journal's line")

    assert [each[-3:] for each in (absent, short, beyond, nonsense)] == [b"401", b"401", b"200", b"400"]
    assert (long, web.queued()) == (b"", [])


def test_a_chunked_body_needs_no_length(web: Web) -> None:
    answer = web.post("/in/relay", [ONE[:10], ONE[10:11], ONE[11:]], posts.relay(ONE))

    assert (answer.status, web.recipients()) == (204, [recipient(1)])


# -- our own faults


def test_a_body_that_breaks_the_reader_goes_to_a_person(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(headers: object, body: bytes) -> list[object]:
        raise KeyError(address(1))

    monkeypatch.setattr(relay, "read", broken)
    answer = web.post("/in/relay", ELSEWHERE, posts.relay(ELSEWHERE))

    assert (answer.status, web.quarantined()) == (204, [ELSEWHERE])
    [line] = [line for line in web.journal() if line["event"] == "failed"]
    assert line["detail"].startswith("relay: KeyError at test_webhooks.py:")
    assert "person.1" not in json.dumps(web.journal())


def test_any_other_bug_keeps_the_mail_at_the_provider(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> list[object]:
        raise KeyError(address(1))

    monkeypatch.setattr(relay, "verify", broken)
    answer = web.post("/in/relay", ONE, posts.relay(ONE))

    assert (answer.status, answer.json["error"]) == (503, "failed")
    assert "person.1" not in json.dumps([answer.json, web.journal()])


# -- what is said of it


def test_no_address_tag_or_secret_is_logged(tmp_path: Path, redis_url: str) -> None:
    service = Service(tmp_path, redis_url=redis_url, **KEYS, **PROOFS, in_relay_old="bearer:old-token")
    tag = address(1).partition("@")[0][2:]
    forged = mail(address(2).replace("-acme-1-", "-acme-2-"), "forged")
    to_a_person = posts.form(email=ONE, envelope={"to": {"person.1@example.com": 1}})
    secrets = [posts.RELAY_SECRET, posts.RELAY_SECRET.removeprefix("whsec_"), "old-token", "pa\N{SNOWMAN}ss", *MASTERS]

    with service.running("web"):
        for path, body, headers in (
            ("/in/relay", ONE, posts.relay(ONE)),
            ("/in/relay", forged, posts.relay(forged)),
            ("/in/relay", ONE, posts.relay(ONE, age_s=9999)),
            (f"/in/relay/{tag}", ONE, posts.relay(ONE)),
            ("/in/relay/old", ONE, posts.RFC822 | {"Authorization": "Bearer old-tokem"}),
            ("/in/relay", ONE, posts.relay(ONE) | {"Content-Type": "text/plain"}),
            ("/in/sendgrid", to_a_person, posts.sendgrid(to_a_person)),
            (f"/u/{tag}", b"List-Unsubscribe=One-Click", {}),
            (f"/u/{tag[:-3]}", b"List-Unsubscribe=One-Click", {}),
            (f"/u/{tag}/x", b"", {}),
            ("/v1/check", b'{"group": 1, "recipients": ["person.1@example.com", 5]}', {}),
        ):
            ask(service.port, "POST", path, body, headers)
        assert ask(service.port, "GET", f"/u/{tag}").status == 200

    with Redis.from_url(redis_url) as client:
        kept = [*client.lrange("unsubd:journal", 0, -1), *client.hkeys("unsubd:counters")]
    said = (service.log.read_bytes() + b"\n".join(kept)).decode().lower()
    assert said.count("webhook") >= 5
    told = [each for each in ("person.", tag[:14], "old-tok", *secrets) if each.lower() in said]
    assert told == []
