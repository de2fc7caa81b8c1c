"""Forgetting where one place is odd: a broken entry, a job nobody can read, the drop folder, somebody in between."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import fakeredis
import pytest
from rq import Queue
from rq.serializers import JSONSerializer

from handlers import message
from handlers.errors import AddressError, QueueUnavailable
from tests.unit import house
from tests.unit.house import decided
from worker.batch import RECORD, VERSION
from worker.forget import forget
from worker.installation import Installation
from worker.quarantine import Quarantine
from worker.quarantine.catalogue import drawer_of, word_of
from worker.quarantine.entry import Entry
from worker.quarantine.resolution import requests_of
from worker.quarantine.shelf import Selection

JANE, JOERG = "jane@example.com", "jörg@xn--bcher-kva.example"


@pytest.fixture
def acme() -> Iterator[Installation]:
    with house.opened(fakeredis.FakeServer()) as installation:
        installation.accounts.add_sender("acme")
        installation.accounts.add_group("acme", "Weekly news", "", 12)
        yield installation


def kept(acme: Installation) -> tuple[Entry, bytes]:
    [entry] = acme.quarantine.entries(acme.quarantine.ids(Selection())).values()
    return entry, acme.quarantine.raw(entry.id) or b""


def written(address: str, extra: str = "") -> message.InboundMessage:
    raw = f"From: <{address}>\r\nTo: <info@x.example>\r\nMessage-ID: <{address}>\r\n{extra}\r\nremove me please\r\n"
    return message.read(raw.encode(), source="maildir:default")


def test_a_failed_entry_with_letters_outside_ascii_is_rewritten(acme: Installation) -> None:
    acme.quarantine_failed(decided("k", recipient=JOERG).as_wire(), "a bug")

    assert forget(acme, "Jörg@Bücher.example").quarantine == 1

    wish = requests_of(kept(acme)[1])
    assert wish is not None
    assert [each.recipient for each in wish.requests] == [acme.names("acme", JOERG)]


def test_a_failed_entry_that_nobody_can_read_loses_the_address(acme: Installation) -> None:
    acme.quarantine_failed([f"{{'recipient': '{JANE}'}}"], f"no message: {JANE}")

    assert forget(acme, JANE).quarantine == 1

    entry, raw = kept(acme)
    assert b"jane" not in entry.seen + raw
    assert forget(acme, JANE).quarantine == 0


def test_a_mail_of_hers_stays_as_a_bare_record(acme: Installation) -> None:
    acme.intake.accept([written(JANE)])
    before, _ = kept(acme)
    assert before.suggestion is not None

    forget(acme, JANE)

    entry, raw = kept(acme)
    assert (entry.shrunk, entry.suggestion, entry.author, raw) == (True, None, "", b"")
    assert (entry.reason, entry.kept_ms, entry.key) == (before.reason, before.kept_ms, before.key)


def test_nothing_finds_her_mail_by_her_address_any_more(acme: Installation) -> None:
    acme.intake.accept([written(JANE)])
    (found,) = acme.quarantine.naming(JANE, 5)

    forget(acme, JANE)

    assert acme.quarantine.naming(JANE, 5) == []
    assert acme.redis.keys(drawer_of(word_of(JANE))) == []
    assert acme.quarantine.beginning(found[:12], 5) == [found]


def test_a_job_that_nobody_can_read_stops_no_forgetting(acme: Installation) -> None:
    acme.queue.enqueue([decided("k", recipient=JANE)])
    acme.redis.hset("rq:job:broken", mapping={"data": b"\xff", "created_at": "yesterday"})
    acme.redis.hset("rq:job:empty", "status", "queued")

    assert forget(acme, JANE).jobs == 1

    [job] = acme.queue.rq.get_jobs()
    assert job.kwargs["batch"][0]["requests"][0]["recipient"] == acme.names("acme", JANE)


def test_what_a_page_has_begun_and_what_is_parked_is_reached_too(acme: Installation) -> None:
    begun = {"at_ms": house.now_ms(), "message": decided("b", recipient=JANE).as_wire()}
    others = {"at_ms": 5, "message": decided("o", recipient="bob@example.com").as_wire()}
    acme.redis.hset("unsubd:begun", mapping={"1": json.dumps(begun), "2": json.dumps(others)})
    acme.parked.put([decided("p", recipient=JANE)])

    assert forget(acme, JANE).jobs == 2

    left = {key: json.loads(row) for key, row in acme.redis.hgetall("unsubd:begun").items()}
    name = acme.names("acme", JANE)
    assert (left[b"1"]["at_ms"], left[b"1"]["message"]["requests"][0]["recipient"]) == (begun["at_ms"], name)
    assert left[b"2"] == others
    [job] = acme.queue.rq.get_jobs()
    assert job.kwargs["batch"][0]["requests"][0]["recipient"] == name
    assert acme.parked.waiting() == (0, 0)


def test_an_entry_that_changes_meanwhile_is_looked_at_again(acme: Installation) -> None:
    acme.quarantine_failed(decided("k", recipient=JANE).as_wire(), "a bug")
    real, calls = Quarantine.change, []

    def overtaken(quarantine: Quarantine, entry: Entry, *rest: Any) -> bool:
        calls.append(entry)
        if len(calls) == 1:
            real(quarantine, entry, replace(entry, failures=7))
        return real(quarantine, entry, *rest)

    with patch.object(Quarantine, "change", autospec=True, side_effect=overtaken):
        assert forget(acme, JANE).quarantine == 1

    assert (kept(acme)[0].failures, len(calls)) == (8, 2)
    assert b"jane" not in kept(acme)[1]


def test_an_entry_that_never_rests_is_said_to_be_tried_again(acme: Installation) -> None:
    acme.quarantine_failed(decided("k", recipient=JANE).as_wire(), "a bug")

    with (
        patch.object(Quarantine, "change", autospec=True, return_value=False),
        pytest.raises(QueueUnavailable, match="repeat it"),
    ):
        forget(acme, JANE)

    assert forget(acme, JANE).quarantine == 1


def test_the_drop_folders_accepted_mails_go_and_the_waiting_stay(acme: Installation, tmp_path: Path) -> None:
    for name in ("cur", "new"):
        (tmp_path / "maildir" / name).mkdir(parents=True)
        for address in (JANE, "mary-" + JANE):
            (tmp_path / "maildir" / name / address.partition("@")[0]).write_bytes(written(address).raw)
    ours = replace(acme, settings=acme.settings.model_copy(update={"redis_url": None, "data_dir": tmp_path}))

    assert forget(ours, JANE).mails == 1

    left = sorted(str(path.relative_to(tmp_path / "maildir")) for path in tmp_path.rglob("*") if path.is_file())
    assert left == ["cur/mary-jane", "new/jane", "new/mary-jane"]


def test_a_mail_folder_of_the_operators_own_is_left_alone(acme: Installation, tmp_path: Path) -> None:
    (tmp_path / "cur").mkdir()
    (tmp_path / "cur" / "one").write_bytes(written(JANE).raw)
    theirs = replace(acme, settings=acme.settings.model_copy(update={"maildir": tmp_path}))

    assert forget(theirs, JANE).mails == 0

    assert (tmp_path / "cur" / "one").exists()


def test_journal_lines_of_others_stay(acme: Installation) -> None:
    acme.intake.record([decided("k1", recipient=JANE), decided("k2", recipient="joe@example.com")])

    assert forget(acme, JANE).journal == 1

    told = json.dumps([line for line in acme.journal.lines(acme.redis, 10) if line["event"] == "honour"])
    assert acme.pseudonyms.bare(JANE) not in told
    assert acme.pseudonyms.bare("joe@example.com") in told


@pytest.mark.parametrize("text", ["jane", "", "a@x.com,b@y.org", "Jane <jane@example.com>"])
def test_what_is_no_address_forgets_nobody(acme: Installation, text: str) -> None:
    with pytest.raises(AddressError):
        forget(acme, text)


def test_a_job_that_only_a_newer_program_reads_is_left_and_counted(acme: Installation) -> None:
    newer = Queue("unsubd", connection=acme.redis, serializer=JSONSerializer).enqueue(
        RECORD, batch=[decided("k", recipient=JANE).as_wire()], version=VERSION + 1
    )
    acme.queue.enqueue([decided("k2", recipient=JANE)])

    found = forget(acme, JANE)

    assert (found.jobs, found.newer_jobs) == (1, 1)
    job = acme.queue.reaper.readable(newer.id)
    assert job is not None
    assert job.kwargs["batch"][0]["requests"]  # untouched
