"""Folders of real servers: Junk, other names, no MOVE, a new UIDVALIDITY, a mailbox that is deleted or full of history."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from tests.harness.dovecot import Mailbox
from tests.harness.mails import APPLE, address, mail, recipient
from tests.harness.service import until
from tests.servers.test_mailbox import _outcomes, _service, _suppressed
from worker.sources import source_states

DONE = "$UnsubdDone"


def _sources(redis_url: str) -> dict[str, dict[str, Any]]:
    with Redis.from_url(redis_url) as client:
        return {each["name"]: each for each in source_states(client)}


def _state(redis_url: str, name: str = "imap:default") -> object:
    return _sources(redis_url).get(name, {}).get("state")


def _flags(mailbox: Mailbox, folder: str = "INBOX") -> list[set[str]]:
    return [flags for _, flags, _ in mailbox.messages(folder)]


@pytest.mark.fault
def test_junk_gives_up_what_carries_our_tag_and_keeps_the_rest(
    tmp_path: Path, redis_url: str, dovecot: Mailbox
) -> None:
    dovecot.create("Junk")
    dovecot.append(mail(address(1), "rescued", APPLE), folder="Junk")
    dovecot.append(mail("info@example.com", "spam"), folder="Junk")
    dovecot.append(mail("u+aaaaaaaaaaaaaa-acme-1-boss_example.com@unsub.example.com", "forged"), folder="Junk")
    service = _service(tmp_path, redis_url, dovecot, imap_untagged="process")

    with service.running("run"):
        until(lambda: _suppressed(redis_url) == {recipient(1)}, 30, "the rescue")
        until(lambda: len(dovecot.messages("Junk")) == 2, 30, "the rescued mail moved")
        sources = until(
            lambda: (s := _sources(redis_url)) and s["imap:default:junk"]["left"] == 2 and s, 30, "the count"
        )

    assert _flags(dovecot, "Junk") == [set(), set()]
    assert _outcomes(redis_url) == ["honour"]  # nothing is recorded of what is not ours
    assert sources["imap:default:junk"]["messages"] == 1
    with Redis.from_url(redis_url) as client:
        assert client.hlen("unsubd:quarantine") == 0


def test_doctor_warns_when_junk_cannot_be_watched(tmp_path: Path, redis_url: str, dovecot: Mailbox) -> None:
    service = _service(tmp_path, redis_url, dovecot)

    without = service.command("doctor").stdout
    dovecot.create("Junk")
    with_junk = service.command("doctor").stdout

    assert "WARN  mailbox" in without
    assert "no folder is marked \\Junk" in without
    assert "0 messages, 0 not marked, IDLE, MOVE, UIDPLUS, Junk 'Junk': 0 messages" in with_junk


@pytest.mark.fault
def test_a_server_without_move_and_with_a_prefix(tmp_path: Path, redis_url: str, old_dovecot: Mailbox) -> None:
    old_dovecot.append(mail(address(1), "one"))
    old_dovecot.append(mail("info@example.com", "foreign"), flags="\\Deleted")
    service = _service(tmp_path, redis_url, old_dovecot)

    with service.running("run"):
        until(lambda: _suppressed(redis_url) == {recipient(1)}, 30, "the suppression")
        until(lambda: len(old_dovecot.messages()) == 1, 30, "the move")

    assert _flags(old_dovecot) == [{"\\Deleted"}]  # somebody else's \Deleted was not expunged with ours
    assert [DONE in flags for flags in _flags(old_dovecot, "INBOX.Processed")] == [True]


def test_a_folder_is_found_as_people_write_it(tmp_path: Path, redis_url: str, old_dovecot: Mailbox) -> None:
    old_dovecot.create("INBOX.Unsub.D&AOk-sabo")
    old_dovecot.append(mail(address(1), "one"), folder="INBOX.Unsub.D&AOk-sabo")
    url = old_dovecot.url.replace("/INBOX", "/Unsub/D%C3%A9sabo")
    service = _service(tmp_path, redis_url, old_dovecot, imap_url=url)

    done = service.command("poll", "--once")

    assert done.returncode == 0, done.stderr
    assert _flags(old_dovecot, "INBOX.Unsub.D&AOk-sabo") == [{DONE}]


def test_an_unknown_folder_is_refused_with_those_there_are(tmp_path: Path, redis_url: str, dovecot: Mailbox) -> None:
    dovecot.create("Unsubscribes")
    service = _service(tmp_path, redis_url, dovecot, imap_url=dovecot.url.replace("INBOX", "Unsubs"))

    done = service.command("poll", "--once")

    assert done.returncode == 78
    assert "mailbox 'Unsubs' cannot be opened" in done.stderr
    assert "the account has INBOX, Unsubscribes" in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("unsubd: ")]) == 1


def test_a_new_uidvalidity_is_no_new_backlog(tmp_path: Path, redis_url: str, dovecot: Mailbox) -> None:
    dovecot.append(mail(address(0), "first"))
    service = _service(tmp_path, redis_url, dovecot, imap_backlog="ask")
    assert service.command("poll", "--once").returncode == 0
    dovecot.append_many([mail(address(number), f"m-{number}") for number in range(1, 70)])
    assert len(dovecot.messages()) == 70
    maildir = dovecot.server.folder / "homes" / dovecot.user / "Maildir"
    for lost in [*maildir.glob("dovecot*"), *maildir.glob("dovecot-*")]:
        shutil.rmtree(lost) if lost.is_dir() else lost.unlink(missing_ok=True)

    assert service.command("poll", "--once").returncode == 0

    assert [DONE in flags for flags in _flags(dovecot)] == [True] * 70
    assert _sources(redis_url)["imap:default"]["held"] == 0


@pytest.mark.fault
def test_a_deleted_mailbox_is_waited_for(tmp_path: Path, redis_url: str, dovecot: Mailbox) -> None:
    dovecot.create("Gone")
    service = _service(tmp_path, redis_url, dovecot, imap_url=dovecot.url.replace("INBOX", "Gone"))

    with service.running("run"):
        until(lambda: _state(redis_url) == "idle", 30, "idle")
        with dovecot.imap() as client:
            client.delete("Gone")
        dovecot.restart()
        until(lambda: _state(redis_url) == "refused", 30, "the loss told")
    dovecot.create("Gone")
    dovecot.append(mail(address(1), "back"), folder="Gone")

    assert service.command("poll", "--once").returncode == 0
    assert [DONE in flags for flags in _flags(dovecot, "Gone")] == [True]


@pytest.mark.fault
def test_what_was_left_is_looked_at_again_when_a_sender_names_its_address(
    tmp_path: Path, redis_url: str, dovecot: Mailbox
) -> None:
    dovecot.append(b"From: <jane@example.net>\r\nTo: leave@example.com\r\nSubject: hello\r\nMessage-ID: <1@x>\r\n\r\n")
    service = _service(tmp_path, redis_url, dovecot, poll_interval_s="3")
    service.last_line("sender", "add", "acme")

    with service.running("run"):
        until(lambda: _sources(redis_url).get("imap:default", {}).get("left") == 1, 30, "left")
        service.last_line("sender", "source", "add", "acme", "--address", "leave@example.com", "--group", "0")
        until(lambda: _flags_anywhere(dovecot) == 1, 30, "the mail taken")

    rows = service.rows("quarantine", "list")
    assert [row["reason"] for row in rows] == ["quarantine:no-tag"]


def _flags_anywhere(mailbox: Mailbox) -> int:
    try:
        folders = [*_flags(mailbox), *_flags(mailbox, "Processed")]
    except AssertionError:  # it is not there yet
        folders = _flags(mailbox)
    return sum(DONE in flags for flags in folders)


@pytest.mark.fault
def test_one_mailbox_in_trouble_is_not_anothers(tmp_path: Path, redis_url: str, dovecot: Mailbox) -> None:
    urls = f"{dovecot.url}#good {dovecot.url.replace('INBOX', 'Missing')}#bad imaps://x@127.0.0.1:9/INBOX#away"
    service = _service(tmp_path, redis_url, dovecot, imap_url=urls)

    with service.running("run"):
        dovecot.append(mail(address(1), "one"))
        until(lambda: _suppressed(redis_url) == {recipient(1)}, 30, "the suppression")
        states = until(lambda: (s := _sources(redis_url)) and s["imap:away"]["state"] == "waiting" and s, 30, "states")

    assert states["imap:bad"]["state"] == "refused"
    assert states["imap:good"]["state"] in ("idle", "working")


def test_dry_run_prints_the_decisions_and_writes_nothing(tmp_path: Path, redis_url: str, dovecot: Mailbox) -> None:
    for number in range(3):
        dovecot.append(mail(address(number), f"m-{number}"))
    dovecot.append(mail("info@example.com", "foreign"))
    before = dovecot.messages()
    service = _service(tmp_path, redis_url, dovecot)
    with Redis.from_url(redis_url) as client:
        keys = client.dbsize()

        done = service.command("poll", "--dry-run", "--limit", "3")

        assert done.returncode == 0, done.stderr
        assert client.dbsize() == keys == 0
    assert dovecot.messages() == before
    assert "the newest 3 of 4 messages that are not marked: 2 honour, 1 left, and suggested" in done.stdout
    assert "person.1@" not in done.stdout
    assert done.stdout.splitlines()[-1] == "nothing was marked, moved or written"


@pytest.mark.fault
def test_audit_counts_who_asked_and_applies_what_is_proved(tmp_path: Path, redis_url: str, dovecot: Mailbox) -> None:
    mails = [mail(address(number % 40), f"m-{number}") for number in range(60)]
    mails += [mail(f"list{number}@example.com", f"untagged-{number}") for number in range(5)]
    dovecot.append_many(mails)
    before = dovecot.messages()
    service = _service(tmp_path, redis_url, dovecot)
    table = tmp_path / "audit.csv"

    rows = service.rows("audit", dovecot.url, "--csv", str(table))
    told = service.command("audit", dovecot.url)

    assert rows[0] | {"oldest_ms": 0} == {
        "sender": "acme", "group": 1, "people": 40, "not_suppressed": 40, "messages": 60, "oldest_ms": 0,
    }  # fmt: skip
    assert rows[1]["people"] == 1  # one author asked five times, and nothing proves it
    assert "41 people asked, 40 of them provably; 40 still get mail" in told.stdout
    assert len(table.read_text().splitlines()) == 42
    assert table.stat().st_mode & 0o777 == 0o600
    assert dovecot.messages() == before
    with Redis.from_url(redis_url) as client:
        assert client.llen("rq:queue:unsubd") == 0

    with service.running("work", ready=False):
        applied = service.command("audit", dovecot.url, "--apply")
        until(lambda: len(_suppressed(redis_url)) == 40, 30, "the suppressions")
    assert "queued" in applied.stdout
    assert dovecot.messages() == before
    assert "40 of them provably; 0 still get mail" in service.command("audit", dovecot.url).stdout
