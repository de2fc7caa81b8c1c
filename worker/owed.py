"""Is anything owed to anyone? One sentence and one level, and what else ops should look at.

The age is that of the oldest message not yet decided or applied, wherever it waits: at a source, in the queue, or in
quarantine for a person. What a source has that we cannot see counts from the last time it had nothing left.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from handlers.errors import StoreUnavailable
from worker import habits, sent
from worker.ages import spell
from worker.anomalies import described
from worker.batch import describe
from worker.clock import month_of
from worker.crew import REQUESTS, is_alive
from worker.endpoints import UNPROVED_POSTS
from worker.installation import Installation

LEVELS = ("good", "late", "alarm", "page", "red")
LATE_S, ALARM_S, PAGE_S, RED_S = 60.0, 3600.0, 12 * 3600.0, 36 * 3600.0
_NEAR_LIMIT = 45  # Google takes 60 messages a minute for one mailbox, and sends the rest away for a while
_RENEW_S = 3 * 86400.0
_AWAY = "start that server again, or mend the URL: until then requests wait in the queue, and no check is answered"
_TROUBLED = ("refused", "silent", "waiting")


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something to look at. Shape: level: one of LEVELS. link: a path of the console."""

    level: str
    what: str
    remedy: str
    link: str


@dataclass(frozen=True, slots=True)
class Owed:
    """Shape: level: the worst of the age and the alarms. oldest_s: 0.0 when nothing waits. alarms: worst first."""

    level: str
    text: str
    oldest_s: float
    alarms: list[Alarm]


@dataclass(frozen=True, slots=True)
class _Wait:
    """Something waits: how many (0 = nobody can tell), since when, and why."""

    age_s: float
    count: int
    why: str


def level_of(age_s: float) -> str:
    """Return the level of an age.

    Example:
        >>> [level_of(hours * 3600) for hours in (0, 0.5, 1, 12, 36)]
        ['good', 'late', 'alarm', 'page', 'red']
    """
    return LEVELS[sum(age_s >= border for border in (LATE_S, ALARM_S, PAGE_S, RED_S))]


def owed(installation: Installation, state: dict[str, Any]) -> Owed:
    """Return what is owed, by the queue, workers, sources and quarantine of `worker.status.status`, which has it too.

    Errors:  Unavailable  Redis is away.    temporary
    """
    now_ms = time.time_ns() // 1_000_000
    alarms, waits = list(_alarms(installation, state, now_ms)), list(_waits(installation, state, now_ms))
    try:
        waits += _parked(installation, now_ms)
    except StoreUnavailable as error:
        alarms.append(Alarm("alarm", str(error), _AWAY, "/ops/queue"))
    alarms.sort(key=lambda each: -LEVELS.index(each.level))
    oldest = max(waits, key=lambda each: each.age_s, default=_Wait(0.0, 0, ""))
    level = max([level_of(oldest.age_s), *(each.level for each in alarms)], key=LEVELS.index)
    return Owed(level, _sentence(oldest, alarms), round(oldest.age_s, 1), alarms)


def _sentence(oldest: _Wait, alarms: list[Alarm]) -> str:
    if oldest.age_s >= LATE_S:
        whose = "Requests may" if not oldest.count else f"{oldest.count:,} request{'s' if oldest.count > 1 else ''}"
        verb = " wait" if oldest.count != 1 else " waits"
        return f"{whose}{verb} since {spell(oldest.age_s)}: {oldest.why}."
    if alarms and alarms[0].level != "late":
        return f"{alarms[0].what}."
    return f"Nothing is waiting longer than {max(1, -int(-oldest.age_s // 1))} s."


def _waits(installation: Installation, state: dict[str, Any], now_ms: int) -> Iterator[_Wait]:
    queue = state["queue"]
    if oldest_ms := installation.queue.oldest_ms():
        count = sum(queue["messages"][each] for each in ("queued", "started", "scheduled"))
        why = (
            "no worker is alive"
            if not _working(state)
            else "they are tried again"
            if queue["scheduled"]
            else "in the queue"
        )
        yield _Wait(max(0.0, (now_ms - oldest_ms) / 1000), count, why)
    count, oldest_ms = installation.quarantine.needing()
    if count:
        yield _Wait(max(0.0, (now_ms - oldest_ms) / 1000), count, "in quarantine, for a person")
    for source in state["sources"]:
        if since_ms := _undecided_since_ms(source):
            yield _Wait(max(0.0, (now_ms - since_ms) / 1000), source.get("unread", 0), _trouble(source))


def _parked(installation: Installation, now_ms: int) -> list[_Wait]:
    """What waits in the store. Errors: StoreUnavailable  it is away.    temporary"""
    count, oldest_ms = installation.parked.waiting()
    why = "parked while the queue's Redis was away"
    return [_Wait(max(0.0, (now_ms - oldest_ms) / 1000), count, why)] if count else []


def _undecided_since_ms(source: dict[str, Any]) -> int:
    """Since when a source may hold mail that we have not decided; 0 = it has none, or nobody can tell."""
    if source["state"] in _TROUBLED:
        return int(source.get("clear_ms", 0))
    return int(source.get("oldest_ms", 0)) if source["state"] == "working" else 0


def _trouble(source: dict[str, Any]) -> str:
    where = f" ({source['where']})" if source.get("where") else ""
    return f"{source['name']}{where} {_state_of(source)}"


def _state_of(source: dict[str, Any]) -> str:
    if source["state"] == "working":
        return "is being read"
    if source["state"] == "silent":
        return "is silent"
    return f"is {source['state']}" + (f": {source['detail']}" if source["detail"] else "")


def _working(state: dict[str, Any]) -> bool:
    return any(REQUESTS in each["queues"] and is_alive(each) for each in state["workers"])


def _alarms(installation: Installation, state: dict[str, Any], now_ms: int) -> Iterator[Alarm]:
    yield from _of_sources(state["sources"], now_ms)
    yield from _of_habits(installation, state["sources"], now_ms)
    yield from _of_workers(state)
    for endpoint, count in habits.unproved_posts(installation.redis).items():
        if count >= UNPROVED_POSTS:
            what = f"{count} posts to {endpoint} in two hours do not prove themselves"
            yield Alarm("alarm", what, "compare the secret there with ours: unsubd hook list", "/ops/sources")
    for anomaly in installation.intake.anomalies.open():
        remedy = f"look, then undo or dismiss it: unsubd anomaly undo {anomaly.id}"
        yield Alarm("alarm", described(anomaly), remedy, "/ops/anomalies")
    yield from _of_sent(installation, now_ms)
    yield from _of_forwards(state["forwards"])


def _of_sources(sources: list[dict[str, Any]], now_ms: int) -> Iterator[Alarm]:
    for each in sources:
        if each["state"] in _TROUBLED:
            age_s = max(
                each["age_s"] if each["state"] == "silent" else 0.0, (now_ms - _undecided_since_ms(each)) / 1000
            )
            least = "late" if each["state"] == "waiting" else "alarm"
            known = level_of(age_s) if _undecided_since_ms(each) else least
            yield Alarm(max(least, known, key=LEVELS.index), _trouble(each), _remedy(each["state"]), "/ops/sources")
        if each.get("unread"):
            what = f"{each['unread']} messages of {each['name']} cannot be fetched"
            yield Alarm(
                "alarm", what, "look at them with another mail program, and move them out of the way", "/ops/sources"
            )
        if each.get("held"):
            what = f"{each['held']:,} older messages of {each['name']} are held"
            yield Alarm("late", what, "release them with UNSUBD_IMAP_BACKLOG=all, or a date", "/ops/sources")
        if 0 < each.get("login_ends_ms", 0) < now_ms + _RENEW_S * 1000:
            left = spell(max(0.0, (each["login_ends_ms"] - now_ms) / 1000))
            yield Alarm(
                "alarm",
                f"The login of {each['name']} ends in {left}",
                "log in again: unsubd mailbox login",
                "/ops/sources",
            )


def _remedy(state: str) -> str:
    if state == "refused":
        return "mend what it says; it is tried again every minute. See: unsubd doctor"
    if state == "silent":
        return "start unsubd run (or unsubd poll): nobody looks at this source"
    return "mend what it says; it is tried again by itself. See: unsubd doctor"


def _of_habits(installation: Installation, sources: list[dict[str, Any]], now_ms: int) -> Iterator[Alarm]:
    listening = {each["name"] for each in sources if each["state"] not in _TROUBLED}
    known = habits.habits(installation.redis)
    for name in sorted(listening & known.keys()):
        if silent_s := known[name].silent_s(now_ms):
            what = f"{name} brought nothing for {spell(silent_s)}, usually something every {spell(known[name].usual_s)}"
            yield Alarm(
                "alarm",
                what,
                "send it a mail: unsubd doctor; is the address still in your mails' header?",
                "/ops/sources",
            )
    for name, count in habits.busiest_minutes(installation.redis).items():
        if count >= _NEAR_LIMIT and name.startswith("imap:"):
            what = f"{count} messages came to {name} within a minute; Google sends mail away above 60"
            yield Alarm("alarm", what, "send campaigns slower, or receive by a webhook or your own MX", "/ops/sources")


def _of_workers(state: dict[str, Any]) -> Iterator[Alarm]:
    queue = state["queue"]
    if queue["failed"]:
        held = describe(queue["requests"]["failed"], queue["messages"]["failed"])
        yield Alarm("alarm", f"{held} ran out of tries", "see why, then: unsubd quarantine replay", "/ops/queue")
    for each in state["workers"]:
        if each["faults"]:
            what = f"Worker {each['name']} {each['faults'][0]}"
            yield Alarm("alarm", what, "stop it, and start unsubd run or unsubd work instead", "/ops/queue")
        if not is_alive(each):
            what = f"Worker {each['name']} was killed or hangs: no heartbeat for {each['heartbeat_s']:.0f} s"
            yield Alarm(
                "late", what, "unsubd run starts another; one that hangs: kill it. See: unsubd doctor", "/ops/queue"
            )
    if not _working(state):
        yield Alarm("alarm", "No worker is alive", "start unsubd run, or unsubd work", "/ops/queue")


def _of_forwards(forwards: list[dict[str, Any]]) -> Iterator[Alarm]:
    for each in forwards:
        if each["level"] != "good":
            changes = f"{each['changes']:,} change{'s wait' if each['changes'] > 1 else ' waits'}"
            why = f": {each['why']}" if each["why"] else ""
            what = f"{changes} for {each['target']}, the oldest since {spell(each['age_s'])}{why}"
            waiting = "nothing if it shrinks; else see that a worker of the queue unsubd-events is alive"
            yield Alarm(each["level"], what, each["remedy"] or waiting, f"/ops/senders/{each['sender']}")


def _of_sent(installation: Installation, now_ms: int) -> Iterator[Alarm]:
    for (sender, month), count in sorted(sent.counts(installation.redis).items()):
        if month == month_of(now_ms):
            mails = "mail was" if count == 1 else "mails were"
            what = f"{count:,} {mails} sent this month to recipients of {sender} after their suppression took effect"
            yield Alarm(
                "alarm",
                what,
                f"ask {sender} to check before it sends; who: unsubd report --sender {sender}",
                "/ops/senders",
            )
