"""The ledger: one record per message, written once, with pseudonyms instead of addresses.

A message's record lies with its first request, under `unsubd:ledger:{SENDER:P}:MONTH`, P being the first two hex digits
of the recipient's pseudonym; further recipients get a pointer. What concerns no sender lies under `{-}`.
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
Pseudonym = Callable[[str], str]


class Ledger:
    """The records of one installation.

    Errors:  StoreUnavailable  the server is away.    temporary
    """

    def __init__(self, client: redis.Redis, pseudonym: Pseudonym) -> None:
        self._redis = client
        self._pseudonym = pseudonym

    def write(self, entries: Sequence[tuple[DecidedMessage, list[dict[str, Any]]]]) -> None:
        """Write the record of each message with what became of its requests. Repeat: the first record stays."""
        with away_as(StoreUnavailable, "UNSUBD_STORE_URL"):
            pipeline = self._redis.pipeline(transaction=False)
            for message, results in entries:
                self._write_one(pipeline, message, results)
            pipeline.execute()

    def _write_one(self, pipeline: Any, message: DecidedMessage, results: list[dict[str, Any]]) -> None:
        homes = list(dict.fromkeys(self._home(message, each) for each in message.requests or (None,)))
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
