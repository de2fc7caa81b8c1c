"""Connections to Redis or Valkey: how they are opened, when they count as away, and what durable means.

"Accept, then acknowledge" rests on the server: `appendonly yes` and `appendfsync always`, and WAIT on the same
connection where UNSUBD_MIN_REPLICAS asks for it. Provably weaker persistence refuses to start.
"""

from collections.abc import Callable
from typing import Any, cast

import redis
from redis import DriverInfo
from redis.backoff import ExponentialBackoff
from redis.exceptions import AskError, ClusterCrossSlotError, NoPermissionError, RedisClusterException
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError

from handlers.errors import ConfigError, QueueUnavailable, Unavailable
from worker import sentinel
from worker.cluster import Cluster

_AWAY = (
    "READONLY", "OOM", "MISCONF", "MASTERDOWN", "CLUSTERDOWN", "BUSY", "NOREPLICAS", "TRYAGAIN",
    "WAIT",  # what a replica answers to WAIT
    "UNBLOCKED",  # and what a primary that becomes one answers whoever is waiting
)  # fmt: skip
_NO_RIGHT_IN_SCRIPT = "The user executing the script can't "
_TIMEOUT_S = 5
_CLUSTER = "+cluster"
_WITHIN: dict[str, Any] = {
    "socket_connect_timeout": _TIMEOUT_S, "socket_timeout": _TIMEOUT_S,
    "maint_notifications_config": MaintNotificationsConfig(enabled=False),  # with it, redis-py gives out connections unlooked at
    "driver_info": DriverInfo(),  # once: left to itself, each connection reads redis-py's metadata from disk (2 MB, 1 ms)
}  # fmt: skip
_WAIT_MS = 4000  # less than the socket's time-out, or nobody hears the answer


def connect(url: str) -> redis.Redis:
    """Return a client of *url*; nothing is sent yet, but to a Cluster (`redis+cluster://`), which is asked for its nodes.

    Shape:   redis, rediss or unix://; redis+sentinel or rediss+sentinel:// as in `worker.sentinel`: then of whichever
             server is the primary.
    Units:   5 s to connect and to answer; one quick retry of a connection that was lost, because the callers wait and
             repeat by themselves; none of one that is silent: a frozen server would cost 20 s a call.
    Errors:  ValueError  it is none of these.
             redis.ConnectionError, redis.RedisClusterException  a Cluster that does not answer.    temporary
    """
    retry = Retry(ExponentialBackoff(cap=0.2, base=0.05), 1, supported_errors=(redis.ConnectionError,))
    options: dict[str, Any] = {**_WITHIN, "retry": retry, "health_check_interval": 30}
    if is_cluster(url):
        # One interface for what the store asks; redis-py has no common type for both.
        return cast(redis.Redis, Cluster.from_url(node_url(url), **options))
    opened = sentinel.connect if sentinel.is_sentinel(url) else redis.Redis.from_url
    return opened(url, **options)


def connect_async(url: str) -> redis.asyncio.Redis:
    """Return a client of *url* for asyncio, as `connect`."""
    if is_cluster(url):
        return cast(redis.asyncio.Redis, redis.asyncio.RedisCluster.from_url(node_url(url), **_WITHIN))
    opened = sentinel.connect_async if sentinel.is_sentinel(url) else redis.asyncio.Redis.from_url
    return opened(url, **_WITHIN)


def disconnect_idle(client: Any) -> None:
    """Close the connections that nobody uses now: on one of them an answer may be left that nobody read."""
    nodes: Any = client.get_nodes() if isinstance(client, redis.RedisCluster) else None  # type: ignore[no-untyped-call]
    clients = [client] if nodes is None else [each.redis_connection for each in nodes if each.redis_connection]
    for each in clients:
        each.connection_pool.disconnect(inuse_connections=False)


def is_cluster(url: str) -> bool:
    """Say whether *url* leads to a Redis Cluster: redis+cluster:// or rediss+cluster://, and any of its nodes."""
    return url.partition("://")[0].endswith(_CLUSTER)


def node_url(url: str) -> str:
    """Return the URL of the node that *url* names; of a server that is no Cluster, its own."""
    scheme, colon, rest = url.partition("://")
    return scheme.removesuffix(_CLUSTER) + colon + rest


class away_as:
    """Turn "the server is away, loading, full or read-only" into *error_type*; other errors are bugs and stay.

    Errors:  ConfigError  its user may not do what we asked for, or it is one of a Cluster and nobody told us so.
    Why:     a class, for each check passes it: a generator's context took 4 of its 94 us.
    """

    def __init__(self, error_type: type[Unavailable], setting: str) -> None:
        self._error_type, self._setting = error_type, setting

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and (told := _told(error, self._error_type, self._setting)):
            raise told from error


def _told(error: Exception, error_type: type[Unavailable], setting: str) -> Exception | None:
    """What is said instead of *error*, None when it is a bug."""
    if isinstance(error, MasterNotFoundError):
        return error_type(
            f"{setting}: no Sentinel that answers us knows a primary of that name that is up:"
            " see SENTINEL MASTERS, and check name and password of the Sentinels"
        )
    if isinstance(error, redis.ConnectionError | redis.TimeoutError | RedisClusterException):
        return error_type(f"{setting}: the server does not answer ({type(error).__name__})")
    if isinstance(error, AskError):
        return error_type(f"{setting}: a slot moved to another node while it was read")
    if isinstance(error, ClusterCrossSlotError):
        return ConfigError(
            f"{setting}: the server is one of a Cluster, expected redis+cluster:// or rediss+cluster:// in its URL"
        )
    if isinstance(error, redis.ResponseError):
        word = word_of(error)  # first: it takes the command out of the error
        if isinstance(error, NoPermissionError) or str(error.args[0]).startswith(_NO_RIGHT_IN_SCRIPT):
            # What is left names a command, or says "a key".
            return ConfigError(f"{setting}: {error}: give unsubd's user of Redis the rights that the README lists")
        if word:
            return error_type(f"{setting}: the server cannot write now ({word})")
    return None


def word_of(error: redis.ResponseError) -> str:
    """Return the word by which a server says that it cannot write now, "" for any other answer; without the command."""
    # A pipeline writes its command before the answer, and the command spells an address.
    answer = str(error.args[0]).rpartition(" of pipeline caused error: ")[2]
    error.args = (answer, *error.args[1:])
    # redis-py moves the word of an answer that it has a class for into status_code.
    word = error.status_code if error.status_code not in (None, "ERR") else answer.split(" ", 1)[0]
    return str(word) if word in _AWAY else ""


def confirm(pipeline: Any, min_replicas: int) -> None:
    """Append WAIT to *pipeline*, so that it runs on the connection that wrote; see `check_confirmed`.

    Shape:   pipeline: opened with transaction=False.
    Why:     never within a MULTI: there WAIT does not wait, and counts who has the connection's write of *before*. RQ
             opens one in every pipeline it is given.
    """
    for command in confirmation(min_replicas):
        pipeline.explicit_transaction = False
        pipeline.execute_command(*command)


def confirmation(min_replicas: int) -> list[tuple[Any, ...]]:
    """Return what `confirm` appends, as commands."""
    return [("WAIT", min_replicas, _WAIT_MS)] if min_replicas else []


def check_confirmed(replies: list[Any], min_replicas: int, error_type: type[Unavailable]) -> list[Any]:
    """Return *replies* without WAIT's own.

    Errors:  error_type  fewer replicas than asked for have the write.    temporary
    """
    if not min_replicas:
        return replies
    if int(replies[-1]) < min_replicas:
        raise error_type(
            f"UNSUBD_MIN_REPLICAS: {replies[-1]} of {min_replicas} replicas confirmed within {_WAIT_MS / 1000:g} s"
        )
    return replies[:-1]


class Writer:
    """Writes what people and programs are told is kept: accounts, keys and what else they configure.

    Errors:  error_type  the server is away, or fewer replicas than asked for have it: it may be done.    temporary
    """

    def __init__(
        self,
        client: redis.Redis,
        min_replicas: int,
        error_type: type[Unavailable] = QueueUnavailable,
        setting: str = "UNSUBD_REDIS_URL",
    ) -> None:
        self._redis = client
        self._min_replicas = min_replicas
        self._error_type = error_type
        self._setting = setting

    def __call__(self, write: Callable[[Any], object]) -> Any:
        """Return the answer to the first command of a write when the replicas have it, too.

        Shape:   write: adds its commands to the pipeline that it is given.
        """
        with away_as(self._error_type, self._setting):
            pipeline = self._redis.pipeline(transaction=False)
            write(pipeline)
            confirm(pipeline, self._min_replicas)
            return check_confirmed(pipeline.execute(), self._min_replicas, self._error_type)[0]


def weakness(client: redis.Redis) -> str:
    """Return why a crash of this server could lose accepted requests; "" when it could not, or does not tell.

    Why:     managed servers forbid CONFIG; what cannot be proved weak is not refused.
    """
    return next(filter(None, map(_weakness, servers(client))), "")


def servers(client: redis.Redis) -> list[redis.Redis]:
    """Return a client of each server that may be written to: one, or a Cluster's primaries."""
    if isinstance(client, redis.RedisCluster):
        return [
            client.get_redis_connection(node) for node in sorted(client.get_primaries(), key=lambda node: node.name)
        ]
    return [client]


def _weakness(client: redis.Redis) -> str:
    try:
        config: dict[str, str] = client.config_get("append*", "no-appendfsync*", "maxmemory*")  # type: ignore[assignment]
    except redis.ResponseError:
        return ""
    if config.get("appendonly") == "no":
        return "appendonly is no"
    if config.get("appendfsync") not in ("always", None):
        return f"appendfsync is {config['appendfsync']}"
    if config.get("no-appendfsync-on-rewrite") == "yes":
        return "no-appendfsync-on-rewrite is yes"
    if config.get("maxmemory") not in ("0", None) and config.get("maxmemory-policy") != "noeviction":
        return f"maxmemory-policy is {config.get('maxmemory-policy')}, which throws data away (expected noeviction)"
    return ""


def require_durable(client: redis.Redis, setting: str, *, allow_weak: bool) -> str:
    """Return the server's weakness ("" = none).

    Errors:  ConfigError  it is provably weak and nobody allowed that.
    """
    if (reason := weakness(client)) and not allow_weak:
        raise ConfigError(
            f"{setting}: {reason}, expected appendonly yes and appendfsync always: "
            "set both on the server, or UNSUBD_ALLOW_WEAK_DURABILITY=1 to accept that a crash loses requests"
        )
    return reason
