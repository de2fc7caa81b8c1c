"""The clock: how long every request took from its event to its effect, by hour and by month, in bounded space.

Ages lie in a histogram with four steps per doubling: a percentile is the upper end of its step, never too low and at most
19 % too high. Counted is what a recipient asked for (`counted.py`) and the ledger recorded for the first time, so a mail
that is read again counts once; a crash between ledger and clock leaves one batch out. What an operator decides of a
quarantined message counts as well, from the mail's own event time; a crash may count that twice. A hash that is full
counts the rest as `other`.

| key                       | type | holds                                                                       | lives    |
|---------------------------|------|-----------------------------------------------------------------------------|----------|
| `unsubd:clock:h:HOUR`     | HASH | messages by outcome, requests by step of age; HOUR of the effect, since 1970 | 45 days  |
| `unsubd:clock:h:HOUR:by`  | HASH | the requests' steps of age by source and sender                             | 45 days  |
| `unsubd:clock:m:MONTH`    | HASH | as unsubd:clock:h:HOUR, by the MONTH of the event                           | 400 days |
| `unsubd:clock:m:MONTH:by` | HASH | the same by source and sender                                               | 400 days |
| `unsubd:clock:m:MONTH:worst` | ZSET | the 20 oldest requests (message digest, source, sender, hops) by age, ms | 400 days |
| `unsubd:clock:totals:KIND` | HASH | what /metrics shows, by KIND: age, hop, source, sender, reason, forward    | for good |
"""

import time
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from heapq import nlargest
from importlib.resources import files
from typing import Any, cast

import redis

from handlers.errors import QueueUnavailable
from handlers.request import Action, DecidedMessage
from worker.ages import Figures, figures_of, spell, step_of
from worker.counted import KINDS, apart, kind_of, word_of
from worker.habits import Habits
from worker.journal import Journal
from worker.points import point
from worker.server import away_as

LEVELS_S = (1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 12 * 3600, 36 * 3600, 48 * 3600)  # what /metrics counts up to
OTHER = "other"
FORWARD = "forward"  # a kind of total: from the event until a target's provider knows
OPERATOR = "operator"  # a source: somebody's own entry, or what was made of a quarantined message
_HOUR, _MONTH, _TOTALS = "unsubd:clock:h:", "unsubd:clock:m:", "unsubd:clock:totals:"
_HOUR_LIFE_S, _MONTH_LIFE_S = 45 * 86400, 400 * 86400
_FEW, _MANY = 500, 5000  # most fields of a hash
_WORST = 20
_NAME_LENGTH = 60
_DAY_MS = 86_400_000
Results = list[dict[str, Any]]
Entry = tuple[DecidedMessage, Results]
Alike = tuple[
    int, str, str, str, int, tuple[int, int, int]
]  # day, source, sender, effect, step, levels of age and hops
Facts = tuple[int, str, str, str, str]  # day, source, kind, word, reason
Sums = tuple[int, int, int, int]  # requests, ms from event to effect, ms of that in the queue, greatest age


@dataclass(frozen=True, slots=True)
class Hour:
    """One hour of effects. Shape: messages by outcome; ages of the requests. Units: start_s: seconds since 1970."""

    start_s: int
    honoured: int
    complaint: int
    ignored: int
    quarantined: int
    p50_s: float
    p99_s: float
    max_s: float


@dataclass(frozen=True, slots=True)
class Late:
    """One of the oldest requests of a month. Shape: message: its digest, as in the journal. why: where it waited."""

    message: str
    source: str
    sender: str
    age_s: float
    why: str


@dataclass(frozen=True, slots=True)
class Month:
    """The clock of the requests whose event was in one month."""

    total: Figures
    by: dict[tuple[str, str], Figures]
    worst: list[Late]


class _Sheet:
    """What one batch adds to one hash."""

    def __init__(self, life_s: int, most: int) -> None:
        self._head = [life_s, most]
        self._rows: Counter[tuple[str, str]] = Counter()
        self._greatest: dict[tuple[str, str], int] = {}

    def add(self, field: str, other: str, amount: int) -> None:
        self._rows[field, other] += amount

    def age(self, prefix: str, other: str, step: int, count: int, most_ms: int) -> None:
        self.add(f"{prefix}|{step}", f"{other}|{step}", count)
        names = (f"^{prefix}", f"^{other}")
        self._greatest[names] = max(most_ms, self._greatest.get(names, 0))

    def level(self, name: str, level: int, count: int, sum_ms: int) -> None:
        self.add(f"{name}|{level}", f"{OTHER}|{level}", count)
        self.add(f"{name}|sum", f"{OTHER}|sum", sum_ms)

    def arguments(self) -> list[Any]:
        rows = [*self._rows.items(), *self._greatest.items()]
        return [*self._head, len(rows), *(each for (field, other), amount in rows for each in (field, other, amount))]


class Clock:
    """Writes the clock of one process."""

    def __init__(self, client: redis.Redis, journal: Journal) -> None:
        self._redis = client
        self._journal = journal
        self._habits = Habits(client)
        self._script = client.register_script(files("worker").joinpath("clock.lua").read_text())

    def recorded(self, entries: Sequence[Entry], fresh: Sequence[bool], *, queued_ms: int | None = None) -> None:
        """Write, in one go, what was just recorded.

        Shape:   fresh: whether the ledger had no record of the message. queued_ms: when they came into the queue, None
                 where they never were in it.
        Errors:  none: the work is done, and trouble here must neither undo nor repeat it; the journal tells of it.
        """
        now_ms = time.time_ns() // 1_000_000
        try:
            counted = [(entry, new) for entry, new in zip(entries, fresh, strict=True) if new or _resolved(entry[0])]
            if counted:
                self._write(counted, now_ms, queued_ms)
        except Exception as error:  # noqa: BLE001  as said: nothing of this may reach the job
            self._journal.failed("clock", f"{type(error).__name__}: not counted", messages=len(entries))

    def _write(self, counted: Sequence[tuple[Entry, bool]], now_ms: int, queued_ms: int | None) -> None:
        requests = _Requests(now_ms, queued_ms)
        arrived = [message for (message, _), new in counted if new]
        for (message, results), _ in counted:
            requests.add(message, [] if apart(message) else results)
        pipeline = self._redis.pipeline(transaction=False)
        sheets = _Sheets(now_ms)
        sheets.add_messages(Counter(map(_facts, arrived)))
        for names, sums in requests.sums.items():
            sheets.add_requests(names, sums, queued=queued_ms is not None)
        self._script(keys=list(sheets.by_key), args=sheets.arguments(), client=pipeline)
        requests.write_worst(pipeline)
        self._habits.arrived(
            pipeline,
            [(_name(each.source), each.received_ms) for each in arrived if ":" in each.source and not apart(each)],
            now_ms,
        )
        with point("store.clock"):
            pipeline.execute()

    def forwarded(self, target: str, events_ms: Sequence[int]) -> None:
        """Count changes that a target's provider knows from now on, by the times of their events. Errors: as `recorded`."""
        now_ms = time.time_ns() // 1_000_000
        try:
            sheets = _Sheets(now_ms)
            for at_ms in events_ms:
                sheets.add_forwarded(target, max(0, now_ms - at_ms))
            with point("forward.clock"):
                self._script(keys=list(sheets.by_key), args=sheets.arguments())
        except Exception as error:  # noqa: BLE001  as said: nothing of this may reach the job
            self._journal.failed("clock", f"{type(error).__name__}: not counted", changes=len(events_ms))


class _Requests:
    """The requests of a batch, those that are alike together: what is written costs a batch, not a message."""

    def __init__(self, now_ms: int, queued_ms: int | None) -> None:
        self._now_ms = now_ms
        self._queue_ms = max(0, now_ms - queued_ms) if queued_ms is not None else 0
        self.sums: dict[Alike, Sums] = {}
        self._ages: list[tuple[int, DecidedMessage, str, int]] = []

    def add(self, message: DecidedMessage, results: Results) -> None:
        age_ms = max(0, self._now_ms - message.received_ms)
        queue_ms = min(age_ms, self._queue_ms)
        levels = _level(age_ms), _level(age_ms - queue_ms), _level(queue_ms)
        when, step = message.received_ms // _DAY_MS, step_of(age_ms)
        for result in results:
            if result.get("action") == Action.RESUBSCRIBE.value:
                continue  # of a form that stops one thing and starts another: the clock is of what must stop
            names = when, message.source, result["sender"], result["effect"], step, levels
            count, age_sum, queue_sum, most = self.sums.get(names, (0, 0, 0, 0))
            self.sums[names] = count + 1, age_sum + age_ms, queue_sum + queue_ms, max(most, age_ms)
            self._ages.append((age_ms, message, result["sender"], queue_ms))

    def write_worst(self, pipeline: Any) -> None:
        """Put the oldest of each month among the worst, by commands of a caller's pipeline."""
        months: dict[str, dict[str, int]] = defaultdict(dict)
        for age_ms, message, sender, queue_ms in nlargest(_WORST, self._ages, key=lambda each: each[0]):
            names = f"{message.key[:12]}|{_name(message.source)}|{_name(sender)}|{age_ms - queue_ms}|{queue_ms}"
            months[month_of(message.received_ms)][names] = age_ms
        for month, ages in months.items():
            key = f"{_MONTH}{month}:worst"
            pipeline.zadd(key, ages)
            pipeline.zremrangebyrank(key, 0, -_WORST - 1)
            pipeline.expire(key, _MONTH_LIFE_S)


class _Sheets:
    """What a batch adds to each hash."""

    def __init__(self, now_ms: int) -> None:
        self._hour = f"{_HOUR}{now_ms // 3_600_000}"
        self.by_key: dict[str, _Sheet] = {}

    def _sheet(self, key: str, life_s: int, most: int) -> _Sheet:
        if key not in self.by_key:
            self.by_key[key] = _Sheet(life_s, most)
        return self.by_key[key]

    def _total(self, kind: str) -> _Sheet:
        return self._sheet(_TOTALS + kind, 0, _FEW if kind == "hop" else _MANY)

    def _both(self, day: int, tail: str, most: int) -> tuple[_Sheet, _Sheet]:
        month = month_of(day * _DAY_MS)
        return (
            self._sheet(self._hour + tail, _HOUR_LIFE_S, most),
            self._sheet(f"{_MONTH}{month}{tail}", _MONTH_LIFE_S, most),
        )

    def add_messages(self, counts: Mapping[Facts, int]) -> None:
        for (day, source, kind, word, reason), count in counts.items():
            for sheet in self._both(day, "", _FEW) if kind else ():
                sheet.add(f"o|{kind}", f"o|{OTHER}", count)
            self._total("source").add(f"{_name(source)}|{word}", f"{OTHER}|{word}", count)
            self._total("reason").add(f"{word}|{_name(reason)}", f"{word}|{OTHER}", count)

    def add_requests(self, names: Alike, sums: Sums, *, queued: bool) -> None:
        day, source, sender, effect, step, (age_level, arrival_level, queue_level) = names
        count, age_ms, queue_ms, most_ms = sums
        source, sender = _name(source), _name(sender)
        for sheet in self._both(day, "", _FEW):
            sheet.age("a", "a", step, count, most_ms)
        for sheet in self._both(day, ":by", _MANY):
            sheet.age(f"a|{source}|{sender}", f"a|{source}|{OTHER}", step, count, most_ms)
        self._total("sender").add(f"{sender}|{effect}", f"{OTHER}|{effect}", count)
        self._total("age").level(source, age_level, count, age_ms)
        if queued:
            self._total("hop").level("arrival", arrival_level, count, age_ms - queue_ms)
            self._total("hop").level("queue", queue_level, count, queue_ms)

    def add_forwarded(self, target: str, age_ms: int) -> None:
        self._total(FORWARD).level(_name(target), _level(age_ms), 1, age_ms)

    def arguments(self) -> list[Any]:
        return [each for sheet in self.by_key.values() for each in sheet.arguments()]


def _facts(message: DecidedMessage) -> Facts:
    """What is counted of a message; one that no recipient sent has no kind, and its own word."""
    day, other = message.received_ms // _DAY_MS, apart(message)
    kind = "" if other else kind_of(message.outcome, message.evidence)
    return day, message.source, kind, other or word_of(message.outcome, message.evidence), message.reason


def _level(length_ms: int) -> int:
    return bisect_left(LEVELS_S, length_ms / 1000)


def _resolved(message: DecidedMessage) -> bool:
    return message.source == OPERATOR


@lru_cache(1024)
def _name(text: str) -> str:
    """A name as part of a field: whoever configured it may have used our separator."""
    return text[:_NAME_LENGTH].replace("|", "/").encode("utf-8", "replace").decode() or "-"


def _hour_key(hour: int) -> str:
    return f"{_HOUR}{hour}"


def month_of(at_ms: float) -> str:
    """Return the month of a time, as the ledger names it. Example: month_of(0) is "1970-01"."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m")


# --- what is read


def figures(client: redis.Redis, since_ms: int) -> dict[tuple[str, str], Figures]:
    """Return by (source, sender) the ages of what took effect since the hour of *since_ms*, 45 days back at most.

    Errors:  QueueUnavailable  Redis is away.    temporary
    """
    return _by(_hashes(client, [f"{key}:by" for key in _hours_since(since_ms)]))


def total(client: redis.Redis, since_ms: int) -> Figures:
    """Return the ages of all that took effect since the hour of *since_ms*. Errors: as `figures`."""
    steps, greatest, _ = _whole(_hashes(client, _hours_since(since_ms)))
    return figures_of(steps, greatest)


def hours(client: redis.Redis, count: int = 48) -> list[Hour]:
    """Return the last *count* hours, oldest first, the present one last; one round trip. Errors: as `figures`."""
    last = int(time.time()) // 3600
    numbers = range(last - count + 1, last + 1)
    return [
        _hour(number, rows)
        for number, rows in zip(numbers, _hashes(client, [_hour_key(each) for each in numbers]), strict=True)
    ]


def month(client: redis.Redis, name: str) -> Month:
    """Return the clock of a month, "2026-11". Errors: as `figures`."""
    whole, parts = _hashes(client, [_MONTH + name, f"{_MONTH}{name}:by"])
    with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
        oldest = cast(Any, client.zrevrange(f"{_MONTH}{name}:worst", 0, _WORST - 1, withscores=True))
    steps, greatest, _ = _whole([whole])
    return Month(figures_of(steps, greatest), _by([parts]), [_late(member, age_ms) for member, age_ms in oldest])


def totals(client: redis.Redis, kind: str) -> dict[tuple[str, str], int]:
    """Return what was counted since the beginning, by the two names of its kind. Errors: as `figures`."""
    (rows,) = _hashes(client, [_TOTALS + kind])
    found = ((field.rpartition("|"), count) for field, count in rows.items())
    return {(first, second): count for (first, _, second), count in found}


def _hours_since(since_ms: int) -> list[str]:
    last = int(time.time()) // 3600
    first = max(since_ms // 3_600_000, last - _HOUR_LIFE_S // 3600)
    return [_hour_key(each) for each in range(first, last + 1)]


def _hashes(client: redis.Redis, keys: Sequence[str]) -> list[dict[str, int]]:
    with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
        pipeline = client.pipeline(transaction=False)
        for key in keys:
            pipeline.hgetall(key)
        replies = pipeline.execute()
    return [{field.decode(): int(count) for field, count in rows.items()} for rows in replies]


def _whole(hashes: Iterable[Mapping[str, int]]) -> tuple[Counter[int], int, Counter[str]]:
    """Steps, greatest age and messages by outcome of several hashes together."""
    steps, outcomes, greatest = Counter[int](), Counter[str](), 0
    for rows in hashes:
        greatest = max(greatest, rows.get("^a", 0))
        for field, count in rows.items():
            kind, _, rest = field.partition("|")
            if kind == "a":
                steps[int(rest)] += count
            elif kind == "o":
                outcomes[rest] += count
    return steps, greatest, outcomes


def _by(hashes: Iterable[Mapping[str, int]]) -> dict[tuple[str, str], Figures]:
    steps: dict[tuple[str, str], Counter[int]] = defaultdict(Counter)
    greatest: Counter[tuple[str, str]] = Counter()
    for rows in hashes:
        for field, count in rows.items():
            kind, source, sender, *step = field.split("|")
            if kind == "a":
                steps[source, sender][int(step[0])] += count
            else:
                greatest[source, sender] = max(greatest[source, sender], count)
    return {names: figures_of(each, greatest[names]) for names, each in sorted(steps.items())}


def _hour(number: int, rows: Mapping[str, int]) -> Hour:
    steps, greatest, outcomes = _whole([rows])
    ages = figures_of(steps, greatest)
    return Hour(
        number * 3600, **{kind: outcomes[kind] for kind in KINDS}, p50_s=ages.p50_s, p99_s=ages.p99_s, max_s=ages.max_s
    )


def _late(member: bytes, age_ms: float) -> Late:
    message, source, sender, arrival_ms, queue_ms = member.decode().split("|")
    before, queue_s = int(arrival_ms) / 1000, int(queue_ms) / 1000
    why = (
        "decided by a person"
        if source == OPERATOR
        else f"{spell(before)} until we had it, {spell(queue_s)} in the queue"
    )
    return Late(message, source, sender, age_ms / 1000, why)
