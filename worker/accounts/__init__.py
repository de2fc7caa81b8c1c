"""Senders and their groups; `api_keys.py` keeps their API keys.

| key                         | type   | holds                                                        | lives    |
|-----------------------------|--------|--------------------------------------------------------------|----------|
| `unsubd:senders`            | HASH   | sender id -> JSON {name, address, public_url, …}             | for good |
| `unsubd:groups`             | HASH   | group id -> JSON {sender, name, description, …}              | for good |
| `unsubd:groups:last`        | STRING | the installation-wide counter of group ids                   | for good |
| `unsubd:group-names:SENDER` | HASH   | name -> id of the sender's groups that are not archived      | for good |
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from enum import Enum
from importlib.resources import files
from typing import Any, cast

import redis

from handlers.errors import Conflict, QueueUnavailable, Rejected, UnknownAccount
from handlers.tag import MAX_GROUP, SENDER_ID
from worker.accounts.api_keys import ApiKeys
from worker.accounts.model import Group, Sender, as_json, read_group, read_sender
from worker.counted import HOOK_TEST
from worker.server import Writer, away_as

__all__ = ["Accounts", "Group", "KnownGroups", "Sender", "Standing"]
_SENDERS, _GROUPS, _LAST = "unsubd:senders", "unsubd:groups", "unsubd:groups:last"
_NAMES = "unsubd:group-names:"
_ADD_GROUP = files("worker.accounts").joinpath("add_group.lua").read_text()
_CHANGE_GROUP = files("worker.accounts").joinpath("change_group.lua").read_text()
_KEY_DIGITS = 12
_FRESH_S = 5.0  # semantics §3: group flags may be cached so long


class Standing(Enum):
    """What becomes of a request for a group: it goes there, only if it was made for it by name, or to group 0."""

    LIVE = "live"
    ESSENTIAL = "essential"
    GONE = "gone"


@contextmanager
def _reachable() -> Iterator[None]:
    with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
        yield


class Accounts:
    """The accounts of one installation.

    Errors:  QueueUnavailable  every method, when Redis is away; a change also when too few replicas confirm it: it may be
                               in effect then.    temporary
    """

    def __init__(self, client: redis.Redis, *, min_replicas: int = 0) -> None:
        self._redis = client
        self._confirmed = Writer(client, min_replicas)
        self._add_group = client.register_script(_ADD_GROUP)
        self._change_group = client.register_script(_CHANGE_GROUP)
        self.keys = ApiKeys(client, min_replicas=min_replicas)

    # --- senders

    def add_sender(self, sender: str, name: str = "", **more: Any) -> Sender:
        """Register a sender; see `worker.adoption` for one whose tags are out already.

        Shape:   more: fields of `Sender`.
        Errors:  Rejected  a bad id, one that exists, a template or URL that cannot be used.    permanent
        """
        added = self.new_sender(sender, name, **more)
        if not self._confirmed(lambda to: to.hsetnx(_SENDERS, sender, as_json(added))):
            raise _exists(sender)
        return added

    def new_sender(self, sender: str, name: str = "", **more: Any) -> Sender:
        """Return a sender as `add_sender` would keep it; errors as there."""
        if not SENDER_ID.fullmatch(sender):
            raise Rejected(f"sender {sender[:20]!r}: expected 1 to 16 characters of a-z and 0-9")
        if sender == HOOK_TEST:
            raise Rejected(
                f"sender {sender!r}: what unsubd hook test stops mail of, and no report counts; expected another id"
            )
        with _reachable():
            if self._redis.hexists(_SENDERS, sender):
                raise _exists(sender)
        return Sender(sender, name, **more).checked()

    def edit_sender(self, sender: str, **changes: Any) -> Sender:
        """Change what is given of a sender: fields of `Sender`. Errors: as `add_sender`, UnknownAccount."""
        changed = replace(self.sender(sender), **changes).checked()
        self._confirmed(lambda to: to.hset(_SENDERS, sender, as_json(changed)))
        return changed

    def senders(self) -> list[Sender]:
        """Return every sender, by id."""
        with _reachable():
            rows = cast(dict[bytes, bytes], self._redis.hgetall(_SENDERS))
        return [read_sender(key.decode(), row) for key, row in sorted(rows.items())]

    def sender(self, sender: str) -> Sender:
        """Errors: UnknownAccount  nobody registered it.    permanent"""
        with _reachable():
            row = cast(bytes | None, self._redis.hget(_SENDERS, sender))
        if row is None:
            raise UnknownAccount(f"sender {sender[:20]!r}: not registered, expected one of: unsubd sender list")
        return read_sender(sender, row)

    # --- groups

    def add_group(
        self, sender: str, name: str, description: str = "", group_id: int | None = None, **more: Any
    ) -> Group:
        """Add a group and return it; ids come from one counter of the installation and are never reused.

        Shape:   group_id: None takes the next free one. more: `essential`, `is_default`.
        Errors:  Rejected        the name (1 to 30 characters, unique among the sender's groups that are not archived), the
                                 description (at most 100), the id is not free, or too many groups.    permanent
                 UnknownAccount  no such sender.    permanent
        """
        most = self.sender(sender).max_groups
        return self._keep_group(Group(0, sender, name, description, **more).checked(), group_id, most)

    def adopt_group(self, sender: str, group_id: int) -> None:
        """Make a group of an id that the rows of a sender carry who is not registered yet. Repeat: safe."""
        if self.owners([group_id]).get(group_id) != sender:
            self._keep_group(Group(0, sender, f"Group {group_id}", ""), group_id, MAX_GROUP)

    def _keep_group(self, group: Group, group_id: int | None, most: int) -> Group:
        if group_id is not None and not 1 <= group_id <= MAX_GROUP:
            raise Rejected(f"group id {group_id}: expected 1 to {MAX_GROUP}")
        keys = [_GROUPS, _LAST, _NAMES + group.sender]
        args = ["" if group_id is None else group_id, group.name, most, as_json(group)]
        answer: bytes = self._confirmed(lambda to: self._add_group(keys=keys, args=args, client=to))
        if answer == b"full":
            raise Conflict(
                f"sender {group.sender!r}: has {most} groups, expected fewer: archive one, or raise --max-groups"
            )
        if answer == b"id":
            raise Conflict(f"group id {group_id}: used already, expected an id that no group ever had")
        if answer == b"name":
            raise _name_taken(group)
        return replace(group, id=int(answer))

    def edit_group(self, sender: str, group_id: int, **changes: Any) -> Group:
        """Change name, description, is_default or archived of a group; an archived one keeps its suppressions.

        Errors:  Rejected        as `add_group`; group 0; the name of a restored group is taken.    permanent
                 UnknownAccount  no such group of this sender.    permanent
        Repeat:  safe.
        """
        if group_id == 0:
            raise Rejected("group 0: everything a sender sends, expected a group of: unsubd group list")
        while True:
            before, seen = self._group(sender, group_id)
            after = replace(before, **changes).checked()
            answer = self._change(group_id, seen, before, after)
            if answer == b"name":
                raise _name_taken(after)
            if answer == b"ok":
                return after

    def _change(self, group_id: int, seen: bytes, before: Group, after: Group) -> bytes:
        keys = [_GROUPS, _NAMES + after.sender]
        args: list[Any] = [group_id, seen, as_json(after), _live_name(before), _live_name(after)]
        return self._confirmed(lambda to: self._change_group(keys=keys, args=args, client=to))  # type: ignore[no-any-return]

    def groups(self, sender: str | None = None) -> list[Group]:
        """Return the groups of *sender*, or all: defaults first, then by id; archived ones included."""
        with _reachable():
            rows = cast(dict[bytes, bytes], self._redis.hgetall(_GROUPS))
        every = (read_group(int(group_id), row) for group_id, row in rows.items())
        return sorted(
            (each for each in every if sender in (None, each.sender)), key=lambda each: (not each.is_default, each.id)
        )

    def live_groups(self, sender: str) -> list[Group]:
        """Return what `groups` does of one sender, without the archived ones; reads no other sender's."""
        with _reachable():
            ids = cast(list[bytes], self._redis.hvals(_NAMES + sender))
            rows = cast(list[bytes | None], self._redis.hmget(_GROUPS, cast(list[str], ids))) if ids else []
        every = [read_group(int(each), row) for each, row in zip(ids, rows, strict=True) if row]
        return sorted(every, key=lambda each: (not each.is_default, each.id))

    def group(self, sender: str, group_id: int) -> Group:
        """Return a group of *sender*; 0 always exists.

        Errors:  UnknownAccount  no such sender, or the group is nobody's or another sender's.    permanent
        """
        name = self.sender(sender).name
        if group_id == 0:
            return Group(0, sender, f"Everything from {name}", "")
        return self._group(sender, group_id)[0]

    def _group(self, sender: str, group_id: int) -> tuple[Group, bytes]:
        with _reachable():
            row = cast(bytes | None, self._redis.hget(_GROUPS, str(group_id)))
        group = read_group(group_id, row) if row else None
        if row is None or group is None or group.sender != sender:
            raise UnknownAccount(
                f"group {group_id}: sender {sender[:20]!r} has none of that id, see: unsubd group list {sender[:20]}"
            )
        return group, row

    def owners(self, group_ids: list[int]) -> dict[int, str]:
        """Return the sender that owns each of these ids; a free id is absent."""
        if not group_ids:
            return {}
        with _reachable():
            rows = cast(list[bytes | None], self._redis.hmget(_GROUPS, [str(each) for each in group_ids]))
        return {each: read_group(each, row).sender for each, row in zip(group_ids, rows, strict=True) if row}

    def standings(self, names: set[tuple[str, int]]) -> dict[tuple[str, int], Standing]:
        """Say for each (sender, group) what becomes of a request for it.

        Shape:   an unregistered sender keeps the ids its tags carry; a registered one only its own, unarchived groups.
        """
        wanted = sorted(names)
        with _reachable():
            pipeline = self._redis.pipeline(transaction=False)
            for sender, group_id in wanted:
                pipeline.hexists(_SENDERS, sender)
                pipeline.hget(_GROUPS, str(group_id))
            replies: list[Any] = pipeline.execute()
        return {
            name: _standing(name, bool(registered), read_group(name[1], row) if row else None)
            for name, registered, row in zip(wanted, replies[::2], replies[1::2], strict=True)
        }

    # --- API keys

    def new_api_key(self, sender: str, **more: Any) -> str:
        """Make an API key of *sender* and return it; see `ApiKeys.make`. Errors: UnknownAccount  no such sender.    permanent"""
        return self.keys.make(self.sender(sender).id, **more)

    def api_keys(self, sender: str) -> list[tuple[str, int]]:
        """Return (id, created ms UTC) of each key of *sender*, newest first."""
        return [(each.id, each.created_ms) for each in reversed(self.keys.of(sender))]

    def revoke_api_key(self, sender: str, name: str) -> bool:
        """Make the key of *sender* with that id useless; say whether there was one. Repeat: safe."""
        try:
            return bool(self.keys.revoke(sender, name))
        except Rejected:
            return False


class KnownGroups:
    """Groups as one process knows them, at most 5 s old: so that a check is one round trip.

    Errors:  as `Accounts.group`; nothing that failed is remembered.
    """

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts
        self._known: dict[tuple[str, int], tuple[float, Group]] = {}

    def group(self, sender: str, group_id: int) -> Group:
        """Return a group of *sender*; 0 always exists."""
        read_at, group = self._known.get((sender, group_id), (0.0, None))
        if group is None or time.monotonic() - read_at > _FRESH_S:
            read_at, group = time.monotonic(), self._accounts.group(sender, group_id)
            self._known[sender, group_id] = read_at, group  # only what exists: a flood of questions must not grow it
        return group


def _standing(name: tuple[str, int], registered: bool, group: Group | None) -> Standing:
    sender, group_id = name
    if group_id == 0:
        return Standing.LIVE
    if group is None:
        return Standing.GONE if registered else Standing.LIVE
    if group.sender != sender or group.archived:
        return Standing.GONE
    return Standing.ESSENTIAL if group.essential else Standing.LIVE


def _live_name(group: Group) -> str:
    return "" if group.archived else group.name


def _exists(sender: str) -> Rejected:
    return Rejected(f"sender {sender!r}: exists already, see: unsubd sender list")


def _name_taken(group: Group) -> Conflict:
    return Conflict(
        f"group {group.name!r}: sender {group.sender!r} has one of that name, see: unsubd group list {group.sender}"
    )
