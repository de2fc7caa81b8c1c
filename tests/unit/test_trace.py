"""`unsubd trace`: one message, recipient or job through every hop, and nobody's address unless asked."""

from collections.abc import Iterator

import fakeredis
import pytest

from handlers.errors import Rejected
from tests.unit import house
from tests.unit.house import decided, mail
from worker.installation import Installation
from worker.trace import traced

KEY = "5f" * 32
JOB = "unsub-" + "ab" * 16


@pytest.fixture
def installation() -> Iterator[Installation]:
    with house.opened(fakeredis.FakeServer()) as installation:
        yield installation


def hops(installation: Installation, what: str) -> list[str]:
    return [f"{each.hop} {each.what.split()[0].rstrip(':')}" for each in traced(installation, what, full=False)]


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

    (kept, *_) = [each for each in traced(installation, "<one@example.net>", full=False) if each.hop == "quarantine"]
    (spelled, *_) = [each for each in traced(installation, "<one@example.net>", full=True) if each.hop == "quarantine"]

    assert "jane@example.com" not in kept.what
    assert "j···e@example.com" in kept.what
    assert "jane@example.com" in spelled.what


def test_a_job_is_told_with_what_it_holds(installation: Installation) -> None:
    (job_id,) = installation.queue.enqueue([decided(KEY)])

    (queued,) = traced(installation, job_id, full=False)

    assert (queued.hop, queued.what) == ("job", "queued: 1 request in 1 message")


def test_what_nobody_knows_is_refused_without_spelling_it(installation: Installation) -> None:
    with pytest.raises(Rejected, match=r"^17 characters: nothing is known"):
        traced(installation, "nobody@example.io", full=False)
