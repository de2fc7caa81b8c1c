"""The whole of `unsubd run` under a full disk, a stop in the middle of everything, and mail that kills its reader."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from redis import Redis

from tests.crash.processes import below
from tests.harness.dovecot import Mailbox
from tests.harness.figures import figure
from tests.harness.mails import address, mail
from tests.harness.processes import unavailable
from tests.harness.redis_server import RedisServer
from tests.harness.service import MASTERS, UNSUBD, Service, kill_and_await, parts, until
from tests.harness.trial import Trial, settings
from tests.servers.test_mailbox import _outcomes, _service, _suppressed

pytestmark = [pytest.mark.fault, pytest.mark.timeout(240)]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 24 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", folder], capture_output=True, text=True)
    if made.returncode:
        unavailable(f"a small disk cannot be mounted: {made.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def _fill(folder: Path) -> Path:
    filler = folder / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(b"x" * 4096):
            pass
    return filler


def test_a_full_disk_takes_nothing_that_it_cannot_keep(tmp_path: Path, small_disk: Path) -> None:
    given = {name: value for name, value in settings("").items() if name != "redis_url"}
    service = Service(small_disk, **given)  # with its log
    trial = Trial(service)
    trial.register()
    url = f"unix://{small_disk}/data/valkey.sock"
    with service.running("run") as process:
        trial.send(range(30))
        trial.settled(url)
        filler = _fill(small_disk)
        trial.send(range(30, 90))
        until(lambda: trial.answers[503] + trial.answers[500] + trial.answers[0] > 30, 60, "refusals")
        kill_and_await(process.pid, "worker")  # though nobody can write that it ended
        filler.unlink()

        trial.verdict(url, "accept, then acknowledge", "disk full under the embedded store", "test_service_faults")


def test_a_part_that_starts_anew_while_the_store_cannot_ends_nobody(tmp_path: Path) -> None:
    given = {name: value for name, value in settings("").items() if name != "redis_url"}
    service = Service(tmp_path, **given)
    trial = Trial(service)
    trial.register()
    data = tmp_path / "data"
    with service.running("run") as process:
        with Redis(unix_socket_path=str(data / "valkey.sock")) as client:
            server = int(client.info("server")["process_id"])
        (manifest,) = (data / "appendonlydir").glob("*.manifest")
        whole = manifest.read_text()
        manifest.write_text("nonsense\n")
        os.kill(server, signal.SIGKILL)
        trial.send(range(30))
        for pid in parts(process.pid, "worker"):
            os.kill(pid, signal.SIGKILL)
        until(lambda: service.log.read_text().count("part worker ended with 75") > 2, 30, "parts that cannot start")
        manifest.write_text(whole)

        trial.verdict(
            f"unix://{data}/valkey.sock", "accept, then acknowledge", "store that cannot start", "test_service_faults"
        )


def test_a_password_that_is_wrong_for_a_while_ends_nobody_who_works(
    tmp_path: Path, own_redis: Callable[..., RedisServer]
) -> None:
    redis = own_redis()
    service = Service(tmp_path, **settings(redis.url))
    trial = Trial(service)
    trial.register()
    with service.running("run") as process, Redis.from_url(redis.url) as client:
        client.config_set("requirepass", "another")
        for pid in parts(process.pid, "worker"):
            os.kill(pid, signal.SIGKILL)
        until(lambda: service.log.read_text().count("part worker ended with 78") > 2, 30, "parts that are refused")
        trial.send(range(30))
        client.config_set("requirepass", "")

        trial.verdict(
            redis.url, "accept, then acknowledge", "password at Redis wrong for a while", "test_service_faults"
        )


def test_sigterm_in_the_middle_of_everything_hands_back(
    tmp_path: Path, own_redis: Callable[..., RedisServer], dovecot: Mailbox
) -> None:
    queue, store = own_redis(), own_redis()
    service = _service(tmp_path, queue.url, dovecot, store_url=store.url, in_relay="bearer:t")
    mails = [mail(address(number), f"m-{number}") for number in range(30)]
    with Redis.from_url(queue.url) as client:
        with service.running("run") as process:
            until(lambda: "state=idle" in service.log.read_text(), what="idle")
            os.kill(store.pid, signal.SIGSTOP)
            dovecot.append_many(mails)
            until(lambda: client.zcard("rq:wip:unsubd"), 30, "a job in hand")
            processes = below(process.pid)
            begun = time.monotonic()
            process.send_signal(signal.SIGTERM)
            try:
                code = process.wait(30)
                stopped_s = time.monotonic() - begun
            finally:
                os.kill(store.pid, signal.SIGCONT)
        assert code == 0
        assert [pid for pid in processes if Path(f"/proc/{pid}").exists()] == []
        assert (client.zcard("rq:wip:unsubd"), client.llen("rq:queue:unsubd:intermediate")) == (0, 0)
        assert client.llen("rq:queue:unsubd") >= 1, "handed back"
        with service.running("run"):
            until(lambda: _stopped(store.url) == 30, 60, "every effect")
            until(lambda: len(_outcomes(store.url)) == 30, 30, "every record")
    figure("a stop finishes or hands back", "SIGTERM with a job in hand and the store hung", "test_service_faults",
           requests=30, lost=30 - _stopped(store.url), duplicated=len(_outcomes(store.url)) - 30,
           stopped_s=round(stopped_s, 1))  # fmt: skip


def _stopped(url: str) -> int:
    return len(_suppressed(url))


NO_MORE = """
import signal, time
from multiprocessing.context import ForkProcess
real, started = ForkProcess.start, []
def start(self):
    if len(started) == 2:
        time.sleep(1)  # until the others are what they are
        raise BlockingIOError(11, "Resource temporarily unavailable")
    started.append(real(self))
ForkProcess.start = start
from worker import service
def hangs(settings):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(300)
service.PARTS["events"] = hangs
"""


def test_a_supervisor_that_cannot_start_all_parts_leaves_none(tmp_path: Path, redis_url: str) -> None:
    (tmp_path / "sitecustomize.py").write_text(NO_MORE)
    service = Service(tmp_path, redis_url=redis_url, secret_keys=MASTERS[0])
    service.env["PYTHONPATH"] = str(tmp_path)
    with subprocess.Popen([UNSUBD, "work"], env=service.env, stderr=subprocess.PIPE, start_new_session=True) as process:
        said = process.communicate(timeout=30)[1]
        assert (process.returncode, b"Resource temporarily unavailable" in said) == (70, True)
        with pytest.raises(ProcessLookupError):
            os.killpg(process.pid, 0)


NO_FORK = """
from multiprocessing.context import ForkProcess
from worker import supervisor
supervisor._NO_FORK_S = 0.5
real, tries = ForkProcess.start, []
def start(self):
    if self.name == "worker":
        tries.append(self)
        if len(tries) in (2, 3):
            raise BlockingIOError(11, "Resource temporarily unavailable")
    real(self)
ForkProcess.start = start
"""


def test_a_part_that_cannot_be_forked_again_is_tried_later(tmp_path: Path, redis_url: str) -> None:
    (tmp_path / "sitecustomize.py").write_text(NO_FORK)
    service = Service(tmp_path, redis_url=redis_url, secret_keys=MASTERS[0], workers="1")
    service.env["PYTHONPATH"] = str(tmp_path)
    with service.running("run") as process:
        (killed,) = parts(process.pid, "worker")
        os.kill(killed, signal.SIGKILL)
        until(
            lambda: service.log.read_text().count("part worker cannot be started (Resource temp") == 2, 30, "two tries"
        )
        until(lambda: set(parts(process.pid, "worker")) - {killed}, 30, "the third")

    assert process.returncode == 0


POISON = """
import os, signal
from handlers import decision
real = decision.lookups
def lookups(message, *more):
    if b"X-Poison: reader" in message.raw:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(message, *more)
decision.lookups = lookups
from worker import supervisor
real_restart = supervisor.Supervisor._restart
def restart(self, child):
    real_restart(self, child)
    child.restart_at = min(child.restart_at, __import__("time").monotonic() + 0.3)
supervisor.Supervisor._restart = restart
"""


@pytest.mark.timeout(400)
def test_a_mail_that_kills_its_reader_is_set_aside_and_stops_nobody(
    tmp_path: Path, redis_url: str, dovecot: Mailbox
) -> None:
    (tmp_path / "sitecustomize.py").write_text(POISON)
    service = _service(tmp_path, redis_url, dovecot)
    service.env["PYTHONPATH"] = str(tmp_path)
    mails = [mail(address(number), f"m-{number}") for number in range(40)]
    dovecot.append_many([*mails[:20], mail(address(99), "poison", "X-Poison: reader\r\n"), *mails[20:]])
    begun = time.monotonic()
    with service.running("run"), Redis.from_url(redis_url) as client:
        until(lambda: _stopped(redis_url) == 40, 90, "everybody else")
        until(lambda: client.hlen("unsubd:quarantine") == 1, 90, "the poison in quarantine")
        until(lambda: len(_outcomes(redis_url)) == 41, 30, "its record")
        until(lambda: len(dovecot.messages("Processed")) == 41, 150, "all moved")  # once more after the bound of a MOVE
        shown = service.rows("quarantine", "list")[0]
    deaths = service.log.read_text().count("part poll ended")
    compared = service.command("reconcile", "--json")
    assert compared.returncode == 0, "it reads all that was handled, and not the poison"
    assert _outcomes(redis_url) == ["honour"] * 40 + ["quarantine:malformed"]
    assert "killed" in str(shown)
    figure("one poison stops nobody", "mail that kills the poller", "test_service_faults",
           requests=40, lost=40 - _stopped(redis_url), deaths=deaths, seconds=round(time.monotonic() - begun))  # fmt: skip
