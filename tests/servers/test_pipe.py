"""`unsubd deliver -` as the pipe of a mail server: 0 for what is durable, 75 for everything else, since others bounce."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from redis import Redis

from handlers.request import DecidedMessage
from tests.harness.mails import address, mail, recipient
from tests.harness.service import MASTERS, UNSUBD, Service
from worker.queue import RequestQueue

KEYS = {"secret_keys": ",".join(MASTERS), "address": "u+{tag}@unsub.example.com"}
WRAPPER = Path(__file__).parents[2] / "deploy/postfix/unsubd-deliver"


@pytest.fixture
def service(tmp_path: Path, redis_url: str) -> Service:
    return Service(tmp_path, redis_url=redis_url, **KEYS)


def _queued(redis_url: str) -> list[DecidedMessage]:
    with Redis.from_url(redis_url) as client:
        jobs = RequestQueue(client, limit=1).rq.get_jobs()
        return [DecidedMessage.from_wire(wire) for job in jobs for wire in job.kwargs["batch"]]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"redis_url": "redis://127.0.0.1:1"}, ()), ({"secret_keys": ""}, ()), ({"secret_keys": "zz"}, ()),
        ({"queue_limit": "none"}, ()), ({}, ("--no-such-option",)), ({}, ("--envelope-to",)), ({}, ("gone.eml",)),
    ],
)  # fmt: skip
def test_a_mail_server_hears_try_again_whatever_is_wrong(
    tmp_path: Path, redis_url: str, wrong: dict[str, str], words: tuple[str, ...]
) -> None:
    service = Service(tmp_path, redis_url=redis_url, **KEYS)
    service.env |= {f"UNSUBD_{name.upper()}": value for name, value in wrong.items()}

    done = service.command("deliver", "-", *words, given=mail(address(1), "one"))

    assert (done.returncode, done.stdout) == (75, "")
    assert "person" not in done.stderr
    with Redis.from_url(redis_url) as client:
        assert client.llen("rq:queue:unsubd") == 0


def test_a_file_keeps_its_own_exit_codes(service: Service) -> None:
    assert service.command("deliver", "gone.eml").returncode == 65
    assert service.command("deliver", "--no-such-option").returncode == 64


def test_each_envelope_recipient_is_a_message(service: Service, redis_url: str) -> None:
    words = ("--quiet", f"--envelope-to={address(1)}", "--envelope-to", address(2), "--envelope-from=")

    done = service.command("deliver", "-", *words, given=mail("x@example.com", "one"))

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert [message.outcome.value for message in _queued(redis_url)] == ["ignore:bounce"] * 2  # the null sender


@pytest.mark.fault
def test_the_json_has_a_line_for_each_recipient(service: Service) -> None:
    with service.running("work", ready=False):
        rows = service.command(
            "deliver",
            "-",
            "--json",
            "--envelope-to",
            address(1),
            "--envelope-to",
            address(2),
            given=mail("x@e.com", "one"),
        )

    found = [json.loads(line) for line in rows.stdout.splitlines()]
    assert [(row["file"], row["outcome"], row["requests"][0]["recipient"]) for row in found] == [
        ("-", "honour", recipient(1)), ("-", "honour", recipient(2)),
    ]  # fmt: skip
    assert [row["requests"][0]["effect"] for row in found] == ["added", "added"]


def test_a_huge_mail_is_read_to_its_end(service: Service, redis_url: str) -> None:
    done = service.command("deliver", "-", "--quiet", given=mail(address(1), "huge") + b"x" * 30_000_000)

    assert done.returncode == 0, done.stderr
    assert [each.recipient for message in _queued(redis_url) for each in message.requests] == [recipient(1)]


def test_the_wrapper_brings_the_settings_and_makes_75_of_the_rest(
    tmp_path: Path, redis_url: str, free_port: Callable[[], int]
) -> None:
    settings = tmp_path / "env"
    keys = "\n".join(f"UNSUBD_{name.upper()}={value}" for name, value in KEYS.items())

    def run(redis: str, unsubd: str) -> int:
        settings.write_text(f"# our settings\nUNSUBD_REDIS_URL={redis}\n{keys}\n")
        environ = {"PATH": os.environ["PATH"], "UNSUBD_SETTINGS": str(settings), "UNSUBD_COMMAND": unsubd}
        words = [WRAPPER, "--envelope-from=", f"--envelope-to={address(1)}"]
        return subprocess.run(
            words, input=mail("x@e.com", "one"), env=environ, capture_output=True, timeout=60
        ).returncode

    assert run(redis_url, str(UNSUBD)) == 0
    assert len(_queued(redis_url)) == 1
    assert run(f"redis://127.0.0.1:{free_port()}", str(UNSUBD)) == 75
    assert run(redis_url, "/nowhere/unsubd") == 75
    settings.unlink()
    assert subprocess.run([WRAPPER], env={"UNSUBD_SETTINGS": str(settings)}, capture_output=True).returncode == 75
