"""What any user of the machine sees of a running installation: arguments of processes, and limits."""

from pathlib import Path

import pytest

from tests.crash.processes import below
from tests.harness.service import MASTERS, Service

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
