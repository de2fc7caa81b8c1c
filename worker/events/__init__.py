"""Events out: each change of a sender's suppressions is posted to the URL that the sender names, signed.

A job carries the changes of one batch; it is enqueued after the register and the ledger have them, so a crash between
repeats it, with the same ids. It is tried again for 26 hours and then stays among RQ's failed jobs.

| key                  | type | holds                                                 | lives         |
|----------------------|------|-------------------------------------------------------|---------------|
| `unsubd:event-hooks` | HASH | sender -> JSON {url, public_key, sealed, every}       | until removed |
"""

import base64
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlsplit

import redis
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
)
from rq import Queue
from rq.serializers import JSONSerializer

from handlers.errors import QueueUnavailable, Rejected
from handlers.events import changes, is_by_recipient
from handlers.request import DecidedMessage
from handlers.tag import Keyring
from worker import crew
from worker.batch import POST_EVENTS, UnsubdJob, new_outgoing
from worker.keys import seal, unseal
from worker.points import point
from worker.reaper import Reaper
from worker.server import Writer, away_as

_HOOKS = "unsubd:event-hooks"
_PURPOSE = b"unsubd-event-key-1"
_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class EventHook:
    """Where a sender's events go.

    Shape:   public_key: base64 of the DER SubjectPublicKeyInfo, as SendGrid's verifiers take it. every: also what the
             sender's own API calls and operators change, not only what recipients do.
    """

    sender: str
    url: str
    public_key: str
    key: ec.EllipticCurvePrivateKey
    every: bool = False


class Events:
    """The events of one installation.

    Errors:  QueueUnavailable  every method, when Redis is away.    temporary
    """

    def __init__(self, client: redis.Redis, keys: Keyring, *, min_replicas: int = 0) -> None:
        self._redis = client
        self._confirmed = Writer(client, min_replicas)
        self._keys = keys
        self.rq = Queue(crew.EVENTS, connection=client, job_class=UnsubdJob, serializer=JSONSerializer)
        self.reaper = Reaper(self.rq)

    def tell(self, entries: Iterable[tuple[DecidedMessage, Sequence[dict[str, Any]]]]) -> None:
        """Enqueue what changed, for the senders who want to hear it. Repeat: tells again, with the same ids."""
        by_sender: dict[str, list[dict[str, Any]]] = {}
        for each in (change for message, results in entries for change in changes(message, results)):
            by_sender.setdefault(each["sender"], []).append(each)
        wanted = self._every(list(by_sender)) if by_sender else {}
        for sender, every in wanted.items():
            told = [each for each in by_sender[sender] if every or is_by_recipient(each)]
            for start in range(0, len(told), _AT_ONCE):
                self._enqueue(sender, told[start : start + _AT_ONCE])

    def _every(self, senders: Sequence[str]) -> dict[str, bool]:
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
            rows = cast(list[bytes | None], self._redis.hmget(_HOOKS, list(senders)))
        return {sender: json.loads(row)["every"] for sender, row in zip(senders, rows, strict=True) if row}

    def _enqueue(self, sender: str, batch: list[dict[str, Any]]) -> None:
        about = f"{len(batch)} event{'s' * (len(batch) != 1)} for {sender}"
        job = new_outgoing(self.rq, POST_EVENTS, about, sender=sender, batch=batch)
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"), point("events.enqueue"):
            self.rq.enqueue_job(job)

    def worker(self, name: str) -> crew.UnsubdWorker:
        """Return an RQ worker for events alone."""
        return crew.new_worker(self.rq, name)

    def find(self, sender: str) -> EventHook | None:
        """Return where a sender's events go, None when nobody asked for them."""
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
            row = cast(bytes | None, self._redis.hget(_HOOKS, sender))
        return self._read(sender, json.loads(row)) if row else None

    def configure(self, sender: str, url: str, *, every: bool = False) -> EventHook:
        """Send a sender's events to *url* from now on; the key stays the same once there is one.

        Errors:  Rejected  neither https nor a port of this machine.    permanent
        """
        _check(url)
        before = self.find(sender)
        hook = EventHook(sender, url, *((before.public_key, before.key) if before else _new_key()), every=every)
        self._keep(hook)
        return hook

    def remove(self, sender: str) -> bool:
        """Send no more; say whether there was something to end. Jobs that wait end with nothing posted."""
        return bool(self._confirmed(lambda to: to.hdel(_HOOKS, sender)))

    def _keep(self, hook: EventHook) -> None:
        private = hook.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        row = {
            "url": hook.url, "every": hook.every, "public_key": hook.public_key,
            "sealed": seal(private, self._keys.masters, _PURPOSE),
        }  # fmt: skip
        self._confirmed(lambda to: to.hset(_HOOKS, hook.sender, json.dumps(row)))

    def _read(self, sender: str, row: dict[str, Any]) -> EventHook:
        private, complete = unseal(row["sealed"], self._keys.masters, _PURPOSE)
        key = load_der_private_key(private, None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        hook = EventHook(sender, row["url"], row["public_key"], key, row["every"])
        if not complete:
            self._keep(hook)  # under a master that came since: the old one may go
        return hook


def _new_key() -> tuple[str, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(public).decode(), key


def _check(url: str) -> None:
    parts = urlsplit(url)
    local = parts.hostname in ("localhost", "127.0.0.1", "::1")
    if not parts.hostname or (parts.scheme != "https" and not (parts.scheme == "http" and local)):
        raise Rejected(f"url {url[:80]!r}: expected https://…, or http:// on this machine")
