"""Senders, their groups and API keys.

| key                  | type   | holds                                                  | lives    |
|----------------------|--------|--------------------------------------------------------|----------|
| `unsubd:senders`     | HASH   | sender id -> JSON {name, created_ms}                   | for good |
| `unsubd:groups`      | HASH   | group id -> JSON {sender, name, description, …}        | for good |
| `unsubd:groups:last` | STRING | the installation-wide counter of group ids             | for good |
| `unsubd:api-keys`    | HASH   | SHA-256 of a key -> JSON {sender, created_ms}          | until revoked |
"""

import json
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any, cast

import redis

from handlers.errors import QueueUnavailable, Rejected, UnknownAccount
from handlers.tag import MAX_GROUP, SENDER_ID
from worker.server import away_as

_SENDERS, _GROUPS, _LAST, _API_KEYS = "unsubd:senders", "unsubd:groups", "unsubd:groups:last", "unsubd:api-keys"


@dataclass(frozen=True, slots=True)
class Sender:
    """A sender account. Shape: id 1 to 16 of a-z, 0-9; name as people know it."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Group:
    """A kind of mail within a sender; id 0 is everything the sender sends."""

    id: int
    sender: str
    name: str
    description: str
    archived: bool = False


@contextmanager
def _reachable() -> Iterator[None]:
    with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
        yield


class Accounts:
    """The accounts of one installation.

    Errors:  QueueUnavailable  every method, when Redis is away.    temporary
    """

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client

    def add_sender(self, sender: str, name: str = "") -> Sender:
        """Register a sender.

        Errors:  Rejected  a bad id, or one that exists.    permanent
        """
        if not SENDER_ID.fullmatch(sender):
            raise Rejected(f"sender {sender[:20]!r}: expected 1 to 16 characters of a-z and 0-9")
        with _reachable():
            content = json.dumps({"name": name or sender, "created_ms": _now_ms()})
            if not self._redis.hsetnx(_SENDERS, sender, content):
                raise Rejected(f"sender {sender!r}: exists already, see: unsubd sender list")
        return Sender(sender, name or sender)

    def senders(self) -> list[Sender]:
        """Return every sender, by id."""
        with _reachable():
            rows = cast(dict[bytes, bytes], self._redis.hgetall(_SENDERS))
        return [Sender(key.decode(), json.loads(row)["name"]) for key, row in sorted(rows.items())]

    def sender(self, sender: str) -> Sender:
        """Errors: UnknownAccount  nobody registered it.    permanent"""
        with _reachable():
            row = self._redis.hget(_SENDERS, sender)
        if row is None:
            raise UnknownAccount(f"sender {sender[:20]!r}: not registered, expected one of: unsubd sender list")
        return Sender(sender, json.loads(row)["name"])

    def add_group(self, sender: str, name: str, description: str, group_id: int | None = None) -> Group:
        """Add a group; ids come from one counter and are never reused.

        Errors:  Rejected        the name (1 to 30 characters, unique within the sender), the description (at most 100),
                                 or the id is not free.    permanent
                 UnknownAccount  no such sender.    permanent
        """
        self.sender(sender)
        if not 1 <= len(name) <= 30 or len(description) > 100:
            raise Rejected(
                f"group name of {len(name)} and description of {len(description)} characters: expected 1-30 and 0-100"
            )
        if any(group.name == name for group in self.groups(sender)):
            raise Rejected(f"group {name!r}: sender {sender!r} has one of that name, see: unsubd group list {sender}")
        if group_id is not None and not 1 <= group_id <= MAX_GROUP:
            raise Rejected(f"group id {group_id}: expected 1 to {MAX_GROUP}")
        with _reachable():
            while True:
                number = group_id or int(self._redis.incr(_LAST))
                group = Group(number, sender, name, description)
                if self._redis.hsetnx(_GROUPS, str(number), json.dumps(asdict(group))):
                    return group
                if group_id is not None:
                    raise Rejected(f"group id {group_id}: used already, expected an id that no group ever had")

    def groups(self, sender: str | None = None) -> list[Group]:
        """Return the groups of *sender*, or all, by id; archived ones included."""
        with _reachable():
            rows = cast(dict[bytes, bytes], self._redis.hgetall(_GROUPS))
        every = sorted((Group(**json.loads(row)) for row in rows.values()), key=lambda group: group.id)
        return [group for group in every if sender in (None, group.sender)]

    def group(self, sender: str, group_id: int) -> Group:
        """Return a group of *sender*; 0 always exists.

        Errors:  UnknownAccount  no such sender, or the group is nobody's or another sender's.    permanent
        """
        name = self.sender(sender).name
        if group_id == 0:
            return Group(0, sender, f"Everything from {name}", "")
        with _reachable():
            row = self._redis.hget(_GROUPS, str(group_id))
        group = Group(**json.loads(row)) if row else None
        if group is None or group.sender != sender:
            raise UnknownAccount(
                f"group {group_id}: sender {sender!r} has none of that id, see: unsubd group list {sender}"
            )
        return group

    def live_groups(self, names: set[tuple[str, int]]) -> dict[tuple[str, int], bool]:
        """Say for each (sender, group) whether requests go there as they are; False means: to group 0.

        Shape:   an unregistered sender keeps the ids its tags carry; a registered one only its own, unarchived groups.
        """
        wanted = sorted(names)
        with _reachable():
            pipeline = self._redis.pipeline(transaction=False)
            for sender, group_id in wanted:
                pipeline.hexists(_SENDERS, sender)
                pipeline.hget(_GROUPS, str(group_id))
            replies: list[Any] = pipeline.execute()
        live = {}
        for name, registered, row in zip(wanted, replies[::2], replies[1::2], strict=True):
            group = Group(**json.loads(row)) if row else None
            own = group is not None and group.sender == name[0] and not group.archived
            foreign = group is not None and group.sender != name[0]
            live[name] = name[1] == 0 or own or (not registered and not foreign)
        return live

    def new_api_key(self, sender: str) -> str:
        """Make an API key of *sender* and return it; only its digest is kept, so it is never shown again."""
        self.sender(sender)
        key = f"SG.{secrets.token_urlsafe(16)}.{secrets.token_urlsafe(32)}"
        with _reachable():
            content = json.dumps({"sender": sender, "created_ms": _now_ms()})
            self._redis.hset(_API_KEYS, _digest(key), content)
        return key

    def sender_of_api_key(self, key: str) -> str | None:
        """Return the sender that *key* belongs to, None for a key that was never given out."""
        with _reachable():
            row = self._redis.hget(_API_KEYS, _digest(key))
        return str(json.loads(row)["sender"]) if row else None


def _digest(key: str) -> str:
    return sha256(key.encode()).hexdigest()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
