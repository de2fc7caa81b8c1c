"""What was not understood: the raw message and why, kept for a person.

| key                     | type   | holds                                             | lives    |
|-------------------------|--------|---------------------------------------------------|----------|
| `unsubd:quarantine`     | HASH   | id -> JSON {reason, source, at_ms, size_bytes, …} | until resolved |
| `unsubd:quarantine:raw` | HASH   | id -> the beginning of the message (32 KB at most)    | until resolved |
"""

import json
from collections import Counter
from typing import Any, cast

import redis

from handlers.errors import QueueUnavailable
from handlers.message import InboundMessage
from handlers.request import DecidedMessage
from worker.server import away_as, check_confirmed, confirm

_MAX_RAW_BYTES = 32768  # headers and a look at the text: anybody can send what lands here, and Redis is memory
_ENTRIES, _RAW = "unsubd:quarantine", "unsubd:quarantine:raw"


class Quarantine:
    """Errors: QueueUnavailable  every method, when Redis is away.    temporary"""

    def __init__(self, client: redis.Redis, *, min_replicas: int = 0) -> None:
        self._redis = client
        self._min_replicas = min_replicas

    def keep(self, kept: list[tuple[InboundMessage, DecidedMessage]]) -> None:
        """Keep messages with the reason, durably. Repeat: by message key; the first entry stays."""
        entries = [
            (message.key[:32], {"reason": decided.outcome.value, "detail": decided.reason, "source": decided.source,
             "at_ms": decided.received_ms, "size_bytes": message.size_bytes}, message.raw[:_MAX_RAW_BYTES])
            for message, decided in kept
        ]  # fmt: skip
        self._keep(entries)

    def keep_failed(self, entry_id: str, detail: str, wire: dict[str, Any], at_ms: int) -> None:
        """Keep requests that could not be applied, as they came, so that a person can replay them."""
        facts = {"reason": "failed", "detail": detail, "source": str(wire.get("source", "")), "at_ms": at_ms}
        self._keep([(entry_id[:32], facts, json.dumps(wire).encode())])

    def _keep(self, entries: list[tuple[str, dict[str, Any], bytes]]) -> None:
        if not entries:
            return
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
            pipeline = self._redis.pipeline(transaction=False)
            for entry_id, facts, raw in entries:
                pipeline.hsetnx(_RAW, entry_id, raw)
                pipeline.hsetnx(_ENTRIES, entry_id, json.dumps(facts))
            confirm(pipeline, self._min_replicas)
            check_confirmed(pipeline.execute(), self._min_replicas, QueueUnavailable)

    def counts(self) -> dict[str, int]:
        """Return how many entries wait, by reason."""
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
            rows = cast(dict[bytes, bytes], self._redis.hgetall(_ENTRIES))
        return dict(Counter(str(json.loads(row)["reason"]) for row in rows.values()))

    def raw(self, entry_id: str) -> bytes | None:
        """Return what was kept of an entry."""
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
            return cast(bytes | None, self._redis.hget(_RAW, entry_id))
