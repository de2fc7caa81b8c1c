"""Each kind of gap between ledger, queue and store: found, told, and closed by the ordinary path."""

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import fakeredis
import pytest

from handlers.errors import QueueUnavailable
from handlers.message import InboundMessage
from tests.unit import house
from tests.unit.house import decided, mail, now_ms, opened
from tests.unit.letters import JANE
from worker.batch import UnsubdJob
from worker.installation import Installation
from worker.reconcile import Report, effects, jobs, reconcile
from worker.reconcile.books import Books
from worker.reconcile.mail import Scope
from worker.sources.maildir import Maildir
from worker.store.archive import Archive


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "_MOMENT_S", 0.0)
    monkeypatch.setattr(jobs, "HEARTBEAT_S", 0.0)


@pytest.fixture
def acme(tmp_path: Path) -> Iterator[Installation]:
    with opened(fakeredis.FakeServer(), data_dir=str(tmp_path), maildir=str(tmp_path / "mail")) as found:
        found.accounts.add_sender("acme")
        found.accounts.add_group("acme", "Weekly news", "", 12)
        yield found


@pytest.fixture
def taken(acme: Installation, tmp_path: Path) -> InboundMessage:
    """A mail that was accepted, moved and recorded."""
    maildir = Maildir(acme, tmp_path / "mail")
    (tmp_path / "mail" / "new" / "one").write_bytes(mail().raw)
    assert maildir.take() == 1
    _work(acme)
    (found,) = next(maildir.accepted(0.0))
    return found


def _work(acme: Installation) -> None:
    """Do what a worker does, with what waits."""
    for job in acme.queue.rq.get_jobs():
        acme.intake.record([house.DecidedMessage.from_wire(wire) for wire in job.kwargs["batch"]])
        job.delete()


def _compared(acme: Installation, *, repair: bool = True) -> Report:
    return reconcile(acme, Scope(0), repair=repair)


def _homes(acme: Installation) -> list[bytes]:
    return list(acme.store_redis.keys("unsubd:ledger:{*}:*"))  # type: ignore[arg-type]


def test_where_nothing_is_missing_nothing_is_done(acme: Installation, taken: InboundMessage) -> None:
    report = _compared(acme)

    assert (report.messages, report.records, report.found, report.left) == (1, 1, {}, 0)
    assert acme.queue.rq.count == 0


def test_a_lost_record_is_written_again(acme: Installation, taken: InboundMessage) -> None:
    acme.store_redis.delete(*_homes(acme))

    report = _compared(acme)
    _work(acme)

    assert (report.found, report.repaired) == ({"unrecorded": 1}, {"unrecorded": 1})
    assert [key for key, _ in acme.ledger.records()] == [taken.key]
    assert _compared(acme).found == {}


def test_a_dry_run_repairs_nothing(acme: Installation, taken: InboundMessage) -> None:
    acme.store_redis.delete(*_homes(acme))

    report = _compared(acme, repair=False)

    assert (report.found, report.left, acme.queue.rq.count) == ({"unrecorded": 1}, 1, 0)


def test_what_waits_in_a_job_is_no_gap(acme: Installation, taken: InboundMessage) -> None:
    acme.store_redis.delete(*_homes(acme))
    acme.intake.accept([taken])

    assert _compared(acme).found == {}


def test_what_the_archive_has_is_no_gap_and_it_is_read_once(
    acme: Installation, taken: InboundMessage, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[int] = []

    def copies(_: Archive) -> Iterator[SimpleNamespace]:
        passes.append(1)
        yield SimpleNamespace(key=taken.key)

    monkeypatch.setattr(Archive, "copies", copies)
    acme.store_redis.delete(*_homes(acme))
    books = Books(acme, report := Report(), repair=True)
    for _ in range(3):
        books.compare([taken])
    books.compare([mail(message_id="other", received_ms=now_ms())])

    assert (report.found, len(passes)) == ({"unrecorded": 1}, 1)


def test_a_stop_of_everything_answers_for_a_group(acme: Installation, taken: InboundMessage) -> None:
    acme.intake.apply([replace(decided(group=0).requests[0], at_ms=now_ms())])
    acme.store_redis.hdel("unsubd:supp:{acme:0}", JANE.recipient + "\x0012")

    assert _compared(acme).found == {}


def test_a_file_that_goes_while_it_is_compared_ends_nothing(
    acme: Installation, taken: InboundMessage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mail" / "cur" / "gone:2,S").symlink_to(tmp_path / "nowhere")
    monkeypatch.setattr("worker.sources.maildir.os.DirEntry.is_file", lambda *_, **__: True, raising=False)

    assert _compared(acme).found == {}


def test_what_waits_in_quarantine_because_it_failed_is_no_gap(acme: Installation, taken: InboundMessage) -> None:
    acme.store_redis.delete(*_homes(acme))
    (wire,) = [each.as_wire() for each in acme.intake.decide([taken])]
    acme.quarantine_failed(wire, "broken")

    assert _compared(acme).found == {}


def test_a_record_under_an_older_decision_counts(acme: Installation, taken: InboundMessage) -> None:
    acme.store_redis.delete(*_homes(acme))
    before_the_key = decided(taken.key, outcome=house.Outcome.BAD_TAG, requests=(), received_ms=now_ms())
    acme.ledger.write([(before_the_key, [])])

    report = _compared(acme)

    assert "unrecorded" not in report.found


def test_a_lost_suppression_comes_back_and_keeps_its_one_record(acme: Installation, taken: InboundMessage) -> None:
    acme.store_redis.delete("unsubd:supp:{acme:0}")

    report = _compared(acme)
    _work(acme)

    assert report.found == {"ineffective": 1}
    assert [name for name, _ in acme.store.listed("acme", 12)] == [JANE.recipient]
    assert len(list(acme.ledger.records())) == 1


def test_what_was_lifted_later_stays_lifted(acme: Installation, taken: InboundMessage) -> None:
    time.sleep(0.002)
    back = house.Request("9" * 32, house.Action.RESUBSCRIBE, "acme", 12, JANE.recipient, now_ms(), "api", "x",
                         seen_version=acme.store.row("acme", 12, JANE.recipient).version.hex())  # type: ignore[union-attr]  # fmt: skip
    acme.store.apply([back])
    assert not acme.store.row("acme", 12, JANE.recipient).suppressed  # type: ignore[union-attr]

    report = _compared(acme)

    assert report.found == {}
    assert acme.queue.rq.count == 0


def test_a_row_of_what_left_no_mail_is_told_and_not_made_up(acme: Installation) -> None:
    acme.intake.record([decided("w" * 64, source="one-click")])
    acme.store_redis.delete("unsubd:supp:{acme:0}")

    report = _compared(acme)

    assert (report.found, report.left) == ({"unrestorable": 1}, 1)


def test_a_forgotten_person_is_no_gap(acme: Installation) -> None:
    acme.intake.record([decided("w" * 64, source="one-click")])
    acme.store.forget(JANE.recipient, ["acme"])

    assert _compared(acme).found == {}


def test_a_job_that_stands_nowhere_is_put_back(acme: Installation) -> None:
    (job_id,) = acme.queue.enqueue([decided()])
    acme.redis.delete(acme.queue.rq.key)

    report = _compared(acme)

    assert report.found == {"jobless": 1}
    assert acme.queue.rq.get_job_ids() == [job_id]


def test_a_job_in_a_dead_hand_is_given_back(acme: Installation) -> None:
    (job_id,) = acme.queue.enqueue([decided()])
    acme.redis.lmove(acme.queue.rq.key, acme.queue.rq.intermediate_queue_key)

    report = _compared(acme)

    assert (report.found, report.left) == ({"abandoned": 1}, 0)
    assert acme.queue.rq.get_job_ids() == [job_id]


def test_a_failed_job_goes_to_quarantine(acme: Installation) -> None:
    (job_id,) = acme.queue.enqueue([decided()])
    job = UnsubdJob.fetch(job_id, connection=acme.redis, serializer=acme.queue.rq.serializer)
    pipeline = acme.redis.pipeline()
    pipeline.delete(acme.queue.rq.key)
    acme.queue.reaper._fail(job_id, job, "no tries left", pipeline)
    pipeline.execute()

    dry, done, again = _compared(acme, repair=False), _compared(acme), _compared(acme)

    assert (dry.found, done.repaired, again.found) == ({"unkept": 1}, {"unkept": 1}, {})
    assert acme.quarantine.counts() == {"failed": 1}


def test_what_a_page_left_is_told(acme: Installation) -> None:
    old = decided(received_ms=now_ms() - 3_600_000)
    acme.redis.hset("unsubd:begun", "ab12", json.dumps({"at_ms": now_ms() - 3_600_000, "message": old.as_wire()}))

    report = _compared(acme)

    assert (report.found, acme.queue.rq.count) == ({"untold": 1}, 1)


def test_mail_of_others_in_the_folder_of_handled_mail_is_theirs(acme: Installation) -> None:
    report = Report()
    foreign = mail("someone@example.org", "foreign", "lunch?", received_ms=now_ms())

    Books(acme, report, repair=True).compare([foreign], marked=False)

    assert (report.messages, report.found, acme.queue.rq.count) == (0, {}, 0)


def test_a_full_queue_is_told_and_nothing_is_called_repaired(acme: Installation, taken: InboundMessage) -> None:
    acme.store_redis.delete(*_homes(acme))
    report = Report()
    books = Books(acme, report, repair=True)

    with (
        patch.object(type(acme.queue), "require_room", side_effect=QueueUnavailable("full")),
        pytest.raises(QueueUnavailable),
    ):
        books.compare([taken])

    assert (report.found, report.repaired) == ({}, {})


@pytest.mark.parametrize("repair", [True, False])
@pytest.mark.parametrize("kind", ["unrecorded", "ineffective"])
def test_a_copy_of_a_mail_is_no_second_gap(
    acme: Installation, taken: InboundMessage, kind: str, *, repair: bool
) -> None:
    """The same mail in Processed and in Junk: told once, queued once, and no gap of the ledger besides."""
    acme.store_redis.delete(*(_homes(acme) if kind == "unrecorded" else ["unsubd:supp:{acme:0}"]))
    report = Report()
    books = Books(acme, report, repair=repair)

    books.compare([taken])
    books._in_jobs.clear()  # as where its job has ended meanwhile
    with (
        patch.object(jobs, "message_keys", return_value=set()),
        patch.object(effects, "message_keys", return_value=set()),
    ):
        books.compare([taken])
        effects.compare(acme, 0, books.queued_again, report.note)

    assert report.found == {kind: 1}
    assert acme.queue.rq.count == int(repair)
