"""Keys that must not be lost quietly: the masters in use, and the pseudonym key.

The store remembers the fingerprint of every master that a process started with in first place; a process that lacks one
refuses, because tags already mailed would stop working. The pseudonym key is made once, never rotated, and kept wrapped
under every active master, so that the ledger stays readable over a rotation.

| key                    | type   | holds                                                       | lives    |
|------------------------|--------|-------------------------------------------------------------|----------|
| `unsubd:masters`       | SET    | fingerprints of the master keys in use                      | for good |
| `unsubd:pseudonym-key` | STRING | the pseudonym key, wrapped under each active master: backup | for good |
"""

import hmac
import json
import os
import secrets
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import cast

import redis
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from handlers.errors import ConfigError, Rejected, StoreUnavailable
from handlers.tag import Keyring, fingerprint
from worker.server import Writer, away_as

_MASTERS = "unsubd:masters"
_PSEUDONYM = "unsubd:pseudonym-key"
_SETTING = "UNSUBD_STORE_URL"
_WRAP = b"unsubd-wrap-1"


def make_master(path: Path) -> str:
    """Create a master key at *path* (0600) and return it as hex; an existing file is never touched."""
    key = secrets.token_hex(32)
    keep_masters(path, [key])
    return key


def keep_masters(path: Path, keys: Sequence[str], *, anew: bool = False) -> None:
    """Write master keys, as hex, to *path* (0600), as UNSUBD_SECRET_KEYS takes them.

    Shape:   anew: in the place of what is there.
    Errors:  FileExistsError  it is there, and not to be written anew.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    target = path.with_name(path.name + ".new") if anew else path
    if anew:
        target.unlink(missing_ok=True)
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(",".join(keys) + "\n")
        file.flush()
        os.fsync(file.fileno())
    if anew:
        os.replace(target, path)


def require_masters(client: redis.Redis, keys: Keyring) -> None:
    """Check the active masters against those in use, and remember the first one.

    Errors:  ConfigError  no key, or a key in use is missing.
    """
    if not keys.masters:
        raise ConfigError(
            "UNSUBD_SECRET_KEYS: no key, expected hex digits: set it (or UNSUBD_SECRET_KEYS_FILE) to the keys of this store,"
            " or for a new one to the output of: openssl rand -hex 32"
        )
    with away_as(StoreUnavailable, _SETTING):
        missing = in_use(client) - set(keys.fingerprints())
        if missing:
            names = ", ".join(sorted(missing))
            raise ConfigError(
                f"UNSUBD_SECRET_KEYS: the key with fingerprint {names} is in use but not here: restore it,"
                f" or give up its tags with: unsubd keys retire {sorted(missing)[0]}"
            )
        client.sadd(_MASTERS, keys.fingerprints()[0])


def in_use(client: redis.Redis) -> set[str]:
    """Return the fingerprints of the masters that this store's processes started with."""
    with away_as(StoreUnavailable, _SETTING):
        return {name.decode() for name in cast(set[bytes], client.smembers(_MASTERS))}


def retire(client: redis.Redis, name: str, *, min_replicas: int = 0) -> None:
    """Forget the master with fingerprint *name*: tags that only it signed are refused from now on.

    Errors:  Rejected  no such master is in use.    permanent
    """
    if not Writer(client, min_replicas, StoreUnavailable, _SETTING)(lambda to: to.srem(_MASTERS, name)):
        raise Rejected(f"fingerprint {name[:20]!r}: not in use, see: unsubd keys list")


def pseudonym_key(client: redis.Redis, keys: Keyring, *, min_replicas: int = 0) -> bytes:
    """Return the pseudonym key, made at the first start and re-wrapped under new masters.

    Errors:  ConfigError       no active master unwraps it.
             StoreUnavailable  the store is away, or too few replicas have the new key.    temporary
    """
    with away_as(StoreUnavailable, _SETTING):
        if not client.exists(_PSEUDONYM):
            # One that a failover took back would still be in use here, while others make another.
            new = json.dumps(seal(secrets.token_bytes(32), keys.masters, _WRAP))
            Writer(client, min_replicas, StoreUnavailable, _SETTING)(lambda to: to.set(_PSEUDONYM, new, nx=True))
        kept: dict[str, str] = json.loads(client.get(_PSEUDONYM) or b"{}")
        key, complete = unseal(kept, keys.masters, _WRAP)
        if not complete:
            client.set(_PSEUDONYM, json.dumps(seal(key, keys.masters, _WRAP) | kept))
    return key


def seal(secret: bytes, masters: tuple[bytes, ...], purpose: bytes) -> dict[str, str]:
    """Return *secret* sealed under each of *masters*: fingerprint -> hex. What is sealed for one purpose opens for no other."""
    return {fingerprint(master): _sealed(secret, _purpose_key(master, purpose)) for master in masters}


def unseal(kept: dict[str, str], masters: tuple[bytes, ...], purpose: bytes) -> tuple[bytes, bool]:
    """Return what `seal` sealed, and whether it is sealed under every one of *masters*.

    Errors:  ConfigError  no active master opens it.
    """
    for master in masters:
        if blob := bytes.fromhex(kept.get(fingerprint(master), "")):
            try:
                secret = AESGCM(_purpose_key(master, purpose)).decrypt(blob[:12], blob[12:], None)
            except InvalidTag:
                continue
            return secret, all(fingerprint(each) in kept for each in masters)
    raise ConfigError(
        "UNSUBD_SECRET_KEYS: no active key opens what this store sealed: restore a key that was active before"
    )


def _purpose_key(master: bytes, purpose: bytes) -> bytes:
    return hmac.digest(master, purpose, sha256)


def _sealed(secret: bytes, key: bytes) -> str:
    nonce = secrets.token_bytes(12)
    return (nonce + AESGCM(key).encrypt(nonce, secret, None)).hex()


class Pseudonyms:
    """Stable names for recipients that only this installation can compute: "067cf5e1d0@example.com".

    Why:     the journal and the ledger must follow a person without spelling the address; the domain helps support.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    def __call__(self, recipient: str) -> str:
        domain = recipient.rpartition("@")[2] if "@" in recipient else "forgotten"
        return f"{self.bare(recipient)}@{domain}"

    def bare(self, recipient: str) -> str:
        """Return the pseudonym without the domain, which may name a person by itself: for what is kept long."""
        return hmac.digest(self._key, recipient.encode("utf-8", "surrogateescape"), sha256).hex()[:16]
