"""Who was mailed: the proof that a suppression was obeyed, or that it was not.

A sender reports what it sent; whoever was mailed more than an hour after a suppression took effect is a violation, by the
event time of the row as it is now: a report that comes after the same recipient pressed again finds only what was sent
after that, and a resubscribe in between clears. So report soon, and after each campaign.

| key                              | type | holds                                                                    | lives    |
|----------------------------------|------|--------------------------------------------------------------------------|----------|
| `unsubd:mailed-after:SENDER`     | ZSET | the last 1,000 violations (group, pseudonym, time) by time sent, ms | 400 days |
| `unsubd:mailed-after:months`     | HASH | SENDER and month -> violations                                           | for good |
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import redis

from handlers.address import one_address
from handlers.errors import QueueUnavailable, Rejected
from worker.check import Answer, Question
from worker.clock import month_of
from worker.installation import Installation
from worker.server import away_as
from worker.store.row import Row

GRACE_S = 3600
MOST = 10_000
_PREFIX, _MONTHS = "unsubd:mailed-after:", "unsubd:mailed-after:months"
_KEPT, _LIFE_S = 1000, 400 * 86400
_AHEAD = timedelta(hours=1)
# A violation that was pushed out counts no second time: it is older than all that are kept.
_KEEP = """
local added = 0
for at = 3, #ARGV, 3 do
  local full = redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[1])
  local oldest = full and redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2]
  local gone = oldest and tonumber(ARGV[at + 1]) < tonumber(oldest)
  if not gone and redis.call('ZADD', KEYS[1], 'NX', ARGV[at + 1], ARGV[at]) == 1 then
    redis.call('HINCRBY', KEYS[2], ARGV[at + 2], 1)
    added = added + 1
  end
  redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -tonumber(ARGV[1]) - 1)
end
redis.call('EXPIRE', KEYS[1], ARGV[2])
return added
"""


@dataclass(frozen=True, slots=True)
class Sent:
    """One mail that went out. Shape: recipient: any spelling. group: 0 = none. bypass: as for a check."""

    recipient: str
    group: int
    at: datetime
    bypass: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Violation:
    """A mail that should not have gone out. Shape: number: of the mail in the report, from 0. since: of the suppression."""

    number: int
    recipient: str
    group: int
    scope: str
    at: datetime
    since: datetime


@dataclass(frozen=True, slots=True)
class Kept:
    """A violation as it is kept. Shape: recipient: pseudonym, without the domain."""

    sender: str
    group: int
    recipient: str
    at: datetime


def reported(installation: Installation, sender: str, sent: Sequence[Sent]) -> list[Violation]:
    """Compare what *sender* sent with the store, keep the violations and return them.

    Errors:  UnknownAccount  no such sender or group.    permanent
             AddressError    not an address.    permanent
             Rejected        a bypass nobody knows, or a time to come.    permanent
             Unavailable     a server is away.    temporary
    Repeat:  safe: the same mail is one violation.
    """
    limit = datetime.now(UTC) + _AHEAD
    for number, each in enumerate(sent):
        if each.at > limit:
            raise Rejected(
                f"sent[{number}].at: {each.at.isoformat()}: still to come, expected when it was sent, in UTC"
            )
    found = sorted(_violations(installation, sender, sent), key=lambda each: each.number)
    if found:
        _keep(installation, sender, found)
    return found


def _violations(installation: Installation, sender: str, sent: Sequence[Sent]) -> Iterable[Violation]:
    parts: dict[tuple[int, frozenset[str]], list[int]] = defaultdict(list)
    for number, each in enumerate(sent):
        parts[each.group, each.bypass].append(number)
    for (group, bypass), numbers in parts.items():
        question = Question.of(installation.groups.group(sender, group), bypass)
        exact = [one_address(sent[number].recipient) for number in numbers]
        rows = installation.store.asked(sender, group, exact)
        for number, recipient, both in zip(numbers, exact, rows, strict=True):
            # Each list alone: a global stop of this morning must not hide the group's of last year.
            for alone in ((both[0], None), (None, both[1])):
                answer = question.answer(recipient, alone)
                if _is_violation(answer, sent[number].at):
                    yield _violation(number, answer, sent[number])
                    break


def _is_violation(answer: Answer, at: datetime) -> bool:
    return answer.row is not None and at > _since(answer.row) + timedelta(seconds=GRACE_S)


def _since(row: Row) -> datetime:
    """When a row took effect: an import without dates has only the time that it was first seen."""
    return datetime.fromtimestamp(max(row.time_ms / 1000, row.first_seen_s), UTC)


def _violation(number: int, answer: Answer, mail: Sent) -> Violation:
    assert answer.row is not None
    assert answer.scope is not None
    return Violation(number, answer.recipient, mail.group, answer.scope, mail.at, _since(answer.row))


def _keep(installation: Installation, sender: str, found: Sequence[Violation]) -> None:
    rows: list[Any] = []
    for each in found:
        at_ms = round(each.at.timestamp() * 1000)
        name = f"{each.group}|{installation.pseudonyms.bare(each.recipient)}|{at_ms}"
        rows += [name, at_ms, f"{sender}|{month_of(at_ms)}"]
    with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
        installation.redis.eval(_KEEP, 2, _PREFIX + sender, _MONTHS, _KEPT, _LIFE_S, *rows)


def counts(client: redis.Redis) -> dict[tuple[str, str], int]:
    """Return the violations by (sender, month). Errors: QueueUnavailable  Redis is away.    temporary"""
    with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
        rows = cast(dict[bytes, bytes], client.hgetall(_MONTHS))
    found = ((field.decode().partition("|"), int(count)) for field, count in rows.items())
    return {(sender, month): count for (sender, _, month), count in found}


def violations(client: redis.Redis, sender: str, since_ms: int = 0, until_ms: float = float("inf")) -> list[Kept]:
    """Return the kept violations of *sender*, newest first, 1,000 at most. Errors: as `counts`."""
    with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
        rows = cast(list[bytes], client.zrevrangebyscore(_PREFIX + sender, until_ms, since_ms, start=0, num=_KEPT))
    found = (row.decode().split("|") for row in rows)
    return [
        Kept(sender, int(group), name, datetime.fromtimestamp(int(at_ms) / 1000, UTC)) for group, name, at_ms in found
    ]
