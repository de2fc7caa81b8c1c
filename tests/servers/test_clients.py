"""What senders import, over HTTP and beside the store: one answer from all four, and never "allowed" from nobody."""

import asyncio
import http.server
import json
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from unsubd import AsyncClient, AsyncRedisClient, Checked, CheckFailed, Client, RedisClient

from handlers.request import Action, Request, request_id
from tests.harness.mails import recipient
from tests.harness.redis_server import RedisServer
from tests.harness.service import MASTERS, until
from tests.harness.web import Web, serving
from worker.check import as_json, check
from worker.installation import Installation

JANE, JO, ANN = "jane@example.com", "jo@example.com", "ann@example.com"
KINDS = ["http", "async http", "redis", "async redis"]
Ask = Callable[..., list[Checked]]


@pytest.fixture(scope="module")
def _running(tmp_path_factory: pytest.TempPathFactory, redis_server: RedisServer) -> Iterator[Web]:
    with serving(tmp_path_factory.mktemp("web"), redis_server.url) as running:
        yield running


@pytest.fixture
def web(_running: Web, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Web:
    """acme with groups 12 and 13 (essential), and in the environment what the clients beside the store need."""
    _environment(monkeypatch, redis_url)
    _registered(_running.installation)
    return _running


def _environment(monkeypatch: pytest.MonkeyPatch, redis_url: str, **more: str) -> None:
    given = {"redis_url": redis_url, "secret_keys": ",".join(MASTERS), "address": "u+{tag}@unsub.example.com"} | more
    for name, value in given.items():
        monkeypatch.setenv(f"UNSUBD_{name.upper()}", value)


def _registered(installation: Installation) -> None:
    accounts = installation.accounts
    accounts.add_sender("acme")
    accounts.add_group("acme", "Weekly news", "", 12)
    accounts.add_group("acme", "Receipts", "", 13, essential=True)
    accounts.add_sender("beta")
    accounts.add_group("beta", "Beta news", "", 20)


def suppress(web: Web, *rows: tuple[int, str], source: str = "imap") -> None:
    wishes = [
        Request(request_id("k", "acme", group, person, Action.UNSUBSCRIBE), Action.UNSUBSCRIBE, "acme", group, person,
                1_780_000_000_000, source, "k")
        for group, person in rows
    ]  # fmt: skip
    web.installation.store.apply(wishes)


def asker(kind: str, web: Web, api_key: str | None = None, **options: Any) -> Ask:
    """Return a function that opens a client of *kind*, asks once and closes it."""
    url = f"http://127.0.0.1:{web.port}/"
    key = api_key or web.installation.accounts.new_api_key("acme")

    def ask(group: int, recipients: Sequence[str], bypass: Collection[str] = ()) -> list[Checked]:
        if kind == "http":
            with Client(url, api_key=key, **options) as client:
                return client.check(group, recipients, bypass)
        if kind == "redis":
            with RedisClient("acme") as beside:
                return beside.check(group, recipients, bypass)
        return asyncio.run(ask_async(group, recipients, bypass))

    async def ask_async(group: int, recipients: Sequence[str], bypass: Collection[str]) -> list[Checked]:
        if kind == "async http":
            async with AsyncClient(url, api_key=key, **options) as client:
                return await client.check(group, recipients, bypass)
        async with AsyncRedisClient("acme") as beside:
            return await beside.check(group, recipients, bypass)

    return ask


# --- one answer from all four


@pytest.mark.parametrize("kind", KINDS)
def test_every_client_says_what_the_check_says(web: Web, kind: str) -> None:
    suppress(web, (12, JANE), (0, JO))
    suppress(web, (13, ANN), source="operator")
    ask = asker(kind, web)
    for group, bypass in ((12, ()), (13, ()), (0, ()), (12, ["bypass_unsubscribe_management"]),
                          (13, {"bypass_list_management"})):  # fmt: skip
        expected = check(web.installation, "acme", group, [JANE, JO, ANN, "x@example.com"], bypass)

        found = ask(group, [" Jane@EXAMPLE.com", JO, ANN, "x@example.com"], bypass)

        assert found == [Checked(**as_json(each)) for each in expected]
    assert [each.essential for each in ask(13, [JANE, ANN])] == [True, True]
    assert [each.scope for each in ask(12, [JANE, JO, ANN])] == ["group", "global", None]


@pytest.mark.parametrize("kind", KINDS)
def test_more_than_one_request_takes_is_one_call(web: Web, kind: str) -> None:
    suppress(web, (12, JANE))
    people = [recipient(number % 7) for number in range(10_001)]
    people[9_999] = people[10_000] = people[0] = JANE

    found = asker(kind, web)(12, people)

    assert [each.recipient for each in found] == people
    assert [number for number, each in enumerate(found) if each.suppressed] == [0, 9_999, 10_000]


@pytest.mark.parametrize("kind", KINDS)
def test_who_asks_for_nobody_hears_nothing(web: Web, kind: str) -> None:
    assert asker(kind, web)(12, []) == []


# --- nobody is declared allowed


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("group", "recipients", "bypass"),
    [
        (99, [JANE], ()),
        (20, [JANE], ()),
        (-1, [JANE], ()),
        (12, [JANE, "nobody"], ()),
        (12, [""], ()),
        (12, ["a@x.com,b@y.org"], ()),
        (12, ["\ud800@example.com"], ()),
        (12, ["j\udce9@example.com"], ()),
        (12, JANE, ()),
        (12, [JANE], ["bypass_everything"]),
        (12, [JANE], ["bypass_list_management", "bypass_spam_management"]),
    ],
)
def test_a_question_that_cannot_be_answered_fails(
    web: Web, kind: str, group: int, recipients: Any, bypass: list[str]
) -> None:
    with pytest.raises(CheckFailed):
        asker(kind, web)(group, recipients, bypass)


@pytest.mark.parametrize("kind", ["http", "async http"])
def test_a_wrong_key_fails(web: Web, kind: str) -> None:
    with pytest.raises(CheckFailed, match="401"):
        asker(kind, web, "SG.x.y")(12, [JANE])


@pytest.mark.parametrize("kind", ["http", "async http"])
def test_a_key_speaks_for_its_own_sender(web: Web, kind: str) -> None:
    ask = asker(kind, web, web.installation.accounts.new_api_key("beta"))

    assert [each.suppressed for each in ask(20, [JANE])] == [False]
    with pytest.raises(CheckFailed, match="404"):
        ask(12, [JANE])


@pytest.mark.parametrize("kind", ["http", "async http"])
def test_a_web_server_that_is_away_fails(web: Web, kind: str, free_port: Callable[[], int]) -> None:
    gone = Web(free_port(), web.installation)

    with pytest.raises(CheckFailed, match="ConnectError"):
        asker(kind, gone)(12, [JANE])


@pytest.mark.parametrize("kind", KINDS)
def test_a_store_that_goes_away_fails_until_it_is_back(
    tmp_path: Path, redis_url: str, own_redis: Callable[..., RedisServer], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    store = own_redis()
    _environment(monkeypatch, redis_url, store_url=store.url)
    with serving(tmp_path, redis_url, store_url=store.url) as web:
        _registered(web.installation)
        suppress(web, (12, JANE))
        url, key = f"http://127.0.0.1:{web.port}", web.installation.accounts.new_api_key("acme")
        if not kind.startswith("async"):
            with Client(url, api_key=key) if kind == "http" else RedisClient("acme") as client:
                _away_and_back(lambda: client.check(12, [JANE]), store)
        else:
            with asyncio.Runner() as runner:
                waiting = AsyncClient(url, api_key=key) if kind == "async http" else AsyncRedisClient("acme")
                runner.run(waiting.__aenter__())
                _away_and_back(lambda: runner.run(waiting.check(12, [JANE])), store)
                runner.run(waiting.__aexit__(None, None, None))


def _away_and_back(ask: Callable[[], list[Checked]], store: RedisServer) -> None:
    assert ask()[0].suppressed
    store.stop()
    started = time.monotonic()
    with pytest.raises(CheckFailed):
        ask()
    assert time.monotonic() - started < 5  # a campaign waits for this answer
    store.start()
    assert ask()[0].suppressed


def test_settings_that_do_not_fit_fail(monkeypatch: pytest.MonkeyPatch, free_port: Callable[[], int]) -> None:
    async def open_async() -> None:
        async with AsyncRedisClient("acme"):
            pass

    for redis_url, reason in (
        (f"redis://127.0.0.1:{free_port()}", "does not answer"),
        ("nonsense", "UNSUBD_REDIS_URL"),
    ):
        _environment(monkeypatch, redis_url)
        with pytest.raises(CheckFailed, match=reason):
            RedisClient("acme")
        with pytest.raises(CheckFailed, match=reason):
            asyncio.run(open_async())


# --- what a proxy makes of an answer


@contextmanager
def answering(status: int, body: bytes, **headers: str) -> Iterator[Web]:
    """Serve the same answer to whoever asks."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(body)), "Connection": "close"} | headers).items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield Web(server.server_port, None)  # type: ignore[arg-type]
        finally:
            server.shutdown()
            thread.join()


ROW = {"recipient": JANE, "suppressed": False, "scope": None, "since": None, "source": None, "version": "0"}
GOOD = json.dumps([ROW, ROW]).encode()


@pytest.mark.parametrize("kind", ["http", "async http"])
@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [
        (200, json.dumps([ROW]).encode(), {}),
        (200, json.dumps([ROW, ROW, ROW]).encode(), {}),
        (200, b"[]", {}),
        (200, b"{}", {}),
        (200, b"null", {}),
        (200, b"", {}),
        (200, b"<html>Welcome</html>", {}),
        (200, GOOD[:-1], {}),
        (200, GOOD[:-1], {"Content_Length": str(len(GOOD))}),
        (200, json.dumps([ROW, {"recipient": JANE}]).encode(), {}),
        (200, json.dumps([ROW, None]).encode(), {}),
        (200, json.dumps([ROW, JANE]).encode(), {}),
        (200, json.dumps([ROW, ROW | {"suppressed": None}]).encode(), {}),
        (200, json.dumps([ROW, ROW | {"suppressed": "no"}]).encode(), {}),
        (200, b"\xff" + GOOD, {}),
        (200, b"[" * 100_000, {}),
        (204, b"", {}),
        (302, b"", {"Location": "http://127.0.0.1:1/"}),
        (503, GOOD, {}),
    ],
)
def test_an_answer_that_a_proxy_made_or_cut_fails(kind: str, status: int, body: bytes, headers: dict[str, str]) -> None:
    with answering(status, body, **headers) as web, pytest.raises(CheckFailed):
        asker(kind, web, "SG.x.y")(12, [JANE, JO])


@pytest.mark.parametrize("kind", ["http", "async http"])
def test_an_older_or_newer_installation_is_understood(kind: str) -> None:
    with answering(200, json.dumps([ROW | {"more": 1}, ROW | {"essential": True}]).encode()) as web:
        found = asker(kind, web, "SG.x.y")(12, [JANE, JO])

    assert found == [Checked(JANE, False, None, None, None, "0"), Checked(JANE, False, None, None, None, "0", True)]


@pytest.mark.parametrize("kind", ["http", "async http"])
def test_an_answer_that_does_not_come_fails(kind: str, free_port: Callable[[], int]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        web = Web(silent.getsockname()[1], None)  # type: ignore[arg-type]
        with pytest.raises(CheckFailed, match="Timeout"):
            asker(kind, web, "SG.x.y", timeout_s=0.2)(12, [JANE])


# --- shared


@pytest.mark.parametrize("kind", ["http", "redis"])
def test_threads_share_a_client(web: Web, kind: str) -> None:
    suppress(web, (12, JANE))
    url, key = f"http://127.0.0.1:{web.port}", web.installation.accounts.new_api_key("acme")
    with Client(url, api_key=key) if kind == "http" else RedisClient("acme") as client, ThreadPoolExecutor(150) as pool:
        answers = list(pool.map(lambda _: client.check(12, [JANE, ANN]), range(200)))

    assert [[each.suppressed for each in answer] for answer in answers] == [[True, False]] * 200


@pytest.mark.parametrize("kind", ["async http", "async redis"])
def test_tasks_share_a_client(web: Web, kind: str) -> None:
    suppress(web, *((12, recipient(number)) for number in range(0, 200, 2)))
    key = web.installation.accounts.new_api_key("acme")

    async def ask() -> list[list[Checked]]:
        http_client = AsyncClient(f"http://127.0.0.1:{web.port}", api_key=key)
        async with http_client if kind == "async http" else AsyncRedisClient("acme") as client:
            return await asyncio.gather(*(client.check(12, [recipient(number)]) for number in range(200)))

    answers = asyncio.run(ask())

    assert [each.recipient for [each] in answers] == [recipient(number) for number in range(200)]
    assert [each.suppressed for [each] in answers] == [number % 2 == 0 for number in range(200)]


def test_a_task_that_is_cancelled_leaves_the_client_good(web: Web) -> None:
    suppress(web, (12, JANE))

    async def ask() -> list[Checked]:
        async with AsyncRedisClient("acme") as client:
            await client.check(12, [JANE])
            for delay_s in (0, 0.0005, 0.001, 0.002):
                task = asyncio.create_task(client.check(12, [ANN] * 2000))
                await asyncio.sleep(delay_s)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            return await client.check(12, [JANE])

    assert [each.suppressed for each in asyncio.run(ask())] == [True]


@pytest.mark.parametrize("kind", ["redis", "async redis"])
def test_closing_leaves_no_connection(web: Web, kind: str) -> None:
    def connected() -> set[str]:
        return {client["id"] for client in web.installation.redis.client_list()}

    before = connected()
    with pytest.raises(CheckFailed):
        asker(kind, web)(99, [JANE])

    until(lambda: connected() <= before, 5, "the end of the connections")


def test_an_unknown_name_is_no_client() -> None:
    import unsubd

    with pytest.raises(AttributeError, match="no attribute 'Nobody'"):
        unsubd.Nobody  # noqa: B018
