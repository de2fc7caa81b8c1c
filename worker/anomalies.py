"""What is odd: counted as it comes, in bounded space, and kept until a person says what to do about it.

Counting is a courtesy: it stops no request, and is left out while Redis is away. Who used a tag is known by a keyed digest
of four octets, and of each tag five at most.

| key                   | type | holds                                                                             | lives   |
|-----------------------|------|-----------------------------------------------------------------------------------|---------|
| `unsubd:pace`         | HASH | source -> ten-minute slot, its requests, the most of one before, the first slot    | for good |
| `unsubd:askers:WEEK`  | HASH | keyed digest of a tag -> first use, who used it (digests); 100,000 tags at most    | 8 days  |
| `unsubd:anomalies`    | HASH | id -> JSON {kind, state, count, source or sender, …}, 200 at most          | 30 days |
"""

import json
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from hashlib import sha256
from typing import Any, cast

import redis

from handlers.anomaly import MANY_ASKERS, SLOT_MS, Anomaly, Key, Pace
from handlers.errors import QueueUnavailable, Rejected
from handlers.message import InboundMessage, addresses
from handlers.request import Action, DecidedMessage, Request
from handlers.tag import Tag
from worker.points import point
from worker.server import away_as
from worker.store.row import holds

_PACE, _ASKERS, _ANOMALIES = "unsubd:pace", "unsubd:askers:", "unsubd:anomalies"
_WEEK_MS, _ASKERS_LIFE_S, _LIFE_S = 604_800_000, 8 * 86400, 30 * 86400
_MOST_TAGS, _MOST_ANOMALIES = 100_000, 200
_AT_ONCE = 500
_ONE_BURST_MS = 3_600_000  # slots so near to each other are one
# The habit halves in 14 days. A slot teaches twice the habit at most, so that a burst is not the next one's habit.
_LEARN = """
local found = {}
for at = 1, #ARGV, 3 do
  local source, slot, count = ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  local kept, n, most, first = redis.call('HGET', KEYS[1], source), 0, 0, slot
  local last = slot
  if kept then last, n, most, first = string.match(kept, '(%d+) (%d+) (%d+) (%d+)') end
  last, n, most, first = tonumber(last), tonumber(n), tonumber(most), tonumber(first)
  if slot > last then
    local old = most * 0.5 ^ ((slot - last) / 2016)
    most = math.max(old, math.min(n, 2 * math.max(old, 50)))
    n, last = 0, slot
  end
  if slot == last then n = n + count end
  redis.call('HSET', KEYS[1], source, string.format('%.0f %.0f %.0f %.0f', last, n, most, first))
  found[#found + 1] = string.format('%.0f %.0f %.0f %.0f', last, n, most, last - first)
end
return found
"""
# One look and one write however many tags: a batch costs what a message does.
_USE = """
local most, many, names = tonumber(ARGV[1]), tonumber(ARGV[2]), {}
for at = 4, #ARGV, 3 do names[#names + 1] = ARGV[at] end
local kept, known = redis.call('HMGET', KEYS[1], unpack(names)), {}
local room = most - redis.call('HLEN', KEYS[1])
local full, changed = {}, {}
for number, name in ipairs(names) do
  local asker, used = ARGV[3 * number + 2], ARGV[3 * number + 3]
  local row = known[name] or kept[number]
  if not row and room > 0 then
    row, room = used .. ' ', room - 1
  end
  full[number] = false
  if row then
    local first, askers = string.match(row, '(%d+) (%x*)')
    local is_new = #askers < 8 * many
    for at = 1, #askers, 8 do
      if string.sub(askers, at, at + 7) == asker then is_new = false end
    end
    if is_new then askers = askers .. asker end
    if tonumber(used) < tonumber(first) then first = used end
    known[name] = first .. ' ' .. askers
    if is_new and #askers == 8 * many then full[number] = first end
  end
end
for name, row in pairs(known) do
  changed[#changed + 1] = name
  changed[#changed + 1] = row
end
if #changed > 0 then
  redis.call('HSET', KEYS[1], unpack(changed))
  redis.call('EXPIRE', KEYS[1], ARGV[3])
end
return full
"""


class Anomalies:
    """The anomalies of one installation. Shape: bare: an address -> its pseudonym (`Pseudonyms.bare`)."""

    def __init__(self, client: redis.Redis, bare: Any) -> None:
        self._redis = client
        self._bare = bare
        self._learn = client.register_script(_LEARN)
        self._use = client.register_script(_USE)

    def accepted(self, pairs: Iterable[tuple[InboundMessage, DecidedMessage]]) -> None:
        """Count who used the tags of mails: its author, believed for nothing else. Errors: none."""
        self._used(
            (Tag(each.sender, each.group, each.recipient), next(addresses(message.value("from")), ""), each.at_ms)
            for message, decided in pairs
            for each in decided.requests
            if each.action is Action.UNSUBSCRIBE
        )

    def used(self, tag: Tag, peer: str, at_ms: int) -> None:
        """Count who pressed a button, by the network it was pressed from. Units: at_ms: event time. Errors: none."""
        self._used([(tag, peer, at_ms)])

    def key_of(self, request: Request) -> Key:
        """Return by what an anomaly knows whom *request* is about."""
        return request.sender, request.group, self._bare(request.recipient)

    def _used(self, uses: Iterable[tuple[Tag, str, int]]) -> None:
        key = f"{_ASKERS}{time.time_ns() // 1_000_000 // _WEEK_MS}"
        asked = [(tag, self._bare(asker.lower())[:8], at_ms) for tag, asker, at_ms in uses if asker]
        if not asked:
            return
        with suppress(redis.RedisError, QueueUnavailable):
            for start in range(0, len(asked), _AT_ONCE):
                self._use_some(key, asked[start : start + _AT_ONCE])

    def _use_some(self, key: str, asked: list[tuple[Tag, str, int]]) -> None:
        rows = [each for tag, asker, at_ms in asked for each in (self._name(tag), asker, at_ms)]
        full = cast(list[Any], self._use(keys=[key], args=[_MOST_TAGS, MANY_ASKERS, _ASKERS_LIFE_S, *rows]))
        for (tag, _, _), first in zip(asked, full, strict=True):
            if first:
                self._shared(tag, int(first))

    def _name(self, tag: Tag) -> str:
        return str(self._bare(f"{tag.sender}\0{tag.group}\0{tag.recipient}"))

    def _shared(self, tag: Tag, first_ms: int) -> None:
        facts = {"sender": tag.sender, "group": tag.group, "who": self._bare(tag.recipient), "count": MANY_ASKERS}
        self._keep(Anomaly(_id("shared-tag", self._name(tag), first_ms), "shared-tag", first_ms, **facts))

    def recorded(self, messages: Sequence[DecidedMessage], fresh: Sequence[bool]) -> None:
        """Count the requests of messages that the ledger did not have, by source and event time. Errors: none."""
        counts: Counter[tuple[str, int]] = Counter()
        for message, is_new in zip(messages, fresh, strict=True):
            if is_new and not holds(message.source):
                stops = sum(each.action is Action.UNSUBSCRIBE for each in message.requests)
                counts[message.source, message.received_ms // SLOT_MS] += stops
        counted = [(source, slot, count) for (source, slot), count in sorted(counts.items()) if count]
        if not counted:
            return
        with suppress(redis.RedisError, QueueUnavailable):
            rows = cast(list[bytes], self._learn(keys=[_PACE], args=[each for row in counted for each in row]))
            for (source, slot, _), row in zip(counted, rows, strict=True):
                pace = Pace(*map(int, row.split()))
                if pace.slot == slot and pace.is_burst:
                    self._burst(source, pace)

    def _burst(self, source: str, pace: Pace) -> None:
        start_ms = pace.slot * SLOT_MS
        # What comes after an undo is another one, or nobody could undo that.
        same = [each for each in self.every() if each.source == source and each.state != "undone"]
        known = [each for each in same if each.to_ms + _ONE_BURST_MS > start_ms]
        burst = next(iter(known), None) or Anomaly(_id("burst", source, start_ms), "burst", start_ms, source=source)
        if burst.state == "open":
            self._keep(replace(burst, to_ms=start_ms + SLOT_MS, count=max(burst.count, pace.count)), again=True)

    def _keep(self, anomaly: Anomaly, *, again: bool = False) -> None:
        oldest_ms = time.time_ns() // 1_000_000 - _LIFE_S * 1000
        if old := [each.id for each in self.every() if max(each.from_ms, each.to_ms) < oldest_ms]:
            self._redis.hdel(_ANOMALIES, *old)
        row = json.dumps(asdict(anomaly))
        if again and self._redis.hexists(_ANOMALIES, anomaly.id):
            self._redis.hset(_ANOMALIES, anomaly.id, row)
        elif self._redis.hlen(_ANOMALIES) < _MOST_ANOMALIES:
            self._redis.hsetnx(_ANOMALIES, anomaly.id, row)
        self._redis.expire(_ANOMALIES, _LIFE_S)

    def every(self) -> list[Anomaly]:
        """Return all, newest first. Errors: QueueUnavailable  Redis is away.    temporary"""
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
            rows = cast(dict[bytes, bytes], self._redis.hgetall(_ANOMALIES))
        return sorted(map(_read, rows.values()), key=lambda each: -each.from_ms)

    def open(self) -> list[Anomaly]:
        """Return those that nobody has settled. Errors: as `every`."""
        return [each for each in self.every() if each.state == "open"]

    def find(self, anomaly_id: str) -> Anomaly:
        """Errors: Rejected  none of that id; as `every`."""
        found = next((each for each in self.every() if each.id == anomaly_id), None)
        if found is None:
            raise Rejected(f"anomaly {anomaly_id[:20]!r}: none of that id, expected one of `unsubd anomaly list`")
        return found

    def settle(self, anomaly: Anomaly, state: str, said: str) -> None:
        """Keep what somebody made of it. Errors: as `every`. Repeat: the last word counts."""
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"), point("anomaly.settle"):
            self._redis.hset(_ANOMALIES, anomaly.id, json.dumps(asdict(replace(anomaly, state=state, said=said))))


def _read(row: bytes) -> Anomaly:
    known = json.loads(row)
    return Anomaly(
        **{name: known[name] for name in Anomaly.__slots__ if name in known}
    )  # another release may have more


def _id(*facts: object) -> str:
    return sha256("\0".join(map(str, facts)).encode()).hexdigest()[:12]


def described(anomaly: Anomaly) -> str:
    """Return what is odd, in a sentence without its full stop."""
    if anomaly.kind == "burst":
        return f"{anomaly.source} brought {anomaly.count:,} requests within ten minutes, far more than it ever did"
    return (
        f"{anomaly.count} people or more used the tag of one recipient of {anomaly.sender}, group {anomaly.group}"
        f" ({anomaly.who}): a forwarded mail?"
    )
