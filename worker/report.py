"""The compliance report of a month: counts that add up, how fast, the worst cases, and what a person decided.

Counts come from the ledger and its files, which have one record per message, and are read one at a time; ages come from the
clock. A month is that of the events, in UTC.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from handlers.errors import Rejected
from handlers.request import Outcome
from worker import clock, sent
from worker.ages import Figures, spell
from worker.clock import OTHER, Late
from worker.counted import APART, KINDS, kind_of, record_apart, word_of
from worker.installation import Installation
from worker.quarantine.shelf import Selection
from worker.quarantine.shown import printable
from worker.store.archive import Archive
from worker.store.ledger import Record, one_of

LIMIT_S = 48 * 3600.0
_MONTH = re.compile(r"(19|2\d)\d\d-(0[1-9]|1[0-2])", re.ASCII)
_MOST_ROWS = 200  # of a table; the rest is summed up
_MOST_CASES = 100
_ENTRIES = 1000  # read at a time


@dataclass(slots=True)
class Report:
    """One month.

    Shape:   sender: "" = all. kinds: by each of `counted.KINDS`; they add up to `received`. outcomes, effects, sources:
             messages, requests and messages by word. apart: what no recipient sent, by `counted.APART`; received leaves
             it out. resolved: how quarantine ended, by action, complaints and failed requests among it; `waiting`: is
             still there, as `quarantine list` shows it; `gone`: nobody settled it in 90 days, or it gave way.
             ages: of all; by: of each source and sender. mailed_after: how many; cases: the kept ones of them.
    """

    month: str
    sender: str
    made_at: str
    ended: bool
    received: int = 0
    kinds: dict[str, int] = field(default_factory=dict)
    outcomes: dict[str, int] = field(default_factory=dict)
    effects: dict[str, int] = field(default_factory=dict)
    sources: dict[str, int] = field(default_factory=dict)
    apart: dict[str, int] = field(default_factory=dict)
    resolved: dict[str, int] = field(default_factory=dict)
    ages: Figures = field(default_factory=Figures)
    by: dict[tuple[str, str], Figures] = field(default_factory=dict)
    worst: list[Late] = field(default_factory=list)
    mailed_after: int = 0
    cases: list[sent.Kept] = field(default_factory=list)

    @property
    def in_time(self) -> bool:
        """Say whether every measured request took effect within 48 hours."""
        return self.ages.max_s <= LIMIT_S


def this_month() -> str:
    """Return the month of now, in UTC."""
    return datetime.now(UTC).strftime("%Y-%m")


def report(installation: Installation, month: str, sender: str = "") -> Report:
    """Return the report of *month*, "2026-11".

    Errors:  Rejected        not a month, or a damaged archive.    permanent
             UnknownAccount  no such sender.    permanent
             ConfigError     the archive's folder cannot be used.
             Unavailable     a server is away.    temporary
    Units:   reads every record of the month, and of an old month every file: about 100,000 a second of Redis, less of files.
    """
    if not _MONTH.fullmatch(month):
        raise Rejected(f"month {month[:20]!r}: expected a year and a month, e.g. {this_month()}")
    if sender:
        installation.accounts.sender(sender)
    now = datetime.now(UTC)
    found = Report(month, sender, now.isoformat(timespec="seconds").replace("+00:00", "Z"), month < this_month())
    _count(found, _records(installation, month, sender), _kept(installation))
    _measure(found, clock.month(installation.redis, month))
    _accuse(found, installation)
    return found


def _count(found: Report, records: Iterator[tuple[str, Record]], kept: Counter[str]) -> None:
    kinds, outcomes, effects, sources, resolved, others = (Counter[str]() for _ in range(6))
    for key, record in records:
        if waiting := kept[key]:
            resolved["waiting"] += waiting
        if other := record_apart(record):
            others[other] += 1
            continue
        found.received += 1
        outcome, evidence = Outcome(record["outcome"]), record["evidence"]
        kind = kind_of(outcome, evidence)
        kinds[kind] += 1
        outcomes[word_of(outcome, evidence)] += 1
        sources[record["source"]] += 1
        effects.update(
            each["effect"] for each in _results(record) if not found.sender or each["sender"] == found.sender
        )
        made = record.get("resolutions", [])
        if not waiting and (made or kind == "quarantined"):
            resolved[made[-1]["action"] if made else "gone"] += 1
    found.kinds = {kind: kinds[kind] for kind in KINDS}
    found.apart = {name: others[name] for name in APART if others[name]}
    found.outcomes, found.effects, found.resolved = (dict(each.most_common()) for each in (outcomes, effects, resolved))
    found.sources = _most(sources)


def _kept(installation: Installation) -> Counter[str]:
    """How many entries of the quarantine each message has: one, or one for each of its requests that failed."""
    quarantine, kept = installation.quarantine, Counter[str]()
    ids = quarantine.ids(Selection())
    for start in range(0, len(ids), _ENTRIES):
        kept.update(each.key for each in quarantine.entries(ids[start : start + _ENTRIES]).values())
    return kept


def _most(counts: Counter[str]) -> dict[str, int]:
    kept = dict(counts.most_common(_MOST_ROWS))
    return kept | ({OTHER: rest} if (rest := counts.total() - sum(kept.values())) else {})


def _measure(found: Report, measured: clock.Month) -> None:
    of_sender = {names: each for names, each in measured.by.items() if found.sender in ("", names[1])}
    found.ages = measured.total if not found.sender else _together(of_sender)
    found.by = dict(sorted(of_sender.items(), key=lambda row: -row[1].count)[:_MOST_ROWS])
    found.worst = [each for each in measured.worst if found.sender in ("", each.sender)]


def _together(parts: dict[tuple[str, str], Figures]) -> Figures:
    """Of several sources the worst percentile: never too low."""
    each = list(parts.values())
    if not each:
        return Figures()
    p50_s, p99_s, max_s = (max(getattr(one, name) for one in each) for name in ("p50_s", "p99_s", "max_s"))
    return Figures(sum(one.count for one in each), p50_s, p99_s, max_s)


def _accuse(found: Report, installation: Installation) -> None:
    counts = {
        sender: count for (sender, month), count in sent.counts(installation.redis).items() if month == found.month
    }
    senders = [found.sender] if found.sender else sorted(counts)[:_MOST_ROWS]
    found.mailed_after = counts.get(found.sender, 0) if found.sender else sum(counts.values())
    since = datetime.strptime(found.month, "%Y-%m").replace(tzinfo=UTC)
    until = since.replace(year=since.year + since.month // 12, month=since.month % 12 + 1)
    for sender in senders:
        kept = sent.violations(
            installation.redis, sender, int(since.timestamp() * 1000), until.timestamp() * 1000 - 1
        )  # fmt: skip
        found.cases += kept[: _MOST_CASES - len(found.cases)]


def _results(record: Record) -> Iterator[dict[str, Any]]:
    yield from record["requests"]
    for made in record.get("resolutions", []):
        yield from made["requests"]


def _concerns(record: Record, sender: str) -> bool:
    return not sender or any(each["sender"] == sender for each in _results(record))


def _records(installation: Installation, month: str, sender: str) -> Iterator[tuple[str, Record]]:
    """Every (message key, record) of the month, once: what is in a file may have a later copy in the store."""
    found = _once(installation, month) if _is_recent(installation, month) else _merged(installation, month)
    return ((key, record) for key, record in found if _concerns(record, sender))


def _is_recent(installation: Installation, month: str) -> bool:
    """Whether no record of the month can be in a file yet."""
    return month >= clock.month_of((datetime.now(UTC).timestamp() - installation.settings.ledger_days * 86400) * 1000)


def _stored(installation: Installation, month: str) -> Iterator[tuple[str, bytes]]:
    """(message key, JSON) of the month's records in the store; what changes while it is read may come twice: left out."""
    home, repeated, homes, seen = "", False, set[str](), set[str]()
    for each, key, content in installation.ledger.month(month):
        if each != home:
            home, repeated, seen = each, each in homes, set()
            homes.add(each)
        if not repeated and key not in seen and not content.startswith(b'{"see"'):
            seen.add(key)
            yield key, content


def _once(installation: Installation, month: str) -> Iterator[tuple[str, Record]]:
    return ((key, json.loads(content)) for key, content in _stored(installation, month))


def _merged(installation: Installation, month: str) -> Iterator[tuple[str, Record]]:
    """A month that went to the files, with what came to the store after that; the store's digests alone are remembered."""
    later = {_digest(key) for key, _ in _stored(installation, month)}
    first: dict[str, Record] = {}
    for line in Archive(installation.settings.archive).lines():
        if clock.month_of(line.record["received_ms"]) != month:
            continue
        if _digest(line.key) in later:
            first[line.key] = line.record
        else:
            yield line.key, line.record
    for key, content in _stored(installation, month):
        record = json.loads(content)
        yield key, one_of([first[key], record]) if key in first else record


def _digest(key: str) -> int:
    return int.from_bytes(sha256(key.encode()).digest()[:8])


# --- what is shown


def as_json(found: Report) -> dict[str, Any]:
    """Return JSON values: the stable shape of `unsubd report --json`."""
    ages = {name: getattr(found.ages, name) for name in Figures.__slots__}
    return {
        "month": found.month, "sender": found.sender, "made_at": found.made_at, "ended": found.ended,
        "received": found.received, **found.kinds, "outcomes": found.outcomes, "effects": found.effects,
        "sources": found.sources, "apart": found.apart, "quarantine": found.resolved, "ages": ages, "within_48_h": found.in_time,
        "by": [
            {"source": source, "sender": sender, **{name: getattr(each, name) for name in Figures.__slots__}}
            for (source, sender), each in found.by.items()
        ],
        "worst": [{name: getattr(each, name) for name in Late.__slots__} for each in found.worst],
        "mailed_after": found.mailed_after,
        "cases": [
            {"sender": each.sender, "group": each.group, "recipient": each.recipient, "at": each.at.isoformat()}
            for each in found.cases
        ],
    }  # fmt: skip


def as_html(found: Report) -> str:
    """Return one page that needs nothing else: to look at, to print, to keep."""
    pages = Environment(loader=PackageLoader("worker.web"), autoescape=True, undefined=StrictUndefined)
    pages.filters |= {"spell": spell, "printable": printable}
    return pages.get_template("report.html").render(report=found, kinds=KINDS, sentence=sentence(found))


def sentence(found: Report) -> str:
    """Return what the month comes to, in one sentence."""
    if not found.received:
        return "Nothing was received in this month."
    if not found.ages.count:
        return f"{found.received:,} messages were received; how fast they took effect was not measured."
    most = f"{found.ages.count:,} requests took effect, 99 of 100 within {spell(found.ages.p99_s)}"
    if found.in_time:
        return f"{most}, every one within 48 hours (at most {spell(found.ages.max_s)})."
    return f"{most}; the slowest took {spell(found.ages.max_s)}, which is more than 48 hours."


def as_text(found: Report) -> list[str]:
    """Return the lines for a terminal."""
    whose = f", sender {found.sender}" if found.sender else ""
    lines = [f"Compliance report for {found.month}{whose}, made {found.made_at}", sentence(found)]
    if not found.ended:
        lines.append("The month is not over: these are the figures so far.")
    if not found.received:
        return [printable(each) for each in lines]
    lines += ["", f"received      {found.received:>10,}"]
    lines += [f"  {kind:<12}{found.kinds[kind]:>10,}" for kind in KINDS]
    for title, counts in (
        ("what became of them", found.outcomes),
        ("requests by effect", found.effects),
        ("where they came from", found.sources),
        ("how quarantine ended", found.resolved),
        ("apart, of no recipient: by hand or API, resubscribes, tests", found.apart),
    ):
        lines += ["", title, *(f"  {name:<24}{count:>10,}" for name, count in counts.items())] if counts else []
    lines += ["", "from event to effect       requests        p50        p99        max", _ages("all", found.ages)]
    lines += [_ages(f"{source} {sender}", each) for (source, sender), each in found.by.items()]
    if found.worst:
        lines += ["", "the slowest"]
        lines += [
            f"  {spell(each.age_s):<12}message {each.message}  {each.source} {each.sender}: {each.why}"
            for each in found.worst
        ]
    lines += ["", f"mailed after their suppression took effect: {found.mailed_after:,}"]
    lines += [
        f"  {each.at:%Y-%m-%d %H:%M}  {each.sender} group {each.group}  recipient {each.recipient}"
        for each in found.cases
    ]
    return [printable(each) for each in lines]


def _ages(name: str, each: Figures) -> str:
    return f"  {name:<24} {each.count:>8,} {spell(each.p50_s):>10} {spell(each.p99_s):>10} {spell(each.max_s):>10}"
