"""LMTP as a mail server meets it: what is promised with 250, what is never refused, and what happens when something breaks."""

import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from redis import Redis

import worker.sources.lmtp
from tests.harness import processes
from tests.harness.lmtp import Client, Lmtp, receiving
from tests.harness.mails import APPLE, address, mail, recipient
from tests.harness.names import NAMES
from tests.harness.postfix import Postfix
from tests.harness.redis_server import RedisServer
from tests.harness.service import MASTERS, Service, parts, until
from worker.intake import Intake
from worker.quarantine.shelf import Selection
from worker.sources.lmtp import Limits
from worker.store import Store
from worker.store.ledger import Ledger

KEYS = {"secret_keys": ",".join(MASTERS), "address": "u+{tag}@unsub.example.com"}


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path, where a mail server's group finds our socket: as deploy/postfix tells to make it."""
    made = Path(tempfile.mkdtemp(prefix="unsubd-lmtp-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def lmtp(folder: Path, redis_url: str) -> Iterator[Lmtp]:
    with receiving(folder, redis_url) as running:
        yield running


def _raws(lmtp: Lmtp) -> list[bytes]:
    quarantine = lmtp.installation.quarantine
    return list(quarantine.raws(quarantine.ids(Selection())).values())


def _suppressed(redis_url: str) -> set[str]:
    with Redis.from_url(redis_url) as client:
        return {name for name, _ in Store(client, NAMES).listed("acme", 1)}


def _outcomes(redis_url: str) -> list[str]:
    with Redis.from_url(redis_url) as client:
        return sorted(record["outcome"] for _, record in Ledger(client, lambda _: "").records())


def _service(folder: Path, redis_url: str, **more: str) -> Service:
    return Service(folder, redis_url=redis_url, **(KEYS | {"lmtp": f"unix:{folder}/lmtp"} | more))


# --- what is promised


def test_the_job_is_in_redis_before_the_reply(lmtp: Lmtp) -> None:
    with lmtp.client() as client:
        assert client.deliver(mail("x@example.com", "one", APPLE), address(1)) == ["250"]

        assert lmtp.recipients() == [recipient(1)]
    (message,) = lmtp.queued()
    assert message.source == "lmtp:default"
    assert abs(message.received_ms - time.time() * 1000) < 10_000


def test_each_recipient_is_a_message_and_has_its_reply(lmtp: Lmtp) -> None:
    with lmtp.client() as client:
        codes = client.deliver(mail(address(9), "many"), address(1), "info@example.com", address(2))

    assert codes == ["250"] * 3
    # The tag in the envelope is the only one believed; info@ has none there, so To speaks for it.
    assert lmtp.recipients() == [recipient(1), recipient(2), recipient(9)]


def test_a_thousand_recipients_are_taken_and_the_next_may_come_again(lmtp: Lmtp) -> None:
    with lmtp.client() as client:
        client.say("MAIL FROM:<>")
        for number in range(1000):
            client.send(f"RCPT TO:<{address(number)}>\r\n".encode())
        assert {client.reply()[:3] for _ in range(1000)} == {"250"}
        assert client.say("RCPT TO:<one@too.many>").startswith("452 4.5.3")
        client.say("DATA")
        client.send(mail("x@example.com", "thousand") + b"\r\n.\r\n")

        assert {client.reply()[:3] for _ in range(1000)} == {"250"}
    assert len(lmtp.queued()) == 1000


def test_the_null_sender_marks_a_bounce(lmtp: Lmtp) -> None:
    with lmtp.client() as client:
        client.deliver(mail(address(1), "bounce", "X-Failed-Recipients: x@example.org\r\n"), address(1), sender="")
        client.deliver(mail(address(2), "mail"), address(2))

    assert [each.outcome.value for each in lmtp.queued()] == ["ignore:bounce", "honour"]


def test_octets_arrive_exactly(lmtp: Lmtp) -> None:
    lines = [
        b"Subject: x", b"", b"..two dots", b"...", b"bare\nLF\n.\nstays", b"bare\rCR", b"NUL \0 and \xff\xfe", b"", b"...end",
    ]  # fmt: skip
    with lmtp.client() as client:
        assert client.deliver(b"\r\n".join(lines), "nobody@elsewhere.example") == ["250"]

    unstuffed = [line[1:] if line.startswith(b".") else line for line in lines]
    assert _raws(lmtp) == [b"\r\n".join(unstuffed) + b"\r\n"]


@pytest.mark.parametrize("smuggled", [b"\n.\n", b"\r\n.\n", b"\n.\r\n", b"\r.\r", b"\r\n.\r"])
def test_only_crlf_dot_crlf_ends_a_mail(lmtp: Lmtp, smuggled: bytes) -> None:
    inside = b"MAIL FROM:<x@example.com>\r\nRCPT TO:<y@example.com>\r\nDATA\r\n"
    with lmtp.client() as client:
        assert client.deliver(b"Subject: x\r\n\r\nhi" + smuggled + inside + b"bye", "nobody@elsewhere.example") == [
            "250"
        ]

        assert client.say("NOOP").startswith("250")  # nothing that was inside became a command
    assert len(lmtp.queued()) == 1


def test_everything_in_one_packet(lmtp: Lmtp) -> None:
    def whole(number: int) -> bytes:
        begin = f"MAIL FROM:<s@example.net> BODY=8BITMIME SIZE=99\r\nRCPT TO:<{address(number)}>\r\nDATA\r\n"
        return begin.encode() + mail("x@example.com", f"packet-{number}") + b"\r\n.\r\n"

    with lmtp.client(greeted=False) as client:
        client.send(b"LHLO x\r\n" + whole(1) + whole(2) + b"RSET\r\nQUIT\r\n")
        replies = [client.reply() for _ in range(13)]

    assert [reply[:3] for reply in replies] == ["220", "250", *["250", "250", "354", "250"] * 2, "250", "221", ""]
    assert lmtp.recipients() == [recipient(1), recipient(2)]


def test_an_empty_mail_is_a_mail(lmtp: Lmtp) -> None:
    with lmtp.client() as client:
        client.begin(address(1))
        client.send(b".\r\n")

        assert client.reply().startswith("250")
    assert lmtp.recipients() == [recipient(1)]


def test_what_it_can_is_announced(lmtp: Lmtp) -> None:
    with lmtp.client(greeted=False) as client:
        client.reply()
        able = client.say("LHLO x")

    for word in ("PIPELINING", "ENHANCEDSTATUSCODES", "8BITMIME", "SMTPUTF8", "SIZE 67108864"):
        assert word in able


# --- what is never refused


@pytest.mark.parametrize(
    "odd",
    [
        "a" * 230 + "@unsub.example.com", "postmaster", "a..b@unsub.example.com", '"a b>c"@unsub.example.com',
        '"never closed@unsub.example.com', "a@b@c", "@relay.example:a@unsub.example.com", "jäne@exämple.com",
        "\udcff\udcfe@unsub.example.com", "a@[127.0.0.1]", "a b@unsub.example.com", " a@unsub.example.com ",
    ],
)  # fmt: skip
def test_an_odd_recipient_is_for_quarantine_to_judge(lmtp: Lmtp, odd: str) -> None:
    with lmtp.client() as client:
        assert client.say(f"MAIL FROM:<{odd}> SMTPUTF8").startswith("250")
        assert client.say(f"RCPT TO:<{odd}>").startswith("250")
        client.say("DATA")
        client.send(b"Subject: x\r\n\r\nhi\r\n.\r\n")

        assert client.reply().startswith("250")
    assert len(lmtp.queued()) == 1


def test_a_line_of_any_length_is_taken(lmtp: Lmtp) -> None:
    long = mail(address(1), "long") + b"x" * 300_000 + b"\r" + b"y" * 300_000
    with lmtp.client() as client:
        assert client.deliver(long, address(1)) == ["250"]
    assert lmtp.recipients() == [recipient(1)]


def test_over_the_size_is_said_at_once_and_after_the_mail(folder: Path, redis_url: str) -> None:
    with receiving(folder, redis_url, Limits(size_bytes=1_000_000)) as lmtp, lmtp.client() as client:
        assert client.say("MAIL FROM:<x@example.net> SIZE=1000001").startswith("552 5.3.4")
        assert client.deliver(b"x" * 1_000_001, address(1), address(2)) == ["552", "552"]
        assert client.deliver(mail("x@example.com", "fits"), address(3)) == ["250"]

        assert lmtp.recipients() == [recipient(3)]


def test_a_mail_of_60_mb_is_read_as_far_as_it_matters(lmtp: Lmtp) -> None:
    with lmtp.client() as client:
        line = b"y" * 998 + b"\r\n"
        assert client.deliver(mail("x@example.com", "huge") + line * 60_000, address(1)) == ["250"]
    assert lmtp.recipients() == [recipient(1)]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("VRFY <a@example.com>", "502"), ("EXPN list", "502"), ("HELO x", "500"), ("EHLO x", "500"), ("AUTH PLAIN x", "500"),
        ("STARTTLS", "500"), ("RCPT TO:<a@example.com>", "503"), ("DATA", "503"), ("MAIL TO:<x>", "501"), ("LHLO", "501"),
        ("NOOP " + "x" * 5000, "500"), ("NOOP " + "x" * 200_000, "500"),
    ],
)  # fmt: skip
def test_what_it_does_not_do(lmtp: Lmtp, line: str, code: str) -> None:
    with lmtp.client() as client:
        assert client.say(line).startswith(code)
        assert client.say("NOOP").startswith("250")


# --- what breaks


def test_a_client_gone_within_a_mail_has_delivered_nothing(lmtp: Lmtp) -> None:
    for end in (b"", b"\r\n.", b"\r\n.\r"):
        with lmtp.client() as client:
            client.begin(address(1))
            client.send(mail("x@example.com", "cut") + end)
    with lmtp.client() as client:
        client.deliver(mail("x@example.com", "whole"), address(2))

    assert lmtp.recipients() == [recipient(2)]


def test_300_connections_at_once_share_jobs(lmtp: Lmtp) -> None:
    together = threading.Barrier(300)

    def deliver(number: int) -> str:
        with lmtp.client() as client:
            client.begin(address(number))
            together.wait(60)
            client.send(mail("x@example.com", f"c-{number}") + b"\r\n.\r\n")
            return client.reply()[:3]

    with ThreadPoolExecutor(300) as pool:
        assert set(pool.map(deliver, range(300))) == {"250"}

    assert lmtp.recipients() == sorted(map(recipient, range(300)))
    assert lmtp.installation.queue.rq.count < 60


def test_one_connection_too_many_is_told_to_come_again(folder: Path, redis_url: str) -> None:
    with receiving(folder, redis_url, Limits(connections=2)) as lmtp:
        with lmtp.client(), lmtp.client(), lmtp.client(greeted=False) as third:
            assert third.reply().startswith("421 4.3.2")

        def is_greeted() -> bool:
            with lmtp.client(greeted=False) as client:
                return client.reply().startswith("220")

        until(is_greeted, 10, "room")


def test_a_slow_client_has_time_and_a_silent_one_has_not(folder: Path, redis_url: str) -> None:
    with receiving(folder, redis_url, Limits(idle_s=0.6, silence_s=0.6, data_s=10)) as lmtp:
        with lmtp.client() as slow, lmtp.client() as silent, lmtp.client() as idle:
            silent.begin(address(1))
            slow.begin(address(2))
            for piece in (b"Subject: x\r\n", b"\r\n", *[b"x"] * 6, b"\r\n", b".", b"\r\n"):
                slow.send(piece)
                time.sleep(0.1)

            assert slow.reply().startswith("250")
            assert [silent.reply()[:3], idle.reply()[:3]] == ["421", "421"]
        assert lmtp.recipients() == [recipient(2)]


def test_a_mail_that_never_ends_is_cut(folder: Path, redis_url: str) -> None:
    with receiving(folder, redis_url, Limits(silence_s=5, data_s=0.5)) as lmtp, lmtp.client() as client:
        client.begin(address(1))
        begun = time.monotonic()
        with pytest.raises(OSError):  # noqa: PT011, PT012
            while time.monotonic() - begun < 10:
                client.send(b"x")
                time.sleep(0.05)
        assert time.monotonic() - begun < 8


def test_a_bug_of_ours_keeps_the_mail_at_the_mail_server(lmtp: Lmtp, monkeypatch: pytest.MonkeyPatch) -> None:
    with lmtp.client() as client:
        with monkeypatch.context() as patched:
            patched.setattr(Intake, "accept", lambda *_: 1 / 0)
            assert client.deliver(mail("x@example.com", "bug"), address(1), address(2)) == ["451", "451"]

        assert client.deliver(mail("x@example.com", "well"), address(1)) == ["250"]
    lines = lmtp.installation.redis.lrange("unsubd:journal", 0, -1)
    assert [b"ZeroDivisionError" in line for line in lines if b'"failed"' in line] == [True]


def test_a_full_queue_means_come_again(folder: Path, redis_url: str) -> None:
    with receiving(folder, redis_url, queue_limit="1") as lmtp, lmtp.client() as client:
        assert client.deliver(mail("x@example.com", "fits"), address(1)) == ["250"]
        assert client.deliver(mail("x@example.com", "full"), address(2)) == ["451"]


def test_redis_away_means_come_again_and_its_return_means_accepted(
    folder: Path, own_redis: Callable[..., RedisServer]
) -> None:
    redis = own_redis()
    with receiving(folder, redis.url) as lmtp, lmtp.client() as client:
        client.begin(address(1))
        redis.kill()
        client.send(mail("x@example.com", "away") + b"\r\n.\r\n")
        reply = client.reply()
        redis.start()

        assert reply.startswith("451 4.3.0 UNSUBD_REDIS_URL")
        assert client.deliver(mail("x@example.com", "away"), address(1)) == ["250"]
        assert lmtp.recipients() == [recipient(1)]


# --- the service


def test_who_comes_while_the_server_is_busy_waits(folder: Path, redis_url: str) -> None:
    with _service(folder, redis_url).running("lmtp", ready=False) as process, ExitStack() as clients:
        until((folder / "lmtp").exists, 20, "the socket")
        with Client(f"unix:{folder}/lmtp"):  # greeted: asyncio has taken the socket over
            process.send_signal(signal.SIGSTOP)
        waiting = [clients.enter_context(Client(f"unix:{folder}/lmtp", greeted=False)) for _ in range(400)]
        process.send_signal(signal.SIGCONT)

        assert {each.reply()[:3] for each in waiting} == {"220"}


@pytest.mark.fault
def test_the_socket_is_for_its_group_and_a_stale_one_is_replaced(folder: Path, redis_url: str) -> None:
    service = _service(folder, redis_url)
    socket_path = folder / "lmtp"
    with service.running("lmtp", ready=False) as process:
        until(socket_path.exists, 20, "the socket")
        assert socket_path.stat().st_mode & 0o777 == 0o660
        second = service.command("lmtp")
        process.kill()
        process.wait()
    with service.running("lmtp", ready=False):
        until(lambda: service.command("doctor").stdout.count(f"OK    lmtp      unix:{socket_path} answers"), 20)
        with Client(f"unix:{socket_path}") as client:
            assert client.deliver(mail("x@example.com", "one"), address(1)) == ["250"]

    assert second.returncode == 78
    assert second.stderr == (
        f"unsubd: UNSUBD_LMTP: unix:{socket_path}: Address already in use: stop what listens there, or choose another address\n"
    )
    assert not socket_path.exists()


@pytest.mark.fault
def test_an_address_that_cannot_be_used_is_one_line(folder: Path, redis_url: str) -> None:
    (folder / "file").write_text("precious")
    for wrong in (f"unix:{folder}/nowhere/lmtp", f"unix:{folder}/file", "192.0.2.1:24"):
        done = _service(folder, redis_url, lmtp=wrong).command("run")

        assert (done.returncode, len(done.stderr.splitlines())) == (78, 1), done.stderr
        assert done.stderr.startswith("unsubd: UNSUBD_LMTP: ")
    assert _service(folder, redis_url, lmtp="").command("lmtp").returncode == 78
    assert (folder / "file").read_text() == "precious"


def test_sigterm_finishes_the_mail_in_hand_and_says_421_to_the_rest(folder: Path, redis_url: str) -> None:
    service = _service(folder, redis_url)
    with service.running("lmtp", ready=False) as process:
        until((folder / "lmtp").exists, 20, "the socket")
        with Client(f"unix:{folder}/lmtp") as busy, Client(f"unix:{folder}/lmtp") as idle:
            busy.begin(address(1))
            busy.send(b"Subject: x\r\n")
            begun = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert idle.reply().startswith("421 4.3.2")
            busy.send(b"\r\nbody\r\n.\r\n")

            assert [busy.reply()[:3], busy.reply()[:3]] == ["250", "421"]
        assert process.wait(10) == 0
        assert time.monotonic() - begun < 5
    with Redis.from_url(redis_url) as client:
        assert client.llen("rq:queue:unsubd") == 1


def test_a_stop_does_not_wait_for_a_client_that_stalls(
    folder: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker.sources.lmtp, "_STOP_S", 0.5)
    with receiving(folder, redis_url) as lmtp:
        stalled = lmtp.client()
        stalled.begin(address(1))
        begun = time.monotonic()

    with stalled:
        assert stalled.reply() == ""
    assert time.monotonic() - begun < 5


@pytest.mark.fault
def test_kill_9_before_the_reply_loses_nothing_and_repeats_harmlessly(folder: Path, redis_url: str) -> None:
    service = _service(folder, redis_url)
    left, kills = set(range(60)), 0

    def deliver(number: int) -> None:
        try:
            with Client(f"unix:{folder}/lmtp") as client:
                if client.deliver(mail("x@example.com", f"k-{number}"), address(number)) == ["250"]:
                    left.discard(number)
        except (OSError, AssertionError):
            time.sleep(0.1)  # as a mail server does: later again

    with service.running("run") as process, ThreadPoolExecutor(8) as pool:
        while left:
            attempt = [pool.submit(deliver, number) for number in sorted(left)]
            if kills < 2 and (lmtp := parts(process.pid, "lmtp")) and (folder / "lmtp").exists():
                time.sleep(0.02 * (kills + 1))
                os.kill(lmtp[0], signal.SIGKILL)
                kills += 1
            for each in attempt:
                each.result()
        until(lambda: len(_suppressed(redis_url)) == 60, 30, "60 suppressions")
        until(lambda: len(_outcomes(redis_url)) == 60, 30, "60 records")

    assert kills == 2
    assert _suppressed(redis_url) == set(map(recipient, range(60)))
    assert _outcomes(redis_url) == ["honour"] * 60


def _swaks(way: str, where: str, *recipients: str) -> None:
    words = (
        "swaks",
        "--protocol",
        "LMTP",
        way,
        where,
        "--to",
        ",".join(recipients),
        "--from",
        "jo@example.net",
        "--pipeline",
    )
    done = subprocess.run(words, capture_output=True, text=True, timeout=30)

    assert done.returncode == 0, done.stdout


@pytest.mark.needs("swaks")
def test_swaks_delivers_on_loopback(folder: Path, redis_url: str, free_port: Callable[[], int]) -> None:
    with receiving(folder, redis_url, lmtp=f"127.0.0.1:{free_port()}") as lmtp:
        _swaks("--server", lmtp.address, address(1), address(2))

        assert lmtp.recipients() == [recipient(1), recipient(2)]


@pytest.mark.fault
@pytest.mark.needs("swaks")
def test_swaks_delivers_on_a_unix_socket_and_the_log_names_nobody(folder: Path, redis_url: str) -> None:
    service = _service(folder, redis_url)
    service.last_line("sender", "add", "acme")
    service.last_line("group", "add", "acme", "Weekly news")
    with service.running("run"):
        until((folder / "lmtp").exists, 20, "the socket")
        _swaks("--socket", f"{folder}/lmtp", address(1), address(2))
        with Client(f"unix:{folder}/lmtp") as client:
            client.say(address(3))  # a command that is none
        until(lambda: recipient(2) in _suppressed(redis_url), 30, "the effects")
        (row,) = service.rows("check", "acme", "1", recipient(1))
        counted = until(lambda: [each for each in service.rows("status")[0]["sources"] if each["messages"]], 10)

    assert row["source"] == "lmtp"
    assert [(each["name"], each["messages"]) for each in counted] == [("lmtp:default", 2)]
    assert [word for word in ("jo@", "person", "-acme-") if word in service.log.read_text()] == []


@pytest.mark.fault
@pytest.mark.needs("postfix")
def test_postfix_delivers_and_keeps_what_we_cannot_take(folder: Path, own_redis: Callable[..., RedisServer]) -> None:
    if os.getuid():
        processes.unavailable("Postfix runs as root only")
    redis = own_redis()
    (folder / "mx").mkdir()
    postfix = Postfix(processes.require("postfix", processes.PACKAGES["postfix"]), folder / "mx")
    service = _service(folder, redis.url, lmtp=f"unix:{postfix.socket_folder}/lmtp")
    with postfix, service.running("run"):
        until((postfix.socket_folder / "lmtp").exists, 20, "the socket")
        postfix.send(mail("x@example.com", "two"), address(1), address(2))
        until(lambda: _suppressed(redis.url) == {recipient(1), recipient(2)}, 30, "two effects")
        until(lambda: not postfix.waiting(), 10, "the queue empty")

        redis.kill()
        postfix.send(mail("x@example.com", "later"), address(3))
        until(lambda: "said: 451 4.3.0 UNSUBD_REDIS_URL" in postfix.said(), 30, "the refusal")
        assert len(postfix.waiting()) == 1
        redis.start()
        until(lambda: service.is_ready(), 30, "Redis known to be back")
        postfix.flush()
        until(lambda: recipient(3) in _suppressed(redis.url), 30, "the effect")
        until(lambda: not postfix.waiting(), 10, "the queue empty")

    assert _outcomes(redis.url) == ["honour"] * 3
    assert "status=bounced" not in postfix.said()
