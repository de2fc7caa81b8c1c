"""One process's view of the installation: settings become connections, keys and the two doors.

Opening checks what must hold before anything is promised: durable servers, no key lost. A forked job skips the checks:
its parent made them.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from redis import AuthenticationError, Redis, ResponseError

from handlers.errors import ConfigError, QueueUnavailable, StoreUnavailable
from handlers.tag import Keyring
from worker import backup, embedded
from worker import keys as key_store
from worker.accounts import Accounts, KnownGroups
from worker.accounts.look import Looks
from worker.anomalies import Anomalies
from worker.begun import Begun
from worker.clock import Clock
from worker.deliveries import Deliveries
from worker.endpoints import Endpoints
from worker.events import Events
from worker.forwarding import Forwards
from worker.hooks import Hooks
from worker.intake import Intake
from worker.journal import Journal
from worker.parked import Parked
from worker.policy import Policies
from worker.quarantine import Quarantine
from worker.queue import RequestQueue
from worker.sender_sources import SenderSources
from worker.server import away_as, connect, require_durable, weakness, word_of
from worker.settings import Settings
from worker.store import Store
from worker.store import format as store_format
from worker.store.forgotten import ForgottenNames
from worker.store.ledger import Ledger
from worker.store.listing import Listings
from worker.store.tags import StoredTags

KEY_FILE, TOKEN_FILE = "secret_keys", "admin_token"


@dataclass(frozen=True, slots=True)
class Installation:
    """Everything a command, a source or a page works with."""

    settings: Settings
    redis: Redis
    store_redis: Redis
    store: Store
    listings: Listings
    tags: StoredTags
    ledger: Ledger
    accounts: Accounts
    groups: KnownGroups
    looks: Looks
    hooks: Hooks
    deliveries: Deliveries
    endpoints: Endpoints
    quarantine: Quarantine
    queue: RequestQueue
    parked: Parked
    events: Events
    forwards: Forwards
    journal: Journal
    intake: Intake
    keys: Keyring
    pseudonyms: key_store.Pseudonyms
    names: ForgottenNames
    weakness: str

    def require_ready(self) -> None:
        """Check that what is accepted now will not be lost.

        Errors:  QueueUnavailable  the queue is away, full, or its server became less durable than it may be.    temporary
        """
        self.queue.require_room()
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
            reason = weakness(self.redis)
        if reason and not self.settings.allow_weak_durability:
            raise QueueUnavailable(f"UNSUBD_REDIS_URL: {reason}, expected appendonly yes and appendfsync always")

    def quarantine_failed(self, wire: Any, detail: str) -> None:
        """Keep one element of a job that cannot be used, durably, for a person."""
        content = wire if isinstance(wire, dict) else {"value": str(wire)[:1000]}
        # The same element keeps its id, so that a job that waits and repeats keeps it once.
        entry_id = str(content.get("key") or sha256(json.dumps(content, sort_keys=True).encode()).hexdigest())
        at_ms = content.get("received_ms", 0)
        self.quarantine.keep_failed(entry_id, detail, content, at_ms if isinstance(at_ms, int) else 0)
        self.journal.failed("job", detail, message=entry_id[:12])


@contextmanager
def open_installation(
    settings: Settings, *, forked: bool = False, lost_key_allowed: bool = False
) -> Iterator[Installation]:
    """Open the installation that *settings* describe; on leaving, close what was opened.

    Shape:   forked: the parent made the checks. lost_key_allowed: a master in use may be missing (to retire it).

    Errors:  ConfigError   weak persistence, a missing key, an unusable data folder.
             Unavailable   Redis does not answer.    temporary
    """
    with _servers(settings, attached=not forked) as (client, store_client):
        yield _built(settings, client, store_client, checked=not forked, lost_key_allowed=lost_key_allowed)


@contextmanager
def open_servers(settings: Settings) -> Iterator[tuple[Redis, Redis]]:
    """Open the servers alone, of queue and of store, for a copy that is to come there; nothing is made.

    Errors:  ConfigError  weak persistence, an unusable data folder.
             Unavailable  one does not answer.    temporary
    """
    with _servers(settings) as servers:
        _require_durable(settings, *servers)
        yield servers


@contextmanager
def _servers(settings: Settings, *, attached: bool = True) -> Iterator[tuple[Redis, Redis]]:
    server = embedded.attach(settings.data_dir) if settings.embedded and attached else None
    try:
        redis_url, store_url = _urls(settings)
        with connect(redis_url) as client:
            with away_as(StoreUnavailable, "UNSUBD_STORE_URL"):
                store_client = connect(store_url) if store_url != redis_url else client
            with store_client:
                yield client, store_client
    finally:
        if server:
            server.close()


def _require_durable(settings: Settings, client: Redis, store_client: Redis) -> str:
    """Return the weakness that was allowed, "" = none."""
    allow = settings.allow_weak_durability
    with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
        _greet(client)
        weak = require_durable(client, "UNSUBD_REDIS_URL", allow_weak=allow)
    with away_as(StoreUnavailable, "UNSUBD_STORE_URL"):
        return weak or require_durable(store_client, "UNSUBD_STORE_URL", allow_weak=allow)


def _urls(settings: Settings) -> tuple[str, str]:
    """Where queue and accounts are, and where suppressions and ledger are; by default both are one."""
    redis_url = settings.redis_url or embedded.url(settings.data_dir)
    return redis_url, settings.store_url or redis_url


def store_url(settings: Settings) -> str:
    """Return where the suppressions are, for whoever brings a client of his own."""
    return _urls(settings)[1]


def has_no_store(settings: Settings) -> bool:
    """Say whether this is the embedded default before its first start."""
    return settings.embedded and not settings.store_url and not embedded.exists(settings.data_dir)


@dataclass(frozen=True, slots=True)
class Known:
    """What a decision looks up."""

    tags: StoredTags
    accounts: Accounts
    sender_sources: SenderSources
    policies: Policies


@contextmanager
def open_known(settings: Settings) -> Iterator[Known]:
    """Open what a decision looks up, and no more: nothing is checked, remembered or made.

    Errors:  ConfigError  an unusable data folder.
             Unavailable  by what is asked of it.    temporary
    """
    with _servers(settings) as (client, store_client):
        sources, accounts = SenderSources(client), Accounts(client)
        yield Known(StoredTags(store_client), accounts, sources, Policies(settings, accounts, sources))


def with_embedded_secrets(settings: Settings, *, make: bool = True) -> Settings:
    """Return *settings* with the key and token of the data folder, made at its first use (0600).

    Shape:   make False: what is not there yet is not made, for what must work, or leave no trace, without a folder.
    Errors:  ConfigError  the folder holds a store whose key file is gone.
    """
    if not settings.embedded or not (make or settings.data_dir.exists()):
        return settings
    update: dict[str, Any] = {}
    if not settings.secret_keys.get_secret_value():
        update["secret_keys"] = _kept_secret(settings.data_dir, KEY_FILE, make=make)
    if not settings.admin_token.get_secret_value():
        update["admin_token"] = _kept_secret(settings.data_dir, TOKEN_FILE, make=make)
    return settings.model_copy(update=update)


def _kept_secret(data_dir: Path, name: str, *, make: bool) -> Any:
    from pydantic import SecretStr

    path = data_dir / name
    try:
        found = path.exists()
    except OSError as error:  # another user's folder
        raise ConfigError(f"UNSUBD_DATA_DIR: {data_dir}: {error.strerror}, expected a folder of ours") from error
    if not found:
        if name == KEY_FILE and embedded.exists(data_dir):
            raise ConfigError(
                f"UNSUBD_SECRET_KEYS: {path} is gone, but {data_dir} holds a store that it signed for:"
                " restore the file, or set UNSUBD_SECRET_KEYS"
            )
        if not make:
            return SecretStr("")
        try:
            data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            key_store.make_master(path)
        except FileExistsError:
            pass  # another process made it in the same moment
        except OSError as error:
            raise ConfigError(
                f"UNSUBD_DATA_DIR: {data_dir}: {error.strerror}, expected a folder we may write"
            ) from error
    try:
        return SecretStr(path.read_text().strip())
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise ConfigError(f"UNSUBD_DATA_DIR: {path}: {reason}, expected a file of ours that we may read") from error


def _greet(client: Redis) -> None:
    try:
        client.ping()
    except AuthenticationError:
        raise ConfigError("UNSUBD_REDIS_URL: the server refuses our user or password: check both") from None
    except ResponseError as error:
        if word_of(error):  # it cannot write, or is busy, now: it says so to a PING, too
            raise
        raise ConfigError(f"UNSUBD_REDIS_URL: the server refuses the connection ({error}): check the URL") from None


def _built(
    settings: Settings, client: Redis, store_client: Redis, *, checked: bool, lost_key_allowed: bool
) -> Installation:
    ring, accounts = settings.keys(), Accounts(client, min_replicas=settings.min_replicas)
    weak = ""
    if checked:
        weak = _require_durable(settings, client, store_client)
        backup.require_whole(store_client)
        senders = lambda: [each.id for each in accounts.senders()]  # noqa: E731  asked at the first start alone
        store_format.enter(store_client, senders, min_replicas=settings.min_replicas)
        if not lost_key_allowed:
            key_store.require_masters(store_client, ring)
    pseudonym_key = key_store.pseudonym_key(store_client, ring, min_replicas=settings.min_replicas)
    pseudonyms, names = key_store.Pseudonyms(pseudonym_key), ForgottenNames(pseudonym_key)
    store = Store(store_client, names, min_replicas=settings.min_replicas)
    tags = StoredTags(store_client, min_replicas=settings.min_replicas)
    ledger = Ledger(store_client, pseudonyms.bare, days=settings.ledger_days, min_replicas=settings.min_replicas)
    quarantine = Quarantine(
        client,
        min_replicas=settings.min_replicas,
        days=settings.quarantine_days,
        limit_bytes=settings.quarantine_bytes,
    )
    queue = RequestQueue(client, limit=settings.queue_limit, min_replicas=settings.min_replicas)
    journal = Journal(client, pseudonyms)
    sources = SenderSources(client, min_replicas=settings.min_replicas)
    policies = Policies(settings, accounts, sources)
    events = Events(client, ring, min_replicas=settings.min_replicas)
    forwards = Forwards(client, events.rq, ring, min_replicas=settings.min_replicas)
    intake = Intake(
        client, store, tags, ledger, accounts, quarantine, queue, events, forwards, journal, Clock(client, journal),
        ring, policies, sources, Anomalies(client, pseudonyms.bare), Begun(client, min_replicas=settings.min_replicas),
    )  # fmt: skip
    hooks = Hooks(client, settings, ring)
    return Installation(
        settings=settings, redis=client, store_redis=store_client, store=store, tags=tags, ledger=ledger,
        accounts=accounts, groups=KnownGroups(accounts), looks=Looks(client, min_replicas=settings.min_replicas), hooks=hooks,
        deliveries=Deliveries(client), endpoints=Endpoints(client), quarantine=quarantine,
        queue=queue, parked=Parked(store_client, min_replicas=settings.min_replicas),
        events=events, forwards=forwards, journal=journal, intake=intake, keys=ring, pseudonyms=pseudonyms,
        names=names, weakness=weak, listings=Listings(store),
    )  # fmt: skip
