"""The quarantine: what is kept, what gives way, and what a person makes of it, on fakeredis."""

import json
from collections.abc import Iterator
from dataclasses import replace
from random import Random
from typing import Any
from unittest.mock import patch

import fakeredis
import pytest
from rq import SimpleWorker
from rq.serializers import JSONSerializer
from structlog.testing import capture_logs
from typer.testing import CliRunner

from handlers import message
from handlers.errors import QueueUnavailable, StoreUnavailable, UnknownAccount
from handlers.message import InboundMessage
from handlers.request import DecidedMessage, Outcome, Suggestion
from handlers.tag import Keyring
from tests.harness.names import answers
from tests.unit import house
from tests.unit.house import HEX, decided, mail, now_ms
from tests.unit.letters import JANE, tagged
from worker import jobs
from worker.batch import UnsubdJob
from worker.cli import app
from worker.cli import quarantine as commands
from worker.installation import Installation, open_installation
from worker.quarantine import Quarantine
from worker.quarantine.entry import RECORD_BYTES, Entry, digest_of, entry_of, facts_of, read_facts, shrunk
from worker.quarantine.rack import weight
from worker.quarantine.replay import Replay
from worker.quarantine.resolution import Resolution, Settled, Way, check_named, plan, resolve
from worker.quarantine.shelf import Selection, Shelf
from worker.quarantine.shown import printable, without_addresses
from worker.settings import load_settings

DAY_MS = 86_400_000
FORGED = "u+aaaaaaaaaaaaaa-acme-12-jane_example.com@unsub.example.com"
OTHER = Keyring((b"a master that is added only later",))
JOE = Suggestion("acme", 12, "joe@example.com", "From, and the text asks")
RESOLUTION = Resolution(Way.ACCEPTED, "ann", "they asked: joe@example.com")


@pytest.fixture
def server() -> fakeredis.FakeServer:
    return fakeredis.FakeServer()


@pytest.fixture
def acme(server: fakeredis.FakeServer) -> Iterator[Installation]:
    """An installation with a sender and its group 12."""
    with house.opened(server) as installation:
        installation.accounts.add_sender("acme")
        installation.accounts.add_group("acme", "Weekly news", "", 12)
        yield installation


@pytest.fixture
def quarantine(server: fakeredis.FakeServer) -> Quarantine:
    return Quarantine(house.client(server), limit_bytes=40_000)


def untagged(
    number: int = 1, *, size: int = 0, suggestion: Suggestion | None = None, at_ms: int | None = None, **facts: Any
) -> tuple[InboundMessage, DecidedMessage]:
    """A mail without a tag, and its decision. *facts*: fields of the decision."""
    raw = f"From: Joe <joe@example.com>\r\nTo: info@example.com\r\nSubject: Please {number}\r\nMessage-ID: <{number}>\r\n\r\n"
    inbound = message.read(raw.encode() + Random(number).randbytes(size), source="imap:INBOX")  # zlib gains nothing
    at_ms = now_ms() if at_ms is None else at_ms
    given: dict[str, Any] = {"source": "imap:INBOX", "outcome": Outcome.NO_TAG, "reason": "no address carries a tag"}
    return inbound, DecidedMessage(inbound.key, received_ms=at_ms, suggestion=suggestion, **given | facts)


def one(quarantine: Quarantine, **selection: Any) -> Entry:
    [entry] = quarantine.entries(quarantine.ids(Selection(**selection))).values()
    return entry


def kept(acme: Installation, *pairs: tuple[InboundMessage, DecidedMessage]) -> list[Entry]:
    """Keep messages and record them, as production does; return the entries."""
    acme.quarantine.keep(pairs)
    acme.intake.record([each for _, each in pairs])
    return list(acme.quarantine.entries([each.key[:32] for _, each in pairs]).values())


def records(acme: Installation) -> dict[str, dict[str, Any]]:
    found = list(acme.ledger.records())
    assert len(found) == len({key for key, _ in found})  # one record per message
    return dict(found)


def suppressed(acme: Installation, recipient: str = JOE.recipient) -> bool:
    return answers(acme.store, "acme", 12, [recipient])[0].suppressed


def work(acme: Installation) -> None:
    """Do what is in the queue."""
    jobs.configure(acme.settings)
    worker = SimpleWorker([acme.queue.rq], connection=acme.redis, job_class=UnsubdJob, serializer=JSONSerializer)
    worker.work(burst=True, logging_level="CRITICAL")


# --- keep


def test_an_entry_tells_why_what_and_since_when(quarantine: Quarantine) -> None:
    inbound, why = untagged(at_ms=5, suggestion=JOE, evidence={"auto_submitted": "no"})
    quarantine.keep([(inbound, why)], now_ms=7)

    entry = one(quarantine)

    assert entry == Entry(
        id=inbound.key[:32], key=inbound.key, reason="quarantine:no-tag", detail="no address carries a tag",
        source="imap:INBOX", at_ms=5, kept_ms=7, size_bytes=len(inbound.raw), suggestion=JOE,
        evidence={"auto_submitted": "no"}, author="Joe <joe@example.com>", subject="Please 1",
        message_id=digest_of("1"),
    )  # fmt: skip
    assert quarantine.raw(entry.id) == inbound.raw


@pytest.mark.parametrize("raw", [b"", b"x", b"x" * 5000, b"{}", bytes(range(256)) * 1024, b"From: \xff\r\n\r\n"])
def test_what_was_fetched_comes_back_as_it_was(quarantine: Quarantine, raw: bytes) -> None:
    inbound = message.read(raw, source="imap:INBOX", envelope_to="\udcff@d", envelope_from="")
    big = Quarantine(quarantine._redis)
    big.keep([(inbound, untagged(source="imap:INBOX")[1])])

    entry = one(big)

    assert big.raw(entry.id) == raw
    assert (entry.envelope_to, entry.envelope_from) == ("\udcff@d", "")


def test_the_same_message_again_is_one_entry_and_keeps_its_date(quarantine: Quarantine) -> None:
    quarantine.keep([untagged(), untagged()], now_ms=5)
    quarantine.keep([untagged()], now_ms=9)

    assert (quarantine.counts(), one(quarantine).kept_ms) == ({"quarantine:no-tag": 1}, 5)


def test_a_resolved_message_read_again_does_not_come_back(quarantine: Quarantine) -> None:
    quarantine.keep([untagged()])

    assert quarantine.settle([one(quarantine)]) == [True]
    quarantine.keep([untagged(), untagged(2)])

    assert one(quarantine).subject == "Please 2"


def test_whoever_comes_second_does_not_remove_what_has_changed(quarantine: Quarantine) -> None:
    quarantine.keep([untagged()])
    seen = one(quarantine)
    quarantine.change(seen, replace(seen, detail="seen today"))

    assert (quarantine.settle([seen]), quarantine.change(seen, seen)) == ([False], False)
    assert one(quarantine).detail == "seen today"


def test_counts_and_lists_are_by_reason_source_time_and_suggestion(quarantine: Quarantine) -> None:
    quarantine.keep([untagged(1), untagged(2, suggestion=JOE)], now_ms=5)
    quarantine.keep([untagged(3, outcome=Outcome.BAD_TAG, source="relay:default")], now_ms=9)

    subjects = {
        name: [each.subject[-1] for each in quarantine.entries(quarantine.ids(Selection(**selection))).values()]
        for name, selection in {
            "all": {}, "reason": {"reason": "no-tag"}, "source": {"source": "relay:default"}, "since": {"since_ms": 6},
            "suggested": {"suggested": True}, "none": {"reason": "failed"},
        }.items()
    }  # fmt: skip

    assert subjects.pop("all")[0] == "3"
    assert {name: sorted(found) for name, found in subjects.items()} == {
        "reason": ["1", "2"], "source": ["3"], "since": ["3"], "suggested": ["2"], "none": [],
    }  # fmt: skip
    assert quarantine.counts() == {"quarantine:no-tag": 2, "quarantine:bad-tag": 1}
    assert (quarantine.count(Selection(since_ms=6)), len(quarantine.ids(Selection(), 2))) == (1, 2)


def test_an_empty_quarantine_leaves_no_key(quarantine: Quarantine) -> None:
    quarantine.keep([untagged(1), untagged(2, size=3000), untagged(3, suggestion=JOE)], now_ms=5)

    assert quarantine.expire(5 + 90 * DAY_MS) == 3

    assert (quarantine._redis.keys(), quarantine.size_bytes(), quarantine.counts()) == ([], 0, {})


def test_what_was_kept_too_long_goes(quarantine: Quarantine) -> None:
    quarantine.keep([untagged(1)], now_ms=5)
    quarantine.keep([untagged(2)], now_ms=6)

    assert quarantine.expire(5 + 90 * DAY_MS) == 1
    assert one(quarantine).subject == "Please 2"


# --- room


def total(quarantine: Quarantine) -> int:
    """The bytes, counted again from what is there."""
    rows = quarantine._redis
    facts, raws = rows.hgetall("unsubd:quarantine"), rows.hgetall("unsubd:quarantine:raw")
    return sum(weight(each, len(raws.get(entry_id, b""))) for entry_id, each in facts.items())


def test_a_flood_takes_from_itself_the_oldest_first(quarantine: Quarantine) -> None:
    quarantine.keep([untagged(0, size=2000, source="maildir:default")], now_ms=1)
    for number in range(1, 30):
        quarantine.keep([untagged(number, size=2000)], now_ms=number + 1)

    entries = list(quarantine.entries(quarantine.ids(Selection())).values())

    whole = [each.kept_ms for each in entries if not each.shrunk]
    assert min(whole) == 1  # another source's, and the oldest of all
    assert sorted(whole)[1:] == list(range(30 - len(whole) + 2, 31))
    assert quarantine.size_bytes() == total(quarantine) <= 40_000
    assert all(len(each.seen) <= RECORD_BYTES for each in entries if each.shrunk)


def test_a_flood_of_the_smallest_stays_within_the_bound(quarantine: Quarantine) -> None:
    for number in range(150):
        quarantine.keep([untagged(number)], now_ms=number)

    assert quarantine.size_bytes() == total(quarantine) <= 10_000
    assert one(quarantine, since_ms=149).subject == "Please 149"


def test_what_is_worth_more_gives_way_last(quarantine: Quarantine) -> None:
    worth = [{"outcome": Outcome.BAD_TAG}, {"outcome": Outcome.COMPLAINT}, {"suggestion": JOE}]
    quarantine.keep([untagged(number, size=4000, **each) for number, each in enumerate(worth)], now_ms=1)
    quarantine.keep_failed("f" * 32, "broken", {"key": "f" * 64, "requests": [{}], "pad": "p" * 900}, 1)
    for number in range(10, 40):
        quarantine.keep([untagged(number, size=4000, source=f"imap:{number}")], now_ms=number)

    entries = quarantine.entries(quarantine.ids(Selection())).values()

    assert [each.shrunk for each in entries if each.kept_ms == 1 or each.reason == "failed"] == [False] * 4
    assert any(each.shrunk for each in entries)
    assert quarantine.size_bytes() <= 40_000


def test_a_message_larger_than_the_bound_is_no_error(quarantine: Quarantine) -> None:
    quarantine.keep([untagged(size=200_000)])

    assert one(quarantine).shrunk
    assert quarantine.raws([one(quarantine).id]) == {}


@pytest.mark.parametrize("subject", ["s" * 100, "ß" * 100, "\udcff" * 100, '"' * 100, "漢" * 100])
def test_a_record_is_small_and_keeps_its_suggestion(subject: str) -> None:
    inbound, why = untagged(suggestion=JOE, reason="r" * 500)
    small = shrunk(replace(entry_of(inbound, why, now_ms()), subject=subject, author="a" * 100, source="s" * 60))

    assert len(facts_of(replace(small, suggestion=None))) <= RECORD_BYTES
    assert read_facts(small.id, facts_of(small)) == small
    assert small.suggestion == JOE


def test_a_shelf_knows_its_name() -> None:
    shelf = Shelf("quarantine:bad-tag", "imap:a|b,shrunk", suggested=True)

    assert Shelf.parse(shelf.name) == shelf


# --- failed


def test_a_failure_takes_the_place_of_the_message_it_was_made_from(quarantine: Quarantine) -> None:
    inbound, why = untagged()
    quarantine.keep([(inbound, why)], now_ms=5)
    seen = one(quarantine)

    quarantine.keep_failed(inbound.key, "broken", decided(inbound.key).as_wire(), 1)

    assert (one(quarantine).reason, one(quarantine).kept_ms, quarantine.settle([seen])) == ("failed", 5, [False])


def test_a_failure_without_requests_leaves_the_message(quarantine: Quarantine) -> None:
    inbound, why = untagged()
    quarantine.keep([(inbound, why)])

    quarantine.keep_failed(inbound.key, "recording it failed", why.as_wire(), 1)

    assert one(quarantine).reason == "quarantine:no-tag"


def test_a_failure_of_a_resolved_message_is_kept_with_the_first_date(quarantine: Quarantine) -> None:
    inbound, why = untagged()
    quarantine.keep([(inbound, why)], now_ms=5)
    quarantine.settle([one(quarantine)])

    quarantine.keep_failed(inbound.key, "broken", decided(inbound.key).as_wire(), 1)

    assert (one(quarantine).reason, one(quarantine).kept_ms) == ("failed", 5)


# --- resolve


def test_an_accepted_suggestion_is_an_operators_entry_at_the_messages_time(acme: Installation) -> None:
    [entry] = kept(acme, untagged(suggestion=JOE, at_ms=1_700_000_000_000))

    settled = resolve(acme, RESOLUTION, [entry])

    assert settled == [Settled(entry, "added", gone=True)]
    row = acme.store.row("acme", 12, JOE.recipient)
    assert row is not None
    assert (row.suppressed, row.held, row.source, row.time_ms) == (True, True, "operator", 1_700_000_000_000)
    assert acme.quarantine.counts() == {}


def test_the_one_record_of_the_message_tells_who_decided_what(acme: Installation) -> None:
    [entry] = kept(acme, untagged(suggestion=JOE))

    resolve(acme, RESOLUTION, [entry])

    record = records(acme)[entry.key]
    [told] = record["resolutions"]
    assert (record["outcome"], record["requests"]) == ("quarantine:no-tag", [])
    assert (told["action"], told["actor"], told["requests"][0]["effect"]) == ("suggestion-accepted", "ann", "added")
    assert "joe@" not in json.dumps(record)


def test_a_recipients_evidence_leads_to_the_record(acme: Installation) -> None:
    [entry] = kept(acme, untagged(suggestion=JOE))
    resolve(acme, RESOLUTION, [entry])

    pointers = [acme.redis.hget(key, entry.key) for key in acme.redis.keys("unsubd:ledger:{acme:*")]

    assert [json.loads(each or b"")["see"][:19] for each in pointers] == ["unsubd:ledger:{-}:2"]


def test_a_resolution_before_the_message_was_recorded_leaves_one_record(acme: Installation) -> None:
    pair = untagged(suggestion=JOE)
    acme.quarantine.keep([pair])
    resolve(acme, RESOLUTION, [one(acme.quarantine)])

    acme.intake.record([pair[1]])

    assert len(records(acme)[pair[1].key]["resolutions"]) == 1


CRASHES = {"the request": "store.Store.apply", "the ledger": "store.ledger.Ledger.append",
           "the removal": "quarantine.Quarantine.settle"}  # fmt: skip


@pytest.mark.parametrize("place", CRASHES.values(), ids=CRASHES)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_crash_on_the_way_repeats_without_a_second_effect(acme: Installation, place: str, after: bool) -> None:
    [entry] = kept(acme, untagged(suggestion=JOE))
    with _crash(place, after=after), pytest.raises(StoreUnavailable):
        resolve(acme, RESOLUTION, [entry])
    assert (after and "settle" in place) or acme.quarantine.counts() == {"quarantine:no-tag": 1}

    again = resolve(acme, RESOLUTION, [entry])

    assert [each.word for each in again] == ["added"]  # its first effect
    assert acme.quarantine.counts() == {}
    assert len(records(acme)[entry.key]["resolutions"]) == 1
    assert len(list(acme.store.listed("acme", 12))) == 1


def _crash(place: str, *, after: bool) -> Any:
    """End in the place of a method, or right after it."""
    module, _, name = place.rpartition(".")
    owner = {"store.Store": "worker.store.Store", "store.ledger.Ledger": "worker.store.ledger.Ledger",
             "quarantine.Quarantine": "worker.quarantine.Quarantine"}[module]  # fmt: skip
    real = getattr(__import__("pydoc").locate(owner), name)

    def crash(*args: Any, **named: Any) -> Any:
        if after:
            real(*args, **named)
        raise StoreUnavailable("the process ends here")

    return patch(f"{owner}.{name}", autospec=True, side_effect=crash)


def test_a_dismissed_message_asks_for_nothing_and_its_record_says_so(acme: Installation) -> None:
    [entry] = kept(acme, untagged())

    settled = resolve(acme, Resolution(Way.DISMISSED, "ann", "spam"), [entry])

    assert settled == [Settled(entry, "dismissed", gone=True)]
    [told] = records(acme)[entry.key]["resolutions"]
    assert (told["action"], told["reason"], told["requests"]) == ("dismissed", "spam", [])
    assert not suppressed(acme)


def test_a_named_recipient_is_suppressed_whatever_was_suggested(acme: Installation) -> None:
    [entry] = kept(acme, untagged(suggestion=JOE))
    named = check_named(acme, "acme", 12, "Ann@Example.com")

    resolve(acme, Resolution(Way.NAMED, "ann", "by phone", named), [entry])

    assert (suppressed(acme, "ann@example.com"), suppressed(acme)) == (True, False)


@pytest.mark.parametrize(("sender", "group"), [("nobody", 0), ("acme", 13)])
def test_a_mistyped_sender_or_group_is_refused(acme: Installation, sender: str, group: int) -> None:
    with pytest.raises(UnknownAccount):
        check_named(acme, sender, group, "ann@example.com")


def test_a_complaint_stays_a_complaint(acme: Installation) -> None:
    [entry] = kept(acme, untagged(outcome=Outcome.COMPLAINT, suggestion=JOE))

    resolve(acme, RESOLUTION, [entry])

    row = acme.store.row("acme", 12, JOE.recipient)
    assert row is not None
    assert row.complaint


def test_what_suggests_nobody_stays_and_says_why(acme: Installation) -> None:
    entries = kept(acme, untagged(1), untagged(2, suggestion=replace(JOE, sender="")),
                   untagged(3, suggestion=replace(JOE, recipient="joe")))  # fmt: skip

    words = [each.word for each in resolve(acme, RESOLUTION, entries)]

    assert words == ["no suggestion", "suggests no sender", "suggests no address"]
    assert acme.quarantine.counts() == {"quarantine:no-tag": 3}


def test_a_shrunk_suggestion_can_still_be_accepted(acme: Installation) -> None:
    [entry] = kept(acme, untagged(suggestion=JOE))
    acme.quarantine.change(entry, shrunk(entry))

    assert resolve(acme, RESOLUTION, [one(acme.quarantine)])[0].word == "added"


def test_a_plan_changes_nothing(acme: Installation) -> None:
    entries = kept(acme, untagged(1), untagged(2, suggestion=JOE))

    assert [each.word for each in plan(RESOLUTION, entries)] == ["no suggestion", "unsubscribe acme 12"]
    assert not suppressed(acme)
    assert "resolutions" not in json.dumps(records(acme))


def test_a_request_that_cannot_be_applied_is_not_lost(acme: Installation) -> None:
    [entry] = kept(acme, untagged(suggestion=JOE))
    acme.store_redis.hset("unsubd:supp:{acme:0}", mapping={"": "0 0", JOE.recipient + "\x0012": b"\xff"})

    assert [each.word for each in resolve(acme, RESOLUTION, [entry])] == ["failed"]
    assert acme.quarantine.counts() == {"failed": 1}


# --- replay


def replay(acme: Installation, **options: Any) -> Replay:
    return Replay(acme, Resolution(Way.REPLAYED, "ann", "a key was added"), wait_s=0, **options)


def tagged_later(acme: Installation, at_ms: int) -> Entry:
    """A mail whose key is not here yet, as its source handed it over."""
    inbound = mail(tagged(keys=OTHER), received_ms=at_ms)
    acme.intake.accept([inbound])
    [entry] = acme.quarantine.entries([inbound.key[:32]]).values()
    return entry


@pytest.fixture
def later(acme: Installation) -> Iterator[Installation]:
    """The same installation, on the same server, with the key that was missing."""
    keys = {"UNSUBD_SECRET_KEYS": f"{HEX},{OTHER.masters[0].hex()}"}
    with open_installation(load_settings(house.ENVIRON | keys)) as installation:
        yield installation


def test_a_mail_whose_key_was_added_takes_effect_at_its_own_time(acme: Installation, later: Installation) -> None:
    at_ms = now_ms() - 30 * DAY_MS
    entry = tagged_later(acme, at_ms)
    acme.redis.delete(*acme.redis.keys("unsubd:seen:*"))  # nobody remembers the first receipt any more

    settled = replay(later).take([entry])

    work(later)
    row = later.store.row("acme", 12, JANE.recipient)
    assert row is not None
    assert ([each.word for each in settled], row.time_ms, row.held) == (["honour"], at_ms, False)
    assert later.quarantine.counts() == {}


def test_a_replayed_mail_keeps_its_one_record(acme: Installation, later: Installation) -> None:
    entry = tagged_later(acme, now_ms())
    work(acme)
    replay(later).take([entry])
    work(later)

    record = records(later)[entry.key]
    [told] = record["resolutions"]
    assert (record["outcome"], told["action"], told["requests"][0]["effect"]) == (
        "quarantine:bad-tag", "replayed", "queued",
    )  # fmt: skip


def test_what_is_still_not_understood_stays_with_its_first_date(acme: Installation) -> None:
    inbound = mail(FORGED)
    acme.quarantine.keep([(inbound, untagged(source="maildir:default")[1])], now_ms=5)  # as an older release saw it

    settled = replay(acme).take([one(acme.quarantine)])

    assert [(each.word, each.gone) for each in settled] == [("still quarantine:bad-tag", False)]
    assert (one(acme.quarantine).reason, one(acme.quarantine).kept_ms) == ("quarantine:bad-tag", 5)
    assert acme.quarantine.counts() == {"quarantine:bad-tag": 1}


def test_a_dry_replay_changes_nothing(acme: Installation, later: Installation) -> None:
    entry = tagged_later(acme, now_ms())
    before = {key: acme.redis.dump(key) for key in acme.redis.keys("unsubd:*")}

    assert [each.word for each in replay(later, dry_run=True).take([entry])] == ["honour"]
    assert {key: acme.redis.dump(key) for key in acme.redis.keys("unsubd:*")} == before


def test_a_replay_that_cannot_queue_leaves_the_entry(acme: Installation, later: Installation) -> None:
    entry = tagged_later(acme, now_ms())
    with (
        patch.object(type(later.queue), "enqueue", autospec=True, side_effect=QueueUnavailable("away")),
        pytest.raises(QueueUnavailable),
    ):
        replay(later).take([entry])

    assert later.quarantine.counts() == {"quarantine:bad-tag": 1}
    assert [each.word for each in replay(later).take([entry])] == ["honour"]


def test_what_failed_is_queued_again(acme: Installation) -> None:
    wish = decided("k" * 64)
    acme.quarantine.keep_failed(wish.key, "broken", wish.as_wire(), wish.received_ms)

    settled = replay(acme).take([one(acme.quarantine)])

    work(acme)
    assert [(each.word, each.gone) for each in settled] == [("queued", True)]
    assert suppressed(acme, JANE.recipient)
    assert records(acme)[wish.key]["resolutions"][0]["action"] == "replayed"


def test_what_fails_again_while_it_is_replayed_stays(acme: Installation) -> None:
    wish = decided("k" * 64)
    acme.quarantine.keep_failed(wish.key, "broken", wish.as_wire(), wish.received_ms)
    seen = one(acme.quarantine)
    acme.quarantine.keep_failed(wish.key, "broken", wish.as_wire(), wish.received_ms)  # a fast worker's

    assert [(each.word, each.gone) for each in replay(acme).take([seen])] == [("failed again", False)]
    assert one(acme.quarantine).failures == 2


def test_what_nobody_can_read_stays(acme: Installation) -> None:
    acme.quarantine.keep_failed("a" * 32, "message 1 of the job", {"value": "5"}, 0)
    acme.quarantine.keep([untagged()])
    acme.quarantine.change(one(acme.quarantine, reason="no-tag"), shrunk(one(acme.quarantine, reason="no-tag")))

    words = {
        each.word
        for each in replay(acme).take(list(acme.quarantine.entries(acme.quarantine.ids(Selection())).values()))
    }

    assert words == {"still unreadable", "shrunk: its message is gone"}


# --- on the terminal

HOSTILE = "\x1b[2J\x1b]0;owned\x07 \u202eevil\u2066 \x00 \x9b31m \u200b\x7f"


@pytest.mark.parametrize("text", [HOSTILE, "".join(map(chr, range(0x3000))), "\udcff\U000e0041\ufeff\u2028"])
def test_nothing_that_a_terminal_obeys_passes(text: str) -> None:
    shown = printable(text)

    assert shown.isprintable()
    shown.encode()


@pytest.mark.parametrize(
    "text",
    ["jane@example.com", "Jane <jane@example.com>", f"to {tagged()}", tagged().split("@")[0], "<mailto:jane%40example.com>",
     f"https://unsub.example.com/u/{tagged().split('@')[0]}", "mailto:jane@example.com?cc=jane@example.com",
     '"jane@example.com"', "jane@example.com@x"],
)  # fmt: skip
def test_no_spelling_of_an_address_passes(text: str) -> None:
    assert "jane" not in without_addresses(text)


def test_masking_a_hostile_text_takes_no_time() -> None:
    for text in ("a" * 100_000, "@" * 100_000, "a@" * 50_000, "%40" * 30_000, "/u/" * 30_000):
        without_addresses(text[:2000])


@pytest.fixture
def command(acme: Installation, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a command of the sub-app on the installation; return its output."""
    monkeypatch.setattr(commands, "own_settings", lambda: acme.settings)
    monkeypatch.setattr(commands, "open_installation", lambda _: _Opened(acme))

    def run(*words: str, code: int = 0) -> str:
        with capture_logs():
            done = CliRunner().invoke(app, ["quarantine", *words])
        assert done.exit_code == code, (done.output, done.exception)
        return done.stdout

    return run


class _Opened:
    def __init__(self, installation: Installation) -> None:
        self._installation = installation

    def __enter__(self) -> Installation:
        return self._installation

    def __exit__(self, *_: object) -> None:
        pass


def hostile(acme: Installation) -> str:
    raw = (
        f"From: {HOSTILE} <jane@example.com>\r\nTo: =?utf-8?q?=1b[31m?= <{FORGED}>\r\nSubject: {HOSTILE} [red]x[/red]\r\n"
        f"Authentication-Results: {HOSTILE}\r\n\r\n{HOSTILE}\r\njane@example.com\r\n"
    )
    inbound = message.read(raw.encode(), source="maildir:default")
    why = untagged(suggestion=replace(JOE, why=HOSTILE), evidence={"auto": HOSTILE})[1]
    [entry] = kept(acme, (inbound, replace(why, key=inbound.key)))
    return entry.id


@pytest.mark.parametrize("words", [["list"], ["list", "--full"], ["list", "--json"], ["show", "ID"], ["show", "ID", "--full"],
                                   ["show", "ID", "--json"]])  # fmt: skip
def test_no_control_character_of_a_mail_reaches_the_terminal(
    acme: Installation, command: Any, words: list[str]
) -> None:
    entry_id = hostile(acme)

    output = command(*[entry_id if each == "ID" else each for each in words])

    assert output.replace("\n", "").isprintable()
    assert entry_id in output


def test_raw_is_escaped_on_a_terminal_alone(acme: Installation, command: Any) -> None:
    entry_id = hostile(acme)
    exact = CliRunner().invoke(app, ["quarantine", "show", entry_id, "--raw"])
    with patch.object(commands, "_to_terminal", autospec=True, return_value=True):
        escaped = command("show", entry_id, "--raw")

    assert exact.stdout_bytes == acme.quarantine.raw(entry_id)
    assert escaped.replace("\n", "").isprintable()


@pytest.mark.parametrize("words", [["list"], ["list", "--json"], ["show", "ID"], ["show", "ID", "--json"]])
def test_addresses_are_masked_unless_asked_for(acme: Installation, command: Any, words: list[str]) -> None:
    [entry] = kept(acme, untagged(suggestion=JOE))
    words = [entry.id if each == "ID" else each for each in words]

    assert "joe@example.com" not in command(*words)
    assert "j···e@" in command(*words).replace("\\u00b7", "·")
    assert "joe@example.com" in command(*words, "--full")


def test_suggestions_are_accepted_in_bulk_and_the_counts_add_up(acme: Installation, command: Any) -> None:
    people = [replace(JOE, recipient=f"p{number}@example.com") for number in range(250)]
    acme.quarantine.keep([untagged(number, suggestion=each) for number, each in enumerate(people)])
    acme.quarantine.keep([untagged(300)])

    dry = command("resolve", "--accept-suggestions", "--reason", "asked", "--dry-run")
    done = command("resolve", "--accept-suggestions", "--reason", "asked", "--actor", "ann")

    assert dry.endswith("250 entries: 250 unsubscribe acme 12\nnothing was changed\n")
    assert done == "250 entries: 250 added\n250 left the quarantine\n"
    assert acme.quarantine.counts() == {"quarantine:no-tag": 1}


def test_an_outage_in_the_middle_tells_what_was_done(acme: Installation, command: Any) -> None:
    acme.quarantine.keep([untagged(number, suggestion=JOE) for number in range(150)], now_ms=5)
    real, calls = type(acme.store).apply, []

    def away_at_last(*args: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) > 1:
            raise StoreUnavailable("UNSUBD_STORE_URL: the server does not answer")
        return real(*args, **named)

    with patch.object(type(acme.store), "apply", autospec=True, side_effect=away_at_last):
        output = command("resolve", "--accept-suggestions", "--reason", "asked", code=1)

    assert output.startswith("150 entries: 99 already-present, 1 added, 50 not reached")
    assert acme.quarantine.counts() == {"quarantine:no-tag": 50}


@pytest.mark.parametrize(
    "words",
    [["resolve", "ID"], ["resolve", "ID", "--dismiss"], ["resolve", "--dismiss", "--reason", "x"],
     ["resolve", "ID", "--dismiss", "--accept-suggestions", "--reason", "x"], ["list", "--reason", "nonsense"],
     ["resolve", "--as", "acme", "12", "a@b.example", "--reason", "x", "--suggested"],
     ["replay", "ID", "--suggested"], ["list", "--since", "yesterday"]],
)  # fmt: skip
def test_an_unclear_command_does_nothing(acme: Installation, command: Any, words: list[str]) -> None:
    kept(acme, untagged())

    command(*words, code=2)  # `main` makes it 64

    assert acme.quarantine.counts() == {"quarantine:no-tag": 1}
