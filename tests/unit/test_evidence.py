"""The story of one recipient: told from the store and from the files, in order, and proved by a bundle."""

import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import fakeredis
import pytest

from handlers.errors import AddressError, UnknownAccount
from handlers.request import Action
from tests.unit import house
from tests.unit.house import decided, mail, now_ms
from tests.unit.letters import JANE
from worker import by_hand, imports
from worker.archiving import archive_ended
from worker.evidence import Story, bundle, told
from worker.forget import forget
from worker.installation import Installation
from worker.quarantine.resolution import Resolution, Way, check_named, resolve
from worker.quarantine.shelf import Selection

DAY_MS = 86_400_000
JOE = "joe@example.org"
PYTHON = shutil.which("python3", path="/usr/local/bin:/usr/bin") or sys.executable


@pytest.fixture
def acme(tmp_path: Path) -> Iterator[Installation]:
    with house.opened(fakeredis.FakeServer(), archive_dir=str(tmp_path / "archive")) as installation:
        installation.accounts.add_sender("acme")
        for group, name in ((12, "Weekly news"), (13, "Old offers"), (14, "Offers")):
            installation.accounts.add_group("acme", name, "", group)
        installation.accounts.edit_group("acme", 13, archived=True)
        yield installation


def old(acme: Installation, key: str = "0d" * 32, recipient: str = JANE.recipient, days: int = 300) -> None:
    """Record a message of long ago, and archive it."""
    acme.intake.record([decided(key, recipient=recipient, received_ms=now_ms() - days * DAY_MS)])
    assert archive_ended(acme) == 1


def resolved(acme: Installation, message_id: str = "one", **facts: int) -> None:
    """An operator makes a request for Jane of a mail that names nobody."""
    inbound = mail("info@elsewhere.example", message_id, **facts)
    acme.intake.record(acme.intake.accept([inbound]).decided)
    [entry] = acme.quarantine.entries(acme.quarantine.ids(Selection())).values()
    named = check_named(acme, "acme", 14, JANE.recipient)
    resolve(acme, Resolution(Way.NAMED, "eva", "by phone", named), [entry])


def words(story: Story) -> list[str]:
    return [" ".join(each["what"].partition(" (message")[0].split()) for each in story.events]


def of_jane(acme: Installation) -> Story:
    return told(acme, "acme", "Jane@Example.com")


def test_a_story_goes_from_the_archive_to_the_last_entry(acme: Installation, tmp_path: Path) -> None:
    old(acme)
    at_ms = now_ms() - 10_000
    first, second = decided("22" * 32, recipient=JOE), decided("22" * 32, group=14)
    acme.intake.record([replace(first, requests=(*first.requests, *second.requests), received_ms=at_ms)])
    acme.intake.record([decided("33" * 32, group=13, received_ms=at_ms + 1000)])
    resolved(acme, received_ms=at_ms + 2000)
    by_hand.enter(acme, Action.RESUBSCRIBE, "acme", 12, [JANE.recipient], actor="eva", reason="she called")

    story = of_jane(acme)

    assert words(story) == [
        "honour imap:INBOX: valid tag -> group 12 added",
        "honour imap:INBOX: valid tag -> group 14 added",
        "honour imap:INBOX: valid tag -> group 0 added, asked for 13",
        "quarantine:no-tag maildir:default: no address carries a tag -> nothing",
        "named by eva: by phone -> group 14 already-present",
        "honour operator by eva: she called -> group 12 lifted",
    ]
    assert [each["at"] for each in story.events] == sorted(each["at"] for each in story.events)
    assert (len(story.records), story.archived) == (5, 1)
    assert story.pseudonym in json.dumps(story.records["0d" * 32])


def test_what_counts_now_is_every_row(acme: Installation, tmp_path: Path) -> None:
    acme.intake.record([decided("11" * 32)])
    (tmp_path / "list.csv").write_text(f"email\n{JANE.recipient}\n")
    by_hand.enter(acme, Action.RESUBSCRIBE, "acme", 12, [JANE.recipient], actor="eva", reason="she called")
    imports.run(acme, "acme", 0, tmp_path / "list.csv", actor="eva")

    everything, news = of_jane(acme).rows

    assert (everything["group"], everything["source"], everything["held"], everything["suppressed"]) == (
        0, "import", True, True,
    )  # fmt: skip
    assert everything["import"].endswith("of list.csv by eva")
    assert (news["name"], news["source"], news["suppressed"]) == ("Weekly news", "operator", False)
    assert "import" not in news


def test_a_stranger_has_no_story_and_an_unknown_sender_none_to_tell(acme: Installation) -> None:
    acme.intake.record([decided("11" * 32, recipient=JOE)])

    assert (of_jane(acme).rows, of_jane(acme).events) == ([], [])
    with pytest.raises(UnknownAccount):
        told(acme, "nobody", JANE.recipient)
    with pytest.raises(AddressError):
        told(acme, "acme", "a@x.com,b@y.org")


def test_a_sender_that_nobody_registered_has_the_story_of_its_rows(acme: Installation) -> None:
    acme.intake.record([decided("11" * 32, group=77, sender="ghost")])

    story = told(acme, "ghost", JANE.recipient)

    assert words(story) == ["honour imap:INBOX: valid tag -> group 77 added"]
    assert story.rows[0]["name"] == "not registered"


def test_another_senders_story_is_another_one(acme: Installation) -> None:
    acme.intake.record([decided("11" * 32), decided("22" * 32, group=77, sender="ghost")])

    assert list(of_jane(acme).records) == ["11" * 32]


def test_an_archived_mail_that_is_read_again_keeps_its_first_record(acme: Installation) -> None:
    old(acme)
    first = words(of_jane(acme))
    again = decided("0d" * 32, received_ms=now_ms() - 300 * DAY_MS, reason="read again")

    acme.intake.record([again])
    in_store = words(of_jane(acme))
    archive_ended(acme)

    assert first == in_store == words(of_jane(acme)) == ["honour imap:INBOX: valid tag -> group 12 added"]


def test_a_resolution_after_the_record_was_archived_is_told_before_and_after_it_follows(acme: Installation) -> None:
    received_ms = now_ms() - 300 * DAY_MS
    inbound = mail("info@elsewhere.example", received_ms=received_ms)
    acme.intake.record(acme.intake.accept([inbound]).decided)
    archive_ended(acme)

    [entry] = acme.quarantine.entries(acme.quarantine.ids(Selection())).values()
    resolve(acme, Resolution(Way.NAMED, "eva", "by phone", check_named(acme, "acme", 14, JANE.recipient)), [entry])
    before = words(of_jane(acme))
    assert archive_ended(acme) == 1

    assert before == words(of_jane(acme))
    assert before[-1] == "named by eva: by phone -> group 14 added"


# --- the bundle


def check(path: Path, *more: str) -> "subprocess.CompletedProcess[str]":
    """Verify as a third person does: with the script that came along and a Python without anything of ours."""
    with zipfile.ZipFile(path) as packed:
        script = path.parent / "verify.py"
        script.write_bytes(packed.read("verify.py"))
    words = [PYTHON, "-I", str(script), str(path), *more]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=30)


def bundled(acme: Installation, path: Path) -> tuple[str, dict[str, bytes]]:
    head = bundle(acme, of_jane(acme), path)
    with zipfile.ZipFile(path) as packed:
        return head, {name: packed.read(name) for name in packed.namelist()}


def test_a_bundle_proves_the_story_and_shows_nobody_else(acme: Installation, tmp_path: Path) -> None:
    for number in range(3):
        key = f"{number:064x}"
        acme.intake.record(
            [decided(key, recipient=JANE.recipient if number == 1 else JOE, received_ms=now_ms() - 300 * DAY_MS)]
        )
    archive_ended(acme)
    acme.intake.record([decided("44" * 32, group=14), decided("55" * 32, group=14, recipient=JOE)])

    head, contents = bundled(acme, tmp_path / "jane.zip")

    done = check(tmp_path / "jane.zip")
    assert done.returncode == 0, done.stdout + done.stderr
    assert head in done.stdout
    everything = b"".join(contents.values())
    assert acme.pseudonyms.bare(JOE).encode() not in everything
    assert b"joe@" not in everything
    assert everything.count(b'"key":"' + b"44" * 32) == everything.count(b'"key":"' + f"{1:064x}".encode()) == 1
    manifest = json.loads(contents["manifest.json"])
    assert (manifest["archived"], manifest["by_digest_only"], manifest["recent"]) == (1, 2, 1)


@pytest.mark.parametrize("name", ["story.json", "archived.jsonl", "recent.jsonl"])
def test_one_changed_byte_is_found(acme: Installation, tmp_path: Path, name: str) -> None:
    old(acme)
    acme.intake.record([decided("44" * 32, group=14)])
    _, contents = bundled(acme, tmp_path / "jane.zip")
    before, _, after = contents[name].rpartition(b"added")
    assert after

    with zipfile.ZipFile(tmp_path / "changed.zip", "w") as packed:
        for each, content in contents.items():
            packed.writestr(each, before + b"addee" + after if each == name else content)

    done = check(tmp_path / "changed.zip")
    assert done.returncode != 0
    assert done.stdout.startswith("DOES NOT FIT: ")


def test_a_late_copy_is_in_the_bundle_and_it_verifies(acme: Installation, tmp_path: Path) -> None:
    old(acme)
    acme.intake.record([decided("0d" * 32, received_ms=now_ms() - 300 * DAY_MS, reason="read again")])

    bundled(acme, tmp_path / "jane.zip")

    assert check(tmp_path / "jane.zip").returncode == 0


# --- a forgotten person


def test_who_was_forgotten_has_a_story_for_whoever_knows_the_address(acme: Installation, tmp_path: Path) -> None:
    old(acme)
    forget(acme, JANE.recipient)
    acme.intake.record([decided("44" * 32, group=14)])
    stored = replace(decided("55" * 32, group=0).requests[0], recipient=acme.names("acme", JANE.recipient))
    acme.intake.record([decided("55" * 32, requests=(stored,))])

    story = of_jane(acme)

    assert story.forgotten
    assert sorted(row["group"] for row in story.rows) == [0, 12, 14]
    assert words(story) == [
        f"honour imap:INBOX: valid tag -> group {group} added" for group in (12, 14, 0)
    ]  # fmt: skip
    bundled(acme, tmp_path / "jane.zip")
    assert check(tmp_path / "jane.zip").returncode == 0


def test_an_import_of_before_is_still_the_origin_of_a_forgotten_row(acme: Installation, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(f"email\n{JANE.recipient}\n")
    imports.run(acme, "acme", 0, tmp_path / "list.csv", actor="eva")
    forget(acme, JANE.recipient)

    [row] = of_jane(acme).rows

    assert row["import"].endswith("of list.csv by eva")


def test_times_are_told_in_utc(acme: Installation) -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    acme.intake.record([decided("11" * 32, received_ms=int(at.timestamp() * 1000))])

    assert of_jane(acme).events[0]["at"] == "2026-01-02T03:04:05Z"
    assert datetime.fromisoformat(of_jane(acme).made_at) - datetime.now(UTC) < timedelta(seconds=5)
