"""A whole installation as a file, and on another server: real Redis, the embedded Valkey, the real commands."""

import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness.redis_server import RedisServer
from tests.harness.service import MASTERS, UNSUBD, Service, until
from worker.embedded import socket_path
from worker.keys import keep_masters

pytestmark = pytest.mark.fault


def _list(path: Path, numbers: range) -> Path:
    path.write_text("email\n" + "".join(f"person.{number}@example.com\n" for number in numbers))
    return path


def _filled(service: Service, folder: Path) -> None:
    service.last_line("sender", "add", "acme")
    service.last_line("group", "add", "acme", "Weekly news", "--id", "1")
    service.last_line("import", "acme", "1", str(_list(folder / "first.csv", range(3000))))


def _suppressed(service: Service, folder: Path, numbers: range) -> int:
    rows = service.rows("check", "acme", "1", "--file", str(_list(folder / "asked.csv", numbers)))
    return sum(bool(row["suppressed"]) for row in rows)


def test_a_backup_of_what_runs_holds_all_that_was_there_before(
    tmp_path: Path, own_redis: Callable[..., RedisServer]
) -> None:
    old = Service(tmp_path / "old", redis_url=own_redis().url, secret_keys=",".join(MASTERS))
    new = Service(tmp_path / "new", redis_url=own_redis().url, secret_keys=",".join(MASTERS))
    for each in (old, new):
        each.folder.mkdir()
    _filled(old, tmp_path)
    growing = _list(tmp_path / "growing.csv", range(3000, 160_000))
    busy = subprocess.Popen([UNSUBD, "import", "acme", "1", str(growing)], env=old.env, stdout=subprocess.DEVNULL)
    try:
        told = old.rows("backup", str(tmp_path / "b"))
        assert busy.poll() is None, "nothing was written meanwhile"
    finally:
        busy.wait(100)

    assert new.rows("restore", str(tmp_path / "b")) == [{"keys": told[0]["keys"]}]

    assert _suppressed(new, tmp_path, range(3000)) == 3000
    again = new.command("restore", str(tmp_path / "b"))
    assert (again.returncode, "holds an installation already" in again.stderr) == (65, True)


def test_the_embedded_store_moves_to_a_server_and_never_starts_again(
    tmp_path: Path, own_redis: Callable[..., RedisServer]
) -> None:
    old = Service(tmp_path)
    _filled(old, tmp_path)
    new = Service(tmp_path, redis_url=own_redis().url)
    without_key = new.command("move")
    new.env["UNSUBD_SECRET_KEYS_FILE"] = str(tmp_path / "data" / "secret_keys")

    with old.running("work", ready=False):
        # Before it has the store, nobody uses that, and the move would rightly be made.
        until(socket_path(tmp_path / "data").exists, 20, "the store in use")
        in_use = new.command("move")
    moved = new.command("move")

    assert (without_key.returncode, f"UNSUBD_SECRET_KEYS_FILE={tmp_path}/data/secret_keys" in without_key.stderr) == (
        78,
        True,
    )
    assert (in_use.returncode, "stop unsubd first" in in_use.stderr) == (65, True)
    assert moved.returncode == 0, moved.stderr
    assert f"UNSUBD_ADMIN_TOKEN_FILE={tmp_path}/data/admin_token" in moved.stdout
    assert _suppressed(new, tmp_path, range(3005)) == 3000
    after = old.command("check", "acme", "1", "person.1@example.com")
    assert (after.returncode, "has moved" in after.stderr) == (78, True)


@pytest.mark.parametrize("used_before", [False, True])
def test_an_embedded_box_comes_back_with_the_keys_of_its_backup(tmp_path: Path, used_before: bool) -> None:
    old, new = Service(tmp_path / "old"), Service(tmp_path / "new")
    for each in (old, new):
        each.folder.mkdir()
    _filled(old, tmp_path)
    old.last_line("backup", str(tmp_path / "b"), "--with-keys")
    key_file = new.folder / "data" / "secret_keys"
    if used_before:
        keep_masters(key_file, ["ab" * 32])  # as any command makes one

    assert new.command("restore", str(tmp_path / "b")).returncode == 0

    assert _suppressed(new, tmp_path, range(3005)) == 3000
    theirs = (old.folder / "data" / "secret_keys").read_text().split()
    assert key_file.read_text().strip().split(",") == theirs + ["ab" * 32] * used_before
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600


def test_the_keys_of_a_backup_can_be_had_for_a_server_of_ones_own(
    tmp_path: Path, own_redis: Callable[..., RedisServer]
) -> None:
    old, new = Service(tmp_path / "old"), Service(tmp_path, redis_url=own_redis().url, secret_keys="cd" * 32)
    old.folder.mkdir()
    _filled(old, tmp_path)
    old.last_line("backup", str(tmp_path / "b"), "--with-keys")

    refused = new.command("restore", str(tmp_path / "b"))
    new.last_line("restore", str(tmp_path / "b"), "--keys-to", str(tmp_path / "keys"))
    del new.env["UNSUBD_SECRET_KEYS"]
    new.env["UNSUBD_SECRET_KEYS_FILE"] = str(tmp_path / "keys")

    assert (refused.returncode, "--keys-to PATH" in refused.stderr) == (78, True)
    assert new.command("restore", str(tmp_path / "b")).returncode == 0
    assert _suppressed(new, tmp_path, range(3005)) == 3000


def test_a_backup_streams_to_a_pipe(tmp_path: Path) -> None:
    old = Service(tmp_path)
    _filled(old, tmp_path)

    piped = subprocess.run([UNSUBD, "backup", "-"], env=old.env, capture_output=True, timeout=60)
    (tmp_path / "b").write_bytes(piped.stdout)
    refused = old.command("restore", str(tmp_path / "b"))

    assert (piped.returncode, piped.stderr) == (0, b"")
    assert (refused.returncode, "holds an installation already" in refused.stderr) == (65, True)
