"""An installation with a history, through the program's own doors: two days of requests, and what waits for a person."""

import random
import time
from hashlib import sha256
from unittest.mock import patch

from handlers import message
from handlers.decision import Policy, decide
from handlers.request import Action, DecidedMessage, Outcome, Request, request_id
from handlers.tag import AddressTemplate, Keyring, Tag, mint
from worker import by_hand
from worker.clock import Clock
from worker.forwarding import Target, owing
from worker.hooks import Hook
from worker.installation import Installation
from worker.sources import SourceReport

TEMPLATE = AddressTemplate("u+", "unsub.example.com")
HOUR_MS = 3_600_000
NEWS, OFFERS, BOOKS = 101, 102, 201  # whatever other senders have
EVIL = (
    "<script>alert(document.cookie)</script>",
    "\x1b]0;owned\x07\x1b[31mred\x1b[2J",
    "W" * 10_000,
    "\u202eهذا عنوان طويل من اليمين إلى اليسار gpj.exe\u202c",
    "=?utf-8?b?PGltZyBzcmM9eCBvbmVycm9yPWFsZXJ0KDEpPg==?=",
)


def furnish(installation: Installation) -> None:
    """Register senders, fill the last 48 hours, and leave messages, a failed job and sources to look at."""
    accounts = installation.accounts
    accounts.add_sender("acme", "Acme Outdoor")
    accounts.add_sender("north", "Northwind Books")
    accounts.add_group("acme", "Weekly news", "What is new in the shop, every Tuesday", NEWS, is_default=True)
    accounts.add_group("acme", "Offers", "Sales and vouchers, now and then", OFFERS)
    accounts.add_group("acme", "Receipts", "Proof of what you bought", essential=True)
    accounts.add_group("north", "New books", "Once a month", BOOKS)
    old = accounts.add_group("north", "Catalogue 2024", "Printed, twice a year")
    accounts.edit_group("north", old.id, archived=True)
    accounts.new_api_key("acme")
    _two_days(installation)
    _story(installation)
    quarantine(installation, mails(installation))
    failed_job(installation)
    _sources(installation)
    _forwards(installation)


def _forwards(installation: Installation) -> None:
    """A target that refuses our key since this morning, and one that is up to date."""
    places, now_ms = {0: "global", NEWS: "103"}, time.time_ns() // 1_000_000
    base = "http://127.0.0.1:1"
    refused = installation.forwards.add(Target("", "acme", "sendgrid", "key", places, "", base))
    installation.forwards.add(Target("north-mailgun", "north", "mailgun", "key", {}, "mg.example.com", base))
    items = {(NEWS, f"reader{number}@example.com"): now_ms - 2 * HOUR_MS for number in range(3)}
    installation.forwards.enqueue(refused, items, items)
    owing.failed(
        installation.redis,
        refused.name,
        f"{refused.name}: POST answered 401 for place 103 of group {NEWS}, expected 2xx",
    )
    installation.intake.clock.forwarded("north-mailgun", [now_ms - each for each in (900, 4000, 90_000, 5000)])


def _two_days(installation: Installation) -> None:
    """The clock's hours, as if they had been lived through."""
    chance = random.Random(7)
    clock, now_ms = Clock(installation.redis, installation.journal), time.time_ns() // 1_000_000
    for back in range(48):
        at_ms = now_ms - back * HOUR_MS
        busy = 4 + round(30 * max(0.0, 1 - abs((at_ms // HOUR_MS % 24) - 14) / 9))
        outcomes = chance.choices(
            [Outcome.HONOUR, Outcome.COMPLAINT, Outcome.AUTO_REPLY, Outcome.NO_TAG], [80, 4, 9, 7], k=busy
        )
        with patch("worker.clock.time.time_ns", return_value=at_ms * 1_000_000):
            entries = [_entry(f"{back}-{n}", each, at_ms - _age_ms(chance, back)) for n, each in enumerate(outcomes)]
            clock.recorded(entries, [True] * len(entries))


def _age_ms(chance: random.Random, back: int) -> int:
    return round(chance.lognormvariate(7.2, 0.7)) + (900_000 if back == 17 and chance.random() < 0.2 else 0)


def _entry(name: str, outcome: Outcome, at_ms: int) -> tuple[DecidedMessage, list[dict[str, object]]]:
    decided = DecidedMessage(name.ljust(64, "0"), "imap:news", outcome, "tag", at_ms)
    if outcome is not Outcome.HONOUR:
        return decided, []
    return decided, [{"id": name, "sender": "acme", "group": NEWS, "recipient": "x@example.com", "effect": "added"}]


def _story(installation: Installation) -> None:
    """What one recipient did over a year, and ten others this morning."""
    now_ms = time.time_ns() // 1_000_000
    for days, sender, group, source in (
        (300, "acme", OFFERS, "imap:news"),
        (40, "acme", NEWS, "one-click"),
        (3, "north", BOOKS, "relay:fastmail"),
    ):
        _request(installation, "jane.doe@example.com", sender, group, now_ms - days * 86_400_000, source)
    by_hand.enter(
        installation, Action.RESUBSCRIBE, "acme", OFFERS, ["jane.doe@example.com"],
        actor="anna", reason="asked for the vouchers again by phone",
    )  # fmt: skip
    for number in range(10):
        _request(installation, f"person.{number}@example.com", "acme", NEWS, now_ms - number * 5000, "imap:news")


def _request(installation: Installation, recipient: str, sender: str, group: int, at_ms: int, source: str) -> None:
    nonce = sha256(f"{recipient}{at_ms}".encode()).hexdigest()
    wish_id = request_id(nonce, sender, group, recipient, Action.UNSUBSCRIBE)
    wish = Request(wish_id, Action.UNSUBSCRIBE, sender, group, recipient, at_ms, source, nonce, "", "")
    with patch("worker.clock.time.time_ns", return_value=(at_ms + 1200) * 1_000_000):
        installation.intake.record([DecidedMessage(nonce, source, Outcome.HONOUR, "tag", at_ms, (wish,))])


def mail(
    to: str, number: object, subject: str = "unsubscribe", body: str = "", author: str = "jane.doe@example.com"
) -> bytes:
    """Return a mail as a client sends it."""
    head = (
        f"From: Jane Doe <{author}>\r\nTo: <{to}>\r\nSubject: {subject}\r\nMessage-ID: <scene-{number}@mail.example.com>\r\n"
        "Date: Fri, 27 Nov 2026 10:12:00 +0000\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
    )
    return f"{head}\r\n{body}\r\n".encode()


def mails(installation: Installation) -> list[bytes]:
    """Return what each kind of quarantine holds, and what means harm."""
    signed = mint(installation.keys, Tag("acme", NEWS, "jane.doe@example.com"), TEMPLATE).address
    forged = signed.replace(signed[2:8], "aaaaaa")
    words = "Hello,\r\n\r\nplease take me off your list, I get a mail every day and never asked for it.\r\n\r\nJane"
    plain = [
        mail("news@unsub.example.com", f"plain-{n}", "Unsubscribe me please", words, f"reader.{n}@example.org")
        for n in range(14)
    ]
    bad = [mail(forged, f"bad-{n}", "unsubscribe") for n in range(4)]
    lost = [
        mail("info@unsub.example.com", f"lost-{n}", "Where is my parcel?", "Order 4711 has not arrived.")
        for n in range(5)
    ]
    evil = [
        mail("info@unsub.example.com", f"evil-{n}", each, f"{each[:3000]}\r\n<b>bold?</b> \x1b[5mblink")
        for n, each in enumerate(EVIL)
    ]
    return evil + lost + bad + plain


def quarantine(installation: Installation, raws: list[bytes]) -> None:
    """Let mails go the way of every mail, up to the quarantine."""
    inbound = [message.read(raw, source="imap:news", received_ms=time.time_ns() // 1_000_000 - 900_000) for raw in raws]
    for each, decided in zip(inbound, installation.intake.decide(inbound), strict=True):
        installation.quarantine.keep([(each, decided)])


def key_was_missing(installation: Installation, count: int) -> None:
    """Leave messages in quarantine that came while the key that signed them was not there: a replay understands them."""
    policy, stranger = Policy((TEMPLATE,)), Keyring((b"some other installation's master",))
    for number in range(count):
        address = mint(installation.keys, Tag("acme", OFFERS, f"late.{number}@example.com"), TEMPLATE).address
        inbound = message.read(
            mail(address, f"late-{number}"), source="imap:news", received_ms=time.time_ns() // 1_000_000
        )
        installation.quarantine.keep([(inbound, decide(inbound, stranger, policy, {}))])


def failed_job(installation: Installation, recipient: str = "unlucky@example.com") -> str:
    """Leave a job that ran out of tries; return its id."""
    at_ms = time.time_ns() // 1_000_000
    nonce = sha256(f"{recipient}{at_ms}".encode()).hexdigest()
    wish_id = request_id(nonce, "acme", NEWS, recipient, Action.UNSUBSCRIBE)
    wish = Request(wish_id, Action.UNSUBSCRIBE, "acme", NEWS, recipient, at_ms, "imap:news", nonce, "", "")
    queue = installation.queue.rq
    with patch.object(installation.queue.rq, "push_job_id"):  # nobody shall take it before it has failed
        [job_id] = installation.queue.enqueue(
            [DecidedMessage(nonce, "imap:news", Outcome.HONOUR, "tag", at_ms, (wish,))]
        )
    job = installation.queue.reaper.readable(job_id)
    assert job is not None
    job.set_status("failed")
    job._handle_failure(
        f'Traceback (most recent call last):\n  File "worker/jobs.py", line 61, in record\nValueError: {recipient} <script>',
        pipeline=queue.connection,
    )
    return job_id


def _sources(installation: Installation) -> None:
    SourceReport(installation.redis, installation.journal, "imap:news").say("idle", taken=1874)
    SourceReport(installation.redis, installation.journal, "imap:support").say("idle", taken=212, left=1840)
    SourceReport(installation.redis, installation.journal, "maildir:default").say("working", taken=31)
    installation.hooks.add(Hook("postmark", "default", ("token:s3cret",)))
    installation.hooks.add(Hook("relay", "fastmail", ("bearer:s3cret",), forwarded=True))
    for answer, count in (("accepted", 921), ("signature_invalid", 3)):
        for _ in range(count):
            installation.journal.webhooks([("postmark", answer, "")])
