"""A Maildir as a way in: what other programs do to its files must lose nothing and stop nothing."""

import os
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import fakeredis
import pytest

from tests.unit.house import mail, opened
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

    def accept_and_lose(messages: object) -> object:
        (tmp_path / "new" / "one").unlink()
        return accept(messages)  # type: ignore[arg-type]

    with patch.object(type(maildir._installation.intake), "accept", autospec=False, side_effect=accept_and_lose):
        assert maildir.take() == 2
    assert _names(tmp_path / "cur") == ["two:2,S"]


def test_a_file_that_cannot_be_moved_is_not_taken_for_ever(maildir: Maildir, tmp_path: Path) -> None:
    (tmp_path / "new" / "one").write_bytes(mail().raw)

    with patch("os.replace", autospec=True, side_effect=PermissionError(13, "Permission denied")):
        assert (maildir.take(), maildir.take()) == (1, 0)
