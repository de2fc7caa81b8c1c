"""Webhook endpoints: what `/in/{provider}/{name}` demands as proof, from the settings and from `unsubd hook add`.

A bearer or basic secret is kept as a digest; what a provider signs with, or a secret header of its own, must be known
again and is sealed under every active master key. A test of our own brings a proof that lives a minute.

| key                     | type   | holds                                                             | lives         |
|-------------------------|--------|-------------------------------------------------------------------|---------------|
| `unsubd:hooks`          | HASH   | provider:name -> JSON {sealed, hashed, forwarded, pass_on_url, …} | until removed |
| `unsubd:hook-test:HASH` | STRING | "1"; HASH is SHA-256 of the token of a test                        | 1 minute      |
"""

import json
import re
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, cast
from urllib.parse import urlsplit

import redis

from handlers.errors import QueueUnavailable, Rejected
from handlers.providers import provider as known_provider
from handlers.providers.proof import check_proof
from handlers.tag import Keyring
from worker.keys import seal, unseal
from worker.server import Writer, away_as
from worker.settings import Settings

_HOOKS, _TEST = "unsubd:hooks", "unsubd:hook-test:"
_PURPOSE = b"unsubd-hook-1"
_NAME = re.compile(r"[a-z0-9_-]{1,40}")
_FORWARDED = "forwarded"
_FRESH_S = 5.0
_TEST_S = 60


@dataclass(frozen=True, slots=True)
class Hook:
    """One endpoint.

    Shape:   proofs: any of them is enough; a digest instead of a bearer or basic secret that is kept here. forwarded: our
             own application posts on what the provider posted to it, and proves itself instead of the provider.
             pass_on_url: where a post goes on to that has mail without a tag of ours, "" = nowhere.
    """

    provider: str
    name: str
    proofs: tuple[str, ...]
    forwarded: bool = False
    pass_on_url: str = ""

    @property
    def path(self) -> str:
        """The path of its URL."""
        return f"/in/{self.provider}" + ("" if self.name == "default" else f"/{self.name}")

    @property
    def source(self) -> str:
        """The name of the source that it is."""
        return f"{self.provider}:{self.name}"


class Hooks:
    """The endpoints of one installation, as one process knows them: at most 5 s old.

    Errors:  QueueUnavailable  every method, when Redis is away.    temporary
    """

    def __init__(self, client: redis.Redis, settings: Settings, keys: Keyring) -> None:
        self._redis = client
        self._confirmed = Writer(client, settings.min_replicas)
        self._settings = settings
        self._keys = keys
        self._known: tuple[float, dict[tuple[str, str], Hook]] | None = None

    def find(self, provider: str, name: str) -> Hook | None:
        """Return an endpoint, None when nobody configured it."""
        if self._known is None or time.monotonic() - self._known[0] > _FRESH_S:
            self._known = time.monotonic(), {(each.provider, each.name): each for each in self._stored()}
        stored = self._known[1].get((provider, name.lower()))
        words = self._settings.proofs(provider, name) or []
        if stored is None and not words:
            return None
        proofs = tuple(word for word in words if word != _FORWARDED)
        forwarded = _FORWARDED in words or bool(stored and stored.forwarded)
        kept = stored.proofs if stored else ()
        return Hook(provider, name.lower(), proofs + kept, forwarded, stored.pass_on_url if stored else "")

    def every(self) -> list[Hook]:
        """Return every endpoint, of settings and of `hook add`, by provider and name."""
        names = {tuple(key.split(":", 1)) for key in self._settings.webhook_proofs}
        names |= {(each.provider, each.name) for each in self._stored()}
        found = (self.find(provider, name) for provider, name in sorted(names))
        return [each for each in found if each]

    def add(self, hook: Hook) -> Hook:
        """Keep an endpoint, or another proof of one that is kept; return it as it is kept.

        Errors:  Rejected  an unknown provider, a name that does not fit a path, a URL or a proof that is none.    permanent
        """
        known_provider(hook.provider)
        if not _NAME.fullmatch(hook.name):
            raise Rejected(f"name {hook.name[:40]!r}: expected 1 to 40 of a-z, 0-9, _ and -")
        if hook.pass_on_url and (
            urlsplit(hook.pass_on_url).scheme not in ("https", "http") or not urlsplit(hook.pass_on_url).hostname
        ):
            raise Rejected(f"pass-on-url of {len(hook.pass_on_url)} characters: expected an http or https URL")
        for proof in hook.proofs:
            check_proof(hook.provider, proof, forwarded=hook.forwarded)
        before = next(
            (each for each in self._stored() if (each.provider, each.name) == (hook.provider, hook.name)), None
        )
        proofs = tuple(dict.fromkeys([*(before.proofs if before else ()), *map(_hashed, hook.proofs)]))
        kept = Hook(hook.provider, hook.name, proofs, hook.forwarded, hook.pass_on_url)
        self._keep(kept)
        return kept

    def remove(self, provider: str, name: str) -> bool:
        """Remove an endpoint of `hook add`; say whether there was one. One of the settings stays."""
        self._known = None
        return bool(self._confirmed(lambda to: to.hdel(_HOOKS, f"{provider}:{name}")))

    def _keep(self, hook: Hook) -> None:
        hashed = [proof for proof in hook.proofs if _is_digest(proof)]
        secret = json.dumps([proof for proof in hook.proofs if not _is_digest(proof)])
        row = {
            "sealed": seal(secret.encode(), self._keys.masters, _PURPOSE), "hashed": hashed,
            "forwarded": hook.forwarded, "pass_on_url": hook.pass_on_url,
        }  # fmt: skip
        self._known = None
        self._confirmed(lambda to: to.hset(_HOOKS, f"{hook.provider}:{hook.name}", json.dumps(row)))

    def _stored(self) -> list[Hook]:
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
            rows = cast(dict[bytes, bytes], self._redis.hgetall(_HOOKS))
        return [self._read(key.decode(), json.loads(row)) for key, row in sorted(rows.items())]

    def _read(self, key: str, row: dict[str, Any]) -> Hook:
        provider, _, name = key.partition(":")
        secret, complete = unseal(row["sealed"], self._keys.masters, _PURPOSE)
        proofs = (*json.loads(secret), *row["hashed"])
        hook = Hook(provider, name, proofs, bool(row.get("forwarded")), str(row.get("pass_on_url", "")))
        if not complete:
            self._keep(hook)  # under a master that came since: the old one may go
        return hook

    # --- a test of our own

    def test_token(self) -> str:
        """Return a bearer token that every endpoint takes for a minute."""
        token = secrets.token_urlsafe(24)
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
            self._redis.set(_TEST + sha256(token.encode()).hexdigest(), "1", ex=_TEST_S)
        return token

    def is_test(self, authorization: Sequence[str]) -> bool:
        """Say whether a post is a test of ours, by its Authorization header."""
        scheme, _, token = (authorization[0] if len(authorization) == 1 else "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            return False
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
            digest = sha256(token.encode("utf-8", "surrogateescape")).hexdigest()
            return bool(self._redis.exists(_TEST + digest))


def kind_of(proof: str) -> str:
    """Return what kind of proof it is, without the secret. Example: kind_of("bearer:s3cret") is "bearer"."""
    kind, colon, _ = proof.partition(":")
    plain = colon and kind.isascii() and len(kind) < 20 and "@" not in kind
    return kind.removesuffix("-sha256") if plain else "secret"


def _is_digest(proof: str) -> bool:
    return proof.startswith(("bearer-sha256:", "basic-sha256:"))


def _hashed(proof: str) -> str:
    """A bearer or basic secret as its digest: it is only ever compared. Our own are random, so no salt is needed."""
    kind, _, secret = proof.partition(":")
    if kind not in ("bearer", "basic"):
        return proof
    return f"{kind}-sha256:{sha256(secret.encode('utf-8', 'surrogateescape')).hexdigest()}"
