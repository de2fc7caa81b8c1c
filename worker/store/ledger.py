"""The ledger: one record per message, written once and appended to, with pseudonyms instead of addresses.

A message's record lies with its first request, under `unsubd:ledger:{SENDER:P}:MONTH`, P being the first two hex digits
of the recipient's pseudonym; further recipients get a pointer. What concerns no sender lies under `{-}`, and stays there when
an operator makes a request of it: `resolutions` in the record tells of that.
Units:   a key lives 122 days after its last write: 90 days and a month.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import redis

from handlers.errors import StoreUnavailable
from handlers.request import DecidedMessage, Effect, Request
from worker.server import away_as

_LIFE_S = 122 * 86400
# Two operators may resolve the same message: whoever comes second appends to what the first one wrote.
_SWAP = """
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
redis.call('EXPIRE', KEYS[1], ARGV[4])
return 1
"""
Pseudonym = Callable[[str], str]


class Ledger:
    """The records of one installation.

    Errors:  StoreUnavailable  the server is away.    temporary
    """

    def __init__(self, client: redis.Redis, pseudonym: Pseudonym) -> None:
        self._redis = client
        self._pseudonym = pseudonym
        self._swap = client.register_script(_SWAP)

    def write(self, entries: Sequence[tuple[DecidedMessage, list[dict[str, Any]]]]) -> None:
        """Write the record of each message with what became of its requests. Repeat: the first record stays."""
        with away_as(StoreUnavailable, "UNSUBD_STORE_URL"):
            pipeline = self._redis.pipeline(transaction=False)
            for message, results in entries:
                self._write_one(pipeline, message, results)
            pipeline.execute()

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
                    pipeline.hsetnx(home, first.key, content)
                    pipeline.expire(home, _LIFE_S)
            pipeline.execute()

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
        reading, writing = self._redis.pipeline(transaction=False), self._redis.pipeline(transaction=False)
        for home, key, _ in waiting:
            reading.hget(home, key)
        tried = []
        for each, content in zip(waiting, reading.execute(), strict=True):
            if content and (longer := self._longer(json.loads(content), each[2])):
                self._swap(keys=[each[0]], args=[each[1], content, longer, _LIFE_S], client=writing)
                tried.append(each)
        return [each for each, swapped in zip(tried, writing.execute(), strict=True) if not swapped]

    def _longer(self, record: dict[str, Any], addition: dict[str, Any]) -> str:
        """The record with its addition; "" when it has it already."""
        known = record.get("resolutions", [])
        if addition["id"] in (each["id"] for each in known):
            return ""
        redacted = {**addition, "requests": [self._redacted(result) for result in addition["requests"]]}
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
            pipeline.hsetnx(home, message.key, json.dumps(content, separators=(",", ":")))
            pipeline.expire(home, _LIFE_S)

    def _homes(self, message: DecidedMessage) -> list[str]:
        return list(dict.fromkeys(self._home(message, each) for each in message.requests or (None,)))

    def _home(self, message: DecidedMessage, request: Request | None) -> str:
        month = datetime.fromtimestamp(message.received_ms / 1000, UTC).strftime("%Y-%m")
        if request is None:
            return f"unsubd:ledger:{{-}}:{month}"
        return f"unsubd:ledger:{{{request.sender}:{self._pseudonym(request.recipient)[:2]}}}:{month}"

    def _redacted(self, result: dict[str, Any]) -> dict[str, Any]:
        return {**result, "recipient": self._pseudonym(result["recipient"])}

    def records(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield (message key, record) of every message, pointers left out. Reads everything: for reports and tests."""
        with away_as(StoreUnavailable, "UNSUBD_STORE_URL"):
            for key in self._redis.scan_iter("unsubd:ledger:*", count=500):
                for field, content in self._redis.hscan_iter(key, count=500):
                    if "see" not in (record := json.loads(content)):
                        yield field.decode(), record


def result_of(effect: Effect, sender: str, group: int, recipient: str, request_id: str, **more: Any) -> dict[str, Any]:
    """Return the ledger's line for one request."""
    return {
        "id": request_id, "sender": sender, "group": group, "recipient": recipient, "effect": effect.value, **more,
    }  # fmt: skip
