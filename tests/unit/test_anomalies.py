"""Bursts and shared tags: applied meanwhile, said once, and undone to exactly what they made."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace

import fakeredis
import pytest
from typer.testing import CliRunner

from handlers.anomaly import MANY_ASKERS, SLOT_MS, Anomaly, Pace, stopped_by
from handlers.errors import QueueUnavailable, Rejected
from handlers.request import Action, DecidedMessage, Outcome
from handlers.tag import Tag
from tests.unit import house
from tests.unit.letters import JANE
from worker import by_hand
from worker.anomaly_undo import undo
from worker.installation import Installation
from worker.owed import owed
from worker.status import status

SLOT = house.now_ms() // SLOT_MS
NOW = SLOT * SLOT_MS
THEN = NOW - 86_400_000


@pytest.fixture
def server() -> fakeredis.FakeServer:
    return fakeredis.FakeServer()


@pytest.fixture
def here(server: fakeredis.FakeServer) -> Iterator[Installation]:
    with house.opened(server) as found:
        found.accounts.add_sender(JANE.sender)
        found.accounts.add_group(JANE.sender, "News", group_id=JANE.group)
        yield found


def _asks(number: int, at_ms: int = NOW, source: str = "relay:default", **facts: str) -> DecidedMessage:
    found = house.decided(
        f"{source}{number}{at_ms}", recipient=facts.get("who", f"p{number}@example.com"), received_ms=at_ms
    )
    requests = tuple(replace(each, source=source, at_ms=at_ms) for each in found.requests)
    return replace(found, source=source, requests=requests)


def _record(here: Installation, *messages: DecidedMessage) -> None:
    for start in range(0, len(messages), 200):
        here.intake.record(messages[start : start + 200])


def _habit(here: Installation, most: int = 3, source: str = "relay:default") -> None:
    """A source that is known for a week and brings a few."""
    here.redis.hset("unsubd:pace", source, f"{SLOT - 1} 0 {most} {SLOT - 1008}")


def _burst(here: Installation, count: int = 300) -> Anomaly:
    _habit(here)
    _record(here, *(_asks(number) for number in range(count)))
    [found] = here.intake.anomalies.open()
    return found


def _loop(here: Installation) -> Anomaly:
    """A burst of ten, yesterday: enough for what becomes of it."""
    _record(here, *(_asks(number, THEN) for number in range(10)))
    here.intake.anomalies.settle(Anomaly("10095", "burst", THEN, THEN + SLOT_MS, source="relay:default"), "open", "")
    return here.intake.anomalies.find("10095")


def _stopped(here: Installation) -> set[str | None]:
    return {recipient for recipient, _ in here.store.listed(JANE.sender, JANE.group)}


# --- what is odd


def test_a_burst_is_applied_and_odd_and_said_once(here: Installation) -> None:
    found = _burst(here)

    assert (found.kind, found.source, found.from_ms, found.to_ms, found.count) == (
        "burst", "relay:default", NOW, NOW + SLOT_MS, 300,
    )  # fmt: skip
    assert len(_stopped(here)) == 300
    assert any("relay:default brought 300 requests" in each.what for each in owed(here, status(here)).alarms)


@pytest.mark.parametrize(("most", "known", "count"), [(100, 1000, 999), (0, 10, 100_000), (0, 1000, 199)])
def test_what_is_usual_new_or_little_is_no_burst(most: int, known: int, count: int) -> None:
    assert not Pace(1, count, most, known).is_burst


def test_a_second_slot_makes_the_burst_longer_and_no_second_one(here: Installation) -> None:
    _burst(here)

    _record(here, *(_asks(number, NOW + SLOT_MS) for number in range(1000, 3000)))

    [found] = here.intake.anomalies.every()
    assert (found.from_ms, found.to_ms, found.count) == (NOW, NOW + 2 * SLOT_MS, 2000)


def test_what_the_ledger_knew_and_what_operators_enter_is_no_burst(here: Installation) -> None:
    _habit(here)
    _record(here, *(_asks(number) for number in range(150)), *(_asks(number) for number in range(150)))
    _habit(here, source="operator")
    by_hand.enter(here, Action.UNSUBSCRIBE, JANE.sender, JANE.group, [f"q{n}@example.com" for n in range(300)],
                  actor="anna", reason="list")  # fmt: skip

    assert here.intake.anomalies.every() == []


def test_a_tag_used_by_many_is_odd_and_said_once(here: Installation) -> None:
    for number in range(2 * MANY_ASKERS):
        raw = house.mail(message_id=f"m{number}")
        raw = replace(raw, headers=tuple((name, value.replace("x@", f"x{number}@")) for name, value in raw.headers))
        here.intake.accept([raw, raw])
        assert len(here.intake.anomalies.open()) == (number + 1 >= MANY_ASKERS)

    [found] = here.intake.anomalies.every()
    assert (found.kind, found.sender, found.group) == ("shared-tag", JANE.sender, JANE.group)
    assert JANE.recipient not in json.dumps([str(each) for each in here.redis.hgetall("unsubd:anomalies").items()])
    assert "x1@" not in str(here.redis.hgetall(next(iter(here.redis.scan_iter("unsubd:askers:*")))))


def test_buttons_pressed_from_many_networks_are_one_tag_used_by_many(here: Installation) -> None:
    for number in range(MANY_ASKERS):
        here.intake.anomalies.used(JANE, f"192.0.2.{number}", NOW)
        here.intake.anomalies.used(Tag("acme", 0, "joe@example.org"), "192.0.2.1", NOW)

    assert [each.who for each in here.intake.anomalies.open()] == [here.pseudonyms.bare(JANE.recipient)]


def test_memory_is_bounded_whatever_comes(here: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.anomalies._MOST_TAGS", 10)
    monkeypatch.setattr("worker.anomalies._MOST_ANOMALIES", 3)
    for number in range(30):
        for asker in range(4 * MANY_ASKERS):
            here.intake.anomalies.used(Tag("acme", number, "joe@example.org"), f"192.0.2.{asker}", NOW)

    [key] = here.redis.scan_iter("unsubd:askers:*")
    rows = here.redis.hgetall(key)
    assert len(rows) == 10
    assert {len(row.split(b" ")[1]) for row in rows.values()} == {8 * MANY_ASKERS}
    assert len(here.intake.anomalies.every()) == 3
    assert here.redis.ttl(key) > 0


def test_a_redis_that_cannot_count_loses_no_request(here: Installation, server: fakeredis.FakeServer) -> None:
    here.redis.set("unsubd:pace", "of another type")

    _record(here, _asks(1))

    assert _stopped(here) == {"p1@example.com"}


def test_a_redis_that_goes_in_mid_count_loses_nothing_either(
    here: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(_: object) -> None:
        raise QueueUnavailable("UNSUBD_REDIS_URL: away")

    _habit(here)
    monkeypatch.setattr("worker.anomalies.Anomalies.every", away)

    assert [len(each) for each in here.intake.record([_asks(number) for number in range(300)])] == [1] * 300


@pytest.mark.parametrize(("most", "brings", "odd"), [(100, 600, 1), (100, 400, 0)])
def test_a_habit_halves_in_two_weeks(here: Installation, most: int, brings: int, odd: int) -> None:
    here.redis.hset("unsubd:pace", "relay:default", f"{SLOT - 2016} 0 {most} {SLOT - 4000}")

    _record(here, *(_asks(number) for number in range(brings)))

    assert len(here.intake.anomalies.open()) == odd


def test_old_ones_leave_so_that_new_ones_are_seen(here: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.anomalies._MOST_ANOMALIES", 3)
    for number in range(3):
        old = Anomaly(f"old{number}", "burst", NOW - 60 * 86_400_000, NOW - 60 * 86_400_000 + SLOT_MS, source="lmtp")
        here.intake.anomalies.settle(old, "dismissed", "anna")

    assert [each.kind for each in (_burst(here), *here.intake.anomalies.every())] == ["burst", "burst"]


# --- undone


def test_what_a_loop_brings_after_its_undo_is_another_one(here: Installation) -> None:
    undo(here, _burst(here), actor="anna", reason="a loop")

    _record(here, *(_asks(number, NOW + SLOT_MS) for number in range(1000, 3000)))

    [again] = here.intake.anomalies.open()
    assert (again.from_ms, again.count) == (NOW + SLOT_MS, 2000)


def test_an_undo_lifts_what_the_burst_made_and_nobody_else_holds(here: Installation) -> None:
    _record(here, _asks(1, NOW - 86_400_000), _asks(2, NOW - 86_400_000, "imap:default"))  # before it
    burst = _burst(here)
    _record(here, _asks(3, NOW + 60_000, "imap:default", who="p3@example.com"))  # asked by another way since
    by_hand.enter(here, Action.UNSUBSCRIBE, JANE.sender, JANE.group, ["p4@example.com"], actor="anna", reason="called")
    complaint = _asks(5, NOW + 1, "imap:fbl")
    wish = replace(complaint.requests[0], action=Action.COMPLAINT)
    _record(here, replace(complaint, outcome=Outcome.COMPLAINT, requests=(wish,)))
    here.intake.apply([replace(_asks(6).requests[0], id="f" * 32, source="import", at_ms=0)])  # held; no ledger tells
    mine = _asks(9000, NOW + 2, who="p9@example.com")  # a complaint among the burst's own
    _record(
        here, replace(mine, outcome=Outcome.COMPLAINT, requests=(replace(mine.requests[0], action=Action.COMPLAINT),))
    )
    here.intake.apply(
        [replace(_asks(10, NOW + 60_000, "imap:default").requests[0], id="e" * 32)]
    )  # its record is not written yet
    _record(here, _asks(900, source="imap:default"))  # the same minute, another source

    done = undo(here, burst, actor="anna", reason="a loop")

    kept = {f"p{number}@example.com" for number in (1, 2, 3, 4, 5, 6, 9, 10, 900)}
    assert _stopped(here) == kept
    assert (done.lifted, done.kept) == (292, 6)  # 1 and 2 are none that it made
    assert here.intake.anomalies.open() == []
    with pytest.raises(Rejected, match="undone already"):
        undo(here, here.intake.anomalies.find(burst.id), actor="anna", reason="")


def test_whoever_leaves_anew_after_an_undo_stays_away(here: Installation) -> None:
    burst = _burst(here)
    undo(here, burst, actor="anna", reason="")
    later = house.now_ms() + SLOT_MS
    _record(here, _asks(7, later, "imap:default"))

    undo(here, replace(burst, state="open"), actor="anna", reason="")

    assert _stopped(here) == {"p7@example.com"}


@pytest.mark.parametrize(
    ("at_ms", "source"),
    [
        (THEN - 86_400_000, "imap:default"), (THEN - 1, "relay:default"), (THEN, "imap:default"),
        (THEN + SLOT_MS, "relay:default"),
    ],
)  # fmt: skip
def test_who_asked_before_an_undo_and_is_heard_of_after_it_is_stopped(
    here: Installation, at_ms: int, source: str
) -> None:
    """In a mailbox that was away: before the burst, beside it, after it."""
    burst = _loop(here)
    undo(here, burst, actor="anna", reason="a loop")
    late = _asks(7, at_ms, source)

    [[told]] = here.intake.record([late])

    assert (told["effect"], _stopped(here)) == ("added", {"p7@example.com"})
    assert here.intake.record([late])[0][0]["effect"] == "added", "a repeat hears its first effect"


def test_what_the_burst_brought_and_comes_again_after_its_undo_is_stale(here: Installation) -> None:
    undo(here, _loop(here), actor="anna", reason="a loop")

    [[told]] = here.intake.record([_asks(7, THEN)])

    assert (told["effect"], _stopped(here)) == ("stale", set())


def test_a_list_of_who_asked_before_counts_after_an_undo(here: Installation) -> None:
    undo(here, _loop(here), actor="anna", reason="a loop")
    listed = replace(_asks(7).requests[0], id="f" * 32, source="import", undated=True)

    assert [effect.value for _, effect in here.intake.apply([listed])] == ["added"]


def test_who_came_back_himself_after_an_undo_is_not_stopped_by_what_he_sent_before(here: Installation) -> None:
    undo(here, _loop(here), actor="anna", reason="a loop")
    _record(here, first := _asks(7, NOW - 2000, "imap:default"))
    by_hand.enter(here, Action.RESUBSCRIBE, JANE.sender, JANE.group, ["p7@example.com"], actor="anna", reason="asked")

    for late in (first, _asks(7, NOW - 1000, "imap:default")):
        assert here.intake.record([late])[0][0]["effect"] == "stale"

    assert _stopped(here) == set()


@pytest.mark.parametrize("deadly", ["worker.store.Store.apply", "worker.store.ledger.Ledger.write"])
def test_an_undo_that_died_and_is_said_again_is_told_once_by_whoever_goes_on(
    here: Installation, monkeypatch: pytest.MonkeyPatch, deadly: str
) -> None:
    class Killed(BaseException):
        """Stands for kill -9."""

    monkeypatch.setattr("worker.anomaly_undo._AT_ONCE", 4)
    burst = _loop(here)
    with monkeypatch.context() as broken:
        broken.setattr(deadly, lambda *_, **__: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            undo(here, burst, actor="anna", reason="a loop")

    undo(here, burst, actor="anna", reason="a loop")  # said again
    monkeypatch.setattr("worker.begun._LEFT_AFTER_S", -1.0)
    assert here.intake.begun.move(here.queue, here.quarantine_failed) == 4
    for job in here.queue.rq.get_jobs():
        here.intake.record([DecidedMessage.from_wire(wire) for wire in job.kwargs["batch"]])

    told = [each["effect"] for _, record in here.ledger.records() for each in record["requests"]]
    assert (told.count("added"), told.count("lifted")) == (10, 10)


def test_a_row_that_moves_while_it_is_undone_stays(here: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    burst = _burst(here)
    record = here.intake.record_now

    def leaves_first(messages: Sequence[DecidedMessage]) -> object:
        monkeypatch.undo()
        _record(here, _asks(8, NOW + 2 * SLOT_MS, "imap:default"))
        return record(messages)

    monkeypatch.setattr("worker.intake.Intake.record_now", lambda _, messages: leaves_first(messages))
    undo(here, burst, actor="anna", reason="")

    assert _stopped(here) == {"p8@example.com"}


def test_a_shared_tag_is_undone_for_its_one_recipient(here: Installation) -> None:
    _record(here, _asks(1, who=JANE.recipient), _asks(2))
    for number in range(MANY_ASKERS):
        here.intake.anomalies.used(JANE, f"192.0.2.{number}", NOW)

    done = undo(here, here.intake.anomalies.open()[0], actor="anna", reason="forwarded")

    assert (done.lifted, done.kept, _stopped(here)) == (1, 0, {"p2@example.com"})


def _results(who: str, effect: str) -> list[dict[str, object]]:
    return [{"sender": "acme", "group": 1, "recipient": who, "effect": effect, "action": "unsubscribe"}]


def test_what_others_asked_for_is_decided_by_the_records_alone() -> None:
    burst = Anomaly("a", "burst", 100, 200, source="lmtp")

    def record(source: str, at_ms: int, who: str, effect: str = "added", **more: object) -> dict[str, object]:
        return {"source": source, "received_ms": at_ms, "requests": _results(who, effect), **more}

    records = [
        record("lmtp", 100, "a"), record("lmtp", 150, "a", "already-present"), record("lmtp", 200, "b"),
        record("lmtp", 150, "c"), record("page", 160, "c", "already-present"), record("lmtp", 150, "d", "stale"),
        record("lmtp", 150, "e"), record("page", 50, "e", "already-present"),  # asked before, heard of after
        record("lmtp", 150, "f"), record("imap", 10, "g", resolutions=[{"requests": _results("f", "already-present")}]),
    ]  # fmt: skip

    assert stopped_by(burst, records) == {("acme", 1, "a"): 150} | {("acme", 1, who): None for who in "cef"}


def test_the_commands(here: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    from worker.cli import anomaly

    burst = _burst(here)
    monkeypatch.setattr(anomaly, "own_settings", lambda: here.settings)
    monkeypatch.setattr(anomaly, "open_installation", lambda _: _Opened(here))
    run = CliRunner()

    listed = run.invoke(anomaly.app, ["list"]).output
    told = json.loads(run.invoke(anomaly.app, ["list", "--json"]).output)
    dismissed = run.invoke(
        anomaly.app, ["dismiss", burst.id, "--reason", "jane@example.com called", "--actor", "anna"]
    ).output
    undone = run.invoke(anomaly.app, ["undo", burst.id]).output

    assert burst.id in listed
    assert (told["kind"], told["count"]) == ("burst", 300)
    assert dismissed == "dismissed\n"
    assert "jane@" not in str(here.redis.hgetall("unsubd:anomalies"))
    assert "300 recipients get mail again; 0 stay stopped" in undone


class _Opened:
    def __init__(self, here: Installation) -> None:
        self._here = here

    def __enter__(self) -> Installation:
        return self._here

    def __exit__(self, *_: object) -> None:
        """Leave it open: the test closes it."""
