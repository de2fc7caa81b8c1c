"""What is a gap and what is none, line by line: of the quarantine, of the ledger's records, of RQ's lists."""

import time
from collections.abc import Iterator
from dataclasses import replace

import fakeredis
import pytest

from tests.unit import house
from tests.unit.house import decided, mail, now_ms, opened
from tests.unit.letters import JANE
from worker import by_hand
from worker.batch import DEATHS, UnsubdJob
from worker.installation import Installation
from worker.reconcile import Report, books, effects, jobs
from worker.reconcile.books import Books, is_answered
from worker.store.row import Row

JOE = "joe@example.org"


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "_MOMENT_S", 0.0)
    monkeypatch.setattr(jobs, "HEARTBEAT_S", 0.0)


@pytest.fixture
def acme() -> Iterator[Installation]:
    with opened(fakeredis.FakeServer()) as found:
        found.accounts.add_sender("acme")
        found.accounts.add_group("acme", "Weekly news", "", 12)
        yield found


def _without_records(acme: Installation) -> None:
    if homes := list(acme.store_redis.scan_iter("unsubd:ledger:{*}:*")):
        acme.store_redis.delete(*homes)


def _of_mail(acme: Installation, *mails: house.InboundMessage, repair: bool = True) -> Report:
    Books(acme, report := Report(), repair=repair).compare(mails)
    return report


def _of_ledger(acme: Installation, since_ms: int = 0) -> dict[str, int]:
    effects.compare(acme, since_ms, (), (report := Report()).note)
    return dict(report.found)


def _of_queue(acme: Installation, *, repair: bool = True) -> Report:
    jobs.compare(acme, (report := Report()).note, repair=repair)
    return report


def _lose(acme: Installation, *recipients: str, group: int = 12) -> None:
    acme.store_redis.hdel("unsubd:supp:{acme:0}", *(f"{each}\0{group or ''}" for each in recipients))


# --- a mail against the books


def test_an_entry_for_another_reason_than_a_failure_is_no_record(acme: Installation) -> None:
    asks = mail("info@example.com", "asks", received_ms=now_ms())
    acme.intake.accept([asks])
    acme.redis.delete(acme.queue.rq.key)
    assert list(acme.quarantine.counts()) == ["quarantine:no-tag"]

    assert _of_mail(acme, asks).found == {"unrecorded": 1}


@pytest.mark.parametrize(("untagged", "kept"), [("leave", {}), ("process", {"quarantine:no-tag": 1})])
def test_mail_of_others_is_copied_where_it_was_so_when_it_came(untagged: str, kept: dict[str, int]) -> None:
    with opened(fakeredis.FakeServer(), imap_untagged=untagged) as found:
        report = _of_mail(found, mail("info@example.com", "lunch", "Lunch on Friday", received_ms=now_ms()))

        assert (report.found, found.quarantine.counts()) == ({"unrecorded": 1}, kept)


def test_a_job_that_ends_while_we_look_leaves_no_gap(acme: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in a job any more, nor in the ledger when that was asked: so that is asked again, last."""
    asks = mail(received_ms=now_ms())

    def done_meanwhile(found: Installation) -> set[str]:
        found.intake.record(found.intake.decide([asks]))
        return set()

    monkeypatch.setattr(books, "message_keys", done_meanwhile)

    assert _of_mail(acme, asks).found == {}


def test_what_waits_in_a_job_is_no_gap_however_often_it_is_met(acme: Installation) -> None:
    asks = mail(received_ms=now_ms())
    acme.intake.accept([asks])
    compared = Books(acme, report := Report(), repair=True)

    for _ in range(2):
        compared.compare([asks])

    assert report.found == {}


def test_a_request_that_waits_in_a_job_is_not_ineffective(acme: Installation) -> None:
    """Two mails of one batch: the first, unrecorded, makes us read the jobs; one carries the second."""
    first, second = mail(message_id="one", received_ms=now_ms()), mail(message_id="two", received_ms=now_ms())
    acme.intake.record(acme.intake.decide([second]))
    _lose(acme, JANE.recipient)
    acme.intake.accept([second])

    assert _of_mail(acme, first, second).found == {"unrecorded": 1}


def _row(*, suppressed: bool, time_ms: int) -> Row:
    return Row(suppressed, False, False, 0, time_ms, "imap", b"", b"")


@pytest.mark.parametrize(
    ("rows", "answered"),
    [
        ([None, None], False), ([_row(suppressed=False, time_ms=999), None], False),
        ([_row(suppressed=False, time_ms=1000), None], True), ([_row(suppressed=True, time_ms=5), None], True),
        ([_row(suppressed=False, time_ms=999), _row(suppressed=True, time_ms=5)], True),
        ([None, _row(suppressed=False, time_ms=1000)], True),
    ],
)  # fmt: skip
def test_a_request_is_answered_by_a_row_that_suppresses_or_is_no_older(
    rows: list[Row | None], *, answered: bool
) -> None:
    (request,) = decided(received_ms=1000).requests

    assert is_answered(request, rows) is answered


# --- the ledger against the store


@pytest.mark.parametrize(("since_ms", "found"), [(5000, {"unrestorable": 1}), (5001, {})])
def test_what_happened_before_the_scope_is_not_compared(
    acme: Installation, since_ms: int, found: dict[str, int]
) -> None:
    acme.intake.record([decided(received_ms=5000)])
    _lose(acme, JANE.recipient)

    assert _of_ledger(acme, since_ms) == found


def test_who_was_stopped_already_needs_his_row_too(acme: Installation) -> None:
    acme.intake.record([decided(received_ms=5000)])
    acme.intake.record([decided("k2", received_ms=6000)])
    _lose(acme, JANE.recipient)

    assert _of_ledger(acme, 5500) == {"unrestorable": 1}


def test_a_record_whose_message_waits_in_a_job_is_no_gap(acme: Installation) -> None:
    acme.intake.record([one := decided()])
    _lose(acme, JANE.recipient)
    acme.queue.enqueue([one])

    assert _of_ledger(acme) == {}


def test_a_row_of_group_0_stands_for_every_group_and_that_of_a_group_for_itself_alone(acme: Installation) -> None:
    acme.accounts.add_group("acme", "Offers", "", 13)
    acme.intake.record([decided("k1"), decided("k2", recipient=JOE), decided("k3", group=13, recipient=JOE)])
    acme.intake.apply([replace(decided("k4", group=0).requests[0])])
    _lose(acme, JANE.recipient, JOE)

    assert _of_ledger(acme) == {"unrestorable": 1}, "Joe's of group 12"


def test_who_came_back_is_no_gap(acme: Installation) -> None:
    acme.intake.record([decided()])
    by_hand.enter(acme, by_hand.Action.RESUBSCRIBE, "acme", 12, [JANE.recipient], actor="anna", reason="asked")
    assert not acme.store.row("acme", 12, JANE.recipient).suppressed  # type: ignore[union-attr]

    assert _of_ledger(acme) == {}


@pytest.mark.parametrize("effect", ["stale", "lifted", "not-lifted", "queued"])
def test_what_stopped_nobody_needs_no_row(acme: Installation, effect: str) -> None:
    one = decided()
    (wish,) = one.requests
    result = {"id": wish.id, "sender": "acme", "group": 12, "recipient": JANE.recipient, "effect": effect}
    acme.ledger.write([(one, [result])])

    assert _of_ledger(acme) == {}


def test_gaps_beyond_the_number_of_forgotten_people_are_told(acme: Installation) -> None:
    acme.intake.record([decided("k1"), decided("k2", recipient=JOE)])
    acme.store.forget(JANE.recipient, ["acme"])
    _lose(acme, JOE)

    assert _of_ledger(acme) == {"unrestorable": 1}


# --- the queue against itself


def _listed_in(acme: Installation, job_id: str) -> dict[str, object]:
    queue = acme.queue.rq
    entry = {f"{job_id}:run": time.time() + 60}
    return {
        "the queue": lambda: acme.redis.rpush(queue.key, job_id),
        "taken": lambda: acme.redis.rpush(queue.intermediate_queue_key, job_id),
        "started": lambda: acme.redis.zadd(queue.started_job_registry.key, entry),
        "scheduled": lambda: acme.redis.zadd(queue.scheduled_job_registry.key, {job_id: time.time() + 60}),
        "failed": lambda: acme.redis.zadd(queue.failed_job_registry.key, {job_id: -1}),
        "finished": lambda: acme.redis.zadd(queue.finished_job_registry.key, {job_id: time.time() + 60}),
    }


@pytest.mark.parametrize("place", ["the queue", "taken", "started", "scheduled", "failed", "finished"])
def test_a_job_that_stands_somewhere_is_not_jobless(acme: Installation, place: str) -> None:
    (job_id,) = acme.queue.enqueue([decided()])
    acme.redis.delete(acme.queue.rq.key)
    acme.queue.reaper.mark_kept(job_id)  # of a failed one: its messages are in quarantine
    _listed_in(acme, job_id)[place]()  # type: ignore[operator]

    assert "jobless" not in _of_queue(acme, repair=False).found


@pytest.mark.parametrize(
    ("state", "found"), [("queued", 1), ("started", 1), ("scheduled", 1), ("", 1), ("finished", 0), ("failed", 0)]
)
def test_a_job_that_says_it_waits_and_stands_nowhere_is_jobless(acme: Installation, state: str, found: int) -> None:
    (job_id,) = acme.queue.enqueue([decided()])
    acme.redis.delete(acme.queue.rq.key)
    key = UnsubdJob.key_for(job_id)
    acme.redis.hset(key, "status", state) if state else acme.redis.hdel(key, "status")

    assert _of_queue(acme, repair=False).found["jobless"] == found


def test_a_job_on_its_way_is_none(acme: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written, and pushed between the two looks; another one, that comes as the second look is taken, is none either."""
    (job_id,) = acme.queue.enqueue([decided()])
    acme.redis.delete(acme.queue.rq.key)

    def meanwhile(_: float) -> None:
        acme.queue.enqueue([decided("k2")])
        acme.redis.delete(acme.queue.rq.key)
        acme.redis.rpush(acme.queue.rq.key, job_id)

    monkeypatch.setattr(jobs.time, "sleep", meanwhile)

    assert _of_queue(acme).found == {}
    assert acme.queue.rq.get_job_ids() == [job_id]


def test_what_was_lost_comes_behind_what_waits(acme: Installation) -> None:
    (lost,) = acme.queue.enqueue([decided()])
    acme.redis.delete(acme.queue.rq.key)
    (waits,) = acme.queue.enqueue([decided("k2")])

    assert _of_queue(acme).repaired == {"jobless": 1}
    assert acme.queue.rq.get_job_ids() == [waits, lost]


def test_a_redis_that_forgot_accuses_no_job(acme: Installation) -> None:
    (job_id,) = acme.queue.enqueue([decided(), decided("k2")])
    acme.redis.lmove(acme.queue.rq.key, acme.queue.rq.intermediate_queue_key)

    for _ in range(5):  # as many deaths as a message alone may have
        assert _of_queue(acme).repaired == {"abandoned": 1}
        assert acme.redis.hget(UnsubdJob.key_for(job_id), DEATHS) is None
        assert acme.queue.rq.get_job_ids() == [job_id], "whole"
        acme.redis.lmove(acme.queue.rq.key, acme.queue.rq.intermediate_queue_key)


def test_a_dry_run_moves_no_job(acme: Installation) -> None:
    (lost,) = acme.queue.enqueue([decided()])
    acme.redis.delete(acme.queue.rq.key)
    (taken,) = acme.queue.enqueue([decided("k2")])
    acme.redis.lmove(acme.queue.rq.key, acme.queue.rq.intermediate_queue_key)

    report = _of_queue(acme, repair=False)

    assert (report.found, report.repaired.total()) == ({"jobless": 1, "abandoned": 1}, 0)
    assert (acme.queue.rq.get_job_ids(), lost != taken) == ([], True)
