"""The archive of the ledger and the bundles made of it: whatever is changed in them shows."""

import errno
import fcntl
import gzip
import itertools
import json
import random
import shutil
import signal
import stat
import subprocess
import sys
import threading
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.errors import ConfigError, Rejected, Unavailable
from worker.store import archive as module
from worker.store import bundle_verify, volume
from worker.store.archive import Archive, Line, Verdict
from worker.store.bundle import write_bundle

JANE, JOE = "067cf5e1d0a1b2c3@example.com", "ffffc0ffee000000@example.org"
PYTHON = shutil.which("python3", path="/usr/local/bin:/usr/bin") or sys.executable
ZERO = "0" * 64
# JSON as Redis gives it back: no lone surrogates from a parser of UTF-8, but every other surprise.
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
RECORDS = st.dictionaries(st.text(), VALUES, max_size=4)


def record(number: int, recipient: str = JANE) -> Line:
    return Line("acme:06", f"a{number:031x}", {"outcome": "suppressed", "requests": [{"recipient": recipient}]})


def of(recipient: str) -> Callable[[Line], bool]:
    return lambda line: line.record["requests"][0]["recipient"] == recipient


@pytest.fixture(autouse=True)
def _small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FILE_LINES", 4)


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    """Three files: Joe's only in the middle, both in the first and the last."""
    archive = Archive(tmp_path / "archive")
    archive.append(record(number, JANE if number in (1, 2, 9) else JOE) for number in range(10))
    return archive


def texts(path: Path) -> list[bytes]:
    return gzip.decompress(path.read_bytes()).splitlines(keepends=True)


def rewrite(path: Path, lines: list[bytes]) -> None:
    path.write_bytes(gzip.compress(b"".join(lines)))


# --- writing and reading


def test_what_is_appended_comes_back_in_order(archive: Archive) -> None:
    lines = list(archive.lines())

    assert [record(number, JANE if number in (1, 2, 9) else JOE) for number in range(10)] == lines
    assert [path.name for path in archive.files()] == [
        "ledger-000001.jsonl.gz",
        "ledger-000002.jsonl.gz",
        "ledger-000003.jsonl.gz",
    ]


def test_a_sound_archive_has_a_head_and_counts(archive: Archive) -> None:
    last = json.loads(texts(archive.files()[-1])[-1])

    assert archive.verify() == Verdict(3, 10, last["ends_at"], "")


def test_append_says_how_many_and_goes_on_in_a_new_file(archive: Archive) -> None:
    assert archive.append([record(10), record(11)]) == 2
    assert [len(texts(path)) for path in archive.files()] == [6, 6, 4, 4]  # with header and footer
    assert archive.verify().broken == ""


def test_nothing_appended_makes_no_file(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "archive")

    assert (archive.files(), archive.append([]), archive.files()) == ([], 0, [])
    assert archive.verify() == Verdict(0, 0, ZERO, "")
    assert list(archive.lines()) == []


def test_a_plain_reader_sees_json(archive: Archive) -> None:
    header, first, *_, footer = map(json.loads, texts(archive.files()[0]))

    assert header == {"file": "ledger-000001.jsonl.gz", "starts_from": ZERO}
    assert first["content"]["record"]["outcome"] == "suppressed"
    assert footer["lines"] == 4


def test_the_first_of_a_home_and_key_is_read(archive: Archive) -> None:
    archive.append(
        [Line("acme:06", record(1).key, {"outcome": "later"}), Line("-", record(1).key, {"see": "elsewhere"})]
    )

    assert [line.record for line in archive.lines() if line.key == record(1).key] == [
        record(1).record,
        {"see": "elsewhere"},
    ]
    assert archive.verify().lines == 12


def test_wanted_looks_at_the_text(archive: Archive) -> None:
    assert [int(line.key[1:], 16) for line in archive.lines(lambda text: JANE in text)] == [1, 2, 9]


def test_only_we_can_read_it(archive: Archive, tmp_path: Path) -> None:
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "archive").iterdir()}

    assert (stat.S_IMODE((tmp_path / "archive").stat().st_mode), modes) == (0o700, {0o600})


@given(records=st.lists(RECORDS, max_size=9))
def test_every_record_survives(records: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> None:
    archive = Archive(tmp_path_factory.mktemp("archive"))
    lines = [Line("-", str(number), each) for number, each in enumerate(records)]
    archive.append(lines)

    assert list(archive.lines()) == lines
    assert archive.verify().broken == ""


def test_a_folder_that_cannot_be_one_is_a_setting_at_fault(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(ConfigError, match=r"UNSUBD_ARCHIVE_DIR: .*/file: "):
        Archive(tmp_path / "file").append([record(1)])
    with pytest.raises(ConfigError, match="UNSUBD_ARCHIVE_DIR"):
        Archive(tmp_path / "file").files()


def test_a_full_disk_is_temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    archive = Archive(tmp_path)
    monkeypatch.setattr("worker.store.volume.os.fsync", full)
    with pytest.raises(Unavailable, match=r"UNSUBD_ARCHIVE_DIR: .*: No space left"):
        archive.append([record(1)])

    assert [tmp_path / "archive.lock"] == list(tmp_path.iterdir())  # the half-written file takes no room


def test_a_large_archive_needs_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FILE_LINES", 10_000)
    archive = Archive(tmp_path)
    tracemalloc.start()
    try:
        archive.append(record(number) for number in range(30_000))
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak_bytes < 2_000_000
    assert len(archive.files()) == 3


# --- what was changed shows


def test_every_changed_byte_of_a_file_shows(archive: Archive) -> None:
    path = archive.files()[1]
    whole = b"".join(texts(path))
    sound = 0
    for place in range(len(whole)):
        path.write_bytes(gzip.compress(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :], 0))
        sound += archive.verify().broken == ""

    assert sound == 0


def test_every_damaged_byte_of_the_packed_file_is_harmless_or_named(archive: Archive) -> None:
    path, before = archive.files()[1], list(archive.lines())
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        if broken := archive.verify().broken:
            assert broken.startswith("ledger-000002.jsonl.gz line ")
        else:  # gzip's own time, flags and the like
            assert list(archive.lines()) == before


@pytest.mark.parametrize("length", [0, 1, 20, 100, -9, -1])
def test_a_truncated_last_file_shows_and_takes_no_more(archive: Archive, length: int) -> None:
    path = archive.files()[-1]
    path.write_bytes(path.read_bytes()[:length])

    assert archive.verify().broken.startswith("ledger-000003.jsonl.gz line ")
    with pytest.raises(Rejected, match=r"ledger-000003.jsonl.gz line \d+: "):
        archive.append([record(11)])


@pytest.mark.parametrize("number", range(6))
def test_a_removed_line_shows(archive: Archive, number: int) -> None:
    path = archive.files()[1]
    lines = texts(path)
    rewrite(path, lines[:number] + lines[number + 1 :])

    assert f"ledger-000002.jsonl.gz line {number + 1}: " in archive.verify().broken


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations(range(6), 2)))
def test_swapped_lines_show(archive: Archive, one: int, other: int) -> None:
    path = archive.files()[1]
    lines = texts(path)
    lines[one], lines[other] = lines[other], lines[one]
    rewrite(path, lines)

    assert f"ledger-000002.jsonl.gz line {one + 1}: " in archive.verify().broken


def test_a_line_behind_the_end_shows(archive: Archive) -> None:
    path = archive.files()[1]
    rewrite(path, [*texts(path), texts(path)[1]])

    assert "line 7: stands behind the end" in archive.verify().broken


@pytest.mark.parametrize("number", [1, 2])
def test_a_removed_file_shows(archive: Archive, number: int) -> None:
    archive.files()[number - 1].unlink()

    verdict = archive.verify()

    assert verdict.broken.startswith(f"ledger-00000{number}.jsonl.gz: missing")
    assert verdict.files == number - 1


def test_a_removed_last_file_shows_to_who_noted_its_end(archive: Archive) -> None:
    noted = archive.verify().head
    assert archive.verify(noted).broken == ""
    archive.files()[-1].unlink()

    assert archive.verify().broken == ""
    assert noted in archive.verify(noted).broken


def test_swapped_files_show(archive: Archive, tmp_path: Path) -> None:
    one, other, _ = archive.files()
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)

    assert archive.verify().broken.startswith("ledger-000001.jsonl.gz line 1: ")


def test_a_file_written_anew_shows_in_the_next(archive: Archive, tmp_path: Path) -> None:
    volume.write(archive.files()[0], volume.ZERO, [b'{"home":"-","key":"00","record":{}}'])

    assert archive.verify().broken.startswith("ledger-000002.jsonl.gz line 1: does not start")


def test_an_earlier_head_is_not_in_an_archive_written_anew(archive: Archive, tmp_path: Path) -> None:
    noted = archive.verify().head
    other = Archive(tmp_path / "other")
    other.append(itertools.islice(archive.lines(), 9))

    assert (other.verify().broken, noted in other.verify(noted).broken) == ("", True)


def test_a_damaged_file_is_named_without_its_content(archive: Archive) -> None:
    path = archive.files()[1]
    rewrite(path, [text.replace(b"suppressed", b"suppresseD") for text in texts(path)])

    with pytest.raises(Rejected) as caught:
        list(archive.lines())

    assert str(caught.value) == "ledger-000002.jsonl.gz line 2: does not fit the chain: restore the file from a backup"


def test_a_chained_line_that_is_no_record_is_named(tmp_path: Path) -> None:
    volume.write(tmp_path / volume.name_of(1), volume.ZERO, [b'{"home":"secret"}'])

    with pytest.raises(Rejected, match="line 2: is not a record") as caught:
        list(Archive(tmp_path).lines())
    assert "secret" not in str(caught.value)


def test_the_files_after_a_missing_one_can_be_read(archive: Archive) -> None:
    archive.files()[1].unlink()

    assert [int(line.key[1:], 16) for line in archive.lines()] == [0, 1, 2, 3, 8, 9]


# --- crashes, and two at a time

_KILLED = """
import os, signal, sys
from pathlib import Path
from worker.store import archive
archive.FILE_LINES = 4
def die(*_): os.kill(os.getpid(), signal.SIGKILL)
renames = iter([Path.rename] * int(sys.argv[2]))
Path.rename = lambda path, target: next(renames, die)(path, target)
archive.Archive(Path(sys.argv[1])).append(archive.Line("-", str(n), {}) for n in range(10))
"""


@pytest.mark.parametrize("files", [0, 1, 2])
def test_killed_before_a_rename_the_archive_is_sound_and_the_rest_comes_again(tmp_path: Path, files: int) -> None:
    killed = subprocess.run([sys.executable, "-c", _KILLED, tmp_path, str(files)], check=False)
    archive = Archive(tmp_path)
    leftover = tmp_path / f"ledger-00000{files + 1}.jsonl.new"

    assert (killed.returncode, leftover.exists()) == (-signal.SIGKILL, True)
    assert archive.verify().broken == ""
    assert archive.verify().lines == files * 4
    archive.append(Line("-", str(number), {}) for number in range(10))
    assert [str(number) for number in range(10)] == [line.key for line in archive.lines()]
    assert (archive.verify().broken, leftover.exists()) == ("", False)


def test_what_fails_between_two_lines_leaves_the_full_files(tmp_path: Path) -> None:
    def failing() -> Iterator[Line]:
        yield from map(record, range(6))
        raise RuntimeError("redis is away")

    with pytest.raises(RuntimeError):
        Archive(tmp_path).append(failing())

    assert sorted(path.name for path in tmp_path.iterdir()) == ["archive.lock", "ledger-000001.jsonl.gz"]
    assert Archive(tmp_path).verify().lines == 4


def test_a_second_writer_waits_for_the_first(archive: Archive, tmp_path: Path) -> None:
    writer = threading.Thread(target=archive.append, args=[[record(10)]])
    with open(tmp_path / "archive" / "archive.lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        writer.start()
        writer.join(0.2)
        assert (writer.is_alive(), len(archive.files())) == (True, 3)
    writer.join(10)

    assert archive.verify().lines == 11


def test_writers_at_once_make_one_chain(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    writers = [
        threading.Thread(target=archive.append, args=[map(record, range(start, start + 6))])
        for start in range(0, 48, 6)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()

    assert (archive.verify().broken, archive.verify().lines) == ("", 48)
    assert set(range(48)) == {int(line.key[1:], 16) for line in archive.lines()}


# --- bundles

STORY = {"sender": "acme", "recipient": "jane@example.com", "pseudonym": JANE, "note": "für Jane"}


@pytest.fixture
def made(archive: Archive, tmp_path: Path) -> tuple[Path, str]:
    path = tmp_path / "jane.zip"
    return path, write_bundle(path, STORY, [record(20), record(21)], archive, of(JANE))


def run(*arguments: str | Path) -> tuple[int, str]:
    done = subprocess.run([PYTHON, "-I", *arguments], check=False, capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    return done.returncode, done.stdout


def unpacked(path: Path) -> Path:
    folder = path.with_suffix("")
    with zipfile.ZipFile(path) as file:
        file.extractall(folder)
    return folder


def checked(folder: Path) -> str:
    """What the script says of the files in *folder*, run in this process: for the many small changes."""
    try:
        bundle_verify.verify(lambda name: (folder / name).read_bytes())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return str(error)
    return ""


def test_the_script_in_the_zip_verifies_it(made: tuple[Path, str]) -> None:
    path, head = made
    status, said = run(unpacked(path) / "verify.py")

    assert status == 0
    assert "3 archived, 2 not archived yet" in said
    assert "other people:  3, by digest only" in said  # two in the first file, one in the last, none of the middle's
    assert f"head:    {head}" in said
    assert (status, said) == run(path.with_suffix("") / "verify.py", path)


def test_the_manifest_counts(made: tuple[Path, str]) -> None:
    path, head = made
    manifest = json.loads(zipfile.ZipFile(path).read("manifest.json"))

    assert manifest["head"] == head
    assert [manifest[name] for name in ("files", "archived", "by_digest_only", "recent")] == [3, 3, 3, 2]


def test_the_bundle_knows_the_ends_that_were_noted(made: tuple[Path, str], archive: Archive) -> None:
    script = unpacked(made[0]) / "verify.py"
    noted = archive.verify().head
    first = json.loads(texts(archive.files()[0])[-1])["ends_at"]
    archive.append([record(30)])

    assert run(script, noted, first)[0] == 0
    assert run(script, archive.verify().head)[0] == 1


def test_other_peoples_content_is_nowhere(made: tuple[Path, str]) -> None:
    with zipfile.ZipFile(made[0]) as file:
        everything = b"".join(file.read(name) for name in file.namelist())

    assert JOE.encode() not in everything
    assert not any(record(number).key.encode() in everything for number in (0, 3, 4, 5, 6, 7, 8))
    assert all(record(number).key.encode() in everything for number in (1, 2, 9, 20, 21))


def test_a_digest_cannot_be_guessed(made: tuple[Path, str], tmp_path: Path) -> None:
    same = [module.content_of(record(0, JOE)) for _ in "ab"]

    assert same[0] != same[1]


@pytest.mark.parametrize("name", ["archived.jsonl", "recent.jsonl", "story.json"])
def test_every_changed_byte_of_a_bundle_shows(made: tuple[Path, str], name: str) -> None:
    folder = unpacked(made[0])
    whole = (folder / name).read_bytes()
    unseen = []
    for place in range(len(whole)):
        (folder / name).write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        if not checked(folder):
            unseen.append(place)

    assert unseen == []


@pytest.mark.parametrize("name", ["archived.jsonl", "recent.jsonl"])
def test_every_removed_or_doubled_line_of_a_bundle_shows(made: tuple[Path, str], name: str) -> None:
    folder = unpacked(made[0])
    lines = (folder / name).read_bytes().splitlines(keepends=True)
    for place in range(len(lines)):
        for instead in ([], [lines[place]] * 2):
            (folder / name).write_bytes(b"".join(lines[:place] + instead + lines[place + 1 :]))

            assert checked(folder) != ""


@pytest.mark.parametrize(
    ("name", "before", "after", "place"),
    [
        ("archived.jsonl", b"suppressed", b"suppresseD", "archived.jsonl line 3"),
        ("archived.jsonl", b'{"digest":"', b'{"digest":"0', "archived.jsonl line 1"),
        ("recent.jsonl", b"suppressed", b"ignored", "recent.jsonl line 2"),
        ("story.json", b"acme", b"acmf", "head, story_sha256"),
        ("manifest.json", b'"recent": 2', b'"recent": 3', "recent"),
    ],
)
def test_the_script_names_the_place(made: tuple[Path, str], name: str, before: bytes, after: bytes, place: str) -> None:
    file = unpacked(made[0]) / name
    file.write_bytes(file.read_bytes().replace(before, after, 1))
    status, said = run(file.parent / "verify.py")

    assert (status, said.startswith("DOES NOT FIT: "), place in said) == (1, True, True)


def test_a_file_shown_by_its_digest_only_still_binds_what_came_before(made: tuple[Path, str]) -> None:
    """A record changed in the first file, with all its hashes: the middle file, unseen, cannot lead to the noted end."""
    folder = unpacked(made[0])
    noted = json.loads((folder / "manifest.json").read_bytes())["archive_ends_at"]
    lines = [json.loads(text) for text in (folder / "archived.jsonl").read_bytes().splitlines()]
    contents = lines[1:5]
    contents[1]["content"]["record"]["outcome"] = "ignored"
    hash_ = end = volume.ZERO
    for line in contents:
        digest = bytes.fromhex(line["digest"]) if "digest" in line else None
        hash_ = volume.chained(hash_, digest) if digest else volume.added(hash_, volume.canonical(line["content"]))
        line |= {} if digest else {"hash": hash_.hex()}
    lines[0]["digest"] = hash_.hex()
    for header in (line for line in lines if "file" in line):
        header["starts_from"] = end.hex()
        end = volume.chained(end, bytes.fromhex(header["digest"]))
        header["ends_at"] = end.hex()
    ends, full, _ = bundle_verify.archived((str(number), line) for number, line in enumerate(lines))

    assert full == 3  # the forgery is sound in itself
    assert noted not in [each.hex() for each in ends]


def test_a_line_that_says_two_things_is_refused(made: tuple[Path, str]) -> None:
    file = unpacked(made[0]) / "recent.jsonl"
    file.write_bytes(file.read_bytes().replace(b'"outcome":', b'"outcome":"ignored","outcome":', 1))

    assert checked(file.parent) == "recent.jsonl line 2"


def test_garbage_is_no_traceback(made: tuple[Path, str]) -> None:
    path = made[0]
    script = unpacked(path) / "verify.py"
    raw, dice = bytearray(path.read_bytes()), random.Random(1)
    for place in dice.sample(range(len(raw)), 20):
        raw[place] ^= 0xFF
    path.write_bytes(raw)

    assert run(script, path)[0] == 1
    assert run(script, path.with_name("missing.zip"))[0] == 1


def test_a_person_without_any_record_gets_a_bundle_too(tmp_path: Path) -> None:
    path = tmp_path / "nobody.zip"
    write_bundle(path, {}, [], Archive(tmp_path / "none"), of(JANE))

    assert run(unpacked(path) / "verify.py")[0] == 0


@given(
    story=RECORDS, records=st.lists(st.tuples(RECORDS, st.booleans()), max_size=9), recent=st.lists(RECORDS, max_size=3)
)
def test_every_bundle_verifies(
    story: dict[str, Any],
    records: list[tuple[dict[str, Any], bool]],
    recent: list[dict[str, Any]],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("bundle")
    archive = Archive(folder)
    archive.append(Line("mine" if mine else "-", str(number), each) for number, (each, mine) in enumerate(records))
    head = write_bundle(
        folder / "b.zip", story, [Line("mine", "r", each) for each in recent], archive, lambda line: line.home == "mine"
    )
    found, _ = bundle_verify.verify(zipfile.ZipFile(folder / "b.zip").read)

    assert (found["head"], found["recent"]) == (head, len(recent))
    assert found["archived"] == sum(mine for _, mine in records)


def test_a_bundle_is_private_and_never_replaces_a_file(
    made: tuple[Path, str], archive: Archive, tmp_path: Path
) -> None:
    path, before = made[0], made[0].read_bytes()

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(Rejected, match="the file exists"):
        write_bundle(path, STORY, [], archive, of(JANE))
    assert path.read_bytes() == before
    assert {"archive", "jane.zip"} == {each.name for each in tmp_path.iterdir()}


def test_a_bundle_needs_a_folder(archive: Archive, tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="--bundle: No such file"):
        write_bundle(tmp_path / "nowhere" / "jane.zip", STORY, [], archive, of(JANE))


def test_no_bundle_is_made_of_a_damaged_archive(archive: Archive, tmp_path: Path) -> None:
    archive.files()[1].unlink()

    with pytest.raises(Rejected, match=r"ledger-000002.jsonl.gz: missing"):
        write_bundle(tmp_path / "jane.zip", STORY, [], archive, of(JANE))
    assert [tmp_path / "archive"] == list(tmp_path.iterdir())


def test_the_script_imports_nothing_of_ours() -> None:
    source = Path(bundle_verify.__file__).read_text()

    assert "worker" not in source
    assert "handlers" not in source
