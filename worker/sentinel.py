"""Redis by its Sentinels: one URL names them and the primary they watch; every new connection asks them where that is.

    redis+sentinel://USER:PASSWORD@HOST:PORT,HOST:PORT/PRIMARY/0?sentinel_password=…

USER and PASSWORD are the servers', `sentinel_username` and `sentinel_password` the Sentinels' own; every other option
is redis-py's. `rediss+sentinel` means TLS to both, with the same `ssl_` options. redis-py does the rest: a connection that
broke, or that hears READONLY, is made again to the primary of that moment.
"""

import re
from typing import Any, cast
from urllib.parse import urlsplit

from redis import asyncio, sentinel
from redis.backoff import NoBackoff
from redis.client import Redis
from redis.connection import SSLConnection, parse_url
from redis.retry import Retry

_URL = re.compile(r"(rediss?)\+sentinel://(?:([^/?#]*)@)?([^/?#@]+)/([^/?]+)(?:/(\d*))?(?:\?(.*))?")
_PORT = 26379
# A Sentinel answers from its memory. The next one is asked instead, so one whose box is gone costs this once a process.
_ASKING: dict[str, Any] = {"socket_connect_timeout": 1, "socket_timeout": 1}
_OWN = "sentinel_"


def is_sentinel(url: str) -> bool:
    """Say whether *url* names Sentinels."""
    return url.startswith(("redis+sentinel:", "rediss+sentinel:"))


def connect(url: str, **options: Any) -> Redis:
    """Return a client of the primary that *url* names; nothing is sent yet.

    Shape:   options: redis-py's, for the primary; those in the URL come first.
    Errors:  ValueError  the URL has another shape.
    """
    hosts, name, asking, own = _read(url)
    manager: Any = sentinel.Sentinel(hosts, sentinel_kwargs={**asking, "retry": Retry(NoBackoff(), 0)})  # type: ignore[no-untyped-call]
    return cast(Redis, manager.master_for(name, connection_pool_class=_Pool, **{**options, **own}))


def connect_async(url: str, **options: Any) -> "asyncio.Redis":
    """As `connect`, for asyncio."""
    hosts, name, asking, own = _read(url)
    once = asyncio.retry.Retry(NoBackoff(), 0)
    manager: Any = asyncio.sentinel.Sentinel(hosts, sentinel_kwargs={**asking, "retry": once})  # type: ignore[no-untyped-call]
    return cast("asyncio.Redis", manager.master_for(name, connection_pool_class=_AsyncPool, **{**options, **own}))


def primary(client: Redis) -> str:
    """Return host:port of the primary that the Sentinels name now; "" for a client of one server.

    Errors:  redis.ConnectionError  none of them names one.
    """
    pool: Any = client.connection_pool
    if not isinstance(pool, sentinel.SentinelConnectionPool):
        return ""
    host, port = pool.get_master_address()  # type: ignore[no-untyped-call]
    return f"{host}:{port}"


class _Connection(sentinel.SentinelManagedConnection):
    """Closed when an answer does not come, as redis-py's other connections are.

    Why:     its own for Sentinel stay open and go back into the pool: the next command would hear the late answer, or wait
             for the server that hangs, for ever.
    """

    def read_response(self, *arguments: Any, disconnect_on_error: bool | None = True, **named: Any) -> Any:
        return super().read_response(*arguments, disconnect_on_error=disconnect_on_error, **named)


class _TlsConnection(_Connection, SSLConnection):
    """As `_Connection`."""


class _Pool(sentinel.SentinelConnectionPool):
    """Closes what asks the Sentinels together with the rest."""

    def __init__(self, *arguments: Any, ssl: bool = False, **named: Any) -> None:
        super().__init__(*arguments, connection_class=_TlsConnection if ssl else _Connection, **named)  # type: ignore[no-untyped-call]

    def disconnect(self, inuse_connections: bool = True) -> None:
        super().disconnect(inuse_connections)
        if inuse_connections:
            self.sentinel_manager.close()


class _AsyncPool(asyncio.sentinel.SentinelConnectionPool):
    """As `_Pool`."""

    async def disconnect(self, inuse_connections: bool = True) -> None:
        await super().disconnect(inuse_connections)
        if inuse_connections:
            await self.sentinel_manager.aclose()


def _read(url: str) -> tuple[list[tuple[str, int]], str, dict[str, Any], dict[str, Any]]:
    """Return the Sentinels, the primary's name, how to ask them, and how to speak to it."""
    parts = _URL.fullmatch(url)
    if parts is None:
        raise ValueError("expected redis+sentinel://host:port,host:port/name/0")
    scheme, login, hosts, name, db, query = parts.groups(default="")
    given: dict[str, Any] = parse_url(f"{scheme}://{login}@-/{db}?{query}")  # type: ignore[no-untyped-call]
    del given["host"]
    tls = {"ssl": True} if given.pop("connection_class", None) else {}
    asking = {key.removeprefix(_OWN): given.pop(key) for key in list(given) if key.startswith(_OWN)}
    shared = {key: value for key, value in given.items() if key.startswith("ssl_")}
    return [_place(each) for each in hosts.split(",")], name, {**_ASKING, **tls, **shared, **asking}, {**tls, **given}


def _place(text: str) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError("expected host:port of each Sentinel")
    return parts.hostname, parts.port or _PORT
