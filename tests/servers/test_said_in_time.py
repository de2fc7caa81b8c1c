"""A server or a part of ours is killed or frozen: console and doctor say so within 30 s, what it is, and what to do.

The console is asked again and again for 30 s. The doctor is asked at once where it looks for itself, and where it reads
what our parts last said, in those 30 s, as soon as the console says it.
"""

import html
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import pytest
import redis

from tests.harness.dovecot import Mailbox
from tests.harness.processes import Server
from tests.harness.redis_server import RedisServer
from tests.harness.service import MASTERS, Service, until
from tests.harness.web import ask
from worker import embedded

pytestmark = [pytest.mark.fault, pytest.mark.needs("dovecot"), pytest.mark.timeout(240)]
LIMIT_S = 30.0
HOW = ("killed", "frozen")
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@dataclass(frozen=True)
class Desk:
    """What an operator sits at: the console, logged in, and a shell with the doctor."""

    service: Service
    cookie: dict[str, str]
    where: str

    def page(self, path: str = "/ops") -> str:
        """The words of a page of the console: each comes within half the time, or the test fails."""
        text = ask(self.service.port, "GET", path, None, self.cookie, seconds=LIMIT_S / 2).text
        return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", text.replace("<wbr>", ""))).split())

    def doctor(self, layer: str) -> list[tuple[str, str, str]]:
        """(verdict, detail, remedy) of each line about *layer*."""
        done = self.service.command("doctor", seconds=LIMIT_S)
        assert "Traceback" not in done.stderr, done.stderr
        return re.findall(rf"^(OK|WARN|FAIL) +{layer} +(.*)(?:\n +-> (.*))?", done.stdout, re.M)

    def fails(self, layer: str) -> tuple[str, str]:
        """(detail, remedy) of the first FAIL about *layer*, ("", "") where there is none."""
        return next(((detail, remedy) for verdict, detail, remedy in self.doctor(layer) if verdict == "FAIL"), ("", ""))

    def says(self, *words: str, path: str = "/ops") -> str:
        """The page, when it holds all of *words*; else ""."""
        page = self.page(path)
        return page if all(word in page for word in words) else ""


@contextmanager
def _desk(
    folder: Path, redis_url: str, dovecot: Mailbox, *parts: str, **settings: str
) -> Iterator[tuple[Desk, dict[str, int]]]:
    """Run *parts*, each a process group, with more *settings*, and log in. Gives the desk, and part -> process group."""
    service = Service(
        folder, redis_url=redis_url, secret_keys=",".join(MASTERS), address="u+{tag}@unsub.example.com", workers="1",
        imap_url=dovecot.url, imap_password=dovecot.password, imap_ca_file=str(dovecot.ca_file), admin_token="t0ken",
        **settings,
    )  # fmt: skip
    with ExitStack() as stack:
        groups: dict[str, int] = {}
        for part in parts:
            groups[part] = stack.enter_context(service.running(part, ready=part in ("web", "run"))).pid
            stack.callback(_signalled, groups[part], signal.SIGCONT)
        body = urlencode({"token": "t0ken", "name": "anna"}).encode()
        cookie = {"Cookie": ask(service.port, "POST", "/ops/login", body, FORM).cookie}
        desk = Desk(service, cookie, f"{dovecot.user} at localhost")
        if "poll" in parts or "run" in parts:
            until(lambda: re.search(r"imap:default .*?idle", desk.page("/ops/sources")), what="the mailbox idle")
        if "work" in parts or "run" in parts:
            until(lambda: "No worker is alive" not in desk.page(), what="a worker alive")
        yield desk, groups


def _signalled(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return


def _struck(group: int, how: str) -> float:
    """Kill or freeze a process group; return when."""
    os.killpg(group, signal.SIGKILL if how == "killed" else signal.SIGSTOP)
    return time.monotonic()


@contextmanager
def _away(server: Server, how: str) -> Iterator[float]:
    """A server that is killed or frozen for the time of the block; gives since when."""
    server.kill() if how == "killed" else os.killpg(server.pid, signal.SIGSTOP)
    try:
        yield time.monotonic()
    finally:
        os.killpg(server.pid, signal.SIGCONT) if how == "frozen" else server.start()


def _within(since: float, holds: Callable[[], object], what: str) -> object:
    return until(holds, max(1.0, since + LIMIT_S - time.monotonic()), what)


@pytest.mark.parametrize("how", HOW)
def test_redis_away(tmp_path: Path, own_redis: Callable[..., RedisServer], dovecot: Mailbox, how: str) -> None:
    server = own_redis()
    with _desk(tmp_path, server.url, dovecot, "run") as (desk, _):
        with _away(server, how) as since:
            page = str(_within(since, lambda: desk.says("UNSUBD_REDIS_URL", "does not answer"), "the console says it"))
        with _away(server, how):
            detail, remedy = desk.fails("redis")
        until(lambda: "Nothing is waiting" in desk.page(), 60, "the console again")
        until(lambda: desk.fails("redis") == ("", ""), 60, "the doctor again")

    assert "Start that server again" in page
    assert detail.startswith("UNSUBD_REDIS_URL: the server does not answer")
    assert remedy == "start the server, or mend the URL"


@pytest.mark.parametrize("how", HOW)
def test_a_store_of_its_own_away(
    tmp_path: Path, own_redis: Callable[..., RedisServer], redis_url: str, dovecot: Mailbox, how: str
) -> None:
    store = own_redis()
    with _desk(tmp_path, redis_url, dovecot, "run", store_url=store.url) as (desk, _):
        with _away(store, how) as since:
            page = str(_within(since, lambda: desk.says("UNSUBD_STORE_URL", "does not answer"), "the console says it"))
            detail, remedy = desk.fails("redis")
        until(lambda: "UNSUBD_STORE_URL" not in desk.page(), 60, "the console again")

    assert "start that server again" in page
    assert detail.startswith("UNSUBD_STORE_URL: the server does not answer")
    assert remedy == "start the server, or mend the URL"


def test_the_embedded_valkey_hangs(tmp_path: Path, dovecot: Mailbox) -> None:
    with _desk(tmp_path, "", dovecot, "run") as (desk, _):
        with redis.Redis.from_url(embedded.url(tmp_path / "data")) as client:
            group = os.getpgid(client.info("server")["process_id"])
        since = _struck(group, "frozen")
        try:
            _within(since, lambda: desk.says("UNSUBD_REDIS_URL", "does not answer"), "the console says it")
            detail, remedy = desk.fails("redis")
        finally:
            _signalled(group, signal.SIGCONT)
        until(lambda: "Nothing is waiting" in desk.page(), 60, "the console again")

    assert re.match(r"UNSUBD_DATA_DIR: the embedded Valkey of .* runs but does not answer", detail)
    assert remedy == "start it again: unsubd run"


@pytest.mark.parametrize("how", HOW)
def test_a_mailbox_away(tmp_path: Path, redis_url: str, dovecot: Mailbox, how: str) -> None:
    with _desk(tmp_path, redis_url, dovecot, "run") as (desk, _):
        with _away(dovecot.server, how) as since:
            _within(since, lambda: desk.says(f"imap:default ({desk.where}", "is waiting"), "the console says it")
            page, sources = desk.page(), desk.page("/ops/sources")
            detail, remedy = desk.fails("mailbox")
            assert desk.says(f"imap:default ({desk.where}", "is waiting")  # and goes on saying it while it tries
        until(lambda: f"imap:default ({desk.where}" not in desk.page(), 90, "the console again")
        until(lambda: desk.fails("mailbox") == ("", ""), 60, "the doctor again")

    assert "See: unsubd doctor" in page
    assert "waiting" in sources
    assert detail.startswith(f"default ({desk.where}")
    assert remedy in ("check host, port and firewall", "start that server again, or see why it hangs;"
                      " it is tried again by itself, and no mail is lost")  # fmt: skip


@pytest.mark.parametrize("how", HOW)
def test_the_workers_away(tmp_path: Path, redis_url: str, dovecot: Mailbox, how: str) -> None:
    with _desk(tmp_path, redis_url, dovecot, "web", "poll", "work") as (desk, groups):
        since = _struck(groups["work"], how)
        page = str(_within(since, lambda: desk.says("No worker is alive"), "the console says it"))
        verdicts = {detail: remedy for verdict, detail, remedy in desk.doctor("worker") if verdict == "FAIL"}

    assert "start unsubd run, or unsubd work" in page
    assert "was killed or hangs" in page
    assert verdicts["no worker is alive, expected at least one"] == "start unsubd run, or unsubd work"


@pytest.mark.parametrize("how", HOW)
def test_the_poller_away(tmp_path: Path, redis_url: str, dovecot: Mailbox, how: str) -> None:
    with _desk(tmp_path, redis_url, dovecot, "web", "work", "poll") as (desk, groups):
        since = _struck(groups["poll"], how)
        page = str(_within(since, lambda: desk.says(f"imap:default ({desk.where}", "is silent"), "the console says it"))
        detail, remedy = desk.fails("source")

    assert "start unsubd run (or unsubd poll): nobody looks at this source" in page
    assert re.match(rf"imap:default \({desk.where}.* silent", detail)
    assert remedy == "start unsubd run (or unsubd poll): nobody looks at this source"


def test_without_a_worker_from_the_start(tmp_path: Path, redis_url: str, dovecot: Mailbox) -> None:
    with _desk(tmp_path, redis_url, dovecot, "web", "poll") as (desk, _):
        page = desk.page()
        found = desk.fails("worker")

    assert "No worker is alive. start unsubd run, or unsubd work" in page
    assert found == ("no worker is alive, expected at least one", "start unsubd run, or unsubd work")


def test_before_the_first_start_a_missing_worker_is_no_failure(
    tmp_path: Path, redis_url: str, dovecot: Mailbox
) -> None:
    service = Service(tmp_path, redis_url=redis_url, secret_keys=",".join(MASTERS), address="u+{tag}@unsub.example.com")
    desk = Desk(service, {}, "")

    before = desk.doctor("worker"), service.command("doctor").returncode
    with service.running("web"):
        pass

    assert before == (
        [("WARN", "nothing runs yet: no part of unsubd ever ran on this Redis", "start unsubd run")],
        0,
    )
    assert desk.fails("worker") == ("no worker is alive, expected at least one", "start unsubd run, or unsubd work")
