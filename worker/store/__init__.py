"""Suppressions: who must get no more mail, of which sender and group. The only module that knows their layout.

| key                            | type   | holds                                                           | lives    |
|--------------------------------|--------|-----------------------------------------------------------------|----------|
| `unsubd:supp:{SENDER:BUCKET}`  | HASH   | about a hundred recipients' rows (`layout.py`, `row.py`)        | for good |
| `unsubd:buckets:{SENDER}`      | HASH   | `buckets` -> how many; group that has rows -> how often one changed | for good |
| `unsubd:growing:{SENDER}`      | STRING | somebody splits the sender's buckets                            | 2 s      |

A bucket lies in a slot of its own, so that a Cluster spreads a sender. `first_layout.py` has what older versions wrote;
`tags.py`, `ledger.py` and `archive.py` keep the rest of the store.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from importlib.resources import files
from itertools import islice
from typing import Any

import redis

from handlers.errors import StoreUnavailable
from handlers.request import Action, Effect, Request
from handlers.tag import is_forgotten
from worker.points import point
from worker.server import away_as
from worker.store import layout
from worker.store.asking import Rows, fields_of, read_many
from worker.store.buckets import Buckets, Write
from worker.store.first_layout import FirstLayout
from worker.store.forgotten import ForgottenNames
from worker.store.reading import Hints, Question, Reading, cells_of, either, read
from worker.store.row import COMPLAINT, HELD, OTHER_TIME, SUPPRESSED, Row, holds, is_dated, pack, releases, unpack
from worker.store.script import Script, send

_SETTING = "UNSUBD_STORE_URL"
_REGISTER = Script(files("worker.store").joinpath("register.lua").read_text())
_FORGET = Script(files("worker.store").joinpath("forget.lua").read_text())
_EFFECTS = {each.value.encode(): each for each in Effect}
_BATCH = 1000  # between two looks at how full the buckets are
_COUNTED_AT_ONCE = 1000
_READ_AT_ONCE = 500  # of one sender; while the server reads so many, the next are made
_FORGOTTEN = "forgotten"  # the field of the directory that stands for a change in any group


class Store:
    """The suppressions on one server, or on a Cluster.

    Errors:  StoreUnavailable  every method, when the server is away or cannot write.    temporary
    """

    def __init__(
        self, client: redis.Redis | redis.RedisCluster, names: ForgottenNames, *, min_replicas: int = 0
    ) -> None:
        self._redis = client
        self._names = names
        self._min_replicas = min_replicas
        self._hints = Hints()
        self._old = FirstLayout(client)
        self._buckets = Buckets(client, self._hints, names, min_replicas=min_replicas)

    def apply(self, requests: Sequence[Request], *, now_ms: int | None = None) -> list[Effect]:
        """Apply each request to its row, in order, and return what each did. Durable when it returns.

        Units:   now_ms: milliseconds UTC; None = the server's own clock (tests give one).
        Repeat:  safe, in any order: the register decides by event time, and the same request id hears its first effect.
        """
        effects: list[Effect] = []
        with away_as(StoreUnavailable, _SETTING):
            for start in range(0, len(requests), _BATCH):
                some = requests[start : start + _BATCH]
                self._buckets.ask(self._hints.asking([each.sender for each in some]))
                taken = self._taken([(each.sender, each.group, each.recipient) for each in some])
                writes = (self._write(each, old) for each, old in zip(some, taken, strict=True))
                with point("store.apply"):
                    replies = self._buckets.write(_REGISTER, writes, ["" if now_ms is None else now_ms])
                effects += [_EFFECTS[reply] for reply in replies]
        return effects

    def _write(self, request: Request, taken: tuple[bytes, bool]) -> Write:
        source = request.source
        if lifts := request.action is Action.RESUBSCRIBE:
            flags = HELD * releases(source) + OTHER_TIME * is_dated(source)
        else:
            flags = SUPPRESSED + HELD * holds(source) + OTHER_TIME * request.undated
        if request.action is Action.COMPLAINT:
            flags |= HELD + COMPLAINT
        row = pack(request.at_ms, flags, source, bytes.fromhex(request.id)[:8])
        place = layout.place(self._names, request.sender, request.recipient)
        more = _counted(bytes.fromhex(request.seen_version), taken, place.parts)
        return Write(request.sender, place, str(request.group), (request.group or "", row, *more), lifts)

    def _taken(self, wanted: Sequence[tuple[str, int, str]]) -> list[tuple[bytes, bool]]:
        """What the first layout has of each (sender, group, recipient): the row, and whether he is forgotten."""
        taken = [(b"", False)] * len(wanted)
        places = [number for number, each in enumerate(wanted) if self._hints.in_first_layout(each[0])]
        commands = []
        for sender, group, recipient in (wanted[number] for number in places):
            name = self._names(sender, recipient)
            commands += [FirstLayout.marked(sender, name), FirstLayout.reading(sender, group, (recipient, name))]
        replies = send(self._redis, commands)
        for number, marked, reply in zip(places, replies[::2], replies[1::2], strict=True):
            taken[number] = FirstLayout.taken(reply), bool(marked)
        return taken

    def asking(self, sender: str, group: int, recipients: Sequence[str]) -> Reading[list[Rows]]:
        """Return what `asked` does, for whoever brings a client of his own: a `Reading`."""
        return (yield from read_many(self._hints, self._names, sender, group, recipients))

    def asked(self, sender: str, group: int, recipients: Sequence[str]) -> list[Rows]:
        """Return for each canonical recipient, in order, the rows of group 0 and of *group*. One round trip for each 500."""
        if not recipients:
            return []
        with away_as(StoreUnavailable, _SETTING):
            if len(recipients) == 1 and (rows := self._asked_one(sender, group, recipients[0])):
                return [rows]
            parts = (recipients[start : start + _READ_AT_ONCE] for start in range(0, len(recipients), _READ_AT_ONCE))
            found = self._buckets.ask_each(self.asking(sender, group, some) for some in parts)
            return [rows for part in found for rows in part]

    def _asked_one(self, sender: str, group: int, recipient: str) -> Rows | None:
        """Return what `asking` finds if the bucket is where it is believed to be, for a third of the work: the hottest path."""
        if not self._hints.are_known(sender):
            return None
        hash_, fields = fields_of(self._names, sender, layout.ends((0, group)), recipient)
        bucket = layout.bucket_of(hash_, self._hints.buckets(sender))
        command = "HMGET", layout.bucket_key(sender, bucket), b"", *fields
        [(head, *cells)] = self._buckets.line.ask([command])
        if not layout.is_here(head, bucket, hash_):
            return None
        return either(*cells[:2]), either(*cells[2:])

    def row(self, sender: str, group: int, recipient: str) -> Row | None:
        """Return the row of this very group, whatever its state."""
        return self.rows([(sender, group, recipient)])[0]

    def rows(self, names: Sequence[tuple[str, int, str]]) -> list[Row | None]:
        """Return the row of each (sender, group, canonical recipient), None where there is none. One round trip."""
        asked = [(sender, (group,), recipient) for sender, group, recipient in names]
        with away_as(StoreUnavailable, _SETTING):
            return [row for [row] in self._buckets.ask(read(self._hints, self._names, asked))]

    def groups(self, sender: str) -> list[int]:
        """Return the ids of the groups that have rows of *sender*, registered or not."""
        with away_as(StoreUnavailable, _SETTING):
            [fields] = send(self._redis, [("HKEYS", layout.directory_key(sender))])
            old = self._old.groups(sender)
        return sorted({int(each) for each in fields if each.isdigit()} | set(old))

    def senders(self) -> list[str]:
        """Return every sender that has rows, registered or not. Looks at every key: for rare work."""
        with away_as(StoreUnavailable, _SETTING):
            keys = self._redis.scan_iter(layout.directory_key("*"), count=1000)
            found = {key.decode().partition("{")[2].removesuffix("}") for key in keys}
            return sorted(found | set(self._old.senders()))

    def counted(self, sender: str, groups: Sequence[int]) -> list[int]:
        """Return for each group how many are suppressed, forgotten ones among them. Asks every bucket of the sender."""
        with away_as(StoreUnavailable, _SETTING):
            self._buckets.ask(self._hints.asking([sender]))
            if self._hints.in_first_layout(sender):
                return [len({name for name, _ in self.stopped(sender, group)}) for group in groups]
            fields = [layout.field(b"", group) for group in groups]
            totals = [0] * len(groups)
            for _, *counts in self._buckets.walk(
                sender, lambda key: ("HMGET", key, b"", *fields), at_once=_COUNTED_AT_ONCE
            ):
                totals = [total + int(count or 0) for total, count in zip(totals, counts, strict=True)]
        return totals

    def changes(self, sender: str, group: int) -> int:
        """Return a number that is another one once any row of this group changed."""
        with away_as(StoreUnavailable, _SETTING):
            [found] = send(self._redis, [("HMGET", layout.directory_key(sender), group, _FORGOTTEN)])
        return sum(int(each or 0) for each in found)

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
        return ((recipient, row) for _, recipient, row in self.known(sender, [group]) if row.suppressed)

    def known(self, sender: str, groups: Collection[int]) -> Iterator[tuple[int, str, Row]]:
        """Yield group, recipient, or a forgotten one's name, and row of all that these groups have, suppressed or lifted."""
        with away_as(StoreUnavailable, _SETTING):
            self._buckets.ask(self._hints.asking([sender]))
            if self._hints.in_first_layout(sender):  # before the buckets: what leaves it meanwhile is in them by then
                for group in groups:
                    for some in _chunks(self._old.recipients(sender, group)):
                        rows = zip(some, self.rows([(sender, group, each) for each in some]), strict=True)
                        yield from ((group, recipient, row) for recipient, row in rows if row)
            for bucket in self._buckets.walk(sender, lambda key: ("HGETALL", key)):
                for field, packed in bucket.items():
                    if (made := layout.group_of(field)) and made[0] and made[1] in groups:
                        yield made[1], layout.recipient_of(made[0], bucket), unpack(packed)

    def forget(self, recipient: str, senders: Iterable[str]) -> int:
        """Put a name in the place of a canonical recipient, in the rows of these senders and in all to come; return how many.

        Repeat:  safe. Shape: a sender without a row of the recipient remembers the name all the same (semantics §8).
        """
        moved = 0
        for sender in senders:
            place = layout.place(self._names, sender, recipient)
            with away_as(StoreUnavailable, _SETTING):
                self._buckets.ask(self._hints.asking([sender]))
                if self._hints.in_first_layout(sender):
                    self._move(sender, [(group, recipient) for group in self._old.groups(sender)])
                with point("forget.rows"):
                    [groups] = self._buckets.write(_FORGET, [Write(sender, place, _FORGOTTEN)])
            moved += len(groups)
        return moved

    def forgotten_count(self, sender: str) -> int:
        """Return how many recipients of *sender* lie under a name. Reads every bucket: for rare work."""
        with away_as(StoreUnavailable, _SETTING):
            self._buckets.ask(self._hints.asking([sender]))
            marked = {each.encode() for each in self._old.names(sender)}
            for bucket in self._buckets.walk(sender, lambda key: ("HGETALL", key)):
                marked.update(filter(layout.is_mark, bucket))
        return len(marked)

    def is_forgotten(self, sender: str, recipient: str) -> bool:
        """Say whether this sender's rows of a canonical recipient lie under a name."""
        place = layout.place(self._names, sender, recipient)
        with away_as(StoreUnavailable, _SETTING):
            self._buckets.ask(self._hints.asking([sender]))
            [(_, old)] = self._taken([(sender, 0, recipient)])
            [[mark]] = self._buckets.ask(cells_of(self._hints, [Question(sender, place.hash, [place.name])]))
        return old or mark is not None

    def migrate(self) -> Iterator[int]:
        """Move every row of the first layout to its bucket, while everybody works; yield how many, some hundreds at a time.

        Repeat:  safe; what a kill left is moved the next time, and what a program of the first layout wrote since.
        """
        with away_as(StoreUnavailable, _SETTING):
            self._old.shut((), min_replicas=self._min_replicas)
            for sender in sorted(set(self._old.senders())):
                self._hints.forget(sender)  # what was put aside just now, it does not know of
                self._buckets.ask(self._hints.asking([sender]))
                for group in self._old.groups(sender):
                    for some in _chunks(self._old.recipients(sender, group)):
                        yield self._move(sender, [(group, each) for each in some])
                for names in _chunks(self._old.names(sender)):
                    self._move(sender, [(0, each) for each in names], raises=_FORGOTTEN)
                    with point("store.unmark"):
                        send(self._redis, [FirstLayout.dropping_names(sender, names)])
                self._old.close(sender)

    def _move(self, sender: str, rows: Sequence[tuple[int, str]], *, raises: str = "") -> int:
        """Copy rows and marks of (group, recipient or name) to their buckets, then delete them; return how many rows."""
        if not rows:
            return 0
        taken = self._taken([(sender, group, recipient) for group, recipient in rows])
        writes = []
        for (group, recipient), (packed, forgotten) in zip(rows, taken, strict=True):
            place = layout.place(self._names, sender, recipient)
            arguments = (group or "", b"", *_counted(b"", (packed, forgotten), place.parts))
            writes.append(Write(sender, place, raises or str(group), arguments))
        with point("store.move"):
            self._buckets.write(_REGISTER, writes, [""])
        forms = [(group, {recipient, self._names(sender, recipient)}) for group, recipient in rows]
        with point("store.take-out"):
            send(self._redis, [FirstLayout.dropping(sender, group, both) for group, both in forms])
        return sum(bool(packed) for packed, _ in taken)


def _counted(seen: bytes, taken: tuple[bytes, bool], parts: tuple[bytes, ...]) -> tuple[Any, ...]:
    """What `register.lua` takes of a request that has more to say than most, and before it how much that is."""
    packed, forgotten = taken
    return (3 + len(parts), seen, packed, int(forgotten), *parts) if seen or packed or forgotten or parts else (0,)


def _chunks(found: Iterator[str]) -> Iterator[list[str]]:
    return iter(lambda: list(islice(found, _BATCH)), [])
