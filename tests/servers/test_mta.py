"""A real Postfix asks before mail leaves it: who unsubscribed gets none, everybody else's mail carries a tag of their own."""

import os
import shutil
import signal
import smtplib
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from handlers.tag import Tag
from tests.harness.mta import Sending, leaving, opened, sending, settings_for, suppress
from tests.harness.processes import PACKAGES, require
from tests.harness.redis_server import RedisServer
from tests.harness.service import Service, until

pytestmark = pytest.mark.needs("postfix")
NEWS, GONE, JANE = "bounce+7@news.example.com", "gone@example.org", "Jane@example.org"
RAW = b"From: news@news.example.com\r\nSubject: news\r\nList-Unsubscribe: <https://old.example>\r\n\r\nhello\r\n"


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    folder = Path(tempfile.mkdtemp(prefix="unsubd-redis-"))
    with RedisServer(require("redis-server", PACKAGES["redis-server"]), folder) as server:
        yield server
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder with a short path, which Postfix's users may enter."""
    made = Path(tempfile.mkdtemp(prefix="unsubd-mta-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def running(folder: Path, redis_server: RedisServer) -> Iterator[Sending]:
    with opened(redis_server.url, folder) as installation, sending(folder, installation) as found:
        suppress(installation, GONE)
        yield found


@pytest.fixture
def mta(running: Sending) -> Sending:
    """Both services and Postfix; no mail has left yet."""
    running.sink.mails.clear()
    return running


def dialogue(port: int, mail_from: str, *recipients: str, login: str = "") -> list[str]:
    """Hand over a mail, and return each recipient's answer as "550 5.7.1"; *login*: who Postfix is to believe it is from."""
    with smtplib.SMTP("127.0.0.1", port, timeout=30) as client:
        client.ehlo()
        if login:
            client.docmd(f"XCLIENT LOGIN={login}")
            client.ehlo()
        client.mail(mail_from)
        answers = [client.rcpt(recipient) for recipient in recipients]
        if any(code == 250 for code, _ in answers):
            assert client.data(RAW)[0] == 250
        return [f"{code} {text.decode().split()[0]}" for code, text in answers]


def left(mta: Sending, count: int) -> list[str]:
    """Return whom mail reached, when *count* of them were reached and nothing waits."""
    until(lambda: len(mta.sink.mails) >= count and not mta.postfix.waiting(), 30, f"{count} mails to leave")
    return mta.sink.recipients()


@pytest.mark.fault
def test_a_suppressed_recipient_is_refused_and_another_gets_a_tag(mta: Sending) -> None:
    assert dialogue(mta.port("2525"), NEWS, GONE, JANE) == ["550 5.7.1", "250 2.1.5"]

    assert left(mta, 1) == [JANE]
    assert mta.sink.tags(mta.installation) == {JANE: Tag("acme", 12, "jane@example.org")}


def test_the_login_says_whose_mail_it_is(mta: Sending) -> None:
    assert dialogue(mta.port("2525"), "any@example.com", GONE, login="shop") == ["550 5.7.1"]
    assert dialogue(mta.port("2525"), "any@example.com", JANE, login="shop") == ["250 2.1.5"]

    left(mta, 1)
    assert mta.sink.tags(mta.installation) == {JANE: Tag("acme", 12, "jane@example.org")}


def test_mail_without_a_route_is_let_through_as_it_is(mta: Sending) -> None:
    assert dialogue(mta.port("2525"), "me@example.com", GONE, JANE) == ["250 2.1.5"] * 2

    assert left(mta, 1) == [JANE, GONE]
    assert mta.sink.mails[0][1].get_all("List-Unsubscribe") == ["<https://old.example>"]


def test_mail_of_an_essential_group_is_not_stamped_nor_stopped_by_another_group(mta: Sending) -> None:
    assert dialogue(mta.port("2525"), "receipts@example.com", GONE) == ["250 2.1.5"]

    assert left(mta, 1) == [GONE]
    assert mta.sink.mails[0][1].get_all("List-Unsubscribe") == ["<https://old.example>"]


def test_discarded_mail_is_taken_and_reaches_nobody(mta: Sending) -> None:
    assert dialogue(mta.port("2525"), "quiet@example.com", GONE) == ["250 2.1.5"]
    # DISCARD would drop the mail for Jane too.
    assert dialogue(mta.port("2525"), "quiet@example.com", JANE, GONE) == ["250 2.1.5", "452 4.5.3"]

    assert left(mta, 1) == [JANE]


def test_the_milter_alone_drops_the_suppressed_and_takes_one_recipient_a_mail(mta: Sending) -> None:
    assert dialogue(mta.port("2527"), NEWS, GONE, JANE, "jo@example.org") == ["250 2.1.5", "250 2.1.5", "452 4.5.3"]
    assert dialogue(mta.port("2527"), NEWS, GONE) == ["250 2.1.5"]

    assert left(mta, 1) == [JANE]
    assert set(mta.sink.tags(mta.installation)) == {JANE}


def test_one_mail_for_twenty_is_split_and_each_gets_a_tag_of_their_own(mta: Sending) -> None:
    people = [f"person{number}@example.org" for number in range(20)]

    assert dialogue(mta.port("2526"), NEWS, *people[:10], GONE, *people[10:]).index("550 5.7.1") == 10
    left(mta, 20)
    assert mta.sink.tags(mta.installation) == {each: Tag("acme", 12, each) for each in people}


def test_nothing_mapped_leaves_while_the_store_is_away(mta: Sending, redis_server: RedisServer) -> None:
    redis_server.kill()
    try:
        assert dialogue(mta.port("2525"), NEWS, GONE, JANE) == ["450 4.3.0"] * 2
        assert dialogue(mta.port("2527"), NEWS, GONE, JANE) == ["451 4.3.0"] * 2
        assert dialogue(mta.port("2525"), "me@example.com", JANE) == ["250 2.1.5"]  # none of our business
    finally:
        redis_server.start()

    assert left(mta, 1) == [JANE]
    assert dialogue(mta.port("2525"), NEWS, GONE, JANE) == ["550 5.7.1", "250 2.1.5"]


# --- make crash: with the processes of unsubd run


def hand_over(port: int, recipients: list[str]) -> set[str]:
    """Mail each by itself on one connection; return who was refused for good."""
    refused = set()
    with smtplib.SMTP("127.0.0.1", port, timeout=60) as client:
        for each in recipients:
            try:
                client.sendmail(NEWS, [each], RAW)
            except smtplib.SMTPRecipientsRefused as refusal:
                refused |= {name for name, (code, _) in refusal.recipients.items() if code == 550}
    return refused


def hand_over_by_eight(port: int, recipients: list[str]) -> set[str]:
    """The same on eight connections at once."""
    with ThreadPoolExecutor(8) as pool:
        return set().union(*pool.map(lambda first: hand_over(port, recipients[first::8]), range(8)))


def hand_over_as_one(port: int, recipients: list[str]) -> set[str]:
    """One mail for all."""
    with smtplib.SMTP("127.0.0.1", port, timeout=60) as client:
        return set(client.sendmail(NEWS, recipients, RAW))


@pytest.mark.fault
def test_of_a_thousand_mails_exactly_the_allowed_ones_leave_each_with_its_own_tag(
    own_redis: Callable[..., RedisServer], tmp_path: Path
) -> None:
    redis_url = own_redis().url
    made = Path(tempfile.mkdtemp(prefix="unsubd-mta-"))
    made.chmod(0o755)
    people = [f"person{number}@example.org" for number in range(980)]
    people += [f"a.person.with.a.rather.long.name.{number}@a-rather-long-domain.example.org" for number in range(20)]
    gone = set(people[::3])
    with leaving(made) as (postfix, sink), opened(redis_url, tmp_path) as installation:
        suppress(installation, *gone)
        sockets = {name: f"unix:{postfix.socket_folder}/{name}" for name in ("policy", "milter")}
        service = Service(tmp_path, **settings_for(redis_url, tmp_path), **sockets)
        with postfix, service.running("run"):
            until(lambda: all((postfix.socket_folder / name).exists() for name in sockets), 20, "both sockets")
            well = {row["layer"]: row["ok"] for row in service.rows("doctor")}
            assert (well["policy"], well["milter"]) == (True, True)
            for port, way in (("2525", hand_over_by_eight), ("2526", hand_over_as_one)):
                sink.mails.clear()
                begun = time.monotonic()
                assert way(postfix.ports[port], people) == gone
                until(lambda: len(sink.mails) >= len(people) - len(gone) and not postfix.waiting(), 60, "all to leave")
                print(f"port {port}: {len(people) / (time.monotonic() - begun):.0f} recipients/s")

                assert sink.tags(installation) == {each: Tag("acme", 12, each) for each in people if each not in gone}
                assert len(sink.mails) == len(people) - len(gone)
            sources = until(lambda: _counted(service), 60, "what both were asked")

        assert {name: sources[name]["state"] for name in sources} == {"mta:policy": "idle", "mta:milter": "idle"}
        assert "person" not in service.log.read_text()
    shutil.rmtree(made)


def _counted(service: Service) -> dict[str, dict[str, object]]:
    states = {row["name"]: row for row in service.rows("status")[0]["sources"] if row["name"].startswith("mta:")}
    return states if all(row["messages"] > 1000 for row in states.values()) else {}


@pytest.mark.fault
def test_nothing_leaves_while_unsubd_itself_is_not_there(tmp_path: Path) -> None:
    made = Path(tempfile.mkdtemp(prefix="unsubd-mta-"))
    made.chmod(0o755)
    with leaving(made) as (postfix, sink), postfix:
        assert dialogue(postfix.ports["2526"], NEWS, JANE) == ["451 4.3.5"]
        with (
            smtplib.SMTP("127.0.0.1", postfix.ports["2527"], timeout=30) as client,
            pytest.raises(smtplib.SMTPException),
        ):
            client.sendmail(NEWS, [JANE], RAW)

        assert (sink.mails, postfix.waiting()) == ([], [])
    shutil.rmtree(made)


@pytest.mark.fault
def test_mail_is_put_off_while_the_store_hangs(mta: Sending, redis_server: RedisServer) -> None:
    os.kill(redis_server.pid, signal.SIGSTOP)
    try:
        assert dialogue(mta.port("2525"), NEWS, JANE) == ["450 4.3.0"]
        assert dialogue(mta.port("2527"), NEWS, JANE) == ["451 4.3.0"]
        assert dialogue(mta.port("2525"), "me@example.com", JANE) == ["250 2.1.5"]
    finally:
        os.kill(redis_server.pid, signal.SIGCONT)

    assert left(mta, 1) == [JANE]
