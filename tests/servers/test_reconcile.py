"""`unsubd reconcile` on a real Dovecot and a Redis that forgot: what was acknowledged is in effect again, once."""

import json
import os
import re
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from redis import Redis

from tests.crash.processes import Part, kill_tree
from tests.harness.dovecot import Mailbox
from tests.harness.figures import figure
from tests.harness.mails import address, mail, recipient
from tests.harness.redis_server import RedisServer
from tests.harness.service import Service, until
from tests.servers.test_mailbox import _outcomes, _service, _suppressed
from worker.store.ledger import Ledger

pytestmark = pytest.mark.fault
FIRST, LATER = 20, 40
PEOPLE = {recipient(number) for number in range(FIRST + LATER)}


def _mails(numbers: range) -> list[bytes]:
    return [mail(address(number), f"ask-{number}") for number in numbers]


def _is_done(redis_url: str, mailbox: Mailbox, count: int) -> bool:
    """Rows, records and moves: a row is written a moment before its record."""
    rows, records = len(_suppressed(redis_url)), len(_outcomes(redis_url))
    return rows == records == count and len(mailbox.messages("Processed")) == count


def _effects(redis_url: str) -> Counter[str]:
    with Redis.from_url(redis_url) as client:
        records = list(Ledger(client, lambda _: "").records())
    return Counter(result["effect"] for _, record in records for result in record["requests"])


def _copy(redis: RedisServer, to: Path) -> None:
    shutil.copytree(redis.folder / "appendonlydir", to)


def _put_back(redis: RedisServer, copy: Path) -> None:
    shutil.rmtree(redis.folder / "appendonlydir")
    shutil.copytree(copy, redis.folder / "appendonlydir")


def _nothing_is_missing(service: Service, redis_url: str, *, fault: str, path: str) -> None:
    until(lambda: len(_suppressed(redis_url)) == FIRST + LATER, 60, "everything in effect again")
    until(lambda: _effects(redis_url) == {"added": FIRST + LATER}, 30, "every record")
    assert _suppressed(redis_url) == PEOPLE
    assert _outcomes(redis_url) == ["honour"] * (FIRST + LATER)
    found = json.loads(service.last_line("reconcile", "--json"))
    assert (found["left"], {each["found"] for each in found["gaps"].values()}) == (0, {0})
    figure("nothing acknowledged is lost", fault, path, requests=FIRST + LATER, lost=0, duplicated=0)


def test_an_older_copy_of_redis_is_made_good_at_the_next_start(
    tmp_path: Path, own_redis: Callable[..., RedisServer], dovecot: Mailbox
) -> None:
    redis = own_redis()
    service = _service(tmp_path, redis.url, dovecot)
    dovecot.append_many(_mails(range(FIRST)))
    run = Part(service, "run")
    run.start()
    try:
        until(lambda: _is_done(redis.url, dovecot, FIRST), 60, "the first")
        _copy(redis, tmp_path / "copy")
        dovecot.append_many(_mails(range(FIRST, FIRST + LATER)))
        until(lambda: _is_done(redis.url, dovecot, FIRST + LATER), 60, "the later")
        run.kill(kill_tree)
        redis.kill()
        _put_back(redis, tmp_path / "copy")
        redis.start()
        assert len(_suppressed(redis.url)) < FIRST + LATER, "the copy knows less"

        run.start()
        until(lambda: "reconciled" in service.log.read_text(), 60, "the comparison")
        _nothing_is_missing(service, redis.url, fault="Redis: an older copy restored", path="reconcile at start")
    finally:
        run.end()
    told = re.search(r"gaps=(\d+) repaired=(\d+)", service.log.read_text())
    # The job of the first may be in hand in the copy: one gap more.
    assert told is not None
    assert told[1] == told[2]
    assert int(told[1]) in (LATER, LATER + 1)


def test_a_file_that_was_cut_is_made_good_while_we_run(
    tmp_path: Path, own_redis: Callable[..., RedisServer], dovecot: Mailbox
) -> None:
    redis = own_redis()
    service = _service(tmp_path, redis.url, dovecot)
    dovecot.append_many(_mails(range(FIRST)))
    with service.running("run"):
        until(lambda: _is_done(redis.url, dovecot, FIRST), 60, "the first")
        (file,) = (redis.folder / "appendonlydir").glob("*.incr.aof")
        known = file.stat().st_size
        dovecot.append_many(_mails(range(FIRST, FIRST + LATER)))
        until(lambda: _is_done(redis.url, dovecot, FIRST + LATER), 60, "the later")
        redis.kill()
        os.truncate(file, known)
        redis.start()

        until(lambda: "reconciled" in service.log.read_text(), 60, "the comparison")
        _nothing_is_missing(service, redis.url, fault="Redis: append-only file cut", path="reconcile while running")


def test_a_clean_stop_compares_nothing_and_a_kill_does(tmp_path: Path, redis_url: str, dovecot: Mailbox) -> None:
    service = _service(tmp_path, redis_url, dovecot)
    with service.running("run") as process:
        until(lambda: _beats(tmp_path) > 1, 30, "a beat")
    with service.running("run") as process:
        until(lambda: _beats(tmp_path) > 6, 30, "some beats")
        assert "reconciled" not in service.log.read_text()
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    until(lambda: not service.is_ready(), what="the parts of the killed one ended")

    with service.running("run"):
        until(lambda: "reconciled" in service.log.read_text(), 60, "the comparison")
        until(lambda: json.loads((tmp_path / "data" / "pulse-work.json").read_text())["owed_ms"] == 0, 30, "settled")


def _beats(folder: Path) -> int:
    try:
        return int(json.loads((folder / "data" / "pulse-work.json").read_text())["number"])
    except FileNotFoundError:
        return 0


def test_the_command_finds_each_kind_of_gap_and_closes_it(tmp_path: Path, redis_url: str, dovecot: Mailbox) -> None:
    service = _service(tmp_path, redis_url, dovecot)
    dovecot.append_many(_mails(range(10)))
    with service.running("run"), Redis.from_url(redis_url) as client:
        until(lambda: _is_done(redis_url, dovecot, 10), 60, "the effects")
        until(lambda: _effects(redis_url) == {"added": 10}, 30, "every record")
        homes = [key for key in client.scan_iter("unsubd:ledger:{*}:*") if client.type(key) == b"hash"]
        lost = [(home, key) for home in homes for key in client.hkeys(home)][:3]  # type: ignore[union-attr]
        for home, key in lost:
            client.hdel(home, key)
        client.hdel("unsubd:supp:{acme:0}", *(f"{recipient(each)}\x001" for each in range(5)))

        dry = service.command("reconcile", "--dry-run", "--json")
        done = service.command("reconcile")
        until(lambda: _effects(redis_url).total() == 10 and len(_suppressed(redis_url)) == 10, 30, "the repairs")
        again = json.loads(service.last_line("reconcile", "--json"))

    gaps = json.loads(dry.stdout)["gaps"]
    assert (dry.returncode, gaps["unrecorded"]["found"], gaps["unrestorable"]["found"]) == (69, 3, 0)
    assert gaps["ineffective"]["found"] in range(2, 6)  # those of the five whose record was not lost as well
    assert done.returncode == 0, done.stderr
    assert " 0 left" in done.stdout
    assert again["left"] == 0
    assert "@" not in dry.stdout + done.stdout
