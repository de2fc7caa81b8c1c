"""`unsubd trace`: everything known of one message, recipient or job, in the order of time.

A message is named by its digest (12 digits, as the journal writes them, or more of its key) or by its Message-ID, which
is looked for in quarantine alone: nothing else keeps it. An address is looked for as a recipient, and in what quarantine
knows of its mails: who wrote them, whom they were delivered to. Of the journal, the last 1,000 lines are here.
"""

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from rq.job import Job
from rq.serializers import JSONSerializer

from handlers.errors import AddressError, QueueUnavailable, Rejected, UnknownAccount
from handlers.request import Outcome
from worker.backlog import why_failed
from worker.batch import UnsubdJob
from worker.counted import word_of
from worker.evidence import pseudonyms, told
from worker.installation import Installation
from worker.journal import Journal
from worker.quarantine.shown import without_addresses
from worker.server import away_as
from worker.store.ledger import Person

_JOB = re.compile(r"unsub-[0-9a-f]{32}(-[01])*")
_DIGEST = re.compile(r"[0-9a-f]{12,64}")
_LINES = 1000
_MOST = 100  # messages that one Message-ID or address is in


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened. Shape: hop: ledger, journal, quarantine or job. what: in words. Units: at_ms: ms UTC."""

    at_ms: int
    hop: str
    what: str

    @property
    def at(self) -> str:
        """The time as people read it."""
        return datetime.fromtimestamp(self.at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True, slots=True)
class Trace:
    """What is known of one thing. Shape: events: oldest first. unread: what was not looked through, in words, "" = nothing."""

    events: list[Event]
    unread: str


def traced(installation: Installation, wanted: str, *, full: bool, whole: bool = False) -> Trace:
    """Return what is known of *wanted*; addresses are masked unless *full*. Not escaped yet.

    Shape:   whole: look through all of the ledger for a digest that nothing else knows.
    Errors:  Rejected     nothing is known of it.    permanent
             Unavailable  a server is away.    temporary
    """
    name = wanted.strip()
    found, digests = _named(installation, name)
    recorded, unread = _of_digests(installation, digests, whole=whole) if digests else ([], "")
    events = sorted({*found, *recorded}, key=lambda each: (each.at_ms, each.hop))
    if not events:
        raise Rejected(
            f"{len(name)} characters: nothing is known of such a message, recipient or job; expected a digest of the"
            " journal, an address, a Message-ID of what is in quarantine, or a job of the last 300 s"
            + (f"; {unread}" if unread else "")
        )
    return Trace(events if full else [_masked(each) for each in events], unread)


def _masked(event: Event) -> Event:
    """Without addresses; the journal has none, and its pseudonyms are there to be looked for."""
    return event if event.hop == "journal" else replace(event, what=without_addresses(event.what))


def _named(installation: Installation, name: str) -> tuple[list[Event], list[str]]:
    """What is known of a name itself, and the messages that it names. An address and a Message-ID look alike: it may be both."""
    if _JOB.fullmatch(name):
        return list(_of_job(installation, name)), []
    if _DIGEST.fullmatch(name):
        return [], [name]
    quarantine = installation.quarantine
    ids = {*quarantine.with_message_id(name, _MOST), *quarantine.naming(name, _MOST)}
    events = [] if name.startswith("<") else list(_of_address(installation, name))
    return events, [entry.key for entry in quarantine.entries(sorted(ids)).values()]


def _of_address(installation: Installation, address: str) -> Iterator[Event]:
    digests: set[str] = set()
    names: set[str] = set()
    for sender in sorted(set(installation.store.senders())):
        try:
            story = told(installation, sender, address)
        except (UnknownAccount, AddressError):
            continue
        digests |= {key[:12] for key in story.records}
        for each in story.events:
            yield Event(_ms(each["at"]), "ledger", f"{sender}: {each['what']}")
        names |= set(pseudonyms(installation, sender, story.recipient))
    yield from _journal(
        installation,
        lambda line: line.get("message") in digests or str(line.get("recipient", "")).partition("@")[0] in names,
    )


def _of_digests(installation: Installation, digests: Sequence[str], *, whole: bool) -> tuple[list[Event], str]:
    short = {each[:12] for each in digests}
    events = list(_journal(installation, lambda line: line.get("message") in short))
    quarantine = installation.quarantine
    kept = quarantine.entries([each for start in digests for each in quarantine.beginning(start[:32], _MOST)])
    for entry in kept.values():
        what = f"{entry.reason}: {entry.detail} (from {entry.author}, {entry.subject!r})"
        events.append(Event(entry.kept_ms, "quarantine", what))
    known = {each[:12]: each for each in (entry.key for entry in kept.values())}
    about = _concerned(installation, short) | ({None} if known else set())
    wanted = [known.get(each[:12], each) for each in digests]
    records, end = installation.ledger.beginning(wanted, about, whole=whole)
    events += [event for key, record in records.items() for event in _record(key, record)]
    return events, f"of the ledger, {end} and what is older was not looked through whole: ask with --all" if end else ""


def _concerned(installation: Installation, short: Collection[str]) -> set[Person | None]:
    """Whom the journal knows messages to be about, None = nobody."""
    with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
        lines = [each for each in Journal.lines(installation.redis, _LINES) if each.get("message") in short]
    people = ((each.get("sender", ""), each.get("recipient", "").partition("@")[0]) for each in lines)
    return {(sender, name) if name else None for sender, name in people}


def _record(key: str, record: dict[str, Any]) -> Iterator[Event]:
    effects = ", ".join(f"{each['sender']} {each['group']} {each['effect']}" for each in record["requests"])
    word = word_of(Outcome(record["outcome"]), record["evidence"])
    told_as = f"{word} from {record['source']}: {record['reason']} -> {effects or 'nothing'}"
    yield Event(record["received_ms"], "ledger", f"{told_as} (message {key[:12]})")
    for each in record.get("resolutions", []):
        yield Event(each["at_ms"], "ledger", f"{each['action']} by {each['actor']}: {each['reason']}")


def _of_job(installation: Installation, job_id: str) -> Iterator[Event]:
    yield from _journal(installation, lambda line: job_id in str(line.get("job", "")).split())
    with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
        (job,) = UnsubdJob.fetch_many([job_id], connection=installation.redis, serializer=JSONSerializer)
        if job is None:
            return
        for at, what in ((job.enqueued_at, "queued"), (job.started_at, "begun"), (job.ended_at, "ended")):
            if at:
                yield Event(
                    int(at.replace(tzinfo=at.tzinfo or UTC).timestamp() * 1000), "job", f"{what}: {job.description}"
                )
        if job.latest_result() and (why := why_failed(job)):
            yield Event(int((job.ended_at or job.created_at).timestamp() * 1000), "job", f"failed: {why}")
        keys = [str(each.get("key", ""))[:12] for each in _batch(job) if isinstance(each, dict)]
    yield from _journal(installation, lambda line: line.get("message") in keys)


def _batch(job: Job) -> list[Any]:
    return job.batch() or [] if isinstance(job, UnsubdJob) else []


def _journal(installation: Installation, holds: Callable[[dict[str, Any]], bool]) -> Iterator[Event]:
    """The lines that *holds* means, and those that tell of their batches: acknowledged, halved, waiting, moved."""
    with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
        lines = Journal.lines(installation.redis, _LINES)
    jobs = {str(line["job"]) for line in lines if line.get("job") and holds(line)}
    batches = [line for line in lines if "message" not in line and jobs & set(str(line.get("job", "")).split())]
    for line in lines:
        if holds(line) or line in batches or any(_moves(line, each) for each in batches):
            facts = " ".join(f"{name}={value}" for name, value in line.items() if name not in ("at_ms", "event"))
            yield Event(line["at_ms"], "journal", f"{line['event']} {facts}")


def _moves(line: dict[str, Any], taken: dict[str, Any]) -> bool:
    """Say whether *line* tells of mail that *taken*, a batch of the same mailbox, acknowledged before: by its UIDs."""
    if line["event"] != "moved" or taken["event"] != "acknowledged" or line["source"] != taken["source"]:
        return False
    (first, last), (low, high) = (map(int, str(each["uids"]).split(":")) for each in (line, taken))
    return first <= high and low <= last and bool(line["at_ms"] >= taken["at_ms"])


def _ms(at: str) -> int:
    return int(datetime.fromisoformat(at.replace("Z", "+00:00")).timestamp() * 1000)
