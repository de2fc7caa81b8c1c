"""Stored tags: what a form-h tag stands for. A row never expires, because people unsubscribe from year-old mail.

| key              | type | holds                                                                  | lives    |
|------------------|------|------------------------------------------------------------------------|----------|
| `unsubd:tag:REF` | HASH | sender, group, recipient (a forgotten one's name) of a form-h tag      | for good |
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import redis

from handlers.errors import StoreUnavailable
from handlers.tag import Minted, StoredTag, Tag
from worker.points import point
from worker.server import away_as, check_confirmed, confirm
from worker.store.forgotten import ForgottenNames

_SETTING = "UNSUBD_STORE_URL"
_TAG = "unsubd:tag:"
_AT_ONCE = 1000


class StoredTags:
    """The stored tags on one server.

    Errors:  StoreUnavailable  every method, when the server is away or cannot write.    temporary
    """

    def __init__(self, client: redis.Redis, *, min_replicas: int = 0) -> None:
        self._redis = client
        self._min_replicas = min_replicas

    def keep(self, minted: Iterable[tuple[Minted, Tag]]) -> None:
        """Make form-h tags durable: only then may their addresses be used. Repeat: safe, the row is always the same."""
        with away_as(StoreUnavailable, _SETTING):
            pipeline = self._redis.pipeline(transaction=False)
            for each, tag in minted:
                fields: dict[Any, Any] = {"sender": tag.sender, "group": tag.group, "recipient": tag.recipient}
                pipeline.hset(_TAG + each.ref, mapping=fields)
            confirm(pipeline, self._min_replicas)
            with point("store.tags"):
                check_confirmed(pipeline.execute(), self._min_replicas, StoreUnavailable)

    def found(self, refs: Sequence[StoredTag]) -> dict[StoredTag, Tag]:
        """Return the stored row of each ref that has one."""
        if not refs:
            return {}
        with away_as(StoreUnavailable, _SETTING):
            pipeline = self._redis.pipeline(transaction=False)
            for ref in refs:
                pipeline.hgetall(_TAG + ref.ref)
            replies: list[dict[bytes, bytes]] = pipeline.execute()
        return {ref: _tag(row) for ref, row in zip(refs, replies, strict=True) if row}

    def forget(self, recipient: str, names: ForgottenNames) -> int:
        """Put *recipient*'s forgotten name into every tag that spells the address; return how many. Reads every tag.

        Repeat:  safe. One that is minted meanwhile keeps the address: whoever mints it has the address, too.
        """
        count = 0
        for refs in self._refs():
            mine = [(ref, tag) for ref, tag in self.found(refs).items() if tag.recipient == recipient]
            with away_as(StoreUnavailable, _SETTING):
                pipeline = self._redis.pipeline(transaction=False)
                for ref, tag in mine:
                    pipeline.hset(_TAG + ref.ref, "recipient", names(tag.sender, recipient))
                confirm(pipeline, self._min_replicas)
                with point("forget.tags"):
                    check_confirmed(pipeline.execute(), self._min_replicas, StoreUnavailable)
            count += len(mine)
        return count

    def _refs(self) -> Iterator[list[StoredTag]]:
        some: list[StoredTag] = []
        with away_as(StoreUnavailable, _SETTING):
            for key in self._redis.scan_iter(_TAG + "*", count=_AT_ONCE):
                some.append(StoredTag(key.decode().removeprefix(_TAG)))
                if len(some) >= _AT_ONCE:
                    yield some
                    some = []
        yield some


def _tag(row: dict[bytes, bytes]) -> Tag:
    return Tag(row[b"sender"].decode(), int(row[b"group"]), row[b"recipient"].decode())
