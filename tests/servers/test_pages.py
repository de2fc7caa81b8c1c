"""Pages, console and check over HTTP, on a real Redis: what a recipient, an operator and a sender get to see."""

import json
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from redis import Redis

from handlers.request import Action, Request
from handlers.tag import Tag, mint
from tests.harness.mails import NEW, TEMPLATE, recipient
from tests.harness.redis_server import RedisServer
from tests.harness.service import MASTERS, Service, until
from tests.harness.web import Answer, Web, ask, serving
from tests.unit.house import decided
from worker import clock, habits
from worker.owed import owed
from worker.report import report
from worker.web import one_click
from worker.web.metrics import ALL
from worker.web.ops import session

KEYS = {"secret_keys": ",".join(MASTERS), "address": "u+{tag}@unsub.example.com"}
ONE_CLICK = b"List-Unsubscribe=One-Click"
HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self';"
    " form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "x-robots-tag": "noindex",
}


@pytest.fixture(scope="module")
def _running(tmp_path_factory: pytest.TempPathFactory, redis_server: RedisServer) -> Iterator[Web]:
    with serving(tmp_path_factory.mktemp("web"), redis_server.url, admin_token="t0ken") as running:
        yield running


@pytest.fixture
def web(_running: Web, redis_url: str) -> Web:
    """The running application, with the sender acme and its group 1 and nothing else."""
    return _registered(_running)


def _registered(web: Web) -> Web:
    web.installation.accounts.add_sender("acme", "Acme & Sons")
    web.installation.accounts.add_group("acme", "Weekly news", "What is new, every <Tuesday>")
    return web


def _path(number: int = 1, group: int = 1, sender: str = "acme") -> str:
    return "/u/" + mint(NEW, Tag(sender, group, recipient(number)), TEMPLATE).tag


def _press(web: Web, page: Answer) -> Answer:
    """Press the button of *page*: send its form as a browser does."""
    [action] = re.findall(r'<form method="post" action="([^"]+)"', page.text)
    fields = re.findall(r'<input type="hidden" name="(\w+)" value="(\w*)"', page.text)
    return web.post(unescape(action), urlencode(fields).encode(), {"Content-Type": "application/x-www-form-urlencoded"})


def _title(page: Answer) -> str:
    [title] = re.findall(r"<h1[^>]*>(.*?)</h1>", page.text)
    return unescape(title)


def _sources(web: Web, number: int = 1, group: int = 1) -> list[str]:
    row = web.installation.store.row("acme", group, recipient(number))
    return [row.source] if row and row.suppressed else []


def _everything(client: Redis) -> dict[bytes, Any]:
    return {key: client.dump(key) for key in client.keys()}  # noqa: SIM118  no dictionary


# -- the recipient's page


def test_looking_changes_nothing(web: Web) -> None:
    before = _everything(web.installation.redis)

    answers = [ask(web.port, method, _path()) for method in ("GET", "HEAD")]

    assert [(answer.status, bool(answer.body)) for answer in answers] == [(200, True), (200, False)]
    assert _everything(web.installation.redis) == before


def test_the_page_names_what_stops_and_masks_the_address(web: Web) -> None:
    page = web.get(_path())

    assert _title(page) == "Stop “Weekly news” from Acme & Sons?"
    assert "What is new, every &lt;Tuesday&gt;" in page.text
    assert "p···1@example.com" in page.text
    assert recipient(1) not in page.text
    assert page.text.count("<button") == 1


@pytest.mark.parametrize(
    ("group", "sender", "title"),
    [
        (0, "acme", "Stop all mails from Acme & Sons?"),
        (7, "acme", "Stop these mails from Acme & Sons?"),
        (7, "nobody", "Stop these mails from nobody?"),
    ],
)
def test_whatever_is_not_registered_has_a_page_too(web: Web, group: int, sender: str, title: str) -> None:
    page = web.get(_path(1, group, sender))

    assert (page.status, _title(page)) == (200, title)
    assert _press(web, page).status == 200


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/x-www-form-urlencoded", ONE_CLICK),
        ("multipart/form-data; boundary=b", b"--b\r\nContent-Disposition: form-data; name=List-Unsubscribe\r\n\r\nOne-Click"),
        ("", b""),
    ],
)  # fmt: skip
def test_one_click_stops_the_mail(web: Web, kind: str, body: bytes) -> None:
    answer = web.post(_path(), body, {"Content-Type": kind})

    assert (answer.status, _sources(web)) == (200, ["one-click"])
    assert _sources(web, 2) == _sources(web, group=0) == []


def test_the_button_stops_the_mail(web: Web) -> None:
    done = _press(web, web.get(_path()))

    assert (done.status, _title(done)) == (200, "Done: no more “Weekly news” from Acme & Sons")
    assert _sources(web) == ["page"]
    assert recipient(1) not in done.text


def test_pressing_the_same_button_twice_is_one_request(web: Web) -> None:
    page = web.get(_path())

    answers = [_title(_press(web, page)) for _ in range(2)]

    assert answers == ["Done: no more “Weekly news” from Acme & Sons"] * 2
    assert len(web.records()) == 1


def test_a_page_opened_again_says_so_as_good_news(web: Web) -> None:
    for _ in range(2):
        done = _press(web, web.get(_path()))

    assert _title(done) == "You had stopped this already"
    assert "Good news" in done.text


def test_who_came_back_can_leave_again_by_the_same_link(web: Web) -> None:
    store = web.installation.store
    _press(web, web.get(_path()))
    row = store.row("acme", 1, recipient(1))
    assert row is not None
    back = Request("0" * 32, Action.RESUBSCRIBE, "acme", 1, recipient(1), row.time_ms + 1, "page", "x",
                   seen_version=row.version.hex())  # fmt: skip
    store.apply([back])
    assert _sources(web) == []

    assert _title(_press(web, web.get(_path()))).startswith("Done")
    assert _sources(web) == ["page"]


def test_the_recipient_reads_the_tag_in_any_spelling(web: Web) -> None:
    path = _path()
    for spelling in (
        path.upper().replace("/U/", "/u/"),
        f"{path}=",
        "/u/%3C" + path[3:] + "%3E",
        f"{path}%3Fsubject=x",
    ):
        page = web.get(spelling)
        assert _title(page).startswith("Stop “Weekly news”"), spelling
        assert _press(web, page).status == 200


_BAD_TAGS = [
    "", "x", "%ff%00", "a" * 5000, "h" + "a" * 26, "..%2f..%2fetc", "%7B%7B7*7%7D%7D",
    "<script>alert(1)<%2fscript>",
    "aaaaaaaaaaaaaa-acme-1-person.1_example.com", "a/b", "%ED%A0%80",
]  # fmt: skip


@pytest.mark.parametrize("tag", _BAD_TAGS)
def test_a_bad_link_is_a_page_that_helps(web: Web, tag: str) -> None:
    for answer in (web.get(f"/u/{tag}"), web.post(f"/u/{tag}", ONE_CLICK)):
        assert (answer.status, _title(answer)) == (404, "This link is incomplete or was changed")
        assert "script" not in answer.text


def test_a_bad_link_never_tells_whether_an_address_is_known(web: Web) -> None:
    web.post(_path(), ONE_CLICK)
    known, unknown = (_path(number)[:-3] + "org" for number in (1, 2))
    strangers = _path().replace("-acme-", "-nobody-")

    pages = [web.get(path).body for path in (known, unknown, strangers, known.replace("-1-", "-999-"))]

    assert pages == pages[:1] * 4
    assert _sources(web, 2) == []


def test_a_form_that_is_too_long_stops_nobody(web: Web) -> None:
    answer = web.post(_path(), b"x" * 5000)

    assert (answer.status, _sources(web)) == (404, [])


# -- when servers are away


def test_with_the_store_away_a_request_is_queued_and_takes_effect_later(
    tmp_path: Path, redis_url: str, own_redis: Callable[..., RedisServer]
) -> None:
    store = own_redis()
    settings = {"redis_url": redis_url, "store_url": store.url}
    worker = Service(tmp_path, **settings, **KEYS).running("work", ready=False)
    with worker, serving(tmp_path, **settings) as web:
        until(lambda: web.installation.queue.workers(), what="a worker")
        store.stop()
        answer = web.post(_path(), ONE_CLICK)
        store.start()

        assert (answer.status, _title(answer)) == (200, "Done: no more of these mails from acme")
        until(lambda: _sources(web) == ["one-click"], 30, "the effect")


def test_with_both_away_the_page_says_so_and_keeps_the_button(
    tmp_path: Path, own_redis: Callable[..., RedisServer]
) -> None:
    redis = own_redis()
    with serving(tmp_path, redis.url) as web:
        _registered(web)
        page = web.get(_path())
        redis.stop()
        looked, pressed = web.get(_path()), _press(web, page)
        assert [(each.status, _title(each)) for each in (looked, pressed)] == [
            (503, "We cannot look this up just now"),
            (503, "Not done yet"),
        ]
        redis.start()
        again = [_press(web, each) for each in (pressed, page, looked)]

        assert [_title(each) for each in again] == [*["Done: no more “Weekly news” from Acme & Sons"] * 2,
                                                    "You had stopped this already"]  # fmt: skip
        assert len(web.records()) == 2


def test_a_bug_is_a_page_that_keeps_the_button_and_a_line_without_the_address(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ValueError(recipient(1))

    monkeypatch.setattr(one_click, "_stop", broken)
    answer = web.post(_path(), ONE_CLICK)

    assert (answer.status, _title(answer)) == (500, "Not done yet")
    assert web.journal()[0]["detail"].startswith("ValueError at test_pages.py:")
    assert "person.1" not in json.dumps(web.journal())


def test_readiness_follows_redis_and_health_does_not(tmp_path: Path, own_redis: Callable[..., RedisServer]) -> None:
    redis = own_redis()
    with serving(tmp_path, redis.url, admin_token="t0ken") as web:
        paths = ("/healthz", "/readyz", "/metrics")
        up = [web.get(path).status for path in paths]
        cookie = _log_in(web).cookie
        redis.stop()
        down = [web.get(path) for path in paths]
        console = web.get("/ops", {"Cookie": cookie})
        logins = [_log_in(web), web.get("/ops/login?once=x"), web.post("/ops/logout", b"", {"Cookie": cookie})]
        redis.start()

        away = "The console cannot be shown just now"
        assert (up, [each.status for each in down]) == ([200] * 3, [200, 503, 503])
        assert [(each.status, _title(each)) for each in (console, *logins)] == [(503, away)] * 4
        assert web.get("/readyz").status == 200


# -- what every answer has


def test_every_answer_has_the_security_headers(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise KeyError

    answers = {
        "page": web.get(_path()), "bad link": web.get("/u/x"), "done": web.post(_path(), ONE_CLICK),
        "style": web.get("/static/style.css"), "no file": web.get("/static/none.css"), "nothing": web.get("/none"),
        "wrong method": ask(web.port, "DELETE", "/u/x"), "redirect": web.get("/ops"), "root": web.get("/"),
        "login": web.get("/ops/login"), "docs": web.get("/docs"), "schema": web.get("/openapi.json"),
        "metrics": web.get("/metrics"), "webhook": web.post("/in/relay"), "probe": web.get("/in/relay"),
        "check": web.post("/v1/check", b"{}"), "health": web.get("/healthz"), "ready": web.get("/readyz"),
        "slash": web.get("/docs/"),
    }  # fmt: skip
    monkeypatch.setattr(one_click, "_stop", broken)
    answers["bug"] = web.post(_path(), ONE_CLICK)

    console = HEADERS | {"referrer-policy": "same-origin"}  # else a browser hides the Origin of its own forms
    wanted = {"redirect": console, "login": console}
    lacking = {what for what, each in answers.items() if not wanted.get(what, HEADERS).items() <= each.headers.items()}
    assert lacking == set()
    assert answers["no file"].status == answers["nothing"].status == 404
    assert not any("server" in each.headers for each in answers.values())


def test_what_is_not_there_is_said_in_one_shape(web: Web) -> None:
    answers = [web.get("/none"), web.get("/static/none"), ask(web.port, "PUT", "/metrics")]

    assert [set(answer.json) for answer in answers] == [{"error", "detail"}] * 3
    assert [answer.status for answer in answers] == [404, 404, 405]
    assert answers[2].headers["allow"] == "GET"


def test_no_page_asks_anything_of_another_server(web: Web) -> None:
    cookie = {"Cookie": _log_in(web).cookie}
    pages = [web.get(path, cookie) for path in (_path(), "/u/x", "/docs", "/ops", "/ops/login", "/static/style.css")]

    for page in pages:
        assert re.findall(r"(?:src|href|action)=\"(?![/#])|url\(|@import|https?:|<script>|style=", page.text) == []


def test_the_docs_list_every_operation(web: Web) -> None:
    schema, page = web.get("/openapi.json").json, web.get("/docs").text

    operations = [(path, method.upper()) for path, methods in schema["paths"].items() for method in methods]
    shown = re.findall(r'<span class="verb">(\w+)</span> <code>([^<]+)</code>', page)
    assert sorted(operations) == sorted((path, method) for method, path in shown)
    assert {("/v1/check", "POST"), ("/u/{text}", "POST"), ("/in/{provider}", "POST")} <= set(operations)
    assert {"401", "404", "422", "503"} <= set(schema["paths"]["/v1/check"]["post"]["responses"])


def test_the_metrics_have_their_names_and_count(web: Web) -> None:
    web.post(_path(), ONE_CLICK)
    web.post("/in/relay")

    lines = web.get("/metrics").text.splitlines()

    assert {line.split()[2] for line in lines if line.startswith("# TYPE")} == set(ALL)
    assert 'unsubd_messages_total{outcome="honour"} 1.0' in lines
    assert 'unsubd_requests_total{effect="added"} 1.0' in lines
    assert 'unsubd_webhook_answers_total{answer="relay:signature_invalid"} 1.0' in lines
    assert 'unsubd_queue_jobs{state="queued"} 0.0' in lines
    assert 'unsubd_source_messages_total{outcome="honour",source="one-click"} 1.0' in lines
    assert 'unsubd_sender_requests_total{effect="added",sender="acme"} 1.0' in lines
    assert 'unsubd_request_age_seconds_bucket{le="1",source="one-click"} 1.0' in lines
    assert 'unsubd_request_age_seconds_count{source="one-click"} 1.0' in lines
    assert "unsubd_workers 0.0" in lines


def test_a_sender_who_reports_what_it_sent_hears_whom_it_should_not_have_mailed(web: Web) -> None:
    key = {"Authorization": f"Bearer {web.installation.accounts.new_api_key('acme')}"}
    at_ms = round((time.time() - 7 * 3600) * 1000)
    web.installation.intake.record([decided("k1", group=1, recipient=recipient(1), received_ms=at_ms)])
    mails = [{"recipient": recipient(number), "group": 1, "at": round(time.time())} for number in (1, 2)]
    mails.append({"recipient": recipient(1), "group": 1, "at": "2020-01-01T00:00:00Z"})

    answer = web.post("/v1/sent", json.dumps({"sent": mails}).encode(), key)

    assert (answer.status, answer.json["compared"]) == (200, 3)
    assert [(each["number"], each["recipient"], each["scope"]) for each in answer.json["violations"]] == [
        (0, recipient(1), "group")
    ]
    assert 'unsubd_mailed_after_total{sender="acme"} 1.0' in web.get("/metrics").text.splitlines()
    refused = [
        web.post("/v1/sent", body, headers).status
        for body, headers in [
            (b"{}", {}), (b"{}", key), (b'{"sent": []}', key), (json.dumps({"sent": mails * 4000}).encode(), key),
            (json.dumps({"sent": [mails[0] | {"group": 77}]}).encode(), key),
            (json.dumps({"sent": [mails[0] | {"at": "soon"}]}).encode(), key),
            (json.dumps({"sent": [mails[0] | {"at": time.time() + 9e4}]}).encode(), key),
        ]
    ]  # fmt: skip
    assert refused == [401, 422, 422, 422, 404, 422, 422]


def test_readiness_is_durability_too(web: Web) -> None:
    web.installation.redis.config_set("appendfsync", "everysec")
    try:
        weak = web.get("/readyz")
    finally:
        web.installation.redis.config_set("appendfsync", "always")

    assert (weak.status, weak.text) == (
        503, "UNSUBD_REDIS_URL: appendfsync is everysec, expected appendonly yes and appendfsync always\n",
    )  # fmt: skip
    assert (web.get("/readyz").status, web.get("/healthz").status) == (200, 200)


def test_clock_habits_and_report_on_a_real_redis(web: Web) -> None:
    start_ms = round((time.time() - 40 * 3600) * 1000)
    mails = [
        decided(f"{each:064x}", group=1, source="imap:news", received_ms=start_ms + each * 60_000) for each in range(60)
    ]
    web.installation.intake.record(mails[:30], queued_ms=start_ms + 1_900_000)
    web.installation.intake.record(mails, queued_ms=start_ms + 4_000_000)

    client, month = web.installation.redis, clock.month_of(start_ms)
    assert clock.total(client, 0).count == clock.hours(client, 1)[0].honoured == 60
    assert clock.hours(client, 1)[0].max_s == pytest.approx(40 * 3600, abs=10)
    habit = habits.habits(client)["imap:news"]
    assert (habit.count, round(habit.usual_s)) == (60, 60)
    assert 'unsubd_hop_seconds_count{hop="arrival"} 60.0' in web.get("/metrics").text.splitlines()
    found = report(web.installation, month)
    assert (found.received, found.ages.count, len(found.worst)) == (60, 60, 20)
    assert "No worker is alive" in [each.what for each in owed(web.installation).alarms]


def test_a_forged_post_is_counted_for_its_endpoint_alone(web: Web) -> None:
    for path in ("/in/relay", "/in/relay/stranger@example.com"):
        web.post(path)

    assert habits.unproved_posts(web.installation.redis) == {"relay:?": 2}


# -- the console


def _log_in(web: Web, token: str = "t0ken") -> Answer:
    return web.post("/ops/login", urlencode({"token": token}).encode())


def _is_open(web: Web, cookie: str) -> bool:
    return web.get("/ops", {"Cookie": cookie}).status == 200


@pytest.mark.parametrize("cookie", ["", "unsubd_session=", "unsubd_session=guess", "unsubd_session=\xe9; other=1"])
def test_the_console_asks_who_comes_without_a_session(web: Web, cookie: str) -> None:
    for path in ("/ops", "/ops/live"):
        answer = web.get(path, {"Cookie": cookie})

        assert (answer.status, answer.headers["location"]) == (303, "/ops/login")
    assert 'name="token"' in web.get("/ops/login").text


@pytest.mark.parametrize("token", ["", "t0ken2", "t\xf6ken\ud800"])
def test_a_wrong_token_opens_nothing(web: Web, token: str) -> None:
    answer = web.post("/ops/login", b"token=" + token.encode("utf-8", "surrogatepass"))

    assert (answer.status, "set-cookie" in answer.headers) == (403, False)
    assert "That is not the token." in answer.text


def test_the_token_opens_a_session_of_the_console_alone(web: Web) -> None:
    answer = _log_in(web)

    assert (answer.status, answer.headers["location"]) == (303, "/ops")
    flags = {word.strip().lower() for word in answer.headers["set-cookie"].split(";")[1:]}
    assert flags == {"httponly", "max-age=43200", "path=/ops", "samesite=lax"}
    assert _is_open(web, answer.cookie)
    assert "t0ken" not in answer.headers["set-cookie"]
    [key] = web.installation.redis.keys("unsubd:session:*")
    assert answer.cookie.partition("=")[2].encode() not in key  # whoever reads Redis gets no session
    assert 0 < web.installation.redis.ttl(key) <= 43200


def test_behind_https_the_cookie_stays_on_https(tmp_path: Path, redis_url: str) -> None:
    with serving(tmp_path, redis_url, admin_token="t0ken", public_url="https://unsub.example.com") as web:
        assert "; Secure" in _log_in(web).headers["set-cookie"]


def test_a_login_link_opens_one_session_once(web: Web) -> None:
    link = session.new_login_link(web.installation.redis)
    [key] = web.installation.redis.keys("unsubd:once:*")
    assert 0 < web.installation.redis.ttl(key) <= 900

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: web.get(link), range(8)))

    opened = [answer for answer in answers if answer.status == 303]
    assert len(opened) == 1
    assert _is_open(web, opened[0].cookie)
    assert "This link was used already" in web.get(link).text


def test_without_a_token_the_console_is_closed(tmp_path: Path, redis_url: str) -> None:
    with serving(tmp_path, redis_url) as web:
        answers = [_log_in(web, ""), _log_in(web, "None")]

        assert [(answer.status, "set-cookie" in answer.headers) for answer in answers] == [(403, False)] * 2
        assert "The console is closed" in web.get("/ops/login").text
        assert "<form" not in web.get("/ops/login").text


def test_logging_out_ends_the_session(web: Web) -> None:
    cookie, other = _log_in(web).cookie, _log_in(web).cookie
    assert _is_open(web, cookie)

    answer = web.post("/ops/logout", b"", {"Cookie": cookie})

    assert (answer.status, answer.headers["location"]) == (303, "/ops/login")
    assert (_is_open(web, cookie), _is_open(web, other)) == (False, True)


def test_an_overlong_login_is_refused(web: Web) -> None:
    assert _log_in(web, "x" * 5000).status == 422


def test_what_others_wrote_is_shown_as_text(web: Web) -> None:
    web.installation.journal.failed("job", "<script>alert(1)</script>")

    page = web.get("/ops", {"Cookie": _log_in(web).cookie}).text

    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert page.count("<script") == 1  # our own


# -- the check


def _check(web: Web, key: str, group: Any = 1, recipients: Any = None) -> Answer:
    body = json.dumps({"group": group, "recipients": [recipient(1)] if recipients is None else recipients}).encode()
    return web.post("/v1/check", body, {"Authorization": f"Bearer {key}", "Content-Type": "application/json"})


def test_the_check_answers_in_order_and_in_any_spelling(web: Web) -> None:
    key = web.installation.accounts.new_api_key("acme")
    web.post(_path(1), ONE_CLICK)
    web.post(_path(2, group=0), ONE_CLICK)

    answer = _check(web, key, 1, ["Person.1@EXAMPLE.com", recipient(2), recipient(3), recipient(1)])

    assert answer.status == 200
    assert [(each["recipient"], each["suppressed"], each["scope"], each["source"]) for each in answer.json] == [
        (recipient(1), True, "group", "one-click"),
        (recipient(2), True, "global", "one-click"),
        (recipient(3), False, None, None),
        (recipient(1), True, "group", "one-click"),
    ]
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", answer.json[0]["since"])
    assert [each["suppressed"] for each in _check(web, key, 0, [recipient(1), recipient(2)]).json] == [False, True]


@pytest.mark.parametrize("authorization", ["", "Bearer", "Bearer ", "Bearer SG.x.y", "Basic KEY", "KEY", "Bearer \xe9"])
def test_the_check_asks_for_a_key(web: Web, authorization: str) -> None:
    key = web.installation.accounts.new_api_key("acme")
    headers = {"Authorization": authorization.replace("KEY", key)}

    answer = web.post("/v1/check", json.dumps({"group": 1, "recipients": [recipient(1)]}).encode(), headers)

    assert (answer.status, answer.json["error"]) == (401, "unauthorized")


def test_a_key_opens_its_own_sender_only(web: Web) -> None:
    web.installation.accounts.add_sender("other")
    key = web.installation.accounts.new_api_key("other")
    web.post(_path(1, group=0), ONE_CLICK)

    assert _check(web, key, 1).status == 404
    assert _check(web, key, 0).json[0]["suppressed"] is False


@pytest.mark.parametrize(
    ("group", "recipients", "status", "error"),
    [
        (99, [recipient(1)], 404, "unknown"),
        (1, ["no address"], 422, "invalid"),
        (1, [recipient(1), "a@b@"], 422, "invalid"),
        (1, ["\ud800@example.com"], 422, "invalid"),
        (1, [], 422, "invalid"),
        (1, recipient(1), 422, "invalid"),
        (1, [None], 422, "invalid"),
        (-1, [recipient(1)], 422, "invalid"),
        (2**40, [recipient(1)], 422, "invalid"),
        ("news", [recipient(1)], 422, "invalid"),
        (1, [recipient(1)] * 10_001, 422, "invalid"),
    ],
)
def test_a_question_that_cannot_be_answered_is_never_allowed(
    web: Web, group: Any, recipients: Any, status: int, error: str
) -> None:
    answer = _check(web, web.installation.accounts.new_api_key("acme"), group, recipients)

    assert (answer.status, answer.json["error"], set(answer.json)) == (status, error, {"error", "detail"})
    assert "person.1" not in answer.text


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000])
def test_a_body_that_is_no_question_is_invalid(web: Web, body: bytes) -> None:
    key = web.installation.accounts.new_api_key("acme")

    answer = web.post("/v1/check", body, {"Authorization": f"Bearer {key}", "Content-Type": "application/json"})

    assert (answer.status, set(answer.json)) == (422, {"error", "detail"})


def test_a_check_without_store_or_accounts_is_unknown(
    tmp_path: Path, redis_url: str, own_redis: Callable[..., RedisServer]
) -> None:
    store, queue = own_redis(), own_redis()
    with serving(tmp_path, queue.url, store_url=store.url) as web:
        key = _registered(web).installation.accounts.new_api_key("acme")
        store.stop()
        without_store = _check(web, key)
        store.start()
        queue.stop()
        without_accounts = _check(web, key)
        queue.start()

        assert _check(web, key).status == 200
    assert [(each.status, each.json["error"]) for each in (without_store, without_accounts)] == [
        (503, "unavailable")
    ] * 2
