"""The quarantine on a real Redis: what a flood costs, and the commands as people run them."""

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from redis import Redis

from handlers import message
from handlers.message import InboundMessage
from handlers.request import DecidedMessage, Outcome, Suggestion
from tests.harness.mails import NEW, OLD, address, mail, recipient
from tests.harness.names import NAMES
from tests.harness.redis_server import RedisServer
from tests.harness.service import MASTERS, UNSUBD, Service
from worker.quarantine import Quarantine
from worker.quarantine.rack import ENTRY_BYTES
from worker.quarantine.shelf import Selection
from worker.store import Store

FLOOD = 10_000
PEOPLE = 1500
LIMIT_BYTES = 20_000_000  # a quarter of it for one source and reason
HEAD = "From: Some One <one.{number}@example.com>\r\nSubject: Offer {number}\r\nMessage-ID: <{number}>\r\n\r\n"


@pytest.fixture
def client(redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url) as client:
        yield client


def letters(numbers: range, size: int, **facts: Any) -> list[tuple[InboundMessage, DecidedMessage]]:
    """Mails of about *size* bytes that zlib cannot shrink, and their decisions."""
    random = Random(numbers.start)
    found = []
    for number in numbers:
        inbound = message.read(HEAD.format(number=number).encode() + random.randbytes(size), source="imap:INBOX")
        given: dict[str, Any] = {"outcome": Outcome.NO_TAG, "reason": "no address carries a tag", **facts}
        found.append((inbound, DecidedMessage(inbound.key, "imap:INBOX", received_ms=1_700_000_000_000, **given)))
    return found


def memory(client: Redis) -> int:
    """The bytes that Redis takes for the quarantine."""
    return sum(int(client.memory_usage(key, samples=0) or 0) for key in client.scan_iter("unsubd:quarantine*"))


@pytest.mark.fault
def test_a_flood_stays_within_the_bound_and_takes_from_itself(own_redis: Callable[..., RedisServer]) -> None:
    # Without a sync per write: this is about our work, not about the disk's.
    with Redis.from_url(own_redis(appendfsync="no").url) as client:
        _flood(client)


def _flood(client: Redis) -> None:
    quarantine = Quarantine(client, limit_bytes=LIMIT_BYTES)
    precious = letters(range(10), 3000, outcome=Outcome.BAD_TAG)
    quarantine.keep(precious, now_ms=1)
    flood = letters(range(100, 100 + FLOOD), 300)

    for start in range(0, FLOOD, 500):
        quarantine.keep(flood[start : start + 500], now_ms=start + 2)

    assert memory(client) <= 1.05 * LIMIT_BYTES / 4
    whole = quarantine.entries(quarantine.ids(Selection("bad-tag"))).values()
    assert [each.shrunk for each in whole] == [False] * 10
    newest = quarantine.ids(Selection(), 1)
    last = quarantine.entries(newest)[newest[0]]
    assert (last.kept_ms, last.shrunk) == (FLOOD - 500 + 2, False)


@pytest.mark.fault
@pytest.mark.parametrize("size", [300, 3000])
def test_what_an_entry_is_counted_with_is_what_it_takes(client: Redis, size: int) -> None:
    quarantine = Quarantine(client)
    count = 10_000
    for start in range(0, count, 1000):
        quarantine.keep(letters(range(start, start + 1000), size))

    taken, counted = memory(client) / count, quarantine.size_bytes() / count

    print(f"raw {size}: {taken:.0f} bytes an entry, counted as {counted:.0f}; {ENTRY_BYTES} of it for being an entry")
    assert taken * 0.95 <= counted <= taken * 1.25


@pytest.mark.fault
def test_a_list_and_the_counts_read_no_more_than_they_show(client: Redis) -> None:
    quarantine = Quarantine(client)
    for start in range(0, 20_000, 1000):
        quarantine.keep(letters(range(start, start + 1000), 0))
    client.config_resetstat()

    quarantine.counts()
    quarantine.entries(quarantine.ids(Selection(), 50))

    spent: Any = client.info("commandstats")
    assert {name for name in spent if name.startswith("cmdstat_h")} == {"cmdstat_hgetall", "cmdstat_hmget"}
    assert sum(each["usec"] for each in spent.values()) < 20_000


# --- as people run them


@pytest.fixture
def service(tmp_path: Path, redis_url: str) -> Service:
    """A service with the newest key alone, sender acme and its group 1."""
    service = Service(tmp_path, redis_url=redis_url, secret_keys=MASTERS[0], address="u+{tag}@unsub.example.com")
    service.last_line("sender", "add", "acme")
    service.last_line("group", "add", "acme", "Weekly news")
    return service


def delivered(service: Service, tmp_path: Path, *raws: bytes) -> None:
    """Deliver mails and do the jobs."""
    for number, raw in enumerate(raws):
        (tmp_path / f"{number}.eml").write_bytes(raw)
    with service.running("work", ready=False):
        service.rows("deliver", *(str(tmp_path / f"{number}.eml") for number in range(len(raws))))


def checked(service: Service, number: int) -> dict[str, Any]:
    [row] = service.rows("check", "acme", "1", recipient(number))
    return row


@pytest.mark.fault
def test_a_person_finds_looks_and_resolves(service: Service, tmp_path: Path) -> None:
    delivered(service, tmp_path, mail("info@unsub.example.com", "one", body="please remove me\x1b[2J\r\n"))
    [entry] = service.rows("quarantine", "list", "--reason", "no-tag")

    shown = service.command("quarantine", "show", entry["id"])
    done = service.command(
        "quarantine", "resolve", entry["id"], "--as", "acme", "1", recipient(7).upper(), "--reason", "by phone"
    )

    assert "please remove me\\x1b[2J" in shown.stdout
    assert "\x1b" not in shown.stdout
    assert done.stdout.splitlines()[-2:] == ["1 entries: 1 added", "1 left the quarantine"]
    assert (checked(service, 7)["suppressed"], checked(service, 7)["source"]) == (True, "operator")
    assert service.rows("quarantine", "list") == []
    assert service.command("quarantine", "show", entry["id"]).returncode == 65


@pytest.mark.fault
def test_a_key_that_was_missing_is_added_and_the_mail_replayed(service: Service, tmp_path: Path) -> None:
    delivered(
        service, tmp_path, mail(address(1, OLD), "old"), mail(address(2, NEW), "new"), mail(address(3, OLD), "old-3")
    )
    assert not checked(service, 1)["suppressed"]
    service.env["UNSUBD_SECRET_KEYS"] = ",".join(MASTERS)

    with service.running("work", ready=False):
        dry = service.rows("quarantine", "replay", "--dry-run")
        done = service.rows("quarantine", "replay", "--kept-for", "bad-tag")

    assert [(row["became"], row["gone"]) for row in dry + done] == [("honour", False)] * 2 + [("honour", True)] * 2
    assert [checked(service, number)["suppressed"] for number in (1, 2, 3)] == [True] * 3


def test_raw_comes_out_exactly_and_an_unknown_id_is_65(service: Service, tmp_path: Path) -> None:
    raw = mail("info@unsub.example.com", "one") + bytes(range(256)) * 10
    delivered(service, tmp_path, raw)
    [entry] = service.rows("quarantine", "list")

    done = subprocess.run(
        [UNSUBD, "quarantine", "show", entry["id"], "--raw"], env=service.env, capture_output=True, check=True
    )
    unknown = service.command("quarantine", "resolve", "f" * 32, "--dismiss", "--reason", "x")
    unclear = service.command("quarantine", "resolve", entry["id"], "--dismiss")

    assert done.stdout == raw
    assert (unknown.returncode, unclear.returncode) == (65, 64)


@pytest.mark.fault
def test_a_killed_resolve_is_finished_by_the_next(service: Service, redis_url: str) -> None:
    with Redis.from_url(redis_url) as client:
        people = [Suggestion("acme", 1, recipient(number), "From") for number in range(PEOPLE)]
        pairs = letters(range(PEOPLE), 0)
        Quarantine(client).keep(
            [(inbound, DecidedMessage(**{**_fields(each), "suggestion": person}))
             for (inbound, each), person in zip(pairs, people, strict=True)]
        )  # fmt: skip
        words = ("quarantine", "resolve", "--accept-suggestions", "--reason", "asked")
        process = subprocess.Popen([UNSUBD, *words], env=service.env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 30
        while Quarantine(client).count(Selection()) > PEOPLE - 200 and time.monotonic() < deadline:
            time.sleep(0.01)
        process.kill()
        process.communicate()
        left = Quarantine(client).count(Selection())

        last = service.command(*words).stdout.splitlines()

        assert 0 < left < PEOPLE
        assert last[-1] == f"{left} left the quarantine"
        assert len(list(Store(client, NAMES).stopped("acme", 1))) == PEOPLE
        assert _resolutions(client) == [1] * PEOPLE


def _fields(decided: DecidedMessage) -> dict[str, Any]:
    return {name: getattr(decided, name) for name in DecidedMessage.__slots__}


def _resolutions(client: Redis) -> list[int]:
    from worker.store.ledger import Ledger

    return [len(record["resolutions"]) for _, record in Ledger(client, lambda _: "").records()]


ARF = (
    b"From: <feedback@fbl.example.com>\r\nTo: complaints@unsub.example.com\r\nSubject: FW: The spring catalogue\r\n"
    b"Message-ID: <arf-1@fbl.example.com>\r\nMIME-Version: 1.0\r\n"
    b"Content-Type: multipart/report; report-type=feedback-report; boundary=arf\r\n\r\n"
    b"--arf\r\nContent-Type: message/feedback-report\r\n\r\nFeedback-Type: abuse\r\nVersion: 1\r\n"
    b"--arf\r\nContent-Type: message/rfc822\r\n\r\nList-Unsubscribe: <mailto:%s>\r\nSubject: Spring\r\n\r\nhi\r\n--arf--\r\n"
)


@pytest.mark.fault
def test_a_complaint_shows_whom_it_names(service: Service, tmp_path: Path) -> None:
    delivered(service, tmp_path, ARF % address(7).encode())
    [entry] = service.rows("quarantine", "list", "--reason", "complaint")

    [row] = service.rows("quarantine", "show", entry["id"])
    assert row["asks for"] == [f"complaint acme 1 {recipient(7)[0]}···{recipient(7).partition('@')[0][-1]}@example.com"]
    [row] = service.rows("quarantine", "show", entry["id"], "--full")
    assert row["asks for"] == [f"complaint acme 1 {recipient(7)}"]


@pytest.mark.fault
def test_a_dry_run_says_for_whom(service: Service, tmp_path: Path) -> None:
    delivered(service, tmp_path, mail("info@unsub.example.com", "one", body="please remove me\r\n"))
    [entry] = service.rows("quarantine", "list")

    said = service.command(
        "quarantine", "resolve", entry["id"], "--as", "acme", "1", "jane@example.com", "--reason", "phone", "--dry-run"
    )

    assert said.stdout.splitlines()[0].endswith("->  unsubscribe acme 1 j···e@example.com")
