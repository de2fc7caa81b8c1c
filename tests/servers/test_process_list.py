"""What any user of the machine sees of a running installation: names and arguments of its processes, and limits."""

import os
from contextlib import suppress
from pathlib import Path

import pytest

from tests.crash.processes import below
from tests.harness.service import MASTERS, Service, parts, until

pytestmark = pytest.mark.fault


def test_no_secret_is_an_argument_of_any_process(tmp_path: Path) -> None:
    secrets = {MASTERS[0], "adm1n-token", "v13wer-token", "imap-passw0rd", "relay-s3cret"}
    service = Service(
        tmp_path, secret_keys=MASTERS[0], address="u+{tag}@unsub.example.com", admin_token="adm1n-token",
        viewer_token="v13wer-token", imap_password="imap-passw0rd", in_relay="bearer:relay-s3cret",
    )  # fmt: skip
    with service.running("run") as process:
        pids = [process.pid, *below(process.pid)]
        # Valkey has a session of its own, and is no child of the run once it stands.
        valkeys = [int(each.parent.name) for each in Path("/proc").glob("[0-9]*/cmdline")
                   if str(tmp_path).encode() in each.read_bytes()]  # fmt: skip
        shown = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in {*pids, *valkeys}}
        limits = {pid: Path(f"/proc/{pid}/limits").read_text() for pid in {*pids, *valkeys}}

    assert len(shown) >= 5
    assert [pid for pid, words in shown.items() if any(each.encode() in words for each in secrets)] == []
    cores = {line.split()[4] for text in limits.values() for line in text.splitlines() if "core file" in line}
    assert cores == {"0"}


def test_a_part_has_its_name_its_own_files_and_the_memory_of_all(tmp_path: Path) -> None:
    service = Service(tmp_path, secret_keys=MASTERS[0], address="u+{tag}@unsub.example.com", workers="2")
    with service.running("run") as process:
        names = {"web": 1, "poll": 1, "worker": 2, "events": 1, "reaper": 1}
        named = until(lambda: _opened(process.pid, names), what="every part uses the store")
        pids = [pid for found in named.values() for pid in found]
        held = {pid: _open_files(pid) for pid in (process.pid, *pids)}
        private = {pid: _kilobytes(pid, "Private_Dirty") / _kilobytes(pid, "Rss") for pid in pids}

    supervisors = {each for each in held.pop(process.pid) if each.startswith("socket:")}
    assert supervisors, "its connection to the store"
    assert [pid for pid, files in held.items() if supervisors & set(files)] == []
    # One of the supervisor's beside its own would keep the embedded store from ever being stopped.
    assert {sum(each.endswith("/valkey.users") for each in files) for files in held.values()} == {1}
    assert [pid for pid, share in private.items() if share > 0.4] == [], "what all load is there once"


def _opened(supervisor: int, names: dict[str, int]) -> dict[str, list[int]]:
    """The process ids of each part, {} until there are as many as *names* says, and all have found the store."""
    named = {name: parts(supervisor, name) for name in names}
    if {name: len(found) for name, found in named.items()} != names:
        return {}
    files = [_open_files(pid) for found in named.values() for pid in found]
    return named if all(any(each.endswith("/valkey.users") for each in own) for own in files) else {}


def _open_files(pid: int) -> list[str]:
    found = []
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            found.append(os.readlink(each))
    return found


def _kilobytes(pid: int, name: str) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])
