"""Copies of a whole installation: into a file, out of one, or from the embedded Valkey to a server of your own.

A backup is taken while everything runs: what had its effect before it began is in it, what comes meanwhile may be. A copy
goes only where nothing is, and while it is under way nothing starts there: half of the suppressions would let mail through.

| key                | type   | holds                                                        | lives               |
|--------------------|--------|--------------------------------------------------------------|---------------------|
| `unsubd:restoring` | STRING | JSON {of, pages}: which copy comes here, and how much is here | until all is here   |
| `unsubd:moved`     | STRING | since when the installation is elsewhere, ms UTC             | for good            |
"""

import json
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import redis

from handlers.errors import ConfigError, Rejected, StoreUnavailable
from worker import embedded
from worker.backup import file, keys
from worker.keys import in_use
from worker.server import away_as
from worker.server import servers as each_server
from worker.store import layout
from worker.store.format import OF_STORE

_RESTORING, _MOVED = "unsubd:restoring", "unsubd:moved"
_OF_RQ = (
    "rq:job:",
    "rq:queue:unsubd",
    "rq:wip:unsubd",
    "rq:failed:unsubd",
    "rq:scheduled:unsubd",
    "rq:deferred:unsubd",
)
_OURS = tuple(each.encode() for each in ("unsubd:", *_OF_RQ))
_OF_PLACE = (_RESTORING, _MOVED, "unsubd:sources")  # who works on a source says so within seconds
_SCANNED = 1000
_GOES_ON_MS = 6 * 3_600_000
Place = Sequence[int | str]
Progress = Callable[[int, str], None]
Servers = tuple[redis.Redis, redis.Redis]
"""Of queue and accounts, and of the store; by default both are one."""


def backup(servers: Servers, path: Path, secret_keys: Sequence[str], progress: Progress) -> int:
    """Write everything into *path* (0600), and return how many keys of Redis that are.

    Shape:   secret_keys: the master keys, when they are to be in the file. progress: (keys so far, words).
    Errors:  Unavailable  a server is away.    temporary
             Rejected     the file cannot be written.    permanent
    Repeat:  what was interrupted (`PATH.part`) goes on where its last whole page ended, within six hours: what had its
             effect since is not in the pages that were written before.
    """
    part = path.with_name(path.name + ".part")
    with away_as(StoreUnavailable, "UNSUBD_STORE_URL"):
        head = _head(servers, secret_keys)
    begun = file.unfinished(part)
    if begun is not None and not _goes_on(begun.head, head):
        begun = None
    with _to_append(part, begun.length if begun else 0) as target:
        writer = file.Writer(target, begun.digest, begun.keys) if begun else file.Writer(target)
        _write(servers, writer, begun, head, progress)
    os.replace(part, path)
    return file.verified(path).keys


def stream(servers: Servers, target: IO[bytes], secret_keys: Sequence[str], progress: Progress) -> int:
    """Write everything to *target*, as `backup`; nothing goes on after an interruption."""
    with away_as(StoreUnavailable, "UNSUBD_STORE_URL"):
        head = _head(servers, secret_keys)
    return _write(servers, file.Writer(target), None, head, progress)


def _head(servers: Servers, secret_keys: Sequence[str]) -> file.Line:
    own_keys = {"secret_keys": list(secret_keys)} if secret_keys else {}
    masters, made_ms = sorted(in_use(servers[1])), time.time_ns() // 1_000_000
    runs = [_run_of(client) for client in _places(servers)]
    first = {"unsubd": "backup", "format": file.FORMAT, "made_ms": made_ms, "servers": runs, "masters": masters}
    return first | own_keys


def _places(servers: Servers) -> list[redis.Redis]:
    return list(dict.fromkeys((servers[0], *each_server(servers[1]))))


def _run_of(client: redis.Redis) -> str:
    """Which run of which server it is: a SCAN's cursor means nothing to another one. One that does not tell is always another."""
    try:
        info: Any = client.info("server")
    except redis.ResponseError:
        info = {}
    return str(info.get("run_id") or secrets.token_hex(8))


def _goes_on(begun: file.Line, head: file.Line) -> bool:
    """Say whether what was begun is a copy of this very installation, as it is asked for now, and not of long ago."""
    is_young = head["made_ms"] - begun["made_ms"] < _GOES_ON_MS
    return is_young and {**begun, "made_ms": 0} == {**head, "made_ms": 0}


def _to_append(path: Path, length: int) -> IO[bytes]:
    try:
        target = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b")
        target.truncate(length)
        target.seek(length)
    except OSError as error:
        raise Rejected(f"{path}: {error.strerror}, expected a place that we may write to") from error
    return target


def _write(
    servers: Servers, writer: file.Writer, begun: file.Unfinished | None, head: file.Line, progress: Progress
) -> int:
    with away_as(StoreUnavailable, "UNSUBD_STORE_URL"):
        if begun is None:
            writer.write([head])
        for lines, following in _pages(servers, begun.next if begun else [0, 0]):
            for some in keys.together(lines):
                writer.write(some)
                progress(writer.keys, "keys")
            writer.write([{"next": following}])
    writer.end()
    return writer.keys


def _pages(servers: Servers, begin: Place) -> Iterator[tuple[Iterator[keys.Line], Place]]:
    """Yield (lines, where the next page begins) from (server, cursor) *begin* on: a cursor holds nothing, and is for ever
    while its server runs.

    After the servers come the senders' buckets, the cursor is the name of one: what moves there meanwhile is met. A slot
    that moves to another node of a Cluster meanwhile may be missed.
    """
    first, cursor = int(begin[0]), begin[1]
    clients = _places(servers)
    for number, client in enumerate(clients):
        cursor = cursor if number == first else 0
        while number >= first:
            cursor, found = cast(tuple[int, list[bytes]], client.scan(int(cursor), count=_SCANNED))
            ours = [key for key in found if key.startswith(_OURS) and not layout.is_bucket(key)]
            following: Place = [number, cursor] if cursor else [number + 1, 0]
            yield (line for line in keys.lines(client, ours) if _is_kept(line)), following
            if not cursor:
                break
    done = begin[1] if first == len(clients) else 0
    for sender in _with_buckets(servers):
        if not done or sender > str(done):
            yield keys.of_buckets(servers[1], sender), [len(clients), sender]


def _with_buckets(servers: Servers) -> list[str]:
    """Every sender that may have some: a directory is a hint that may be lost, and so may an account."""
    queue, store = servers
    found = store.scan_iter(layout.directory_key("*"), count=_SCANNED)
    registered = cast(list[bytes], queue.hkeys("unsubd:senders"))
    return sorted(
        {key.decode().partition("{")[2].removesuffix("}") for key in found} | {each.decode() for each in registered}
    )


def _is_kept(line: keys.Line) -> bool:
    """Leave out what belongs to the place: another program's jobs, how each source is, and how far a copy was."""
    if line["key"].startswith("rq:job:") and line["type"] == "hash" and line["part"] == 0:
        fields = dict(zip(line["value"][::2], line["value"][1::2], strict=True))
        return str(fields.get("origin", "unsubd")).startswith("unsubd")
    return line["key"] not in _OF_PLACE


def restore(servers: Servers, path: Path, whole: file.Whole, fingerprints: Sequence[str], progress: Progress) -> int:
    """Put a backup where nothing is, and return how many keys came.

    Shape:   whole: what `file.verified` says of *path*. fingerprints: of the master keys that this place has.
    Errors:  Rejected     there is an installation already.    permanent
             ConfigError  a master key that signed its tags is not here.
             Unavailable  a server is away: run it again, it goes on.    temporary
    Repeat:  goes on where it was; nothing starts here before all of it has come.
    """
    _require_masters(whole.head, fingerprints)
    return _put(servers, whole.id, file.pages(path), progress)


def move(data_dir: Path, servers: Servers, fingerprints: Sequence[str], progress: Progress) -> int:
    """Put what the embedded Valkey of *data_dir* has where nothing is; the old place never starts again.

    Errors:  as `restore`; Rejected also when somebody uses the old place.
    Repeat:  from the beginning, over what had come.
    """
    with _alone(data_dir) as client:
        _require_masters({"masters": sorted(in_use(client))}, fingerprints, data_dir)
        pages = (some for lines, _ in _pages((client, client), [0, 0]) for some in keys.together(lines))
        count = _put(servers, f"move of {data_dir}", pages, progress, anew=True)
        client.set(_MOVED, time.time_ns() // 1_000_000)
    return count


@contextmanager
def _alone(data_dir: Path) -> Iterator[redis.Redis]:
    if not embedded.exists(data_dir):
        raise Rejected(f"UNSUBD_DATA_DIR: {data_dir} holds no store, expected that of the embedded Valkey")
    server = embedded.attach(data_dir)
    try:
        if not server.is_alone():
            raise Rejected(f"UNSUBD_DATA_DIR: somebody works with {data_dir}, expected nobody: stop unsubd first")
        with redis.Redis.from_url(server.url) as client:
            yield client
    finally:
        server.close()


def _put(
    servers: Servers, name: str, pages: Iterable[list[keys.Line]], progress: Progress, *, anew: bool = False
) -> int:
    queue, store = servers
    count = 0
    with away_as(StoreUnavailable, "UNSUBD_STORE_URL"):
        done = _begun(servers, name)
        for number, lines in enumerate(pages):
            if number >= done or anew:
                keys.write(queue, [line for line in lines if not line["key"].startswith(OF_STORE)])
                keys.write(store, [line for line in lines if line["key"].startswith(OF_STORE)])
                store.set(_RESTORING, json.dumps({"of": name, "pages": number + 1}))
            count += sum(line["part"] == 0 for line in lines)
            progress(count, "keys")
        store.delete(_RESTORING)
    return count


def _begun(servers: Servers, name: str) -> int:
    """How many pages of this very copy have come; nothing else may be there."""
    mark = json.loads(cast(bytes | None, servers[1].get(_RESTORING)) or b"{}")
    if mark and mark["of"] != name:
        raise Rejected(f"another copy ({mark['of'][:40]}) is under way here: finish that one, or empty the server")
    if not mark and any(_holds_something(client) for client in servers):
        raise Rejected("the server holds an installation already, expected none: a copy goes only where nothing is")
    if not mark:
        servers[1].set(_RESTORING, json.dumps({"of": name, "pages": 0}))
    return int(mark.get("pages", 0))


def _holds_something(client: redis.Redis) -> bool:
    return next(client.scan_iter("unsubd:*", count=_SCANNED), None) is not None


def _require_masters(head: file.Line, fingerprints: Sequence[str], old_data_dir: object = "OLD_DATA_DIR") -> None:
    """Check that this place has the master keys of a copy. Errors: ConfigError  one is missing."""
    if missing := set(head["masters"]) - set(fingerprints):
        raise ConfigError(
            f"UNSUBD_SECRET_KEYS: the key with fingerprint {', '.join(sorted(missing))} signed tags of this copy, but is not"
            f" here: give it back, e.g. UNSUBD_SECRET_KEYS_FILE={old_data_dir}/secret_keys"
        )


def require_whole(store: redis.Redis) -> None:
    """Check that the installation is here, and all of it. Errors: ConfigError  a copy is under way, or it has moved."""
    with away_as(StoreUnavailable, "UNSUBD_STORE_URL"):
        restoring, moved = store.get(_RESTORING), store.get(_MOVED)
    if restoring:
        raise ConfigError(
            "UNSUBD_STORE_URL: a copy is not all here: run the same `unsubd restore` or `unsubd move` again"
        )
    if moved:
        raise ConfigError(
            "UNSUBD_DATA_DIR: this installation has moved to a server of your own: set UNSUBD_REDIS_URL to that"
        )
