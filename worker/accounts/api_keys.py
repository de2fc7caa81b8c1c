"""API keys: each belongs to one sender, may do what its scopes say, and is known by its digest alone.

| key               | type | holds                                                          | lives         |
|-------------------|------|----------------------------------------------------------------|---------------|
| `unsubd:api-keys` | HASH | SHA-256 of a key -> JSON {sender, name, scopes, per_minute, …} | until revoked |
"""

import json
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, cast

import redis

from handlers.errors import QueueUnavailable, Rejected
from worker.server import Writer, away_as

_API_KEYS = "unsubd:api-keys"
_ID_DIGITS = 12
_VERBS = ("create", "read", "update", "delete")
_SUBJECTS = (
    "asm.groups", "asm.groups.suppressions", "asm.suppressions.global", "suppression.unsubscribes",
    "tracking_settings.subscription", "user.webhooks.event.settings",
)  # fmt: skip
SCOPES = tuple(f"{subject}.{verb}" for subject in _SUBJECTS for verb in _VERBS)
PER_MINUTE = 60_000  # more than one process serves: a limit for whoever sets none
WINDOW_S = 60


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What is known of a key, once it was shown.

    Shape:   id: 12 hex digits of its digest. name: as the ledger tells who asked. scopes: names of SCOPES.
             per_minute: how many calls it may make in a minute.
    """

    id: str
    sender: str
    name: str
    scopes: tuple[str, ...] = SCOPES
    per_minute: int = PER_MINUTE
    created_ms: int = 0


class ApiKeys:
    """The keys of one installation.

    Errors:  QueueUnavailable  every method, when Redis is away; a change also when too few replicas confirm it.    temporary
    """

    def __init__(self, client: redis.Redis, *, min_replicas: int = 0) -> None:
        self._redis = client
        self._confirmed = Writer(client, min_replicas)

    def make(self, sender: str, *, name: str = "", scopes: Sequence[str] = (), per_minute: int = PER_MINUTE) -> str:
        """Make a key of a registered sender and return it; it is never shown again.

        Shape:   name "" = its id. scopes: names, or beginnings of names ("asm.groups"); () = all.
        Errors:  Rejected  a scope that nobody knows, a long name.    permanent
        """
        if len(name) > 40 or not name.isprintable():
            raise Rejected(f"key name of {len(name)} characters: expected at most 40, all of them printable")
        key = f"SG.{secrets.token_urlsafe(16)}.{secrets.token_urlsafe(32)}"
        content = {"sender": sender, "name": name or f"key {_digest(key)[:_ID_DIGITS]}", "scopes": _scopes(scopes),
                   "per_minute": per_minute, "created_ms": time.time_ns() // 1_000_000}  # fmt: skip
        self._confirmed(lambda to: to.hset(_API_KEYS, _digest(key), json.dumps(content)))
        return key

    def find(self, key: str) -> ApiKey | None:
        """Return what is known of *key*; None for one that was never given out, or is revoked."""
        return self.found([key])[0]

    def found(self, keys: Sequence[str]) -> list[ApiKey | None]:
        """Return what `find` does for each key, in order. One round trip."""
        digests = [_digest(key) for key in keys]
        with _reachable():
            rows = cast(list[bytes | None], self._redis.hmget(_API_KEYS, digests)) if digests else []
        return [_read(digest, row) if row else None for digest, row in zip(digests, rows, strict=True)]

    def of(self, sender: str) -> list[ApiKey]:
        """Return the keys of *sender*, oldest first."""
        with _reachable():
            rows = cast(dict[bytes, bytes], self._redis.hgetall(_API_KEYS))
        every = (_read(digest.decode(), row) for digest, row in rows.items())
        return sorted((each for each in every if each.sender == sender), key=lambda each: (each.created_ms, each.id))

    def revoke(self, sender: str, key_id: str) -> ApiKey:
        """Take a key away from now on; return what it was. Errors: Rejected  no such key of this sender.    permanent"""
        found = next((each for each in self.of(sender) if each.id == key_id), None)
        if found is None:
            raise Rejected(
                f"key {key_id[:20]!r}: sender {sender!r} has none of that id, see: unsubd sender keys {sender}"
            )
        with _reachable():
            digests = cast(list[bytes], self._redis.hkeys(_API_KEYS))
        revoked = [each for each in digests if each.decode().startswith(key_id)]
        self._confirmed(lambda to: to.hdel(_API_KEYS, *revoked))
        return found


@contextmanager
def _reachable() -> Iterator[None]:
    with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
        yield


def _scopes(wanted: Sequence[str]) -> list[str]:
    for each in wanted:
        if not any(_begins(scope, each) for scope in SCOPES):
            raise Rejected(
                f"scope {each[:40]!r}: expected one of {', '.join(_SUBJECTS)}, perhaps with .read and the like"
            )
    return [scope for scope in SCOPES if not wanted or any(_begins(scope, each) for each in wanted)]


def _begins(scope: str, name: str) -> bool:
    """Say whether *name* is a scope, or what all of its verbs stand for: "asm.groups" is not "asm.groups.suppressions"."""
    return name in (scope, scope.rpartition(".")[0])


def _read(digest: str, row: bytes) -> ApiKey:
    """Undo `make`; a row that an earlier release wrote has a sender and a time alone."""
    found: dict[str, Any] = json.loads(row)
    known = {name: found[name] for name in ("sender", "per_minute", "created_ms") if name in found}
    key_id = digest[:_ID_DIGITS]
    return ApiKey(key_id, name=found.get("name", f"key {key_id}"), scopes=tuple(found.get("scopes", SCOPES)), **known)


def _digest(key: str) -> str:
    return sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
