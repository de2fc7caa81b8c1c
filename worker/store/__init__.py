"""Suppressions: who must get no more mail, of which sender and group. The only module that knows their layout.

First layout, behind this interface (a later one is smaller):

| key                            | type | holds                                                          | lives    |
|--------------------------------|------|----------------------------------------------------------------|----------|
| `unsubd:supp:{SENDER}:GROUP`   | HASH | canonical recipient, or a forgotten one's name -> row (`row.py`) | for good |
| `unsubd:supp:{SENDER}`         | SET  | the sender's groups that have rows                             | for good |
| `unsubd:forgotten:{SENDER}`    | SET  | names of recipients whose rows lie under them                  | for good |
| `unsubd:counts:{SENDER}`       | HASH | group -> its suppressed rows; `GROUP:changes` and `GROUP:whole` | for good |

A sender's keys lie in one slot; `tags.py`, `ledger.py` and `archive.py` keep the rest of the store.
"""

from collections.abc import Iterable, Iterator, Sequence
from importlib.resources import files
from typing import Any, cast

import redis

from handlers.errors import StoreUnavailable
from handlers.request import Action, Effect, Request
from handlers.tag import is_forgotten
from worker.points import point
from worker.server import Writer, away_as, check_confirmed, confirm
from worker.store.forgotten import ForgottenNames
from worker.store.row import Row, holds, is_dated, is_suppressed, releases, source_code, unpack

_SETTING = "UNSUBD_STORE_URL"
_REGISTER = files("worker.store").joinpath("register.lua").read_text()
_RECOUNT = files("worker.store").joinpath("recount.lua").read_text()
_FORGET = files("worker.store").joinpath("forget.lua").read_text()
_CODES = {Action.UNSUBSCRIBE: "u", Action.COMPLAINT: "c", Action.RESUBSCRIBE: "r"}

Rows = tuple[Row | None, Row | None]
"""Of one recipient: the row of group 0, and that of the group (the same for group 0)."""


def _key(sender: str, group: int) -> str:
    return f"unsubd:supp:{{{sender}}}:{group}"


def _groups_key(sender: str) -> str:
    return f"unsubd:supp:{{{sender}}}"


def _forgotten_key(sender: str) -> str:
    return f"unsubd:forgotten:{{{sender}}}"


def _counts_key(sender: str) -> str:
    return f"unsubd:counts:{{{sender}}}"


class Questions:
    """The reads that a check of many recipients is: whoever has a connection sends `commands` and gives back the replies.

    Why:     a check is asked by the store, by a client with threads and by one with asyncio; there is one way to read.
    """

    def __init__(self, names: ForgottenNames, sender: str, group: int, recipients: Sequence[str]) -> None:
        fields = [field for each in recipients for field in (each, names(sender, each))]
        self._recipients = len(recipients)
        self.commands = [("HMGET", _key(sender, each), *fields) for each in dict.fromkeys((0, group))]

    def rows(self, replies: Sequence[Sequence[bytes | None]]) -> list[Rows]:
        """Return the rows of each recipient, in order."""
        columns = [[_either(*pair) for pair in zip(reply[::2], reply[1::2], strict=True)] for reply in replies]
        return list(zip(columns[0], columns[-1], strict=True)) if self._recipients else []


STORE_KEYS = (
    "unsubd:supp:", "unsubd:counts:", "unsubd:forgotten:", "unsubd:tag:", "unsubd:ledger:", "unsubd:masters",
    "unsubd:pseudonym-key", "unsubd:parked",
)  # fmt: skip
"""How the keys of the store's server begin, for who copies it; all others are the queue's."""


class Store:
    """The suppressions on one server.

    Errors:  StoreUnavailable  every method, when the server is away or cannot write.    temporary
    """

    def __init__(self, client: redis.Redis, names: ForgottenNames, *, min_replicas: int = 0) -> None:
        self._redis = client
        self._names = names
        self._min_replicas = min_replicas
        self._confirmed = Writer(client, min_replicas, StoreUnavailable, _SETTING)
        self._register = client.register_script(_REGISTER)
        self._recount = client.register_script(_RECOUNT)
        self._forget = client.register_script(_FORGET)

    def apply(self, requests: Sequence[Request], *, now_ms: int | None = None) -> list[Effect]:
        """Apply each request to its row, in order, and return what each did. Durable when it returns.

        Units:   now_ms: milliseconds UTC; None = the server's own clock (tests give one).
        Repeat:  safe, in any order: the register decides by event time, and the same request id hears its first effect.
        """
        with away_as(StoreUnavailable, _SETTING):
            pipeline = self._redis.pipeline(transaction=False)
            for each in requests:
                keys = [_key(each.sender, each.group), _groups_key(each.sender), _forgotten_key(each.sender),
                        _counts_key(each.sender)]  # fmt: skip
                self._register(keys=keys, args=self._args(each, now_ms), client=pipeline)
            confirm(pipeline, self._min_replicas)
            with point("store.apply"):
                replies = pipeline.execute()
        replies = check_confirmed(replies, self._min_replicas, StoreUnavailable)
        return [Effect(reply.decode()) for reply in replies]

    def _args(self, request: Request, now_ms: int | None) -> list[Any]:
        if request.action is Action.RESUBSCRIBE:
            privileged, undated = releases(request.source), not is_dated(request.source)
        else:
            privileged = request.action is Action.COMPLAINT or holds(request.source)
            undated = request.undated
        return [
            request.recipient,
            _CODES[request.action],
            request.at_ms,
            bytes.fromhex(request.id)[:8],
            source_code(request.source),
            "1" if privileged else "0",
            bytes.fromhex(request.seen_version),
            "" if now_ms is None else now_ms,
            self._names(request.sender, request.recipient),
            request.group,
            "1" if undated else "0",
        ]

    def asked(self, sender: str, group: int, recipients: Sequence[str]) -> list[Rows]:
        """Return for each canonical recipient, in order, the rows of group 0 and of *group*. One round trip."""
        if not recipients:
            return []
        questions = Questions(self._names, sender, group, recipients)
        with away_as(StoreUnavailable, _SETTING):
            pipeline = self._redis.pipeline(transaction=False)
            for command in questions.commands:
                pipeline.execute_command(*command)  # type: ignore[no-untyped-call]
            return questions.rows(pipeline.execute())

    def row(self, sender: str, group: int, recipient: str) -> Row | None:
        """Return the row of this very group, whatever its state."""
        return self.rows([(sender, group, recipient)])[0]

    def rows(self, names: Sequence[tuple[str, int, str]]) -> list[Row | None]:
        """Return the row of each (sender, group, canonical recipient), None where there is none. One round trip."""
        with away_as(StoreUnavailable, _SETTING):
            pipeline = self._redis.pipeline(transaction=False)
            for sender, group, recipient in names:
                pipeline.hmget(_key(sender, group), [recipient, self._names(sender, recipient)])
            return [_either(*reply) for reply in pipeline.execute()]

    def groups(self, sender: str) -> list[int]:
        """Return the ids of the groups that have rows of *sender*, registered or not."""
        with away_as(StoreUnavailable, _SETTING):
            found = cast(set[bytes], self._redis.smembers(_groups_key(sender)))
        return sorted(int(each) for each in found)

    def senders(self) -> list[str]:
        """Return every sender that has rows, registered or not. Looks at every key: for rare work."""
        with away_as(StoreUnavailable, _SETTING):
            keys = self._redis.scan_iter("unsubd:supp:{*}", count=1000)
            return sorted(key.decode().partition("{")[2].removesuffix("}") for key in keys)

    def counted(self, sender: str, groups: Sequence[int]) -> list[tuple[int, int]]:
        """Return for each group how many are suppressed, forgotten ones among them, and a number that every change raises.

        Why:     rows may be older than the counting: a group that was never counted whole is, by its first reader.
        """
        fields = [field for group in groups for field in (str(group), f"{group}:changes", f"{group}:whole")]
        with away_as(StoreUnavailable, _SETTING):
            found = cast(list[bytes | None], self._redis.hmget(_counts_key(sender), fields)) if fields else []
        rows = zip(groups, found[::3], found[1::3], found[2::3], strict=True)
        return [
            (max(0, int(count or 0)) if whole else self._recounted(sender, group, changes), int(changes or 0))
            for group, count, changes, whole in rows
        ]

    def _recounted(self, sender: str, group: int, changes: bytes | None) -> int:
        """Count a group row by row, and keep that for good unless it changes meanwhile: then the next reader counts again.

        Limits:  1,000,000 rows take about 3 s, once. While something changes in each such time, each reader pays it.
        """
        with away_as(StoreUnavailable, _SETTING):
            if not self._redis.exists(_key(sender, group)):
                return 0
            rows = self._redis.hscan_iter(_key(sender, group), count=5000)
            count = len({hash(recipient) for recipient, packed in rows if is_suppressed(packed)})  # one may come twice
            self._recount(keys=[_counts_key(sender)], args=[group, changes or b"", count])
        return count

    def now_ms(self) -> int:
        """Return what the store's clock says, in ms UTC: it dates what a person or program enters now (semantics §2)."""
        with away_as(StoreUnavailable, _SETTING):
            seconds, micros = self._redis.time()
        return seconds * 1000 + micros // 1000

    def listed(self, sender: str, group: int) -> Iterator[tuple[str | None, Row]]:
        """Yield every suppressed recipient of this very group, in no order: None for a forgotten one, who is only counted.

        Repeat:  one that changes meanwhile may be missed or come twice.
        """
        for recipient, row in self.stopped(sender, group):
            yield None if is_forgotten(recipient) else recipient, row

    def stopped(self, sender: str, group: int) -> Iterator[tuple[str, Row]]:
        """Yield what `listed` does, with a forgotten recipient's name: for what goes on as a request, never for people."""
        return ((field, row) for field, row in self.known(sender, group) if row.suppressed)

    def known(self, sender: str, group: int) -> Iterator[tuple[str, Row]]:
        """Yield every recipient, or a forgotten one's name, that has a row in this very group, suppressed or lifted."""
        with away_as(StoreUnavailable, _SETTING):
            for field, packed in self._redis.hscan_iter(_key(sender, group), count=500):
                yield field.decode(), unpack(packed)

    def forget(self, recipient: str, senders: Iterable[str]) -> int:
        """Put a name in the place of a canonical recipient, in the rows of these senders and in all to come; return how many.

        Repeat:  safe. Shape: a sender without a row of the recipient remembers the name all the same (semantics §8).
        """
        moved = 0
        for sender in senders:
            for _ in range(2):  # a group that had its first row in between is found the second time
                keys = [
                    _forgotten_key(sender),
                    _counts_key(sender),
                    *(_key(sender, group) for group in self.groups(sender)),
                ]
                moved += self._move(keys, [recipient, self._names(sender, recipient)])
        return moved

    def _move(self, keys: list[str], args: list[str]) -> int:
        with point("forget.rows"):
            return int(self._confirmed(lambda to: self._forget(keys=keys, args=args, client=to)))

    def forgotten_count(self, sender: str) -> int:
        """Return how many recipients of *sender* lie under a name."""
        with away_as(StoreUnavailable, _SETTING):
            return self._redis.scard(_forgotten_key(sender))

    def is_forgotten(self, sender: str, recipient: str) -> bool:
        """Say whether this sender's rows of a canonical recipient lie under a name."""
        with away_as(StoreUnavailable, _SETTING):
            return bool(self._redis.sismember(_forgotten_key(sender), self._names(sender, recipient)))


def _either(address: bytes | None, name: bytes | None) -> Row | None:
    """The row of a recipient: under the name once the address is forgotten."""
    found = [unpack(packed) for packed in (name, address) if packed]
    return next((row for row in found if row.suppressed), found[0] if found else None)
