"""Old months go from the store into files: which, when, and what a crash or somebody in between leaves."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

import fakeredis
import pytest
import redis

from handlers.errors import ConfigError, Rejected, StoreUnavailable, Unavailable
from handlers.request import DecidedMessage
from tests.unit import house
from tests.unit.house import decided
from tests.unit.letters import JANE
from worker import points, service
from worker.archiving import archive_ended
from worker.evidence import told
from worker.installation import Installation
from worker.journal import Journal
from worker.store.archive import Archive
from worker.store.ledger import Ledger

NOW = datetime(2026, 6, 15, tzinfo=UTC)
JOE = "joe@example.org"


@pytest.fixture
def server() -> fakeredis.FakeServer:
    return fakeredis.FakeServer()


@pytest.fixture
def client(server: fakeredis.FakeServer) -> redis.Redis:
    return house.client(server)


@pytest.fixture
def acme(server: fakeredis.FakeServer, tmp_path: Path) -> Iterator[Installation]:
    with house.opened(server, archive_dir=str(tmp_path / "archive"), ledger_days="90") as installation:
        installation.accounts.add_sender("acme")
        installation.accounts.add_group("acme", "Weekly news", "", 12)
        yield installation


def of(day: str, key: str = "", **facts: Any) -> DecidedMessage:
    """A message of that day; its key is the day unless given."""
    at = datetime.fromisoformat(day).replace(tzinfo=UTC)
    return decided(key or day, received_ms=int(at.timestamp() * 1000), **facts)


def archived(acme: Installation) -> list[str]:
    return [line.key for line in Archive(acme.settings.archive).lines()]


def in_store(acme: Installation) -> list[str]:
    return sorted(key for key, _ in acme.ledger.records())


def told_of(acme: Installation, recipient: str = JANE.recipient) -> list[str]:
    return [each["message"] for each in told(acme, "acme", recipient).events]


DAYS = ["2025-12-31", "2026-01-01", "2026-02-28", "2026-03-01", "2026-06-14"]


@pytest.mark.parametrize(
    ("now", "moved"),
    [
        ("2026-05-29T23:59:59", ["2025-12-31", "2026-01-01"]),  # 90 days ago it was the last of February
        ("2026-05-30T00:00:00", ["2025-12-31", "2026-01-01", "2026-02-28"]),  # February ended 90 days ago, just now
        ("2026-03-31T23:59:59", []),
        ("2026-04-01T00:00:00", ["2025-12-31"]),
    ],
)
def test_a_month_goes_when_its_end_is_so_many_days_ago(acme: Installation, now: str, moved: list[str]) -> None:
    acme.intake.record([of(day) for day in DAYS])

    assert archive_ended(acme, datetime.fromisoformat(now).replace(tzinfo=UTC)) == len(moved)

    assert sorted(archived(acme)) == moved
    assert in_store(acme) == [day for day in DAYS if day not in moved]


def test_what_was_moved_is_gone_from_the_store_and_not_moved_again(acme: Installation, client: redis.Redis) -> None:
    acme.intake.record([of("2026-01-01"), of("2026-01-02", recipient=JOE)])

    assert archive_ended(acme, NOW) == 2
    assert archive_ended(acme, NOW) == 0

    assert not [key for key in client.scan_iter("unsubd:ledger:*") if key != b"unsubd:ledger:months"]
    assert acme.ledger.ended_months(NOW) == []
    assert not client.exists("unsubd:archiving")


def test_whom_a_pointer_led_to_a_record_finds_it_in_the_files(acme: Installation, client: redis.Redis) -> None:
    joes, janes = of("2026-01-01", recipient=JOE), of("2026-01-01")
    acme.intake.record([replace(joes, requests=(*joes.requests, *janes.requests))])
    assert len([*client.scan_iter("unsubd:ledger:{*")]) == 2
    before = told(acme, "acme", JANE.recipient).events

    assert archive_ended(acme, NOW) == 1

    assert told(acme, "acme", JANE.recipient).events == before
    assert told_of(acme, JOE) == ["2026-01-01"]
    assert not [*client.scan_iter("unsubd:ledger:{*")]


def test_a_crash_between_file_and_store_leaves_one_readable_record(acme: Installation) -> None:
    acme.intake.record([of("2026-01-01")])
    with patch.object(Ledger, "drop", autospec=True, side_effect=StoreUnavailable("away")), pytest.raises(Unavailable):
        archive_ended(acme, NOW)
    assert (archived(acme), in_store(acme)) == (["2026-01-01"], ["2026-01-01"])
    assert told_of(acme) == ["2026-01-01"]

    assert archive_ended(acme, NOW) == 1

    assert (archived(acme), in_store(acme)) == (["2026-01-01"], [])
    assert told_of(acme) == ["2026-01-01"]
    assert Archive(acme.settings.archive).verify().broken == ""


def test_while_another_process_does_it_nothing_moves(acme: Installation, client: redis.Redis) -> None:
    acme.intake.record([of("2026-01-01")])
    client.set("unsubd:archiving", "1")

    assert archive_ended(acme, NOW) == 0

    assert in_store(acme) == ["2026-01-01"]
    assert client.exists("unsubd:archiving")


def test_a_record_that_comes_late_goes_the_next_time(acme: Installation) -> None:
    acme.intake.record([of("2026-01-01")])
    archive_ended(acme, NOW)

    acme.intake.record([of("2026-01-02")])

    assert archive_ended(acme, NOW) == 1
    assert archived(acme) == ["2026-01-01", "2026-01-02"]


def test_what_is_appended_while_the_record_goes_into_a_file_is_kept(acme: Installation) -> None:
    message = of("2026-01-01")
    acme.intake.record([message])
    addition = {
        "id": "a1",
        "action": "named",
        "actor": "eva",
        "at_ms": message.received_ms,
        "reason": "",
        "requests": [],
    }
    real = Archive.append

    def meanwhile(archive: Archive, lines: Any) -> int:
        count = real(archive, lines)
        acme.ledger.append([(message, addition)])
        return count

    with patch.object(Archive, "append", autospec=True, side_effect=meanwhile):
        archive_ended(acme, NOW)
    both = told(acme, "acme", JANE.recipient).events
    archive_ended(acme, NOW)

    assert [each["what"].split()[0] for each in both] == ["honour", "named"]
    assert told(acme, "acme", JANE.recipient).events == both
    assert in_store(acme) == []


# --- a folder that cannot be used


@pytest.fixture
def unusable(acme: Installation) -> Installation:
    acme.settings.archive.write_text("a file where a folder should be")
    acme.intake.record([of("2026-01-01")])
    return acme


def test_an_unusable_folder_is_the_configurations_fault(unusable: Installation, client: redis.Redis) -> None:
    with pytest.raises(ConfigError, match="UNSUBD_ARCHIVE_DIR"):
        archive_ended(unusable, NOW)

    assert in_store(unusable) == ["2026-01-01"]
    assert not client.exists("unsubd:archiving")


@pytest.mark.parametrize(
    "error", [ConfigError("no folder"), Rejected("ledger-000001.jsonl.gz line 2: damaged"), Unavailable("disk full")]
)
def test_the_reaper_tells_the_journal_and_goes_on(acme: Installation, client: redis.Redis, error: Exception) -> None:
    acme.intake.record([of("2026-01-01")])

    with patch.object(Archive, "append", autospec=True, side_effect=error):
        service._archive(acme)

    [line] = [each for each in Journal.lines(client, 10) if each["event"] == "failed"]
    assert (line["kind"], line["detail"]) == ("archive", str(error))
    assert in_store(acme) == ["2026-01-01"]


def test_a_damaged_file_stops_no_reaper(acme: Installation, client: redis.Redis) -> None:
    acme.intake.record([of("2026-01-01")])
    service._archive(acme)
    [path] = Archive(acme.settings.archive).files()
    path.write_bytes(path.read_bytes()[:-20])
    acme.intake.record([of("2026-01-02")])

    service._archive(acme)

    events = [each["event"] for each in Journal.lines(client, 10)]
    assert "archived" in events
    assert events[0] == "failed"


def test_an_outage_of_the_store_is_the_reapers_own_business(acme: Installation) -> None:
    acme.intake.record([of("2026-01-01")])

    with patch.object(Ledger, "drop", autospec=True, side_effect=StoreUnavailable("away")), pytest.raises(Unavailable):
        service._archive(acme)


def test_a_month_that_is_not_empty_is_never_out_of_the_list(
    acme: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever dies in between would leave its records to their end, unarchived."""
    acme.ledger.write([(of("2026-01-05"), [])])
    seen: list[list[str]] = []

    def comes_late(name: str, moment: str) -> None:
        if (name, moment) == ("ledger.drop", "after"):
            acme.ledger.write([(of("2026-01-06"), [])])
        if name.startswith("ledger.month"):
            seen.append([])

    monkeypatch.setattr(points, "watch", comes_late)
    archive_ended(acme, NOW)

    assert (archived(acme), in_store(acme), seen) == (["2026-01-05"], ["2026-01-06"], [])
    assert acme.ledger.ended_months(NOW) == ["2026-01"]


def test_a_record_that_comes_as_its_month_ends_brings_it_back(
    acme: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    acme.ledger.write([(of("2026-01-05"), [])])

    def comes_late(name: str, moment: str) -> None:
        if (name, moment) == ("ledger.month", "before") and not in_store(acme):
            acme.ledger.write([(of("2026-01-06"), [])])

    monkeypatch.setattr(points, "watch", comes_late)
    archive_ended(acme, NOW)
    monkeypatch.setattr(points, "watch", None)

    assert archive_ended(acme, NOW) == 1
    assert archived(acme) == ["2026-01-05", "2026-01-06"]
    assert acme.ledger.ended_months(NOW) == []
