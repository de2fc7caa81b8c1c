"""`unsubd trace`: one message, recipient or job through every hop, and nobody's address unless asked."""

from collections.abc import Iterator
from datetime import UTC, datetime

import fakeredis
import pytest

from handlers import message
from handlers.errors import Rejected
from handlers.request import Outcome
from tests.unit import house
from tests.unit.house import decided, mail, now_ms
from worker.installation import Installation
from worker.quarantine.entry import shrunk
from worker.store import ledger
from worker.trace import traced

KEY = "5f" * 32
JOB = "unsub-" + "ab" * 16


@pytest.fixture
def installation() -> Iterator[Installation]:
    with house.opened(fakeredis.FakeServer()) as installation:
        yield installation


def hops(installation: Installation, what: str) -> list[str]:
    return [f"{each.hop} {each.what.split()[0].rstrip(':')}" for each in traced(installation, what, full=False).events]


def test_a_recipient_is_followed_through_ledger_and_journal(installation: Installation) -> None:
    installation.journal.follow(JOB)
    installation.intake.record([decided(KEY)])
    installation.journal.settled("acknowledged", "imap:INBOX", 1, job=JOB, uids="7:7")
    installation.intake.record([decided("k2", recipient="joe@example.com")])

    assert sorted(hops(installation, "Jane@Example.com")) == ["journal acknowledged", "journal honour", "ledger acme"]


def test_a_message_is_found_by_the_digest_of_the_journal(installation: Installation) -> None:
    installation.intake.record([decided(KEY)])

    assert sorted(hops(installation, KEY[:12])) == ["journal honour", "ledger honour"]


def test_a_message_in_quarantine_is_found_by_its_message_id_and_masked(installation: Installation) -> None:
    installation.intake.accept(
        [mail("info@unsub.example.org", "one@example.net", subject="\x1b[2J from jane@example.com")]
    )

    (kept, *_) = [
        each for each in traced(installation, "<one@example.net>", full=False).events if each.hop == "quarantine"
    ]
    (spelled, *_) = [
        each for each in traced(installation, "<one@example.net>", full=True).events if each.hop == "quarantine"
    ]

    assert "jane@example.com" not in kept.what
    assert "j···e@example.com" in kept.what
    assert "jane@example.com" in spelled.what


def test_who_wrote_an_untagged_mail_is_found_and_nobody_whose_address_ends_alike(installation: Installation) -> None:
    crowd = ("Joe@example.net", "bigjoe@example.net", "joe@example.net.example")
    raws = [f"From: J <{each}>\r\nTo: info@unsub.example.org\r\nSubject: stop\r\n\r\n".encode() for each in crowd]
    installation.intake.accept([message.read(raw, source="maildir:default") for raw in raws])

    (found,) = [each for each in traced(installation, "joe@example.net", full=True).events if each.hop == "quarantine"]

    assert "(from J <Joe@example.net>, 'stop')" in found.what


def test_any_message_in_quarantine_is_found_by_its_message_id_also_a_shrunk_one(installation: Installation) -> None:
    crowd = [mail("info@unsub.example.org", f"m{number}@example.net") for number in range(1200)]
    installation.intake.accept(crowd)
    (entry,) = installation.quarantine.entries([crowd[0].key[:32]]).values()
    installation.quarantine.change(entry, shrunk(entry))

    assert [
        hops(installation, f"<m{number}@example.net>").count("quarantine quarantine:no-tag") for number in (0, 7)
    ] == [1, 1]
    assert installation.quarantine.with_message_id("M7@EXAMPLE.NET", 5) == [crowd[7].key[:32]]
    assert installation.quarantine.with_message_id("", 5) == []


def test_what_a_shrunk_message_no_longer_says_finds_it_no_more(installation: Installation) -> None:
    kept = mail("info@unsub.example.org", "one@example.net", envelope_to="Info@unsub.example.org")
    installation.intake.accept([kept])
    quarantine = installation.quarantine
    assert quarantine.naming("info@UNSUB.example.org", 5) == [kept.key[:32]]

    (entry,) = quarantine.entries([kept.key[:32]]).values()
    quarantine.change(entry, shrunk(entry))

    assert [quarantine.naming(each, 5) for each in ("info@unsub.example.org", "x@example.net")] == [[], [entry.id]]
    assert [quarantine.beginning(each, 5) for each in (kept.key[:12], kept.key[:12] + "0" * 20)] == [[entry.id], []]


@pytest.mark.parametrize("digits", [12, 64])
@pytest.mark.parametrize("forgot", [False, True], ids=["while the journal knows", "once it does not"])
def test_a_record_is_found_by_its_digest_also_by_its_later_recipients(
    installation: Installation, digits: int, forgot: bool
) -> None:
    first, second = (decided(KEY, recipient=each).requests[0] for each in ("jane@example.com", "joe@example.com"))
    installation.intake.record([decided(KEY, requests=(first, second)), decided("ab" * 32)])
    if forgot:
        installation.redis.delete("unsubd:journal")

    told = [each.what for each in traced(installation, KEY[:digits], full=False).events if each.hop == "ledger"]

    assert [each.partition(" (message ")[2] for each in told] == [f"{KEY[:12]})"]


def test_of_an_unknown_message_the_newest_records_alone_are_looked_through_and_that_is_said(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    month_ms = 31 * 86_400_000
    installation.intake.record([decided(KEY, received_ms=now_ms() - 3 * month_ms), decided("ab" * 32)])
    installation.redis.delete("unsubd:journal")
    last = datetime.fromtimestamp(now_ms() / 1000 - 3 * 31 * 86_400, UTC).strftime("%Y-%m")
    monkeypatch.setattr(ledger, "_MOST", 1)

    with pytest.raises(Rejected, match=rf"of the ledger, {last} and what is older was not looked .*: ask with --all$"):
        traced(installation, KEY[:12], full=False)

    found = traced(installation, KEY[:12], full=False, whole=True)
    assert ([each.hop for each in found.events], found.unread) == (["ledger"], "")
    assert traced(installation, "ab" * 6, full=False).unread == ""


def test_a_record_that_concerns_no_sender_is_found(installation: Installation) -> None:
    ignored = mail("info@unsub.example.org", "one@example.net", subject="Automatic reply")
    installation.intake.record([decided(ignored.key, requests=(), outcome=Outcome.AUTO_REPLY)])

    assert sorted(hops(installation, ignored.key[:12])) == ["journal ignore:auto-reply", "ledger ignore:auto-reply"]


def test_a_trace_ends_where_the_mail_was_moved(installation: Installation) -> None:
    installation.journal.follow(JOB)
    installation.intake.record([decided(KEY)])
    for event, source, uids, facts in (
        ("acknowledged", "imap:INBOX", "5:9", {"job": JOB}), ("moved", "imap:INBOX", "7:300", {}),
        ("moved", "imap:INBOX", "10:12", {}), ("moved", "imap:news", "5:9", {}),
    ):  # fmt: skip
        installation.journal.settled(event, source, 5, uids=uids, **facts)

    for name in (KEY[:12], JOB):
        told = [each.what for each in traced(installation, name, full=False).events if "moved" in each.what]

        assert [each.split("uids=")[1] for each in told] == ["7:300"]


def test_a_job_is_told_with_what_it_holds(installation: Installation) -> None:
    (job_id,) = installation.queue.enqueue([decided(KEY)])

    (queued,) = traced(installation, job_id, full=False).events

    assert (queued.hop, queued.what) == ("job", "queued: 1 request in 1 message")


def test_what_nobody_knows_is_refused_without_spelling_it(installation: Installation) -> None:
    with pytest.raises(Rejected, match=r"^17 characters: nothing is known"):
        traced(installation, "nobody@example.io", full=False)
