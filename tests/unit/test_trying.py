"""The note of what is being read: who killed us stands alone, and after three deaths is set aside."""

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import fakeredis
import pytest

from handlers.errors import QueueUnavailable
from tests.harness.scripted_imap import ScriptedImap, Turn, normal
from tests.unit.house import mail, opened
from worker.installation import Installation
from worker.reconcile import Report
from worker.reconcile.books import Books
from worker.reconcile.mail import Scope, compare
from worker.sources.imap import ASIDE, MailboxAddress
from worker.sources.mailbox import Mailbox
from worker.sources.maildir import Maildir
from worker.sources.trying import DEADLY, Trying

NAMES = list(range(50))
Started = Callable[..., Trying]


@pytest.fixture
def started(tmp_path: Path) -> Callable[..., Trying]:
    """Return a function that starts a process anew: the one before it is dead, and its lock with it."""
    alive: list[Trying] = []

    def start(of: str = "box") -> Trying:
        if alive:
            os.close(alive.pop()._file)
        trying = Trying(tmp_path, "imap:default")
        trying.resume(of)
        alive.append(trying)
        return trying

    return start


def test_who_kills_is_alone_after_two_deaths_and_deadly_after_three_more(started: Started) -> None:
    sizes = []
    while not (trying := started()).is_deadly(21):
        names = trying.in_order(NAMES)
        while names:
            batch = trying.batch(names, 50)
            trying.begin(batch)
            if 21 in batch:
                sizes.append(len(batch))
                break
            trying.end(batch)
            names = names[len(batch) :]

    assert sizes == [50, 7, *[1] * DEADLY]


def test_suspects_come_last_and_apart(started: Started) -> None:
    started().begin(range(10, 30))
    trying = started()

    names = trying.in_order(NAMES)

    assert names[-20:] == list(range(10, 30))
    assert list(trying.batch(names, 50)) == [*range(10), *range(30, 50)]
    assert list(trying.batch(names[30:], 50)) == [10, 11]


def test_an_end_that_was_no_death_accuses_nobody(started: Started) -> None:
    trying = started()
    trying.begin(NAMES)
    trying.end()

    assert started().in_order([3, 2, 1]) == [3, 2, 1]


def test_who_was_read_at_last_is_acquitted(started: Started) -> None:
    for _ in range(DEADLY - 1):
        started().begin([7])
    started().end([7])
    started().begin([7])

    assert not started().is_deadly(7)


def test_names_of_another_folder_are_not_accused(started: Started) -> None:
    for _ in range(DEADLY):
        started("box").begin([7])

    assert not started("box with another uidvalidity").is_deadly(7)


def test_a_damaged_note_is_none(started: Started, tmp_path: Path) -> None:
    (tmp_path / "trying-imap_default.json").write_text("[1")

    assert started().in_order([2, 1]) == [2, 1]


def test_a_second_process_keeps_no_note(tmp_path: Path) -> None:
    one, two = Trying(tmp_path, "x"), Trying(tmp_path, "x")
    one.resume("box")
    one.begin([1])
    two.resume("box")
    two.begin([2])

    assert '"in_hand": [1]' in (tmp_path / "trying-x.json").read_text()


def test_a_folder_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    trying = Trying(tmp_path / "file" / "below", "x")
    trying.resume("box")
    trying.begin([1])

    assert list(trying.batch([1, 2], 50)) == [1, 2]


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    with opened(fakeredis.FakeServer(), data_dir=str(tmp_path / "data")) as found:
        yield found


def test_a_deadly_file_of_a_maildir_goes_to_a_person_and_has_a_record(
    installation: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maildir = Maildir(installation, tmp_path / "mail")
    for name in ("good", "poison"):
        (tmp_path / "mail" / "new" / name).write_bytes(mail(message_id=name).raw)
    monkeypatch.setattr(Trying, "is_deadly", lambda _, name: name == "poison")

    assert maildir.take() == 1

    assert installation.quarantine.counts() == {"quarantine:malformed": 1}
    assert sorted(path.name for path in (tmp_path / "mail" / "cur").iterdir()) == [".poison", "good:2,S"]
    assert [len(found) for found in maildir.accepted(0.0)] == [1], "nobody reads it again, no comparison either"
    outcomes = {wire["outcome"] for job in installation.queue.rq.get_jobs() for wire in job.kwargs["batch"]}
    assert outcomes == {"honour", "quarantine:malformed"}


def test_a_queue_that_is_away_accuses_no_mail(
    installation: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mail" / "new").mkdir(parents=True)
    (tmp_path / "mail" / "new" / "one").write_bytes(mail().raw)

    def away(*_: object, decided_all: object) -> None:
        raise QueueUnavailable("UNSUBD_REDIS_URL: away")

    monkeypatch.setattr("worker.intake.Intake.accept", away)
    with pytest.raises(QueueUnavailable):
        Maildir(installation, tmp_path / "mail").take()

    [note] = [json.loads(each.read_text()) for each in (tmp_path / "data").glob("trying-*.json")]
    assert (note["in_hand"], note["deaths"]) == ([], {})


NO_KEYWORDS = (
    b"* FLAGS (\\Seen \\Deleted)\r\n* OK [PERMANENTFLAGS (\\Seen \\Deleted)] no keywords\r\n* 2 EXISTS\r\n"
    b"* OK [UIDVALIDITY 7] good\r\n* OK [UIDNEXT 3] next\r\n<tag> OK done\r\n"
)


async def _inbox_alone(turn: Turn) -> None:
    await turn.send(NO_KEYWORDS if "INBOX" in turn.words[0] else b"<tag> NO [NONEXISTENT] no such folder\r\n")


@pytest.mark.parametrize("server_takes", ["no keywords", "keywords, and refuses this one"])
def test_a_deadly_mail_that_no_keyword_marks_is_read_by_no_comparison(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server_takes: str
) -> None:
    """Its UID is remembered, and it stays where it is: in Processed it would have another."""
    monkeypatch.setattr(Trying, "is_deadly", lambda _, uid: uid == 1)

    async def play() -> tuple[list[tuple[int, str]], list[str]]:
        async with ScriptedImap([mail(message_id=name).raw for name in ("poison", "good")]) as server:
            if server_takes == "no keywords":
                server.always("SELECT", NO_KEYWORDS)
            server.always("STORE", _refuse_aside)
            server.always("EXAMINE", _inbox_alone)
            given = {"imap_url": server.url(), "imap_password": "x", "imap_backlog": "all", "data_dir": str(tmp_path)}
            with opened(fakeredis.FakeServer(), **given) as found:
                poller = asyncio.ensure_future(Mailbox(found, MailboxAddress.parse(server.url())).run())
                await asyncio.wait_for(server.hears("MOVE"), 10)
                poller.cancel()
                await asyncio.wait({poller})
                await asyncio.wait_for(server.is_left(), 10)
                server.lines.clear()
                await compare(found, Scope(0), Books(found, report := Report(), repair=True), lambda *_: None)
                await asyncio.wait_for(server.is_left(), 10)
                assert report.messages == 0
            return server.copied, server.heard("FETCH")

    assert asyncio.run(play()) == ([(2, "Processed")], [])


async def _refuse_aside(turn: Turn) -> None:
    await (turn.send(b"<tag> NO [LIMIT] too many keywords\r\n") if ASIDE in turn.words[-1] else normal(turn))
