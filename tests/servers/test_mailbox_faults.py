"""Every way in which a real mailbox fails under `unsubd run`: each request is in effect once, and none is lost.

`test_scripted_imap.py` has the same troubles octet by octet, at the adapter.
"""

import shutil
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness.dovecot import Mailbox
from tests.harness.figures import figure
from tests.harness.imap_proxy import ImapProxy
from tests.harness.mails import address, mail
from tests.harness.redis_server import RedisServer
from tests.harness.service import Service, until
from tests.harness.trial import Trial, settings
from tests.servers.test_mailbox import _outcomes, _suppressed

pytestmark = [pytest.mark.fault, pytest.mark.timeout(180)]
MAILS = 60
IMPATIENT = "from worker.sources.imap import connection\nconnection.CALL_S = connection.SLOW_CALL_S = 2.0\n"
TROUBLES: dict[str, Callable[[ImapProxy], None]] = {
    "drop in the middle of a literal": lambda line: setattr(line, "cut_literals", 3),
    "BYE": lambda line: setattr(line, "byes", 3),
    "hangs without FIN": lambda line: setattr(line, "hangs", 2),
    "NO to STORE": lambda line: line.refusals.update({b" STORE ": b"NO [NOPERM] no flags here"}),
    "MOVE refused": lambda line: line.refusals.update({b" MOVE ": b"NO [CANNOT] no"}),
    "quota full": lambda line: line.refusals.update(
        {b" MOVE ": b"NO [OVERQUOTA] full", b" CREATE ": b"NO [OVERQUOTA]"}
    ),
}


def _service(folder: Path, redis_url: str, mailbox: Mailbox, url: str = "") -> Service:
    (folder / "sitecustomize.py").write_text(IMPATIENT)
    service = Service(folder, **settings(redis_url, mailbox, imap_url=url or mailbox.url))
    service.env["PYTHONPATH"] = str(folder)
    return service


def _once(redis_url: str, mailbox: Mailbox, fault: str, **more: object) -> None:
    """All took effect once, and no mail is lost or copied."""
    until(lambda: len(_suppressed(redis_url)) == MAILS and len(_outcomes(redis_url)) >= MAILS, 90, "every effect")
    assert _outcomes(redis_url) == ["honour"] * MAILS
    # One that is moved between two looks is seen twice.
    until(lambda: _seen(mailbox) == {1: MAILS}, 30, "every mail is where it was or in Processed, and once")
    lost, doubled = MAILS - len(_suppressed(redis_url)), len(_outcomes(redis_url)) - MAILS
    figure("acknowledge only what is durable", f"IMAP: {fault}", "test_mailbox_faults",
           requests=MAILS, lost=lost, duplicated=doubled, **more)  # fmt: skip


def _seen(mailbox: Mailbox) -> Counter[int]:
    """How many mails there are once, twice, …."""
    raws = [raw for folder in ("INBOX", "Processed") for _, _, raw in mailbox.messages(folder)]
    return Counter(Counter(raws).values())


@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_mailbox_in_trouble_loses_nothing(tmp_path: Path, redis_url: str, dovecot: Mailbox, trouble: str) -> None:
    half = MAILS // 2
    with ImapProxy(dovecot.imap_port) as line:
        TROUBLES[trouble](line)
        service = _service(tmp_path, redis_url, dovecot, f"imap://{dovecot.user}@127.0.0.1:{line.port}/INBOX")
        dovecot.append_many([mail(address(number), f"m-{number}") for number in range(half)])
        with service.running("run"):
            until(lambda: line.troubles, 30, "the trouble")
            dovecot.append_many([mail(address(number), f"m-{number}") for number in range(half, MAILS)])
            _once(redis_url, dovecot, trouble, troubles=line.troubles)


def test_a_new_uidvalidity_in_the_middle_doubles_nothing(tmp_path: Path, redis_url: str, dovecot: Mailbox) -> None:
    half = MAILS // 2
    service = _service(tmp_path, redis_url, dovecot)
    dovecot.append_many([mail(address(number), f"m-{number}") for number in range(half)])
    maildir = dovecot.server.folder / "homes" / dovecot.user / "Maildir"
    with service.running("run"):
        until(lambda: len(_suppressed(redis_url)) == half, 30, "the first half")
        dovecot.stop()
        for lost in maildir.rglob("dovecot*"):
            shutil.rmtree(lost) if lost.is_dir() else lost.unlink(missing_ok=True)
        dovecot.start()
        dovecot.append_many([mail(address(number), f"m-{number}") for number in range(half, MAILS)])
        _once(redis_url, dovecot, "new UIDVALIDITY, keywords lost")


def test_two_pollers_on_one_mailbox_have_one_effect_a_mail(
    tmp_path: Path, own_redis: Callable[..., RedisServer], dovecot: Mailbox
) -> None:
    redis = own_redis()
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one, two = (_service(tmp_path / name, redis.url, dovecot) for name in "ab")
    with one.running("run"), two.running("run"):
        for start in range(0, MAILS, 10):
            dovecot.append_many([mail(address(number), f"m-{number}") for number in range(start, start + 10)])
            time.sleep(0.2)
        until(lambda: len(dovecot.messages("Processed")) >= MAILS, 60, "all moved")
        _once(redis.url, dovecot, "two pollers on one mailbox")


def test_a_clock_that_jumps_a_day_loses_nothing(tmp_path: Path, redis_url: str, dovecot: Mailbox) -> None:
    """Both ways, under way: our processes read the time through one file; RQ's own stamps keep the true one."""
    offset = tmp_path / "offset"
    offset.write_text("0")
    (tmp_path / "sitecustomize.py").write_text(
        f"""
import time
true, true_ns = time.time, time.time_ns
def offset():
    try:
        return int(open({str(offset)!r}).read() or 0)
    except (OSError, ValueError):
        return 0
time.time = lambda: true() + offset()
time.time_ns = lambda: true_ns() + offset() * 1_000_000_000
"""
    )
    service = Service(tmp_path, **settings(redis_url, dovecot))
    service.env["PYTHONPATH"] = str(tmp_path)
    trial = Trial(service, dovecot)
    trial.register()
    with service.running("run"):
        for number, jump in enumerate((0, 86_400, -86_400, 0)):
            offset.write_text(str(jump))
            trial.send(range(number * 30, number * 30 + 30))
            time.sleep(2)
        trial.verdict(
            redis_url, "later wins, and nothing is lost", "clock: a day ahead, a day behind", "test_mailbox_faults"
        )
