"""The ledger: one record per message, written once and appended to, with pseudonyms instead of addresses.

A message's record lies with its first request, P being the first two hex digits of the recipient's pseudonym; further
recipients get a pointer. What concerns no sender lies under `{-}`, and stays there when an operator makes a request of it:
`resolutions` in the record tells of that. MONTH is that of the event; a month that ended UNSUBD_LEDGER_DAYS ago moves to
files (`archive.py`), and has two months for that.

| key                              | type | holds                                     | lives                           |
|----------------------------------|------|-------------------------------------------|---------------------------------|
| `unsubd:ledger:{SENDER:P}:MONTH` | HASH | message key -> record (`ledger.py`)       | until archived; 62 days more at most |
| `unsubd:ledger:months`           | SET  | the months that have records in the store | for good                        |
"""

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import redis

from handlers.errors import StoreUnavailable
from handlers.request import DecidedMessage, Effect, Request
from worker.points import point
from worker.server import away_as, check_confirmed, confirm, confirmation
from worker.store.script import Script, send

_TO_ARCHIVE_DAYS = 62  # a month from its first record to its last, and a month for the archive to be reached
_MONTHS = "unsubd:ledger:months"
_NOBODYS = "unsubd:ledger:{-}:"
_DAYS = 90
# Two operators may resolve the same message: whoever comes second appends to what the first one wrote.
_SWAP = Script("""
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
redis.call('EXPIRE', KEYS[1], ARGV[4])
return 1
""")
# A record only ever grows: whoever appends to one while it goes into a file must find it here.
_DROP = Script("""
if redis.call('HSTRLEN', KEYS[1], ARGV[1]) == tonumber(ARGV[2]) then redis.call('HDEL', KEYS[1], ARGV[1]) end
""")
# Some of a home's records: those whose key fits a pattern and that hold one of some texts, and every pointer. Here, so that
# only what is found travels: a home holds a 256th of a sender's month.
_SOME = Script("""
local part, found = redis.call('HSCAN', KEYS[1], ARGV[1], 'MATCH', ARGV[2], 'COUNT', ARGV[3]), {}
for at = 1, #part[2], 2 do
  local record = part[2][at + 1]
  local meant = #ARGV == 3 or string.sub(record, 1, 7) == '{"see":'
  for text = 4, #ARGV do meant = meant or string.find(record, ARGV[text], 1, true) end
  if meant then
    found[#found + 1] = part[2][at]
    found[#found + 1] = record
  end
end
return {part[1], found}
""")
_AT_ONCE = 2000  # records that one command looks through: about 1 ms
_HOMES = 200  # in one pipeline
_MOST = 100_000  # records that are looked through for a key of which nothing else is known
_KEY_DIGITS = 64
Pseudonym = Callable[[str], str]
Record = dict[str, Any]
Person = tuple[str, str]
"""A sender's id and a recipient's pseudonym."""


class Ledger:
    """The records of one installation.

    Errors:  StoreUnavailable  the server is away; of a write also, fewer replicas than asked for have it.    temporary
    """

    def __init__(self, client: redis.Redis, pseudonym: Pseudonym, *, days: int = _DAYS, min_replicas: int = 0) -> None:
        self._redis = client
        self._min_replicas = min_replicas
        self._pseudonym = pseudonym
        self._days = days
        self._life_s = (days + _TO_ARCHIVE_DAYS) * 86400

    def write(
        self,
        entries: Sequence[tuple[DecidedMessage, list[dict[str, Any]]]],
        written: Callable[[list[bool]], object] = lambda _: None,
    ) -> None:
        """Write the record of each message with what became of its requests.

        Shape:   written: told of each whether it had none yet, before the replicas are waited for: when these are too few,
                 the work is repeated, and then none is new.
        Repeat:  the first record stays.
        """
        with away_as(StoreUnavailable, "UNSUBD_STORE_URL"):
            pipeline, places = self._redis.pipeline(transaction=False), []
            for message, results in entries:
                places.append(len(pipeline))
                self._write_one(pipeline, message, results)
            confirm(pipeline, self._min_replicas)
            with point("store.ledger"):
                replies = pipeline.execute()
        written([bool(replies[place]) for place in places])
        check_confirmed(replies, self._min_replicas, StoreUnavailable)

    def refer(self, entries: Sequence[tuple[DecidedMessage, DecidedMessage]]) -> None:
        """Let messages that are decided anew, as (first decision, later one), keep their one record: the first.

        Shape:   the recipients of the later requests get pointers to it, before `write` would give them a record.
        Repeat:  safe; a record that is not there yet is written as first decided.
        """
        self.write([(first, []) for first, _ in entries])
        with away_as(StoreUnavailable, "UNSUBD_STORE_URL"):
            pipeline = self._redis.pipeline(transaction=False)
            for first, later in entries:
                content = json.dumps({"see": self._homes(first)[0]}, separators=(",", ":"))
                for home in self._homes(later):
                    self._put(pipeline, home, first.key, content)
            confirm(pipeline, self._min_replicas)
            with point("ledger.refer"):
                check_confirmed(pipeline.execute(), self._min_replicas, StoreUnavailable)

    def append(self, additions: Sequence[tuple[DecidedMessage, dict[str, Any]]]) -> None:
        """Append to the one record of each message, given as first decided, what a person made of it.

        Shape:   an addition: {"id", "action", "actor", "at_ms", "reason", "requests"}; requests: results, as in `write`.
        Repeat:  by the addition's id. A record that is gone stays so: see `refer`.
        """
        waiting = [(self._homes(first)[0], first.key, addition) for first, addition in additions]
        with away_as(StoreUnavailable, "UNSUBD_STORE_URL"):
            while waiting:
                waiting = self._append(waiting)

    def _append(self, waiting: list[tuple[str, str, dict[str, Any]]]) -> list[tuple[str, str, dict[str, Any]]]:
        """Append what can be, and return what somebody else's change came before."""
        reading = self._redis.pipeline(transaction=False)
        for home, key, _ in waiting:
            reading.hget(home, key)
        tried, swaps = [], []
        for each, content in zip(waiting, reading.execute(), strict=True):
            if content and (longer := self._longer(json.loads(content), each[2])):
                swaps.append(_SWAP(each[0], each[1], content, longer, self._life_s))
                tried.append(each)
        if not swaps:
            return []
        with point("ledger.append"):
            answers = send(self._redis, swaps, confirmation(self._min_replicas))
            swapped = check_confirmed(answers, self._min_replicas, StoreUnavailable)
        return [each for each, done in zip(tried, swapped, strict=True) if not done]

    def _longer(self, record: dict[str, Any], addition: dict[str, Any]) -> str:
        """The record with its addition; "" when it has it already."""
        known = record.get("resolutions", [])
        redacted = {
            **addition,
            "id": self._pseudonym(addition["id"]),
            "requests": [self._redacted(result) for result in addition["requests"]],
        }
        if redacted["id"] in (each["id"] for each in known):
            return ""
        return json.dumps({**record, "resolutions": [*known, redacted]}, separators=(",", ":"))

    def _write_one(self, pipeline: Any, message: DecidedMessage, results: list[dict[str, Any]]) -> None:
        homes = self._homes(message)
        record = {
            "outcome": message.outcome.value,
            "reason": message.reason,
            "source": message.source,
            "received_ms": message.received_ms,
            "requests": [self._redacted(result) for result in results],
            "evidence": message.evidence,
        }
        for home in homes:
            content = record if home == homes[0] else {"see": homes[0]}
            self._put(pipeline, home, message.key, json.dumps(content, separators=(",", ":")))

    def _put(self, pipeline: Any, home: str, key: str, content: str) -> None:
        pipeline.hsetnx(home, key, content)
        pipeline.expire(home, self._life_s)
        pipeline.sadd(_MONTHS, _month_of(home))  # last: `drop` takes a month out, then looks whether it is empty

    def _homes(self, message: DecidedMessage) -> list[str]:
        return list(dict.fromkeys(self._home(message, each) for each in message.requests or (None,)))

    def _home(self, message: DecidedMessage, request: Request | None) -> str:
        month = datetime.fromtimestamp(message.received_ms / 1000, UTC).strftime("%Y-%m")
        if request is None:
            return _NOBODYS + month
        return home_of(request.sender, self._pseudonym(request.recipient), month)

    def _redacted(self, result: dict[str, Any]) -> dict[str, Any]:
        # A request id is a digest that whoever guesses the address could compute: it is keyed, like the recipient.
        return {**result, "id": self._pseudonym(result["id"]), "recipient": self._pseudonym(result["recipient"])}

    def without_record(self, messages: Sequence[DecidedMessage]) -> set[str]:
        """Return the keys of those *messages* that have no record where it would be written today: see `nowhere`."""
        if not messages:
            return set()
        with away_as(StoreUnavailable, "UNSUBD_STORE_URL"):
            pipeline = self._redis.pipeline(transaction=False)
            for each in messages:
                pipeline.hexists(self._homes(each)[0], each.key)
            return {each.key for each, found in zip(messages, pipeline.execute(), strict=True) if not found}

    def nowhere(self, messages: Sequence[DecidedMessage], homes: Sequence[str]) -> set[str]:
        """Return the keys of those *messages* that none of *homes* has a record of, whatever they were once decided as.

        Why:     keys and patterns may have changed since. It costs a look into every home of their months, 0.1 s of the
                 server's time for 500 messages in 1,000 homes: so only for what is missing otherwise.
        """
        months: dict[str, list[str]] = {}
        for each in messages:
            months.setdefault(_month_of(self._home(each, None)), []).append(each.key)
        found: list[tuple[str, Record]] = []
        with away_as(StoreUnavailable, "UNSUBD_STORE_URL"):
            for month, keys in months.items():
                found += self._named([home for home in homes if home.endswith(f":{month}")], keys)
        return {each.key for each in messages} - {key for key, record in found if "see" not in record}

    def homes(self) -> list[str]:
        """Return every Redis key that has records, of all months. Looks at every key of the store: once, for rare work."""
        with away_as(StoreUnavailable, "UNSUBD_STORE_URL"):
            return [home.decode() for home in self._redis.scan_iter("unsubd:ledger:{*}:*", count=500)]

    def story(self, sender: str, pseudonyms: Collection[str]) -> dict[str, Record]:
        """Return by message key every record in the store that names one of *pseudonyms* to *sender*."""
        with away_as(StoreUnavailable, "UNSUBD_STORE_URL"):
            homes = [home_of(sender, each, month) for each in pseudonyms for month in self._months()]
            found = self._followed(self._matching(homes, "*", pseudonyms))
        return {key: record for key, record in found if names_any(record, sender, pseudonyms)}

    def beginning(
        self, digits: Sequence[str], about: Collection[Person | None], *, whole: bool = False
    ) -> tuple[dict[str, Record], str]:
        """Return by message key the records in the store whose keys are, or begin with, *digits*, and where the look ended.

        Shape:   about: whom the messages are known to concern, None = no sender: their records are looked for there first.
                 whole: look through everything. The end: the month that the look did not come through, "" = none.
        Why:     a key does not tell where its record lies, and an index of keys would cost every request. Of what nobody
                 knows any more, the newest months are looked through, on the server, up to 100,000 records: 0.1 s of its
                 time. All of 300,000 cost it 0.27 s.
        """
        with away_as(StoreUnavailable, "UNSUBD_STORE_URL"):
            likely = [home_of(*each, month) if each else _NOBODYS + month for each in about for month in self._months()]
            found = self._begun(likely, digits)
            if not (missing := _missing(digits, found)):
                return found, ""
            homes, end = self._newest(None if whole else _MOST)
            found |= self._begun(homes, missing)
        return found, end if _missing(missing, found) else ""

    def _newest(self, most: int | None) -> tuple[list[str], str]:
        """Homes, those of the newest month first, up to the one that has the last of *most* records, and the next one's month."""
        homes = sorted(self.homes(), key=lambda home: (_month_of(home), home), reverse=True)
        if most is None:
            return homes, ""
        passed = 0
        for at in range(0, len(homes), _HOMES):
            sizes = self._redis.pipeline(transaction=False)
            for home in homes[at : at + _HOMES]:
                sizes.hlen(home)
            for place, size in enumerate(sizes.execute(), at):
                if passed >= most:
                    return homes[:place], _month_of(homes[place])
                passed += size
        return homes, ""

    def _begun(self, homes: Sequence[str], digits: Sequence[str]) -> dict[str, Record]:
        whole = [each for each in digits if len(each) == _KEY_DIGITS]
        found = self._named(homes, whole) if whole else []
        for each in set(digits) - set(whole):
            found += self._matching(homes, f"{each}*", ())
        return dict(self._followed(found))

    def _named(self, homes: Sequence[str], keys: Sequence[str]) -> list[tuple[str, Record]]:
        """What *homes* hold under whole keys, pointers among it."""
        rows: list[list[bytes | None]] = []
        for start in range(0, len(homes), _HOMES):
            reading = self._redis.pipeline(transaction=False)
            for home in homes[start : start + _HOMES]:
                reading.hmget(home, keys)
            rows += reading.execute()
        return [(key, json.loads(row)) for each in rows for key, row in zip(keys, each, strict=True) if row]

    def _matching(self, homes: Sequence[str], pattern: str, texts: Collection[str]) -> list[tuple[str, Record]]:
        """What *homes* hold whose key fits *pattern* and that has one of *texts*, and the pointers of those keys."""
        found: list[tuple[str, Record]] = []
        for start in range(0, len(homes), _HOMES):
            cursors = dict.fromkeys(homes[start : start + _HOMES], b"0")
            while cursors:
                asked = [_SOME(home, cursor, pattern, _AT_ONCE, *texts) for home, cursor in cursors.items()]
                parts = send(self._redis, asked)
                for _, rows in parts:
                    found += [(key.decode(), json.loads(row)) for key, row in zip(rows[::2], rows[1::2], strict=True)]
                cursors = {home: part[0] for home, part in zip(cursors, parts, strict=True) if part[0] != b"0"}
        return found

    def _followed(self, found: list[tuple[str, Record]]) -> list[tuple[str, Record]]:
        """Put the record in the place of each pointer to it."""
        reading = self._redis.pipeline(transaction=False)
        pointers = [(key, record) for key, record in found if "see" in record]
        for key, record in pointers:
            reading.hget(record["see"], key)
        records = [(key, json.loads(row)) for (key, _), row in zip(pointers, reading.execute(), strict=True) if row]
        return [each for each in found if "see" not in each[1]] + records

    def _months(self) -> list[str]:
        return sorted(month.decode() for month in cast(set[bytes], self._redis.smembers(_MONTHS)))

    def ended_months(self, now: datetime) -> list[str]:
        """Return the months in the store that ended at least `days` ago, oldest first."""
        border = (now - timedelta(days=self._days)).strftime("%Y-%m")
        with away_as(StoreUnavailable, "UNSUBD_STORE_URL"):
            return [month for month in self._months() if month < border]

    def month(self, month: str) -> Iterator[tuple[str, str, bytes]]:
        """Yield (Redis key, message key, JSON of the record) of a month, pointers among them."""
        with away_as(StoreUnavailable, "UNSUBD_STORE_URL"):
            for home in self._redis.scan_iter(f"unsubd:ledger:{{*}}:{month}", count=500):
                for field, content in self._redis.hscan_iter(home, count=500):
                    yield home.decode(), field.decode(), content

    def drop(self, month: str, records: Sequence[tuple[str, str, int]]) -> None:
        """Take records, as (Redis key, message key, length of the JSON), out of the store: they are in the archive.

        Repeat:  safe. One that changed since it was read stays: it goes the next time.
        """
        with away_as(StoreUnavailable, "UNSUBD_STORE_URL"):
            for start in range(0, len(records), 1000):
                with point("ledger.drop"):
                    send(self._redis, [_DROP(home, key, length) for home, key, length in records[start : start + 1000]])
            if self._is_empty(month):
                with point("ledger.month"):
                    self._redis.srem(_MONTHS, month)
                if not self._is_empty(month):  # a record came in between: its writer found the month still there
                    with point("ledger.month"):
                        self._redis.sadd(_MONTHS, month)

    def _is_empty(self, month: str) -> bool:
        return next(iter(self._redis.scan_iter(f"unsubd:ledger:{{*}}:{month}", count=500)), None) is None

    def records(self) -> Iterator[tuple[str, Record]]:
        """Yield (message key, record) of every message in the store, pointers left out."""
        with away_as(StoreUnavailable, "UNSUBD_STORE_URL"):
            for key in self._redis.scan_iter("unsubd:ledger:{*}:*", count=500):
                for field, content in self._redis.hscan_iter(key, count=500):
                    if "see" not in (record := json.loads(content)):
                        yield field.decode(), record


def home_of(sender: str, pseudonym: str, month: str) -> str:
    """Return the key of the records of *month* that concern a recipient of *sender*."""
    return f"unsubd:ledger:{{{sender}:{pseudonym[:2]}}}:{month}"


def _month_of(home: str) -> str:
    return home.rpartition(":")[2]


def _missing(digits: Sequence[str], found: Collection[str]) -> list[str]:
    return [each for each in digits if not any(key.startswith(each) for key in found)]


def names_any(record: Record, sender: str, pseudonyms: Collection[str]) -> bool:
    """Say whether a record has a request, of the message or of who resolved it, of *sender* for one of *pseudonyms*."""
    results = record.get("requests", []) + [each for made in record.get("resolutions", []) for each in made["requests"]]
    return any(each["sender"] == sender and each["recipient"] in pseudonyms for each in results)


def one_of(copies: Sequence[Record]) -> Record:
    """Return the one record of a message that copies of it are, oldest first: the first one, with every resolution once.

    Why:     a message that is read again, or resolved, after its record went to the archive has a copy in the store.
    """
    made = {each["id"]: each for copy in reversed(copies) for each in copy.get("resolutions", [])}
    return {**copies[0], "resolutions": sorted(made.values(), key=lambda each: each["at_ms"])} if made else copies[0]


def result_of(effect: Effect, sender: str, group: int, recipient: str, request_id: str, **more: Any) -> dict[str, Any]:
    """Return the ledger's line for one request."""
    return {
        "id": request_id, "sender": sender, "group": group, "recipient": recipient, "effect": effect.value, **more,
    }  # fmt: skip
