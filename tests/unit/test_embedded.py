"""Where the embedded Valkey listens. What it does is tested with the real one: `servers/test_embedded.py`."""

import os
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from handlers.errors import ConfigError, StoreUnavailable
from worker import embedded, supervisor
from worker.settings import load_settings


def folder_of(octets: int) -> Path:
    """A data folder whose socket path has so many octets."""
    return Path("/d" + "a" * (octets - len("/d/valkey.sock")))


@pytest.mark.parametrize("octets", [20, 106, 107])
def test_the_socket_lies_in_the_data_folder_while_its_path_fits(octets: int) -> None:
    path = embedded.socket_path(folder_of(octets))

    assert len(os.fsencode(path)) == octets
    assert path == folder_of(octets) / "valkey.sock"


@pytest.mark.parametrize("data_dir", [folder_of(108), folder_of(4000), Path("/") / ("ü" * 50)])
def test_a_long_path_has_its_socket_in_a_short_folder(data_dir: Path) -> None:
    path = embedded.socket_path(data_dir)

    assert len(os.fsencode(path)) <= 107
    assert path.parent.parent == Path("/tmp")
    assert str(os.getuid()) in path.parent.name
    assert path == embedded.socket_path(data_dir)  # every process finds the same


def test_data_folders_do_not_share_a_short_folder() -> None:
    assert embedded.socket_path(folder_of(200)) != embedded.socket_path(folder_of(201))


def test_every_process_finds_the_short_folder_wherever_its_temporary_files_go(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = embedded.socket_path(folder_of(200))
    monkeypatch.setenv("TMPDIR", "/var/" + "t" * 100)
    monkeypatch.setattr(tempfile, "tempdir", None)

    assert embedded.socket_path(folder_of(200)) == expected


def test_a_store_exists_once_it_has_an_append_only_file(tmp_path: Path) -> None:
    assert not embedded.exists(tmp_path)
    assert not embedded.exists(tmp_path / "gone")
    (tmp_path / "appendonlydir").mkdir()

    assert embedded.exists(tmp_path)


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_a_data_folder_that_cannot_be_one_is_a_wrong_setting(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(ConfigError, match=r"^UNSUBD_DATA_DIR: .*expected a folder we may write"):
        embedded.attach(tmp_path / name)


@pytest.mark.parametrize(("free", "error"), [(1 << 20, ConfigError), ((1 << 20) - 1, StoreUnavailable)])
def test_a_server_that_does_not_start_on_a_full_disk_is_an_outage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, error: type[Exception]
) -> None:
    def refuse(*_: Path) -> None:
        raise ConfigError("UNSUBD_DATA_DIR: the embedded Valkey does not start")

    monkeypatch.setattr(embedded, "_require", refuse)
    monkeypatch.setattr(embedded.shutil, "disk_usage", lambda _: SimpleNamespace(free=free))

    with pytest.raises(error, match="does not start"):
        embedded.attach(tmp_path)


def test_a_server_that_cannot_be_started_again_is_tried_until_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tries: list[Path] = []

    def full(data_dir: Path) -> None:
        tries.append(data_dir)
        raise ConfigError("UNSUBD_DATA_DIR: the embedded Valkey does not start: No space left on device")

    monkeypatch.setattr(supervisor, "_REVIVE_EVERY_S", 0.0)
    monkeypatch.setattr(embedded, "revive", full)
    look = supervisor.reviver(load_settings({"UNSUBD_DATA_DIR": str(tmp_path)}))

    look()
    look()

    assert tries == [tmp_path] * 2
    assert len(capsys.readouterr().err.splitlines()) == 1  # said once
