"""The journal: one line per event, one counter, and nobody's address."""

import errno
import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import fakeredis
import pytest
import redis
import structlog

from handlers.errors import PayloadInvalid
from handlers.providers.form import read_multipart
from handlers.request import Effect, Outcome
from tests.unit.house import decided
from worker.journal import METRICS, Journal, configure_logging
from worker.keys import Pseudonyms
from worker.store.ledger import result_of

PSEUDONYM = Pseudonyms(b"p" * 32)


@pytest.fixture
def server() -> fakeredis.FakeServer:
    return fakeredis.FakeServer()


@pytest.fixture
def client(server: fakeredis.FakeServer) -> redis.Redis:
    return fakeredis.FakeRedis(server=server)


@pytest.fixture
def journal(client: redis.Redis) -> Journal:
    return Journal(client, PSEUDONYM)


@pytest.fixture
def stderr(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What the journal writes to stderr, as production formats it."""
    before, written = structlog.get_config(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", written)
    configure_logging()
    yield written
    structlog.configure(**before)


def result(effect: Effect = Effect.ADDED, recipient: str = "jane@example.com", **more: Any) -> dict[str, Any]:
    return result_of(effect, "acme", 12, recipient, "1f" * 16, **more)


def test_one_line_per_request_with_a_pseudonym(client: redis.Redis, journal: Journal) -> None:
    message = decided(key="5f" * 32)

    journal.recorded([(message, [result(redirected_from=9), result(Effect.STALE, "joe@example.com")])])

    newest, oldest = Journal.lines(client, 10)
    assert oldest["at_ms"] > 0
    assert oldest["age_s"] < 60
    assert {name: oldest[name] for name in oldest if name not in ("at_ms", "age_s")} == {
        "event": "honour", "message": "5f" * 6, "source": "imap:INBOX", "sender": "acme", "group": 12,
        "effect": "added", "redirected_from": 9, "recipient": PSEUDONYM("jane@example.com"),
    }  # fmt: skip
    assert (newest["effect"], newest["recipient"]) == ("stale", PSEUDONYM("joe@example.com"))


def test_a_message_without_requests_has_one_line_with_its_reason(client: redis.Redis, journal: Journal) -> None:
    journal.recorded([(decided(outcome=Outcome.BOUNCE, reason="null sender", requests=()), [])])

    (line,) = Journal.lines(client, 10)
    assert (line["event"], line["reason"]) == ("ignore:bounce", "null sender")


def test_what_an_exception_says_of_somebody_is_masked(
    client: redis.Redis, journal: Journal, stderr: io.StringIO
) -> None:
    journal.failed("job", "job unsub-1f2e ran out of tries: ValueError: jane.doe@example.com is no such thing")

    (line,) = Journal.lines(client, 10)
    assert line["detail"].startswith("job unsub-1f2e ran out of tries: ValueError: ")
    assert "jane.doe" not in json.dumps(line) + stderr.getvalue()


def test_counters_count_messages_and_effects(client: redis.Redis, journal: Journal) -> None:
    journal.recorded([(decided(), [result(), result(Effect.STALE)]), (decided("k2"), [result()])])
    journal.failed("batch", "ValueError: repeated one by one", messages=2)
    journal.webhooks([("relay", "accepted", "")])
    journal.webhooks([("relay", "signature_invalid", "none of the secrets")])
    journal.told("policy", {"refused": 3})

    assert Journal.counters(client) == {
        ("unsubd_messages_total", "honour"): 2,
        ("unsubd_requests_total", "added"): 2,
        ("unsubd_requests_total", "stale"): 1,
        ("unsubd_failures_total", "batch"): 1,
        ("unsubd_webhook_answers_total", "relay:accepted"): 1,
        ("unsubd_webhook_answers_total", "relay:signature_invalid"): 1,
        ("unsubd_mta_answers_total", "policy:refused"): 3,
    }
    assert {name for name, _ in Journal.counters(client)} == set(METRICS)


def test_an_accepted_post_is_counted_and_not_told(client: redis.Redis, journal: Journal) -> None:
    journal.webhooks([("relay", "accepted", "")])

    assert Journal.lines(client, 10) == []


def test_the_last_thousand_lines_are_kept_newest_first(client: redis.Redis, journal: Journal) -> None:
    for number in range(3):
        messages = [(decided(f"k{number}-{each}"), [result()]) for each in range(400)]
        journal.recorded(messages)

    assert client.llen("unsubd:journal") == 1000
    assert [line["message"] for line in Journal.lines(client, 2)] == ["k2-399", "k2-398"]


def test_no_line_spells_an_address_a_tag_or_a_subject(
    client: redis.Redis, journal: Journal, stderr: io.StringIO
) -> None:
    journal.recorded(
        [
            (decided(evidence={"tag_in": "to"}), [result()]),
            (decided("k2", outcome=Outcome.NO_TAG, requests=(), reason="no address carries a tag"), []),
        ]
    )

    said = stderr.getvalue() + json.dumps(Journal.lines(client, 10))
    assert said.count("@example.com") == 2  # the domain helps support; what stands before it is a pseudonym
    assert "jane" not in said
    assert "acme-12" not in said


def test_lines_are_logfmt_on_stderr(journal: Journal, stderr: io.StringIO) -> None:
    journal.source("imap:news", "refused", 'LOGIN said "no"\nand more')

    (line,) = stderr.getvalue().splitlines()
    assert line.startswith("timestamp=")
    assert line.partition(" ")[2] == (
        'level=info event=source source=imap:news state=refused detail="LOGIN said \\"no\\"\\nand more"'
    )


def test_commands_are_quiet(stderr: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", stderr)
    configure_logging(quiet=True)

    Journal(None).service("started", part="web")

    assert stderr.getvalue() == ""


def test_before_redis_is_known_only_stderr_hears(stderr: io.StringIO) -> None:
    Journal(None).recorded([(decided(), [result()])])

    assert "event=honour" in stderr.getvalue()


def test_redis_away_undoes_nothing(server: fakeredis.FakeServer, journal: Journal, stderr: io.StringIO) -> None:
    server.connected = False

    journal.recorded([(decided(), [result()])])

    assert "event=journal-unwritten error=ConnectionError lines=1" in stderr.getvalue()


def test_a_log_that_cannot_be_written_undoes_nothing(
    client: redis.Redis, journal: Journal, stderr: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(stderr, "write", full)

    journal.recorded([(decided(), [])])

    assert client.llen("unsubd:journal") == 1


def test_the_imap_library_is_held_at_warning(stderr: io.StringIO) -> None:
    assert logging.getLogger("aioimaplib.aioimaplib").getEffectiveLevel() == logging.WARNING


def test_the_mail_parser_says_nothing_of_the_mail(stderr: io.StringIO) -> None:
    assert logging.getLogger("mailparser.core").getEffectiveLevel() == logging.CRITICAL


def test_a_post_that_is_no_form_adds_no_line_of_its_own(stderr: io.StringIO, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever knows the path could fill the log, beside its form, and needs no proof for it."""
    with pytest.raises(PayloadInvalid):
        read_multipart("multipart/form-data; boundary=b", b"--b\r\nno header")
    with pytest.raises(PayloadInvalid):
        read_multipart("multipart/form-data; boundary=b", b"no boundary")

    assert caplog.records == []


@pytest.mark.parametrize("form", ["json", "console", "logfmt"])
def test_no_form_lets_a_control_character_reach_a_terminal(
    form: str, stderr: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setenv("UNSUBD_LOG", form)
    configure_logging()

    Journal(None).source("imap:news", "refused", "\x1b[2Jgone\u202e\x07")

    (line,) = stderr.getvalue().splitlines()
    assert "gone" in line
    assert line.isprintable()


def test_json_is_one_object_a_line(stderr: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setenv("UNSUBD_LOG", "json")
    configure_logging()

    Journal(None).source("imap:news", "refused", "no")

    line = json.loads(stderr.getvalue())
    assert (line["event"], line["level"], line["detail"]) == ("source", "info", "no")


def test_what_a_full_disk_did_not_take_is_not_tried_again_by_a_fork() -> None:
    """In a process of its own: it changes what stdout and stderr are."""
    program = (
        "import os, sys\n"
        "from worker.journal import Stderr, write_through\n"
        "write_through()\n"
        "Stderr().write('lost')\n"
        "print('here', flush=True)\n"
        "os._exit(7) if os.fork() == 0 else None\n"
        "sys.stderr.flush()\n"
    )
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=full, env=plain, timeout=60
        )

    assert (done.returncode, done.stdout) == (0, b"here\n")
