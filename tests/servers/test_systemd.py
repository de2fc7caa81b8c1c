"""deploy/systemd: what systemd itself says of the units, and what services say to systemd."""

import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.processes import PACKAGES, require
from tests.harness.service import MASTERS, UNSUBD, Service, until
from worker.service import PARTS

pytestmark = [pytest.mark.fault, pytest.mark.timeout(400)]  # each starts processes

UNITS = Path(__file__).parents[2] / "deploy/systemd"
NAMES = ["unsubd.service", "unsubd@.service"]
_MOST_EXPOSED = 2.0
_PATIENCE_S = 90  # on a busy machine
_SINGLE = sorted({*PARTS, "work"} - {"worker", "events", "reaper"})  # what a command of its own starts


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units as installed here: with the unsubd of this environment, and a unit for each part."""
    folder = tmp_path / "units"
    shutil.copytree(UNITS, folder)
    for name in NAMES:
        text = (folder / name).read_text()
        assert text.count("ExecStart=/opt/unsubd/bin/unsubd ") == 1
        (folder / name).write_text(text.replace("/opt/unsubd/bin/unsubd", str(UNSUBD)))
    for part in _SINGLE:
        (folder / f"unsubd@{part}.service").symlink_to(folder / "unsubd@.service")
    return folder


def _analyze(*words: str | Path) -> subprocess.CompletedProcess[str]:
    tool = require("systemd-analyze", PACKAGES["systemd-analyze"])
    return subprocess.run([tool, *words], capture_output=True, text=True, timeout=60)


def test_systemd_finds_nothing_wrong(units: Path) -> None:
    done = _analyze("verify", "--man=no", *(units / f"unsubd@{part}.service" for part in _SINGLE), units / NAMES[0])

    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_systemd_would_find_a_misspelt_word(units: Path) -> None:
    path = units / NAMES[0]
    path.write_text(path.read_text().replace("WatchdogSec=", "WatchDogSec="))

    assert "WatchDogSec" in _analyze("verify", "--man=no", path).stderr


@pytest.mark.parametrize("name", NAMES)
def test_the_exposure_is_small(name: str) -> None:
    done = _analyze("security", "--offline=true", "--no-pager", UNITS / name)

    found = re.search(r"exposure level for \S+: ([0-9.]+)", done.stdout)
    assert found is not None, done.stdout + done.stderr
    assert float(found[1]) <= _MOST_EXPOSED


class Manager:
    """The socket on which systemd listens."""

    def __init__(self, folder: Path) -> None:
        self._link = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._link.bind(str(folder / "notify"))
        self._link.settimeout(_PATIENCE_S)
        self.env = {"NOTIFY_SOCKET": str(folder / "notify"), "WATCHDOG_USEC": "300000"}

    def next(self) -> str:
        """Return what is said next, waiting for it."""
        return self._link.recv(100).decode()

    def forget(self) -> None:
        """Throw away what was said so far."""
        self._link.setblocking(False)
        try:
            while True:
                self._link.recv(100)
        except BlockingIOError:
            self._link.settimeout(_PATIENCE_S)

    def close(self) -> None:
        self._link.close()


@pytest.fixture
def manager() -> Iterator[Manager]:
    folder = Path(tempfile.mkdtemp(prefix="unsubd-"))  # a socket's path is short
    listening = Manager(folder)
    yield listening
    listening.close()
    shutil.rmtree(folder)


@pytest.fixture
def service(tmp_path: Path, manager: Manager, redis_url: str) -> Service:
    """What can run as each part, and tells the manager."""
    (tmp_path / "mail/new").mkdir(parents=True)
    (tmp_path / "mail/tmp").mkdir()
    (tmp_path / "mail/cur").mkdir()
    places = {name: f"unix:{manager.env['NOTIFY_SOCKET']}.{name}" for name in ("lmtp", "policy", "milter")}
    settings = {"address": "u+{tag}@unsub.example.com", "public_url": "https://unsub.example.com"}
    service = Service(
        tmp_path,
        redis_url=redis_url,
        secret_keys=",".join(MASTERS),
        maildir=str(tmp_path / "mail"),
        **places,
        **settings,
    )
    service.env |= manager.env
    return service


@pytest.mark.parametrize("part", ["run", *_SINGLE])
def test_a_service_says_that_it_is_ready_and_lives(service: Service, manager: Manager, part: str) -> None:
    with service.running(part, ready=False) as process:
        assert manager.next() == "READY=1", service.log.read_text()
        assert part not in ("run", "web") or until(service.is_ready)
        assert [manager.next(), manager.next()] == ["WATCHDOG=1"] * 2
        process.send_signal(signal.SIGSTOP)  # what systemd's watchdog is for
        until(lambda: "\nState:\tT" in Path(f"/proc/{process.pid}/status").read_text(), 5, "the stop")
        manager.forget()
        assert _is_silent(manager)
        process.send_signal(signal.SIGCONT)
        assert manager.next() == "WATCHDOG=1"
        process.send_signal(signal.SIGTERM)

    assert process.returncode == 0


@pytest.mark.parametrize("part", ["run", *_SINGLE])
def test_a_service_that_is_told_to_stop_again_and_again_ends_well(
    service: Service, manager: Manager, part: str
) -> None:
    with service.running(part, ready=False) as process:
        assert manager.next() == "READY=1", service.log.read_text()
        deadline = time.monotonic() + 30
        while process.poll() is None and time.monotonic() < deadline:
            process.send_signal(signal.SIGTERM)
            time.sleep(0.0005)

    assert process.returncode == 0


def _is_silent(manager: Manager) -> bool:
    manager._link.settimeout(1)
    try:
        manager._link.recv(100)
    except TimeoutError:
        return True
    finally:
        manager._link.settimeout(_PATIENCE_S)
    return False
