"""What is usual for a source: how often mail comes, how much in a minute, and posts that did not prove themselves.

| key                       | type | holds                                                                            | lives    |
|---------------------------|------|----------------------------------------------------------------------------------|----------|
| `unsubd:habit`            | HASH | source -> last event, usual and longest gap in ms, arrivals, first event         | for good |
| `unsubd:arrivals:MINUTE`  | HASH | source -> messages whose event was in that minute; MINUTE since 1970             | 2 hours  |
| `unsubd:unproved:HOUR`    | HASH | endpoint -> posts with a wrong or no signature, 500 endpoints at most            | 2 days   |
"""

import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

import redis

from handlers.errors import QueueUnavailable
from worker.server import away_as

_HABIT, _ARRIVALS, _UNPROVED = "unsubd:habit", "unsubd:arrivals:", "unsubd:unproved:"
_ARRIVALS_LIFE_S, _UNPROVED_LIFE_S = 7200, 2 * 86400
_LOOK_BACK_MINUTES = 15
_MAX_ENDPOINTS = 500
_ENOUGH = 50  # arrivals before a silence means anything
_SPOKEN, _SPOKEN_MS = 20, 3_600_000  # arrivals, and the time they came in, before a gap is called usual
_SHORTEST_S = 3600.0
# The usual gap follows by a tenth an arrival; the longest one halves in 14 days, so that nights and weekends stay known.
_LEARN = """
for at = 1, #ARGV, 3 do
  local source, newest, count = ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  local kept = redis.call('HGET', KEYS[1], source)
  local last, usual, longest, total, first = newest, 0, 0, 0, newest
  if kept then last, usual, longest, total, first = string.match(kept, '(%d+) (%d+) (%d+) (%d+) ?(%d*)') end
  first = tonumber(first) or tonumber(last)
  last, usual, longest, total = tonumber(last), tonumber(usual), tonumber(longest), tonumber(total)
  local gap = newest - last
  if kept and gap > 0 then
    local each = gap / count
    usual = usual == 0 and each or each + (usual - each) * 0.9 ^ count
    longest = math.max(gap, longest * 0.5 ^ (gap / 1209600000))
    last = newest
  end
  redis.call('HSET', KEYS[1], source, string.format('%.0f %.0f %.0f %.0f %.0f', last, usual, longest, total + count, first))
end
"""
_COUNT = """
if redis.call('HLEN', KEYS[1]) < tonumber(ARGV[2]) or redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 then
  redis.call('HINCRBY', KEYS[1], ARGV[1], 1)
  redis.call('EXPIRE', KEYS[1], ARGV[3])
end
"""


@dataclass(frozen=True, slots=True)
class Habit:
    """How often a source brings mail. Units: gaps in seconds; first_ms, last_ms: event time. Shape: count: arrivals so far."""

    last_ms: int
    usual_s: float
    longest_s: float
    count: int
    first_ms: int = 0

    @property
    def is_known(self) -> bool:
        """Say whether enough came, for long enough, to say how often usually."""
        return self.count >= _SPOKEN and self.last_ms - self.first_ms >= _SPOKEN_MS

    def silent_s(self, now_ms: int) -> float:
        """Return how long the source is silent, if far longer than its habit; else 0.0."""
        silent_s = (now_ms - self.last_ms) / 1000
        border_s = max(_SHORTEST_S, 20 * self.usual_s, 2 * self.longest_s)
        return silent_s if self.count >= _ENOUGH and self.usual_s and silent_s > border_s else 0.0


class Habits:
    """Writes the habits of one process."""

    def __init__(self, client: redis.Redis) -> None:
        self._learn = client.register_script(_LEARN)

    def arrived(self, pipeline: Any, arrivals: Iterable[tuple[str, int]], now_ms: int) -> None:
        """Add messages, as (source, event time), by commands of a caller's pipeline."""
        newest: dict[str, int] = {}
        counts: Counter[str] = Counter()
        minutes: dict[int, Counter[str]] = defaultdict(Counter)
        for source, at_ms in arrivals:
            newest[source] = max(at_ms, newest.get(source, 0))
            counts[source] += 1
            if now_ms - at_ms < _ARRIVALS_LIFE_S * 1000:
                minutes[at_ms // 60_000][source] += 1
        if newest:
            rows = [each for source, at_ms in newest.items() for each in (source, at_ms, counts[source])]
            self._learn(keys=[_HABIT], args=rows, client=pipeline)
        for minute, found in minutes.items():
            for source, count in found.items():
                pipeline.hincrby(f"{_ARRIVALS}{minute}", source, count)
            pipeline.expire(f"{_ARRIVALS}{minute}", _ARRIVALS_LIFE_S)


def habits(client: redis.Redis) -> dict[str, Habit]:
    """Return the habit of every source. Errors: QueueUnavailable  Redis is away.    temporary"""
    with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
        rows = cast(dict[bytes, bytes], client.hgetall(_HABIT))
    found = {}
    for source, row in rows.items():
        last, usual, longest, count, *first = map(int, row.split())
        found[source.decode()] = Habit(last, usual / 1000, longest / 1000, count, first[0] if first else last)
    return found


def busiest_minutes(client: redis.Redis) -> dict[str, int]:
    """Return by source the most messages of one minute, of the last 15. Errors: as `habits`."""
    last = int(time.time()) // 60
    with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
        pipeline = client.pipeline(transaction=False)
        for minute in range(last - _LOOK_BACK_MINUTES, last + 1):
            pipeline.hgetall(f"{_ARRIVALS}{minute}")
        replies = pipeline.execute()
    most: dict[str, int] = {}
    for source, count in ((source.decode(), int(count)) for rows in replies for source, count in rows.items()):
        most[source] = max(count, most.get(source, 0))
    return most


def unproved(client: redis.Redis, endpoint: str) -> None:
    """Count a post to *endpoint* ("relay:default") whose signature is wrong or missing.

    Errors:  none: the answer is given already, and Redis being away is told elsewhere.
    """
    key = f"{_UNPROVED}{int(time.time()) // 3600}"
    try:
        client.eval(_COUNT, 1, key, endpoint[:60], _MAX_ENDPOINTS, _UNPROVED_LIFE_S)
    except redis.RedisError:
        return


def unproved_posts(client: redis.Redis) -> dict[str, int]:
    """Return by endpoint the unproved posts of this hour and the one before. Errors: as `habits`."""
    hour = int(time.time()) // 3600
    counts: Counter[str] = Counter()
    with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
        for each in (hour - 1, hour):
            rows = cast(dict[bytes, bytes], client.hgetall(f"{_UNPROVED}{each}"))
            counts.update({name.decode(): int(count) for name, count in rows.items()})
    return dict(counts)
