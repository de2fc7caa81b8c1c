"""The ways in: how each brings its requests, comes again as its far side would, and which points it passes."""

import http.client
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlencode

from cryptography.hazmat.primitives.asymmetric import ec

from handlers import events, message
from handlers.tag import Tag, mint
from tests.crash.house import PLACE, House
from tests.harness import posts, sns
from tests.harness.lmtp import Client
from tests.harness.mails import NEW, OLD, TEMPLATE, address, mail, recipient
from tests.harness.web import ask

SIGNER = ec.generate_private_key(ec.SECP256R1())
BOUNCE = "Return-Path: <>\r\nX-Failed-Recipients: x@example.org\r\n"


@dataclass
class Sent:
    """What one case brought.

    Shape:   acked: tries once; says whether every far side heard "done". who: the recipients who asked. mails: message key ->
             outcome, where the way makes one message of each mail. kept: keys of those that a person must see. rest: what is
             wrong outside, a line each, once all is over. rows: how often the register changes, where it is not once for each
             of *who*.
    """

    acked: Callable[[], bool]
    who: Sequence[str]
    mails: Mapping[str, str] = field(default_factory=dict)
    rest: Callable[[], Sequence[str]] = lambda: ()
    rows: int | None = None
    tries: int = 0

    def come_again(self) -> bool:
        """Try once more."""
        self.tries += 1
        return self.acked()


@dataclass(frozen=True)
class Way:
    """One way in. Shape: passes: part -> the points that are passed there. first: kills that bring a part to its point."""

    send: Callable[[House, int], Sent]
    passes: Mapping[str, Sequence[str]]
    first: Sequence[tuple[str, str, str, str, int]] = ()
    victims: Mapping[str, Sequence[str]] = field(default_factory=dict)


class Mails:
    """Three mails: a request, a forged one for a person, a bounce that asks for nothing."""

    def __init__(self, number: int) -> None:
        self.who = [recipient(number)]
        forged = address(number, OLD)
        self.raws = [
            (mail(address(number), f"crash-{number}"), address(number), "honour"),
            (mail(forged, f"forged-{number}"), forged, "quarantine:bad-tag"),
            (mail(address(number), f"bounce-{number}", BOUNCE), address(number), "ignore:bounce"),
        ]

    def keys(self, *, enveloped: bool) -> dict[str, str]:
        """Return message key -> outcome, as a source with or without envelope reads them."""
        return {
            message.read(raw, source="x", envelope_to=to if enveloped else None).key: outcome
            for raw, to, outcome in self.raws
        }


def posted(house: House, path: str, body: bytes, headers: Mapping[str, str]) -> bool:
    """Post *body* and say whether it was taken."""
    try:
        return 200 <= ask(house.service.port, "POST", path, body, headers).status < 300
    except (OSError, http.client.HTTPException):
        return False


def webhook(house: House, number: int) -> Sent:
    """A mail server's script posts each mail, signed, until it hears 2xx."""
    mails = Mails(number)
    waiting = [(raw, posts.relay(raw) | {"X-Envelope-To": to}) for raw, to, _ in mails.raws]

    def acked() -> bool:
        while waiting and posted(house, "/in/relay", *waiting[0]):
            waiting.pop(0)
        return not waiting

    return Sent(acked, mails.who, mails.keys(enveloped=True))


def alone(house: House, number: int) -> Sent:
    """One request in a job of its own."""
    raw = mail(address(number), f"alone-{number}")
    headers = posts.relay(raw)
    return Sent(
        lambda: posted(house, "/in/relay", raw, headers),
        [recipient(number)],
        {message.read(raw, source="x").key: "honour"},
    )


def poison(house: House, number: int) -> Sent:
    """One that kills each job that takes it: it ends in quarantine, and a replay honours it."""
    sent = alone(house, number)
    (key,) = sent.mails
    done: list[str] = []

    def acked() -> bool:
        if not done and sent.acked():
            done.append("posted")
        if done == ["posted"]:
            with house.installation() as installation:
                kept = list(installation.quarantine.entries([key[:32]]))
            if kept and house.command("quarantine", "replay", *kept) == 0:
                done.append("replayed")
        return "replayed" in done

    return Sent(acked, sent.who, sent.mails)


def imap(house: House, number: int) -> Sent:
    """Mail in a mailbox; a fourth one is not ours, and stays there as it is."""
    mails = Mails(number)
    foreign = mail("info@example.com", f"foreign-{number}", body="Hello.\r\n").replace(b": unsubscribe", b": Lunch")
    house.mailbox.append_many([raw for raw, _, _ in mails.raws] + [foreign])
    wanted = [raw for raw, _, _ in mails.raws]

    def rest() -> list[str]:
        inbox, processed = ([raw for _, _, raw in house.mailbox.messages(each)] for each in ("INBOX", "Processed"))
        wrong = [f"{processed.count(raw)} copies in Processed" for raw in wanted if processed.count(raw) != 1]
        wrong += ["a handled mail is in INBOX" for raw in wanted if raw in inbox]
        return wrong + (["a mail that is not ours left INBOX"] if inbox.count(foreign) != 1 else [])

    keys = mails.keys(enveloped=False) | {message.read(foreign, source="x").key: "quarantine:no-tag"}
    return Sent(lambda: True, mails.who, keys, rest)


def imap_again(house: House, number: int) -> Sent:
    """The same for a poller that begins."""
    house.restart("poll")
    return imap(house, number)


def imap_stopped(house: House, number: int) -> Sent:
    """The same for a poller that is told to stop, and gives its lease back."""
    house.stop("poll")
    return imap(house, number)


def maildir(house: House, number: int) -> Sent:
    """Files in a Maildir, by rename."""
    mails = Mails(number)
    for place, (raw, _, _) in enumerate(mails.raws):
        (house.maildir / "tmp" / f"{number}.{place}").write_bytes(raw)
        os.rename(house.maildir / "tmp" / f"{number}.{place}", house.maildir / "new" / f"{number}.{place}")

    def rest() -> list[str]:
        there = sorted(each.name for each in (house.maildir / "cur").glob(f"{number}.*"))
        wanted = [f"{number}.{place}:2,S" for place in range(3)]
        return [] if there == wanted else [f"cur/ has {there}, expected {wanted}"]

    return Sent(lambda: not any((house.maildir / "new").iterdir()), mails.who, mails.keys(enveloped=False), rest)


def sqs(house: House, number: int) -> Sent:
    """SES's notifications in a queue, which shows them again after a while."""
    mails, queue = Mails(number), house.doors.sqs
    queue.send(*[sns.envelope(sns.received(to, raw=raw)) for raw, to, _ in mails.raws])
    shown_at = time.monotonic()

    def acked() -> bool:
        nonlocal shown_at
        if not queue.left():
            queue.hold.clear()
            return True
        queue.hold.set()  # the polls that wait get what there is
        if time.monotonic() - shown_at > 2.0:
            queue.show_again()
            shown_at = time.monotonic()
        return False

    return Sent(acked, mails.who, mails.keys(enveloped=True))


def lmtp(house: House, number: int) -> Sent:
    """A mail server hands each mail over, until it hears 250."""
    mails = Mails(number)
    waiting = [(raw, to) for raw, to, _ in mails.raws]

    def acked() -> bool:
        try:
            with Client(house.lmtp) as client:
                while waiting and client.deliver(*waiting[0]) == ["250"]:
                    waiting.pop(0)
        except (OSError, AssertionError):
            return False  # it hung up in the middle
        return not waiting

    return Sent(acked, mails.who, {message.read(raw + b"\r\n", source="x", envelope_to=to).key: outcome
                                   for raw, to, outcome in mails.raws})  # fmt: skip


def pipe(house: House, number: int) -> Sent:
    """A mail server pipes each mail, until the exit code is 0."""
    mails = Mails(number)
    waiting = [(raw, to) for raw, to, _ in mails.raws]

    def acked() -> bool:
        while waiting:
            raw, to = waiting[0]
            if house.command("deliver", "-", "--quiet", f"--envelope-to={to}", given=raw):
                return False
            waiting.pop(0)
        return True

    return Sent(acked, mails.who, mails.keys(enveloped=True))


def one_click(house: House, number: int) -> Sent:
    """A mail client posts once more when it heard nothing; each post is a message of its own."""
    tag = mint(NEW, Tag("acme", 1, recipient(number)), TEMPLATE).tag
    body = urlencode({"List-Unsubscribe": "One-Click"}).encode()
    return Sent(lambda: posted(house, f"/u/{tag}", body, posts.URLENCODED), [recipient(number)])


def one_click_once(house: House, number: int) -> Sent:
    """A mail client that does not come again."""
    sent = one_click(house, number)
    tried: list[bool] = []

    def acked() -> bool:
        return bool(tried) or (house.service.is_ready() and (tried.append(sent.acked()) or True))

    return Sent(acked, sent.who)


def one_click_parked(house: House, number: int) -> Sent:
    """A one-click while the queue's Redis is away; a web server that dies meanwhile starts when that is back."""
    sent = one_click(house, number)
    house.queue.kill()

    def acked() -> bool:
        done = sent.acked()
        house.queue.start()
        return done

    return Sent(acked, sent.who)


def command(house: House, number: int) -> Sent:
    """An operator enters it, and again when the command died."""
    words = ("suppress", "acme", "1", recipient(number), "--reason", "a test")
    return Sent(lambda: house.command(*words) == 0, [recipient(number)])


def minted(house: House, number: int) -> Sent:
    """A tag too long to spell its recipient is stored, and then used."""
    who = f"somebody.with.quite.a.long.name.{number}@a-rather-long-domain-name.example.com"
    sent: list[Sent] = []

    def acked() -> bool:
        if not sent:
            if house.command("tag", "mint", "acme", "1", who):
                return False
            stored = mint(NEW, Tag("acme", 1, who), TEMPLATE)
            raw = mail(stored.address, f"stored-{number}")
            headers = posts.relay(raw)
            sent.append(Sent(lambda: posted(house, "/in/relay", raw, headers), [who]))
        return sent[0].acked()

    return Sent(acked, [who])


def passed_on(house: House, number: int) -> Sent:
    """A mail that is not ours goes on to the application that shares the endpoint."""
    raw = mail("info@example.com", f"passed-{number}", body="Hello.\r\n").replace(b": unsubscribe", b": Lunch")
    headers = posts.RFC822 | {"Authorization": "Bearer app"}

    def rest() -> list[str]:
        return [] if raw in [body for _, body in house.doors.application.got] else ["the application has not got it"]

    return Sent(lambda: posted(house, "/in/relay/app", raw, headers), [], rest=rest)


def told(house: House, number: int) -> Sent:
    """A provider tells what its own page took."""
    told_ms = {"email": recipient(number), "timestamp": int(time.time()), "event": "group_unsubscribe"}
    body = json.dumps([told_ms | {"sg_event_id": f"e{number}", "asm_group_id": int(PLACE)}]).encode()
    house.doors.far.lists.setdefault(PLACE, set()).add(recipient(number))  # it is so there already

    def acked() -> bool:
        now = str(int(time.time()))
        signed = {events.TIMESTAMP_HEADER: now, events.SIGNATURE_HEADER: events.signature(SIGNER, now, body)}
        return posted(house, "/in/sendgrid-events/acme-sendgrid", body, posts.JSON | signed)

    return Sent(acked, [recipient(number)])


DOOR = ("intake.receipt", "intake.decide", "quarantine.write", "queue.enqueue", "queue.confirm", "journal.write")
TOLD = ("store.apply", "store.ledger", "store.clock", "events.enqueue", "forward.enqueue", "journal.write")
OUT = ("events.post", "forward.call", "forward.remember", "forward.settle", "forward.clock", "journal.write")
BOTH = {"worker-job": ("self", "worker")}
_DEAD = ("job.record", "before", "worker-job")

WAYS = {
    "webhook": Way(webhook, {"web": (*DOOR, "webhook.remember", "webhook.answer"), "worker-job": ("job.record", *TOLD),
                             "events-job": OUT}, victims=BOTH),
    "imap": Way(imap, {"poll": ("imap.fetch", "queue.enqueue", "imap.mark", "imap.remember", "imap.move")}),
    "imap-again": Way(imap_again, {"poll": ("lease.take", "imap.resume")}),
    "imap-stopped": Way(imap_stopped, {"poll": ("lease.give-back",)}),
    "maildir": Way(maildir, {"poll": ("queue.enqueue", "maildir.move")}),
    "sqs": Way(sqs, {"poll": ("sqs.receive", "queue.enqueue", "sqs.delete")}),
    "lmtp": Way(lmtp, {"lmtp": ("queue.enqueue", "lmtp.answer")}),
    "pipe": Way(pipe, {"deliver": ("queue.enqueue", "pipe.exit")}),
    "one-click": Way(one_click, {"web": ("begun.put", "store.apply", "begun.drop", "page.answer")}),
    "one-click-once": Way(one_click_once, {"web": TOLD}),
    "one-click-left": Way(one_click_once, {"reaper": ("begun.take",)}, (("store.apply", "after", "web", "self", 1),)),
    "one-click-parked": Way(one_click_parked, {"web": ("parked.put",), "reaper": ("parked.take",)}),
    "command": Way(command, {"suppress": ("begun.put", "store.apply", "events.enqueue", "begun.drop")}),
    "minted": Way(minted, {"tag": ("store.tags",)}),
    "passed-on": Way(passed_on, {"web": ("webhook.pass-on",)}),
    "told": Way(told, {"web": ("store.apply", "forward.hear")}),
    "dead-worker": Way(alone, {"reaper": ("reaper.settle",)}, ((*_DEAD, "worker", 1),)),
    "dead-job": Way(alone, {"reaper": ("reaper.due",)}, ((*_DEAD, "self", 1),)),
    "poison": Way(poison, {"reaper": ("reaper.kept",)}, ((*_DEAD, "self", 4),)),
}  # fmt: skip
