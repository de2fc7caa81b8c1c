"""`unsubd run` as its user meets it: the embedded default, its faults, and the end of it."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from redis import Redis
from rq import Queue
from rq.serializers import JSONSerializer

from tests.harness.first_layout import packed, write
from tests.harness.mails import address, mail
from tests.harness.redis_server import RedisServer
from tests.harness.service import MASTERS, Service, kill_and_await, until

KEYS = {"secret_keys": ",".join(MASTERS), "address": "u+{tag}@unsub.example.com"}


def _embedded_client(service: Service) -> Redis:
    return Redis.from_url(f"unix://{service.folder}/data/valkey.sock")


def test_run_ends_its_start_with_three_links_and_the_demo_mail_takes_effect(tmp_path: Path) -> None:
    service = Service(tmp_path)

    with service.running("run", "--demo"):
        said = until(lambda: (log := service.log.read_text()) and "/docs" in log and log, what="the links")
        links = re.findall(r"^(console|landing page|API) +(\S+)", said, re.M)
        assert [name for name, _ in links] == ["console", "landing page", "API"]
        rows = until(lambda: [r for r in service.rows("check", "demo", "1", "jane.doe@example.com") if r["suppressed"]])
        doctor = service.command("doctor")

    assert rows[0]["source"] == "maildir"
    assert (doctor.returncode, doctor.stdout.count("FAIL  ")) == (0, 0), doctor.stdout
    assert re.search(r"^OK    web       http://\S+ answers, and is us$", doctor.stdout, re.M)


def test_the_key_and_token_files_are_private(tmp_path: Path) -> None:
    service = Service(tmp_path)

    service.last_line("sender", "add", "acme")

    for name in ("secret_keys", "admin_token"):
        assert (service.folder / "data" / name).stat().st_mode & 0o777 == 0o600


def test_nobody_else_may_read_the_store(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o755)
    service = Service(tmp_path)

    service.last_line("sender", "add", "acme")

    files = [path for path in (tmp_path / "data").rglob("*") if path.is_file() and path.suffix != ".sock"]
    assert [path.name for path in files if path.stat().st_mode & 0o077] == []


def test_the_last_user_stops_the_embedded_server(tmp_path: Path) -> None:
    service = Service(tmp_path)

    service.last_line("sender", "add", "acme")

    assert service.last_line("sender", "list") == "acme              acme"  # it was durable
    with socket.socket(socket.AF_UNIX) as connection, pytest.raises(OSError):  # noqa: PT011
        connection.connect(str(service.folder / "data" / "valkey.sock"))


@pytest.mark.fault
def test_a_killed_run_leaves_an_orphan_that_the_next_one_uses(tmp_path: Path) -> None:
    service = Service(tmp_path)
    with service.running("run") as process:
        service.last_line("sender", "add", "acme")
        with _embedded_client(service) as client:
            first = client.info("server")["process_id"]
        os.killpg(process.pid, signal.SIGKILL)  # the run and all its parts; the server has a session of its own
        process.wait()
    until(lambda: not service.is_ready(), what="the parts of the killed one ended")

    with service.running("run"), _embedded_client(service) as client:
        second = client.info("server")["process_id"]
        senders = service.rows("sender", "list")

    assert second == first
    assert [each["sender"] for each in senders] == ["acme"]


@pytest.mark.fault
@pytest.mark.parametrize("name", ["d" * 60 + "/" + "e" * 60, "two  spaces 50%20off a?b#c dä=\"x'"])
def test_a_data_folder_may_have_any_name(tmp_path: Path, name: str) -> None:
    service = Service(tmp_path, data_dir=str(tmp_path / name))

    with service.running("run"):
        until(lambda: _workers(service), what="a worker")
        assert service.last_line("sender", "add", "acme") == "acme"


@pytest.mark.fault
def test_sigterm_in_the_first_second_ends_it_at_once_and_web_leaves_no_server(tmp_path: Path) -> None:
    service = Service(tmp_path)
    for command, ready in (("run", False), ("web", True)):
        with service.running(command, ready=ready) as process:
            time.sleep(1.5)
            process.send_signal(signal.SIGTERM)
            process.wait(12)
    said = service.log.read_text()

    assert "Traceback" not in said
    with socket.socket(socket.AF_UNIX) as connection, pytest.raises(OSError):  # noqa: PT011
        connection.connect(str(service.folder / "data" / "valkey.sock"))


@pytest.mark.fault
def test_an_embedded_server_that_dies_is_started_again(tmp_path: Path) -> None:
    service = Service(tmp_path, in_relay="bearer:t")
    with service.running("run"):
        service.last_line("sender", "add", "acme")
        with _embedded_client(service) as client:
            os.kill(int(client.info("server")["process_id"]), signal.SIGKILL)
        until(lambda: service.post("/in/relay", b"To: x@example.com\n\n", authorization="Bearer t") == 204, 30)

        assert [each["sender"] for each in service.rows("sender", "list")] == ["acme"]


@pytest.mark.fault
def test_sigterm_ends_everything_within_ten_seconds(tmp_path: Path) -> None:
    service = Service(tmp_path)
    with service.running("run") as process:
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)

        assert process.wait(15) == 0
        assert time.monotonic() - begun < 10
    assert not service.is_ready()


@pytest.mark.fault
def test_a_taken_port_is_one_line(tmp_path: Path) -> None:
    service = Service(tmp_path)
    with socket.create_server(("127.0.0.1", service.port)):
        for command in ("run", "web"):
            done = service.command(command)

            assert done.returncode == 78
            assert done.stderr.startswith(f"unsubd: UNSUBD_HTTP: 127.0.0.1:{service.port}: Address already in use")
            assert len(done.stderr.splitlines()) == 1


@pytest.mark.fault
def test_redis_down_at_start_is_one_line_and_75(tmp_path: Path, free_port: Callable[[], int]) -> None:
    service = Service(tmp_path, redis_url=f"redis://127.0.0.1:{free_port()}", **KEYS)
    for command in ("run", "poll", "work", "web", "status"):
        done = service.command(command)

        assert done.returncode == 75
        assert done.stderr.splitlines() == ["unsubd: UNSUBD_REDIS_URL: the server does not answer (ConnectionError)"]


@pytest.mark.parametrize(
    ("weaker", "reason"),
    [
        ({"appendonly": "no"}, "appendonly is no"),
        ({"appendfsync": "everysec"}, "appendfsync is everysec"),
        ({"no_appendfsync_on_rewrite": "yes"}, "no-appendfsync-on-rewrite is yes"),
        ({"maxmemory": "60mb", "maxmemory_policy": "allkeys-lru"}, "maxmemory-policy is allkeys-lru"),
    ],
)
def test_weak_persistence_refuses_to_start(
    tmp_path: Path, own_redis: Callable[..., RedisServer], weaker: dict[str, str], reason: str
) -> None:
    redis = own_redis(**weaker)

    refused = Service(tmp_path, redis_url=redis.url, **KEYS).command("status")
    allowed = Service(tmp_path, redis_url=redis.url, allow_weak_durability="1", **KEYS).command("status")

    assert (refused.returncode, allowed.returncode) == (78, 0), allowed.stderr
    assert f"UNSUBD_REDIS_URL: {reason}" in refused.stderr
    assert reason in allowed.stdout


@pytest.mark.fault
def test_no_key_and_a_lost_key_refuse_to_start(tmp_path: Path, redis_url: str) -> None:
    assert Service(tmp_path, redis_url=redis_url).command("status").returncode == 78
    first, second = (Service(tmp_path, redis_url=redis_url, secret_keys=key) for key in MASTERS)
    assert first.command("status").returncode == 0

    lost = second.command("status")
    name = re.search(r"keys retire ([0-9a-f]{16})", lost.stderr)

    assert lost.returncode == 78
    assert name is not None
    assert first.rows("keys", "list")[0]["fingerprint"] == name[1]


@pytest.mark.fault
@pytest.mark.parametrize("killed", [(), ("reaper", "worker", "web")])
def test_a_newer_store_refuses_to_start_and_ends_who_runs(
    tmp_path: Path, redis_url: str, killed: tuple[str, ...]
) -> None:
    service = Service(tmp_path, redis_url=redis_url, secret_keys=MASTERS[0])
    with service.running("run") as process, Redis.from_url(redis_url) as client:
        for name in killed:
            kill_and_await(process.pid, name)
        client.set("unsubd:store:format", 3)

        refused = service.command("check", "acme", "1", "jane@example.com")

        assert (refused.returncode, len(refused.stderr.splitlines())) == (78, 1)
        assert refused.stderr.startswith("unsubd: UNSUBD_STORE_URL: the store has format 3, and this unsubd knows 2")
        assert process.wait(30) == 78


@pytest.mark.fault
def test_what_the_first_layout_has_is_said_and_then_moved(tmp_path: Path, redis_url: str) -> None:
    service = Service(tmp_path, redis_url=redis_url, secret_keys=MASTERS[0])
    people = {f"p{number}@example.com": packed(1_700_000_000, 1_700_000_000_000, 1) for number in range(3000)}
    with Redis.from_url(redis_url) as client:
        write(client, "acme", {0: people}, ["~name"])

        planned = service.command("migrate", "--dry-run")
        [plan] = service.rows("migrate", "--dry-run")
        kind, marked = client.type("unsubd:supp:{acme}:0"), client.exists("unsubd:store:format")
        [done] = service.rows("migrate")

    assert (kind, marked) == (b"hash", 0)
    assert "store: format 1; this unsubd writes format 2" in planned.stdout
    assert "3,000 rows of acme to be moved" in planned.stdout
    known = {"this_unsubd": 2, "job_version": 1}
    assert plan == known | {"store_format": 1, "waiting": {"acme": 3000}, "moved": 0}
    assert done == known | {"store_format": 2, "waiting": {}, "moved": 3000}
    assert "0 rows moved by this command; nothing of an older format is left" in service.command("migrate").stdout
    service.last_line("sender", "add", "acme")
    assert service.rows("check", "acme", "0", "p7@example.com")[0]["suppressed"]


@pytest.mark.fault
def test_rotation_appends_then_moves_to_the_front(tmp_path: Path, redis_url: str) -> None:
    one, two = MASTERS
    for keys in (one, f"{one},{two}", f"{two},{one}"):
        done = Service(tmp_path, redis_url=redis_url, secret_keys=keys).command("status")
        assert done.returncode == 0, done.stderr
    alone = Service(tmp_path, redis_url=redis_url, secret_keys=two)
    old = Service(tmp_path, redis_url=redis_url, secret_keys=one).command("keys", "list")

    assert (alone.command("status").returncode, old.returncode) == (78, 78)


def test_a_data_folder_whose_key_is_gone_refuses(tmp_path: Path) -> None:
    service = Service(tmp_path)
    service.last_line("sender", "add", "acme")
    (service.folder / "data" / "secret_keys").unlink()

    done = service.command("sender", "list")

    assert done.returncode == 78
    assert "restore the file" in done.stderr


def test_every_problem_of_the_settings_is_named_at_once(tmp_path: Path) -> None:
    service = Service(tmp_path, http="nonsense", secret_keys="zz", redis_url="mysql://x", poll_interval_s="soon")

    done = service.command("status")

    assert done.returncode == 78
    named = {line.split(":")[1].strip() for line in done.stderr.splitlines()}
    assert named == {"UNSUBD_HTTP", "UNSUBD_SECRET_KEYS", "UNSUBD_REDIS_URL", "UNSUBD_POLL_INTERVAL_S"}
    assert "zz" not in done.stderr


def _registered(service: Service) -> Service:
    service.last_line("sender", "add", "acme")
    service.last_line("group", "add", "acme", "Weekly news")
    return service


def _workers(service: Service) -> list[int]:
    return [int(each["name"].rpartition("-")[2]) for each in service.rows("status")[0]["workers"]]


def _is_suppressed(service: Service, number: int) -> bool:
    return bool(service.rows("check", "acme", "1", f"person.{number}@example.com")[0]["suppressed"])


@pytest.mark.fault
def test_a_job_injected_into_redis_runs_no_code(tmp_path: Path, redis_url: str) -> None:
    service = Service(tmp_path, redis_url=redis_url, **KEYS)
    proof = tmp_path / "owned"
    with Redis.from_url(redis_url) as client, service.running("run"):
        queue = Queue("unsubd", connection=client, serializer=JSONSerializer)
        queue.enqueue("os.system", f"touch {proof}")
        until(lambda: queue.failed_job_registry.count == 1, 30, "the refusal")
        failed = service.rows("status")[0]["queue"]["failed"]

    assert failed == 1
    assert not proof.exists()


@pytest.mark.fault
def test_a_full_queue_makes_sources_wait(tmp_path: Path, redis_url: str) -> None:
    service = Service(tmp_path, redis_url=redis_url, queue_limit="1", **KEYS)
    paths = [tmp_path / f"{number}.eml" for number in range(2)]
    for number, path in enumerate(paths):
        path.write_bytes(mail(address(number), f"full-{number}"))

    first, second = (service.command("deliver", str(path), "--json") for path in paths)

    assert (first.returncode, second.returncode) == (0, 75)
    assert '"effect": "queued"' in first.stdout
    assert "UNSUBD_QUEUE_LIMIT: 1 jobs wait" in second.stderr


@pytest.mark.fault
def test_rqs_own_tools_work_on_the_queue(tmp_path: Path, redis_url: str) -> None:
    service = Service(tmp_path, redis_url=redis_url, **KEYS)
    with service.running("run"):
        until(lambda: _workers(service))
        (tmp_path / "one.eml").write_bytes(mail(address(1), "one"))
        service.command("deliver", str(tmp_path / "one.eml"))
        info = subprocess.run(
            [Path(sys.executable).parent / "rq", "info", "--url", redis_url], capture_output=True, text=True, timeout=30
        )

    assert info.returncode == 0
    assert "1 workers, 1 queues" in info.stdout
