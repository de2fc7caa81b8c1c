"""A Maildir as a way in: what other programs do to its files must lose nothing and stop nothing."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any
from unittest.mock import patch

import fakeredis
import pytest

from tests.unit.house import mail, now_ms, opened
from worker.installation import Installation
from worker.sources.maildir import Maildir


@pytest.fixture
def installation() -> Iterator[Installation]:
    with opened(fakeredis.FakeServer()) as found:
        yield found


@pytest.fixture
def maildir(installation: Installation, tmp_path: Path) -> Maildir:
    return Maildir(installation, tmp_path)


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_mail_is_accepted_and_then_moved(maildir: Maildir, installation: Installation, tmp_path: Path) -> None:
    (tmp_path / "new" / "one").write_bytes(mail().raw)

    assert maildir.take() == 1
    assert installation.queue.rq.count == 1
    assert (_names(tmp_path / "new"), _names(tmp_path / "cur")) == ([], ["one:2,S"])


def test_a_file_that_is_still_empty_is_waited_for(maildir: Maildir, tmp_path: Path) -> None:
    (tmp_path / "new" / "one").touch()

    assert maildir.take() == 0
    (tmp_path / "new" / "one").write_bytes(mail().raw)
    assert maildir.take() == 1


def test_an_old_empty_file_is_a_message_too(maildir: Maildir, tmp_path: Path) -> None:
    (tmp_path / "new" / "one").touch()
    os.utime(tmp_path / "new" / "one", (1, 1))

    assert maildir.take() == 1


def test_a_file_that_somebody_moved_meanwhile_stops_nothing(maildir: Maildir, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / "new" / name).write_bytes(mail(message_id=name).raw)
    accept = maildir._installation.intake.accept

    def accept_and_lose(messages: object, **_: Any) -> object:
        (tmp_path / "new" / "one").unlink()
        return accept(messages)  # type: ignore[arg-type]

    with patch.object(type(maildir._installation.intake), "accept", autospec=False, side_effect=accept_and_lose):
        assert maildir.take() == 2
    assert _names(tmp_path / "cur") == ["two:2,S"]


def test_two_processes_on_one_folder_leave_one_file_and_one_effect(
    maildir: Maildir, installation: Installation, tmp_path: Path
) -> None:
    (tmp_path / "new" / "one").write_bytes(mail(message_id="one").raw)
    other = Maildir(installation, tmp_path)
    accept = maildir._installation.intake.accept

    def accept_twice(messages: object, **_: Any) -> object:
        with patch.object(type(installation.intake), "accept", autospec=False, side_effect=accept):
            assert other.take() == 1
        return accept(messages)  # type: ignore[arg-type]

    with patch.object(type(maildir._installation.intake), "accept", autospec=False, side_effect=accept_twice):
        assert maildir.take() == 1
    assert (_names(tmp_path / "new"), _names(tmp_path / "cur")) == ([], ["one:2,S"])
    jobs = [installation.queue.rq.fetch_job(each) for each in installation.queue.rq.job_ids]
    keys = {message["key"] for job in jobs if job for message in job.kwargs["batch"]}
    assert (len(jobs), len(keys)) == (2, 1)


def test_a_file_that_cannot_be_moved_is_not_taken_for_ever(maildir: Maildir, tmp_path: Path) -> None:
    (tmp_path / "new" / "one").write_bytes(mail().raw)

    with patch("os.replace", autospec=True, side_effect=PermissionError(13, "Permission denied")):
        assert (maildir.take(), maildir.take()) == (1, 0)


def test_a_file_that_cannot_be_read_is_said_once_and_looked_at_again(
    maildir: Maildir, installation: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "new" / "bad").write_bytes(mail(message_id="bad").raw)
    (tmp_path / "new" / "good").write_bytes(mail(message_id="good").raw)
    monkeypatch.setattr("worker.sources.maildir._AGAIN_S", 0.0)
    open_file = Path.open

    def refuse(path: Path, *words: str) -> IO[Any]:
        if path.name == "bad":
            raise PermissionError(13, "Permission denied")
        return open_file(path, *words)

    with patch.object(Path, "open", autospec=True, side_effect=refuse):
        assert [maildir.take(), maildir.take()] == [1, 0]
    lines = [line for line in installation.redis.lrange("unsubd:journal", 0, -1) if b"cannot be read" in line]
    assert len(lines) == 1
    assert maildir.take() == 1


def test_only_plain_files_are_mails(maildir: Maildir, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(mail().raw)
    (tmp_path / "new" / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "new" / ".nfs0001").write_bytes(mail().raw)
    (tmp_path / "new" / "folder").mkdir()
    (tmp_path / "new" / "folder" / "one").write_bytes(mail().raw)
    os.mkfifo(tmp_path / "new" / "pipe")

    assert maildir.take() == 0


@pytest.mark.parametrize("name", ["one:2,FS", "one:2,", "one:1,x:y", "one:"])
def test_flags_of_a_file_are_replaced(maildir: Maildir, tmp_path: Path, name: str) -> None:
    (tmp_path / "new" / name).write_bytes(mail().raw)

    assert maildir.take() == 1
    assert _names(tmp_path / "cur") == ["one:2,S"]


def test_a_name_used_twice_overwrites_nothing(maildir: Maildir, tmp_path: Path) -> None:
    for message_id in ("first", "second"):
        (tmp_path / "new" / "one").write_bytes(mail(message_id=message_id).raw)
        assert maildir.take() == 1

    assert len(_names(tmp_path / "cur")) == 2


def test_many_files_share_a_job_and_big_ones_do_not(
    maildir: Maildir, installation: Installation, tmp_path: Path
) -> None:
    for number in range(300):
        (tmp_path / "new" / f"small-{number}").write_bytes(mail(message_id=f"s{number}").raw)
    assert maildir.take() == 300
    assert installation.queue.rq.count == 1
    for number in range(40):
        (tmp_path / "new" / f"big-{number}").write_bytes(mail(message_id=f"b{number}").raw + b"x" * 300_000)

    assert maildir.take() == 32


def test_a_file_from_the_future_is_from_now(maildir: Maildir, installation: Installation, tmp_path: Path) -> None:
    (tmp_path / "new" / "one").write_bytes(mail().raw)
    os.utime(tmp_path / "new" / "one", (4e9, 4e9))

    maildir.take()

    (job,) = installation.queue.rq.get_jobs()
    assert job.kwargs["batch"][0]["received_ms"] <= now_ms()
