"""The console's gate and what its forms do, over real HTTP: roles, form tokens, proxies, doors, and hand-made requests."""

import json
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from starlette.routing import Route

from handlers.anomaly import MANY_ASKERS
from handlers.request import Action, Effect
from handlers.tag import Tag
from tests.browser import scene
from tests.harness.processes import free_port
from tests.harness.redis_server import RedisServer
from tests.harness.service import MASTERS, until
from tests.harness.web import Answer, Web, ask, serving
from tests.unit.house import decided
from worker import by_hand
from worker.check import check
from worker.installation import Installation, open_installation
from worker.quarantine.shelf import Selection
from worker.settings import load_settings
from worker.web.app import server
from worker.web.doors import Doors, listen
from worker.web.ops import console, session
from worker.web.ops.session import Role
from worker.web.wishes import Want, Wishes

LOGINS = {"/ops/login", "/ops/logout"}  # they change no more than the visitor's own session
READS = {"/ops/search"}


@pytest.fixture(scope="module")
def web(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    """A furnished installation, shared: each test settles what is its own."""
    redis_server.empty()
    tokens = {"admin_token": "t0ken", "viewer_token": "v13wer"}
    with serving(tmp_path_factory.mktemp("console"), redis_server.url, **tokens) as running:
        scene.furnish(running.installation)
        yield running


class Person:
    """Somebody who is logged in."""

    def __init__(self, web: Web, role: Role, who: str = "anna") -> None:
        self._web = web
        self.cookie = session.open_session(web.installation.redis, role, who)
        found = session.find(web.installation.redis, self.cookie)
        assert found is not None
        self.csrf = found.csrf

    def get(self, path: str, **headers: str) -> Answer:
        return self._web.get(path, {"Cookie": f"{session.COOKIE}={self.cookie}"} | headers)

    def post(self, path: str, headers: dict[str, str] | None = None, **fields: Any) -> Answer:
        body = urlencode({"csrf": self.csrf, **fields}, doseq=True).encode()
        return self._web.post(path, body, {"Cookie": f"{session.COOKIE}={self.cookie}"} | (headers or {}))


@pytest.fixture
def anna(web: Web) -> Person:
    """An operator."""
    return Person(web, Role.OPERATOR)


@pytest.fixture
def visitor(web: Web) -> Person:
    """A viewer."""
    return Person(web, Role.VIEWER, "vic")


def _routes(router: Any, prefix: str = "") -> Iterator[tuple[str, set[str]]]:
    """Every route below a router, however it was put together."""
    for route in router.routes:
        if isinstance(route, Route):
            yield prefix + route.path, set(route.methods or ())
        elif inner := getattr(route, "original_router", None):
            yield from _routes(inner, prefix + route.include_context.prefix)


def _writes() -> list[str]:
    found = {path for path, methods in _routes(console.router) if methods - {"GET", "HEAD"}}
    return sorted(found - LOGINS - READS)


def _concrete(web: Web, path: str) -> str:
    """A path that would do something, were it let."""
    [entry_id] = web.installation.quarantine.ids(Selection(), 1)
    values = {"sender": "acme", "group_id": "101", "entry_id": entry_id, "anomaly_id": "0" * 12, "name": "0" * 64}
    return re.sub(r"{(\w+)(?::\w+)?}", lambda name: values[name[1]], path)


def test_the_routes_are_found() -> None:
    assert {
        "/ops/quarantine/settle",
        "/ops/queue/requeue",
        "/ops/queue/delete",
        "/ops/person/{name}",
        "/ops/senders",
    } <= {*_writes()}
    assert len(_writes()) >= 12


def _everything(web: Web) -> dict[bytes, bytes]:
    """All that lies in Redis but what a look leaves."""
    client = web.installation.redis
    kept = [key for key in client.keys("*") if not key.startswith((b"unsubd:session:", b"unsubd:seen:"))]
    return {key: client.dump(key) for key in kept if client.ttl(key) == -1}


@pytest.mark.parametrize("path", _writes())
def test_a_viewer_can_write_nothing_by_a_hand_made_request(web: Web, visitor: Person, path: str) -> None:
    fields = {"confirm": "yes", "way": "dismiss", "reason": "x", "action": "unsubscribe", "where": "acme/101", "name": "Mine",
              "sender": "mine", "id": web.installation.quarantine.ids(Selection(), 1)}  # fmt: skip
    before = _everything(web)

    answer = visitor.post(_concrete(web, path), **fields)

    assert (answer.status, "Your role is viewer" in answer.text) == (403, True)
    assert _everything(web) == before


@pytest.mark.parametrize("path", _writes())
@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
def test_no_other_method_is_a_way_round(web: Web, visitor: Person, path: str, method: str) -> None:
    cookie = {"Cookie": f"{session.COOKIE}={visitor.cookie}"}

    assert ask(web.port, method, _concrete(web, path), b"", cookie).status == 405


@pytest.mark.parametrize("path", _writes() + sorted(READS))
def test_nobody_posts_without_a_session_or_with_another_ones_token(web: Web, anna: Person, path: str) -> None:
    place, other = _concrete(web, path), Person(web, Role.OPERATOR)

    stranger = web.post(place, urlencode({"csrf": anna.csrf}).encode())
    forged = [anna.post(place, csrf=each) for each in ("", "x", other.csrf, "\u00e9")]

    assert (stranger.status, stranger.headers["location"]) == (303, "/ops/login")
    assert {(each.status, "older than your login" in each.text) for each in forged} == {(403, True)}


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_another_sites_form_is_refused(web: Web, anna: Person, headers: dict[str, str]) -> None:
    answers = [anna.post(path, headers, q="x", token="t0ken") for path in ("/ops/search", "/ops/login", "/ops/logout")]

    assert [answer.status for answer in answers] == [403] * 3
    assert anna.get("/ops/audit").status == 200


def test_our_own_form_is_taken(web: Web, anna: Person) -> None:
    headers = {
        "Origin": f"http://127.0.0.1:{web.port}",
        "Sec-Fetch-Site": "same-origin",
    }

    assert anna.post("/ops/search", headers, q="nothing").status == 200


def test_a_viewer_sees_every_page_and_no_button(web: Web, visitor: Person) -> None:
    [entry_id] = web.installation.quarantine.ids(Selection(), 1)
    job_id = web.installation.queue.rq.failed_job_registry.get_job_ids()[0]
    person = visitor.post("/ops/search", q="jane.doe@example.com").headers["location"]
    paths = ["", "/queue", f"/queue/{job_id}", "/quarantine", f"/quarantine/{entry_id}", "/search", "/senders", "/senders/acme",
             "/keys", "/sources", "/audit"]  # fmt: skip

    pages = [visitor.get(path) for path in [f"/ops{path}" for path in paths] + [person]]

    assert [page.status for page in pages] == [200] * 12
    for page in pages:
        assert set(re.findall(r'<form method="post" action="([^"]+)"', page.text)) <= LOGINS | READS
    assert visitor.get(f"/ops/quarantine/{entry_id}/raw").status == 403
    kept = web.installation.quarantine.entries([entry_id])[entry_id]
    masked = visitor.get(f"/ops/quarantine/{entry_id}?full=1").text  # whatever is asked
    assert "···" in masked
    assert kept.author.partition("<")[2].rstrip(">") not in masked


def test_the_roles_have_tokens_of_their_own(web: Web) -> None:
    answers = [
        web.post("/ops/login", urlencode({"token": token, "name": "Vic"}).encode()) for token in ("v13wer", "t0ken")
    ]

    roles = [session.find(web.installation.redis, each.cookie.partition("=")[2]) for each in answers]

    assert [(each.who, each.role) for each in roles if each] == [("Vic", Role.VIEWER), ("Vic", Role.OPERATOR)]


def test_a_login_takes_no_cookie_that_somebody_chose(web: Web, visitor: Person) -> None:
    for chosen in ("chosen", visitor.cookie):
        answer = web.post("/ops/login", b"token=t0ken", {"Cookie": f"{session.COOKIE}={chosen}"})

        assert answer.cookie.partition("=")[2] != chosen
        assert session.find(web.installation.redis, chosen) is None


def test_guessing_is_stopped_for_its_source(redis_server: RedisServer, web: Web) -> None:
    client = web.installation.redis
    for _ in range(session.MAX_FAILURES):
        session.note_failure(client, "127.0.0.1")

    answer = web.post("/ops/login", b"token=t0ken")

    client.delete("unsubd:login-failures:127.0.0.1")
    assert (answer.status, "15 minutes" in answer.text) == (429, True)
    assert web.post("/ops/login", b"token=t0ken").status == 303


# -- what the forms do


def _entry_of(web: Web, subject: str) -> str:
    entries = web.installation.quarantine.entries(web.installation.quarantine.ids(Selection())).values()
    return next(entry.id for entry in entries if entry.subject == subject)


def test_a_message_is_resolved_by_name_and_the_next_opens(web: Web, anna: Person) -> None:
    found = [anna.get("/ops/quarantine?suggested=1").text]
    first, second = re.findall(r"/ops/quarantine/([0-9a-f]{32})\?suggested=1", found[0])[:2]
    whom = web.installation.quarantine.entries([first])[first].suggestion
    assert whom is not None
    page = anna.get(f"/ops/quarantine/{first}?suggested=1").text
    assert "no address carries a tag" in page
    assert "Suggested" in page

    answer = anna.post(
        "/ops/quarantine/settle",
        id=first,
        way="named",
        sender="acme",
        group="101",
        reason="she asked",
        back="suggested=1",
    )

    assert answer.headers["location"] == f"/ops/quarantine/{second}?suggested=1"
    assert check(web.installation, "acme", 101, [whom.recipient])[0].suppressed
    assert "1 left the quarantine" in anna.get(answer.headers["location"]).text
    record = next(each for each in web.records() if each.get("resolutions"))
    assert [(each["actor"], each["reason"]) for each in record["resolutions"]] == [("anna", "she asked")]


def test_todays_suggestion_and_the_kept_one_are_told_apart(web: Web, anna: Person) -> None:
    quarantine = web.installation.quarantine
    entry = next(each for each in quarantine.entries(quarantine.ids(Selection())).values() if each.suggestion)
    path = f"/ops/quarantine/{entry.id}"
    assert entry.suggestion
    same = anna.get(path).text
    quarantine.change(entry, replace(entry, suggestion=replace(entry.suggestion, sender="beta")))

    other = anna.get(path).text

    assert ("<h3>Suggested</h3>" in same, "suggest today" in same) == (True, False)
    assert "when it came, or was last replayed" in other
    assert "<dt>suggest today</dt>" in other
    quarantine.change(quarantine.entries([entry.id])[entry.id], entry)


def test_what_is_understood_by_now_is_said_to_be_replayed(web: Web, anna: Person) -> None:
    before = set(web.installation.quarantine.ids(Selection()))
    scene.key_was_missing(web.installation, 1)
    (late,) = set(web.installation.quarantine.ids(Selection())) - before
    (stranger,) = {_entry_of(web, "Where is my parcel?")}

    pages = [anna.get(f"/ops/quarantine/{each}").text for each in (late, stranger)]

    assert ["it is understood: Replay does" in page for page in pages] == [True, False]
    web.installation.quarantine.settle([*web.installation.quarantine.entries([late]).values()])


def test_requests_that_failed_are_not_said_to_ask_for_nothing(web: Web, anna: Person) -> None:
    web.installation.quarantine_failed(decided("fa" * 32).as_wire(), "a bug")
    (failed,) = web.installation.quarantine.entries(web.installation.quarantine.ids(Selection("failed"))).values()

    page = anna.get(f"/ops/quarantine/{failed.id}").text

    assert ("Dismiss: drop these requests" in page, "asks for nothing" in page, "Decided anew" in page) == (
        True,
        False,
        False,
    )
    web.installation.quarantine.settle([failed])


def test_without_a_reason_nothing_is_settled(web: Web, anna: Person) -> None:
    [entry_id] = web.installation.quarantine.ids(Selection(), 1)

    answers = [anna.post("/ops/quarantine/settle", id=entry_id, way=way) for way in ("named", "dismiss", "accept")]

    assert [(each.status, "expected why" in each.text) for each in answers] == [(422, True)] * 3
    assert web.installation.quarantine.entries([entry_id])


def test_dismissing_several_asks_first_and_says_how_many(web: Web, anna: Person) -> None:
    ids = [each.id for each in web.installation.quarantine.entries(web.installation.quarantine.ids(Selection())).values()
           if each.subject == "Where is my parcel?"][:2]  # fmt: skip

    asked = anna.post("/ops/quarantine/settle", id=ids, way="dismiss", reason="parcels", list="1")
    assert "Dismiss 2 messages?" in asked.text
    assert len(web.installation.quarantine.entries(ids)) == 2
    done = anna.post("/ops/quarantine/settle", id=ids, way="dismiss", reason="parcels", list="1", confirm="yes")

    assert (done.status, web.installation.quarantine.entries(ids)) == (303, {})


def test_what_a_message_says_is_text_on_every_page(web: Web, anna: Person) -> None:
    entry_id = _entry_of(web, "<script>alert(document.cookie)</script>")

    shown, listed, kept = (anna.get(f"/ops/quarantine{path}") for path in (f"/{entry_id}", "", f"/{entry_id}/raw"))

    for page in (shown, listed):
        assert "&lt;script&gt;alert" in page.text
        assert page.text.count("<script") == 1  # our own
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f\u202e]", page.text)
    assert kept.headers["content-type"] == "text/plain; charset=utf-8"
    assert kept.headers["content-disposition"].startswith("attachment;")
    assert kept.headers["content-security-policy"] == "sandbox"
    assert kept.body.startswith(b"From: Jane Doe")


def test_an_address_stands_in_no_url_and_its_story_on_the_page(web: Web, anna: Person) -> None:
    where = anna.post("/ops/search", q=" Jane.Doe@Example.com ").headers["location"]

    page = anna.get(where)

    assert "jane" not in where
    assert "asked for the vouchers again by phone" in page.text
    assert "do not mail" in page.text


@pytest.mark.parametrize("name", ["0" * 64, "x", "00", "f" * 63])
def test_a_link_to_nobody_is_not_here(web: Web, anna: Person, name: str) -> None:
    assert anna.get(f"/ops/person/{name}").status == 404


def _seen_row(person: Person, where: str, group: str) -> str:
    """What the page's form sends for a group: with the version of the row that was shown."""
    found = re.search(rf'value="({group}/[0-9a-f]+)"', person.get(where).text)
    assert found
    return found[1]


def test_resubscribing_needs_a_reason_and_is_told(web: Web, anna: Person) -> None:
    where = anna.post("/ops/search", q="person.1@example.com").headers["location"]
    assert anna.post(where, where="acme/101", action="resubscribe", reason=" ").status == 422
    assert check(web.installation, "acme", 101, ["person.1@example.com"])[0].suppressed

    seen = _seen_row(anna, where, "acme/101")
    by_hand.enter(web.installation, Action.RESUBSCRIBE, "acme", 101, ["person.1@example.com"], actor="x", reason="x")
    by_hand.enter(web.installation, Action.UNSUBSCRIBE, "acme", 101, ["person.1@example.com"], actor="x", reason="x")
    anna.post(where, where=seen, action="resubscribe", reason="saw another row")
    assert "changed since you looked" in anna.get(where).text
    assert check(web.installation, "acme", 101, ["person.1@example.com"])[0].suppressed

    anna.post(where, where=_seen_row(anna, where, "acme/101"), action="resubscribe", reason="rang us")

    assert not check(web.installation, "acme", 101, ["person.1@example.com"])[0].suppressed
    assert "rang us" in anna.get(where).text
    trail = anna.get("/ops/audit").text
    assert "resubscribe" in trail
    assert "person.1@" not in trail


@pytest.mark.parametrize(
    "asked", ["acme", "unsub-" + "0" * 32, "0" * 12, "<scene-plain-3@mail.example.com>", "nothing at all", "\x00<>"]
)
def test_everything_else_can_be_asked_for(web: Web, anna: Person, asked: str) -> None:
    answer = anna.post("/ops/search", q=asked)

    if asked in ("acme",) or asked.startswith("unsub-"):
        assert answer.status == 303
    else:
        assert ("Nothing found" in answer.text) == ("scene" not in asked)


def test_a_failed_job_is_tried_again_or_deleted_after_a_question(web: Web, anna: Person) -> None:
    again, gone = (scene.failed_job(web.installation, f"{name}@example.com") for name in ("again", "gone"))
    page = anna.get(f"/ops/queue/{again}").text
    assert "&lt;script&gt;" in page
    assert "again@example.com" not in page

    anna.post("/ops/queue/requeue", id=again)
    asked = anna.post("/ops/queue/delete", id=gone)
    assert "Delete 1 failed job?" in asked.text
    anna.post("/ops/queue/delete", id=gone, confirm="yes")

    registry = web.installation.queue.rq.failed_job_registry
    assert not {again, gone} & set(registry.get_job_ids())
    assert again in web.installation.queue.rq.job_ids
    held = web.installation.quarantine.ids(Selection("failed"))
    raws = web.installation.quarantine.raws(held).values()
    assert [json.loads(raw)["requests"][0]["recipient"] for raw in raws] == [
        "gone@example.com"
    ]  # no request goes with its job


def test_an_api_key_is_shown_once_and_revoked_after_a_question(web: Web, anna: Person) -> None:
    shown = anna.post("/ops/senders/north/keys").text
    key = re.search(r"SG\.[\w-]+\.[\w-]+", shown)
    assert key is not None
    assert key[0] not in anna.get("/ops/senders/north").text
    assert getattr(web.installation.accounts.keys.find(key[0]), "sender", None) == "north"
    [(name, _)] = web.installation.accounts.api_keys("north")

    assert "Revoke 1 API key?" in anna.post(f"/ops/senders/north/keys/{name}/revoke").text
    anna.post(f"/ops/senders/acme/keys/{name}/revoke", confirm="yes")  # another sender's: not there
    assert getattr(web.installation.accounts.keys.find(key[0]), "sender", None) == "north"
    anna.post(f"/ops/senders/north/keys/{name}/revoke", confirm="yes")

    assert web.installation.accounts.keys.find(key[0]) is None


def test_groups_are_added_edited_archived_and_restored(web: Web, anna: Person) -> None:
    anna.post("/ops/senders", sender="shop", name="The Shop")
    anna.post("/ops/senders/shop/groups", name="News", description="weekly")
    [group] = web.installation.accounts.groups("shop")
    place = f"/ops/senders/shop/groups/{group.id}"

    anna.post(place, name="Newer news", description="", is_default="1")
    anna.post(f"{place}/archive")
    archived = web.installation.accounts.group("shop", group.id)
    anna.post(f"{place}/restore")

    assert (archived.name, archived.is_default, archived.archived) == ("Newer news", True, True)
    assert not web.installation.accounts.group("shop", group.id).archived
    assert anna.post("/ops/senders/shop/groups", name="").status == 422


def test_keys_are_named_by_fingerprint_alone(web: Web, anna: Person) -> None:
    page = anna.get("/ops/keys").text

    assert web.installation.keys.fingerprints()[0] in page
    assert not any(master in page for master in MASTERS)


# -- who lets in


def test_a_trusted_proxy_names_the_operator(tmp_path: Path, valkey_url: str) -> None:
    with serving(tmp_path, valkey_url, auth_proxy_header="X-Remote-User", trusted_proxies="127.0.0.0/8 ::1") as web:
        page = web.get("/ops", {"X-Remote-User": "Ömer"})
        assert (page.status, web.get("/ops").status) == (200, 303)
        assert web.get("/ops", {"X-Remote-User": ["mallory", "anna"]}).status == 303
        token = re.search(r'name="csrf" value="([^"]+)"', web.get("/ops/search", {"X-Remote-User": "anna"}).text)
        assert token is not None
        form = urlencode({"csrf": token[1], "sender": "acme"}).encode()

        assert web.post("/ops/senders", form, {"X-Remote-User": "berta"}).status == 403  # her token, not his
        assert web.post("/ops/senders", form, {"X-Remote-User": "anna"}).status == 303
        assert web.get("/ops", {"Cookie": f"{session.COOKIE}=anna"}).status == 303
        assert '"who": "anna"' in (web.installation.redis.lindex("unsubd:trail", 0) or b"").decode()


@pytest.mark.parametrize("proxies", ["", "10.0.0.1 192.168.0.0/16"])
def test_nobody_else_can_name_himself(tmp_path: Path, valkey_url: str, proxies: str) -> None:
    with serving(tmp_path, valkey_url, auth_proxy_header="X-Remote-User", trusted_proxies=proxies) as web:
        assert web.get("/ops", {"X-Remote-User": "mallory"}).status == 303


def test_the_operators_door_is_apart(tmp_path: Path, valkey_url: str) -> None:
    environ = {"UNSUBD_REDIS_URL": valkey_url, "UNSUBD_SECRET_KEYS": MASTERS[0], "UNSUBD_DATA_DIR": str(tmp_path)}
    public, ops = free_port(), free_port()
    ours = ["/ops/login", "/ops", "/metrics", "/docs", "/openapi.json", "/"]
    theirs = ["/u/x", "/in/relay", "/p/x", "/v1/check"]
    with (
        open_installation(load_settings(environ)) as installation,
        closing(listen(f"127.0.0.1:{public}")) as one,
        closing(listen(f"127.0.0.1:{ops}")) as two,
    ):
        running = server(installation, doors=Doors(two.getsockname()))
        thread = threading.Thread(target=running.run, kwargs={"sockets": [one, two]})
        thread.start()
        try:
            until(lambda: running.started, 10, "the start")
            refused = [ask(public, "GET", path).status for path in [*ours, "/%6fps", "/ops/", "/ops/quarantine"]]
            served = [ask(ops, "GET", path).status for path in ours]
            elsewhere = [ask(ops, "POST", path, b"").json["error"] for path in theirs]
            both = [
                ask(port, "GET", path).status for port in (public, ops) for path in ("/healthz", "/static/style.css")
            ]
        finally:
            running.should_exit = True
            thread.join(20)
    assert refused == [404] * 9
    assert served == [200, 303, 200, 200, 200, 307]
    assert elsewhere == ["not_found"] * 4
    assert both == [200] * 4


# --- anomalies


def test_an_anomaly_is_undone_by_its_button_and_noted(web: Web, anna: Person, visitor: Person) -> None:
    here, now_ms = web.installation, time.time_ns() // 1_000_000
    whom = Tag("acme", 101, "forwarded@example.com")
    for number in range(MANY_ASKERS):
        here.intake.anomalies.used(whom, f"192.0.2.{number}", now_ms - 1000)
    wishes = Wishes(here, whom, "nonce-of-a-forwarded-mail", "one-click")
    assert wishes.make([Want(101, stop=True)])[0].effect is Effect.ADDED
    [found] = here.intake.anomalies.open()

    overview, looked = anna.get("/ops").text, visitor.get("/ops/anomalies").text
    answer = anna.post(f"/ops/anomalies/{found.id}/undo", reason="it was forwarded")
    after = anna.get("/ops/anomalies").text

    assert "used the tag of one recipient of acme" in overview
    assert ("Is anything odd?" in looked, "Undo it" in looked, "forwarded@" in looked) == (True, False, False)
    assert (answer.status, answer.headers["location"]) == (303, "/ops/anomalies")
    assert "Undone: 1 recipient gets mail again; 0 stay stopped" in after
    row = here.store.row("acme", 101, "forwarded@example.com")
    assert row is not None
    assert not row.suppressed
    assert "undo anomaly" in anna.get("/ops/audit").text
    assert anna.post("/ops/anomalies/000000000000/undo").status >= 400


def test_the_console_answers_though_every_thread_of_the_others_waits(
    web: Web, anna: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Race: as when Redis hangs, and recipients and programs go on asking."""
    freed, waiting = threading.Event(), threading.Semaphore(0)

    def hang(_: Installation) -> None:
        waiting.release()
        freed.wait(60)

    monkeypatch.setattr(Installation, "require_ready", hang)
    most = min(32, (os.cpu_count() or 1) + 4)  # threads of asyncio
    others = [threading.Thread(target=ask, args=(web.port, "GET", "/readyz")) for _ in range(2 * most)]
    try:
        for each in others:
            each.start()
        assert all(waiting.acquire(timeout=20) for _ in range(most))
        pages = [anna.get("/ops").status, anna.post("/ops/search", q="nobody@example.com").status]
    finally:
        freed.set()
        for each in others:
            each.join()

    assert pages == [200, 303]
