"""The embedded Valkey itself: started by the first, stopped by the last, and never two on one folder."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis import Redis

from handlers.errors import ConfigError, StoreUnavailable
from tests.harness.service import until
from worker import embedded
from worker.embedded import Embedded, attach
from worker.server import weakness

# The server outlives the process that started it: whoever leaves last stops it.
pytestmark = pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")


@contextmanager
def attached(data_dir: Path) -> Iterator[Embedded]:
    server = attach(data_dir)
    try:
        yield server
    finally:
        server.close()


def pid_of(server: Embedded) -> int:
    with Redis.from_url(server.url) as client:
        return int(client.info("server")["process_id"])


def ends(pid: int) -> bool:
    """Say whether the process has ended; it may be our child, still to be waited for."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return not Path(f"/proc/{pid}").exists()


def test_users_share_one_server_and_the_last_one_stops_it(tmp_path: Path) -> None:
    with attached(tmp_path) as first:
        pid = pid_of(first)
        with attached(tmp_path) as second:
            assert pid_of(second) == pid
        assert pid_of(first) == pid

    until(lambda: ends(pid), what="the server ended")


def test_it_is_durable_private_and_has_no_port(tmp_path: Path) -> None:
    with attached(tmp_path / "data") as server, Redis.from_url(server.url) as client:
        client.set("kept", "1")
        config = client.config_get("*")

        assert weakness(client) == ""
        assert (config["appendonly"], config["appendfsync"], config["port"]) == ("yes", "always", "0")
        assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700
        assert (tmp_path / "data" / "valkey.sock").stat().st_mode & 0o077 == 0
    with attached(tmp_path / "data") as server, Redis.from_url(server.url) as client:
        assert client.get("kept") == b"1"


def test_closing_twice_is_closing_once(tmp_path: Path) -> None:
    server = attach(tmp_path)

    server.close()
    server.close()


def test_a_killed_server_is_started_again_with_its_data(tmp_path: Path) -> None:
    with attached(tmp_path) as server:
        with Redis.from_url(server.url) as client:
            client.set("kept", "1")
        pid = pid_of(server)
        os.kill(pid, signal.SIGKILL)
        until(lambda: ends(pid), what="it ended")

        with attached(tmp_path) as again, Redis.from_url(again.url) as client:
            assert client.get("kept") == b"1"


@pytest.mark.timeout(15)  # less than the time that one which loads has
def test_one_that_hangs_is_said_soon_and_gets_no_second_one_on_the_same_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "_ANSWER_S", 0.1)
    with attached(tmp_path) as server:
        pid = pid_of(server)
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(
            StoreUnavailable, match=r"^UNSUBD_DATA_DIR: the embedded Valkey of .* runs but does not answer"
        ):
            attach(tmp_path)
        os.kill(pid, signal.SIGCONT)

        with attached(tmp_path) as again:
            assert pid_of(again) == pid


def test_one_that_listens_elsewhere_gets_no_second_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data_dir = tmp_path / ("d" * 60) / ("e" * 60)
    monkeypatch.setattr(embedded, "_START_S", 0.3)
    with attached(data_dir) as server:
        elsewhere = tmp_path / "valkey.sock"  # as with another mount on /tmp
        monkeypatch.setattr(embedded, "socket_path", lambda _: elsewhere)
        with pytest.raises(StoreUnavailable, match=f"does not answer on {elsewhere}"):
            attach(data_dir)

        assert pid_of(server)


def test_one_that_cannot_start_says_why(tmp_path: Path) -> None:
    with attached(tmp_path) as server, Redis.from_url(server.url) as client:
        client.set("kept", "1")
    (manifest,) = (tmp_path / "appendonlydir").glob("*.manifest")
    manifest.write_text("nonsense\n")

    with pytest.raises(ConfigError, match=r"^UNSUBD_DATA_DIR: the embedded Valkey does not start in .*: .+"):
        attach(tmp_path)


def test_one_that_cannot_start_under_its_users_is_an_outage(tmp_path: Path) -> None:
    with attached(tmp_path) as server:
        pid = pid_of(server)
        (manifest,) = (tmp_path / "appendonlydir").glob("*.manifest")
        whole = manifest.read_text()
        manifest.write_text("nonsense\n")
        os.kill(pid, signal.SIGKILL)
        until(lambda: ends(pid), what="it ended")
        with pytest.raises(StoreUnavailable, match=r"does not start in .*: .+"):
            attach(tmp_path)
        manifest.write_text(whole)

        with attached(tmp_path) as again, Redis.from_url(again.url) as client:
            assert client.ping()
