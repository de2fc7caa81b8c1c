"""Suppressions: who must get no more mail, of which sender and group. The only module that knows their layout.

First layout, behind this interface (a later one is smaller):

| key                              | type | holds                                              | lives   |
|----------------------------------|------|----------------------------------------------------|---------|
| `unsubd:supp:{SENDER}:GROUP`     | HASH | canonical recipient -> row (`row.py`)              | for good |
| `unsubd:tag:REF`                 | HASH | sender, group, recipient of a form-h tag           | for good |
| `unsubd:ledger:{SENDER:P}:MONTH` | HASH | message key -> record (`ledger.py`)                | 122 days |
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import redis

from handlers.errors import StoreUnavailable
from handlers.request import Action, Effect, Request
from handlers.tag import Minted, StoredTag, Tag
from worker.server import away_as, check_confirmed, confirm
from worker.store.row import Row, holds, releases, source_code, unpack

_SETTING = "UNSUBD_STORE_URL"
_REGISTER = files("worker.store").joinpath("register.lua").read_text()
_CODES = {Action.UNSUBSCRIBE: "u", Action.COMPLAINT: "c", Action.RESUBSCRIBE: "r"}


@dataclass(frozen=True, slots=True)
class Answer:
    """What a check says about one recipient.

    Shape:   scope: "group", "global", or None when mail is allowed. row: the row that stops the mail, else None.
    """

    recipient: str
    scope: str | None
    row: Row | None

    @property
    def suppressed(self) -> bool:
        """Say whether mail must not be sent."""
        return self.scope is not None


def _key(sender: str, group: int) -> str:
    return f"unsubd:supp:{{{sender}}}:{group}"


class Store:
    """The suppressions and stored tags on one server.

    Errors:  StoreUnavailable  every method, when the server is away or cannot write.    temporary
    """

    def __init__(self, client: redis.Redis, *, min_replicas: int = 0) -> None:
        self._redis = client
        self._min_replicas = min_replicas
        self._register = client.register_script(_REGISTER)

    def apply(self, requests: Sequence[Request], *, now_ms: int | None = None) -> list[Effect]:
        """Apply each request to its row, in order, and return what each did. Durable when it returns.

        Units:   now_ms: milliseconds UTC; None = the server's own clock (tests give one).
        Repeat:  safe, in any order: the register decides by event time, and the same request id hears its first effect.
        """
        with away_as(StoreUnavailable, _SETTING):
            pipeline = self._redis.pipeline(transaction=False)
            for request in requests:
                self._register(keys=[_key(request.sender, request.group)], args=_args(request, now_ms), client=pipeline)
            confirm(pipeline, self._min_replicas)
            replies = pipeline.execute()
        replies = check_confirmed(replies, self._min_replicas, StoreUnavailable)
        return [Effect(reply.decode()) for reply in replies]

    def check(self, sender: str, group: int, recipients: Sequence[str]) -> list[Answer]:
        """Return one answer per canonical recipient, in order: global beats the group. One round trip."""
        if not recipients:
            return []
        with away_as(StoreUnavailable, _SETTING):
            pipeline = self._redis.pipeline(transaction=False)
            for each in dict.fromkeys((0, group)):
                pipeline.hmget(_key(sender, each), list(recipients))
            replies = pipeline.execute()
        return [_answer(recipient, *rows) for recipient, *rows in zip(recipients, *replies, strict=True)]

    def row(self, sender: str, group: int, recipient: str) -> Row | None:
        """Return the row of this very group, whatever its state."""
        return self.rows([(sender, group, recipient)])[0]

    def rows(self, names: Sequence[tuple[str, int, str]]) -> list[Row | None]:
        """Return the row of each (sender, group, canonical recipient), None where there is none. One round trip."""
        with away_as(StoreUnavailable, _SETTING):
            pipeline = self._redis.pipeline(transaction=False)
            for sender, group, recipient in names:
                pipeline.hget(_key(sender, group), recipient)
            replies = pipeline.execute()
        return [unpack(reply) if reply else None for reply in replies]

    def listed(self, sender: str, group: int) -> Iterator[tuple[str, Row]]:
        """Yield every suppressed recipient of this very group, in no order; one that changes meanwhile may be missed."""
        with away_as(StoreUnavailable, _SETTING):
            for recipient, packed in self._redis.hscan_iter(_key(sender, group), count=500):
                if (row := unpack(packed)).suppressed:
                    yield recipient.decode(), row

    def keep_tags(self, minted: Iterable[tuple[Minted, Tag]]) -> None:
        """Make form-h tags durable: only then may their addresses be used. Repeat: safe, the row is always the same."""
        with away_as(StoreUnavailable, _SETTING):
            pipeline = self._redis.pipeline(transaction=False)
            for each, tag in minted:
                fields: dict[Any, Any] = {"sender": tag.sender, "group": tag.group, "recipient": tag.recipient}
                pipeline.hset(f"unsubd:tag:{each.ref}", mapping=fields)
            confirm(pipeline, self._min_replicas)
            check_confirmed(pipeline.execute(), self._min_replicas, StoreUnavailable)

    def tags(self, refs: Sequence[StoredTag]) -> dict[StoredTag, Tag]:
        """Return the stored row of each ref that has one."""
        if not refs:
            return {}
        with away_as(StoreUnavailable, _SETTING):
            pipeline = self._redis.pipeline(transaction=False)
            for ref in refs:
                pipeline.hgetall(f"unsubd:tag:{ref.ref}")
            replies: list[dict[bytes, bytes]] = pipeline.execute()
        return {
            ref: Tag(row[b"sender"].decode(), int(row[b"group"]), row[b"recipient"].decode())
            for ref, row in zip(refs, replies, strict=True)
            if row
        }


def _args(request: Request, now_ms: int | None) -> list[Any]:
    seen = bytes.fromhex(request.seen_version)
    if request.action is Action.RESUBSCRIBE:
        privileged = releases(request.source)
    else:
        privileged = request.action is Action.COMPLAINT or holds(request.source)
    return [
        request.recipient,
        _CODES[request.action],
        request.at_ms,
        bytes.fromhex(request.id)[:8],
        source_code(request.source),
        "1" if privileged else "0",
        seen,
        "" if now_ms is None else now_ms,
    ]


def _answer(recipient: str, everything: bytes | None, group: bytes | None = None) -> Answer:
    for scope, packed in (("global", everything), ("group", group)):
        if packed and (row := unpack(packed)).suppressed:
            return Answer(recipient, scope, row)
    return Answer(recipient, None, None)
