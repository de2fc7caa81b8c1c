"""A mailbox on a real Dovecot: what is taken, what is left alone, and what happens when something is wrong."""

import asyncio
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from redis import Redis

from handlers.message import FIRST_LOOK_BYTES
from tests.harness.dovecot import Mailbox
from tests.harness.mails import APPLE, address, mail, recipient
from tests.harness.names import NAMES
from tests.harness.redis_server import RedisServer
from tests.harness.service import MASTERS, Service, until
from worker.sources.credential import Credential
from worker.sources.imap import ImapConnection, MailboxAddress
from worker.store import Store
from worker.store.ledger import Ledger


def _service(folder: Path, redis_url: str, dovecot: Mailbox, **more: str) -> Service:
    settings = {
        "redis_url": redis_url, "secret_keys": ",".join(MASTERS), "address": "u+{tag}@unsub.example.com",
        "imap_url": dovecot.url, "imap_password": dovecot.password, "imap_ca_file": str(dovecot.ca_file),
        "imap_backlog": "all",
    }  # fmt: skip
    return Service(folder, **(settings | more))


def _suppressed(redis_url: str) -> set[str]:
    with Redis.from_url(redis_url) as client:
        return {name for name, _ in Store(client, NAMES).listed("acme", 1)}


def _outcomes(redis_url: str) -> list[str]:
    with Redis.from_url(redis_url) as client:
        return sorted(record["outcome"] for _, record in Ledger(client, lambda _: "").records())


def test_strange_mails_are_accounted_and_block_nobody(tmp_path: Path, redis_url: str, dovecot: Mailbox) -> None:
    huge = mail(address(1), "huge", body="x" * 78 + "\r\n") + b"y" * 50_000_000
    far_header = mail("x@example.com", "far", "X-Filler: " + "z" * 9000 + f"\r\nDelivered-To: {address(2)}\r\n")
    headerless = b"\r\nno header at all, only text\r\n"
    dovecot.append_many([huge, b"", headerless, far_header, mail(address(3), "last", APPLE)])
    service = _service(tmp_path, redis_url, dovecot, imap_untagged="process")

    with service.running("run"):
        until(lambda: len(_outcomes(redis_url)) == 5, what="five records")

    assert _suppressed(redis_url) == {recipient(number) for number in (1, 2, 3)}
    assert _outcomes(redis_url) == ["honour"] * 3 + ["quarantine:malformed"] * 2


TELLS = """
from worker.sources.imap.protocol import Protocol
real = Protocol.send
def send(self, line, scrub=None):
    verb = line.split(" ")[1]
    with open(TOLD, "a") as told:
        print(line.split(" ")[2] if verb == "UID" else verb, file=told)
    real(self, line, scrub)
Protocol.send = send
"""


def test_a_thousand_mails_cost_few_commands_and_fewer_jobs(tmp_path: Path, redis_url: str, dovecot: Mailbox) -> None:
    told = tmp_path / "told"
    (tmp_path / "sitecustomize.py").write_text(f"TOLD = {str(told)!r}{TELLS}")
    dovecot.append_many([mail(address(number), f"m-{number}") for number in range(1000)])
    service = _service(tmp_path, redis_url, dovecot)
    service.env["PYTHONPATH"] = str(tmp_path)

    assert service.command("poll", "--once").returncode == 0

    commands = Counter(told.read_text().split())
    with Redis.from_url(redis_url) as client:
        jobs = client.llen("rq:queue:unsubd")
    # A job holds what is read within a second: 500 messages here, fewer on a slow machine.
    assert (commands["FETCH"], commands["STORE"]) == (20, jobs), "50 messages a fetch, one mark for each job"
    assert commands.total() <= 36 + jobs <= 36 + 20


def test_what_another_session_removed_meanwhile_is_no_mail(dovecot: Mailbox) -> None:
    dovecot.append_many([mail(address(number), f"gone-{number}") for number in (1, 2)])
    credential = Credential("password", dovecot.password)

    async def fetched_after_it_went() -> list[int]:
        connection = await ImapConnection.open(MailboxAddress.parse(dovecot.url), credential, dovecot.ca_file)
        await connection.select("INBOX")
        dovecot.remove(1)
        try:
            return [each.uid for each in await connection.fetch([1, 2], FIRST_LOOK_BYTES)]
        finally:
            await connection.close()

    assert asyncio.run(fetched_after_it_went()) == [2]


@pytest.mark.fault
def test_1200_mails_at_once_while_idle(tmp_path: Path, redis_url: str, dovecot: Mailbox) -> None:
    service = _service(tmp_path, redis_url, dovecot)

    with service.running("run"):
        until(lambda: "state=idle" in service.log.read_text(), what="idle")
        dovecot.append_many([mail(address(number), f"burst-{number}") for number in range(1200)])
        until(lambda: len(_suppressed(redis_url)) == 1200, 60, "1,200 suppressions")
        until(lambda: len(dovecot.messages("Processed")) == 1200, 60, "1,200 moved")

    assert dovecot.messages() == []
    said = service.log.read_text()
    assert [word for word in ("horse", "person.7@", "burst-7") if word in said] == []  # password, recipient, Message-ID


def test_somebody_elses_seen_flag_hides_nothing(tmp_path: Path, redis_url: str, dovecot: Mailbox) -> None:
    dovecot.append(mail(address(1), "seen"), flags="\\Seen \\Flagged")
    service = _service(tmp_path, redis_url, dovecot)

    done = service.command("poll", "--once")

    assert done.returncode == 0, done.stderr
    assert [flags for _, flags, _ in dovecot.messages()] == [{"\\Seen", "\\Flagged", "$UnsubdDone"}]


def test_mail_that_is_not_ours_is_left_unflagged(tmp_path: Path, redis_url: str, dovecot: Mailbox) -> None:
    dovecot.append(mail("info@example.com", "foreign").replace(b"unsubscribe", b"lunch"))
    service = _service(tmp_path, redis_url, dovecot)

    for _ in range(2):
        assert service.command("poll", "--once").returncode == 0

    assert [flags for _, flags, _ in dovecot.messages()] == [set()]
    with Redis.from_url(redis_url) as client:
        assert client.hlen("unsubd:quarantine") == 0
        assert client.llen("rq:queue:unsubd") == 1  # looked at once, remembered by UID


def test_a_full_mailbox_is_held_until_asked_for(tmp_path: Path, redis_url: str, dovecot: Mailbox) -> None:
    dovecot.append_many([mail(address(number), f"old-{number}") for number in range(60)])
    service = _service(tmp_path, redis_url, dovecot, imap_backlog="ask")
    assert service.command("poll", "--once").returncode == 0
    dovecot.append(mail(address(99), "new"))

    assert service.command("poll", "--once").returncode == 0
    flags = [flags for _, flags, _ in dovecot.messages()]
    status = service.rows("status")[0]

    assert flags == [set()] * 60 + [{"$UnsubdDone"}]
    assert status["sources"][0]["held"] == 60
    assert "UNSUBD_IMAP_BACKLOG=all" in status["sources"][0]["detail"]


@pytest.mark.fault
def test_one_message_that_cannot_be_fetched_blocks_nobody(tmp_path: Path, redis_url: str, dovecot: Mailbox) -> None:
    dovecot.append_many([mail(address(number), f"near-{number}") for number in range(5)])
    assert len(dovecot.messages()) == 5
    bad = sorted((dovecot.server.folder / "homes" / dovecot.user / "Maildir").rglob("*dropped*"))[2]
    bad.chmod(0)
    os.chown(bad, 0, 0)
    service = _service(tmp_path, redis_url, dovecot)

    with service.running("run"):
        until(lambda: len(_suppressed(redis_url)) == 4, 90, "the four others")
        until(lambda: "cannot be fetched" in service.log.read_text(), 30, "the one named")


@pytest.mark.fault
def test_dovecot_restarts_and_nothing_is_missed(tmp_path: Path, redis_url: str, dovecot: Mailbox) -> None:
    service = _service(tmp_path, redis_url, dovecot)

    with service.running("run"):
        until(lambda: "state=idle" in service.log.read_text(), what="idle")
        dovecot.stop()
        until(lambda: "state=waiting" in service.log.read_text(), what="the loss noticed")
        dovecot.start()
        dovecot.append(mail(address(1), "after"))
        until(lambda: _suppressed(redis_url) == {recipient(1)}, 60, "the suppression")


@pytest.mark.fault
def test_redis_lost_while_running_loses_nothing(
    tmp_path: Path, own_redis: Callable[..., RedisServer], dovecot: Mailbox
) -> None:
    redis = own_redis()
    service = _service(tmp_path, redis.url, dovecot)

    with service.running("run"):
        until(lambda: "state=idle" in service.log.read_text(), what="idle")
        redis.kill()
        dovecot.append(mail(address(1), "meanwhile"))
        until(lambda: "UNSUBD_REDIS_URL" in service.log.read_text(), 60, "the loss said")
        redis.start()
        until(lambda: _suppressed(redis.url) == {recipient(1)}, 60, "the suppression")


@pytest.mark.parametrize(
    ("wrong", "code", "setting"),
    [
        ({"imap_password": "wrong"}, 78, "UNSUBD_IMAP_PASSWORD"),
        ({"imap_url": "{url}-nowhere"}, 78, "UNSUBD_IMAP_URL: mailbox 'INBOX-nowhere'"),
        ({"imap_url": "imaps://u@127.0.0.1:{free}/INBOX"}, 75, "does not answer"),
        ({"imap_ca_file": ""}, 78, "UNSUBD_IMAP_CA_FILE"),
        ({"imap_ca_file": "/nowhere.pem"}, 78, "UNSUBD_IMAP_CA_FILE: /nowhere.pem"),
        ({"imap_url": "imap://u@mail.example.com/INBOX"}, 78, "expected imaps://"),
        ({"imap_url": "imaps://u:secret@localhost/INBOX"}, 78, "UNSUBD_IMAP_URL: holds a password"),
        ({"imap_password": ""}, 78, "UNSUBD_IMAP_PASSWORD: not set"),
        ({"imap_url": "{url} {url}"}, 78, "2 mailboxes are named 'default'"),
        ({"imap_backlog": "2026-02-30"}, 78, "UNSUBD_IMAP_BACKLOG"),
    ],
)
def test_a_wrong_mailbox_setting_is_one_clear_line(
    tmp_path: Path, redis_url: str, dovecot: Mailbox, free_port: Callable[[], int], wrong: dict[str, str], code: int,
    setting: str,
) -> None:  # fmt: skip
    words = {
        name: value.replace("{url}", dovecot.url).replace("{free}", str(free_port())) for name, value in wrong.items()
    }
    service = _service(tmp_path, redis_url, dovecot, **words)

    done = service.command("poll")

    said = [line for line in done.stderr.splitlines() if line.startswith("unsubd: ")]
    assert (done.returncode, len(said)) == (code, 1), done.stderr
    assert setting in said[0]
    assert done.stderr.count(said[0].removeprefix("unsubd: ")) == 1  # the journal does not say it besides
    assert dovecot.password not in done.stderr
    assert "Traceback" not in done.stderr
