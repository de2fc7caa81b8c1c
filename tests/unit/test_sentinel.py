"""The URL that names Sentinels: what is asked of whom, with which password. Failovers are in `servers/test_replicas.py`."""

from typing import Any

import fakeredis
import pytest
from redis import asyncio
from redis.connection import SSLConnection
from redis.sentinel import SentinelConnectionPool

from worker import sentinel, server

URL = "redis+sentinel://u:p%40ss@a.example.com:1234,b.example.com,[::1]:5/unsubd/3?sentinel_password=w%2Fatch"


def read(url: str, client: Any = None) -> tuple[dict[str, Any], list[dict[str, Any]], str]:
    """Return how the primary is spoken to, how each Sentinel is, and the primary's name."""
    pool = (client or server.connect(url)).connection_pool
    sentinels = [each.connection_pool for each in pool.sentinel_manager.sentinels]
    assert all(issubclass(each.connection_class, SSLConnection) == ("rediss" in url) for each in sentinels)
    return pool.connection_kwargs, [each.connection_kwargs for each in sentinels], pool.service_name


def test_servers_and_sentinels_have_passwords_of_their_own() -> None:
    primary, sentinels, name = read(URL)

    assert (name, primary["username"], primary["password"], primary["db"]) == ("unsubd", "u", "p@ss", 3)
    assert [(each["host"], each["port"]) for each in sentinels] == [
        ("a.example.com", 1234), ("b.example.com", 26379), ("::1", 5),
    ]  # fmt: skip
    assert {(each["username"], each["password"], each.get("db", 0)) for each in sentinels} == {(None, "w/atch", 0)}


def test_one_sentinel_and_nothing_else_is_enough() -> None:
    primary, (only,), name = read("redis+sentinel://h/unsubd")

    assert (name, primary.get("db", 0), primary.get("password"), only["port"]) == ("unsubd", 0, None, 26379)
    assert primary["socket_timeout"] > only["socket_timeout"]


def test_tls_is_for_both() -> None:
    pool = server.connect("rediss+sentinel://h/unsubd?ssl_ca_certs=/ca.pem").connection_pool
    primary, sentinels, _ = read("rediss+sentinel://h/unsubd?ssl_ca_certs=/ca.pem")

    assert issubclass(pool.connection_class, SSLConnection)
    assert primary["ssl_ca_certs"] == sentinels[0]["ssl_ca_certs"] == "/ca.pem"


def test_asyncio_reads_the_same() -> None:
    client = server.connect_async(URL)
    assert isinstance(client.connection_pool, asyncio.sentinel.SentinelConnectionPool)

    assert read(URL, client)[0]["password"] == "p@ss"


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://", "redis+sentinel://h", "redis+sentinel://h/", "redis+sentinel:///unsubd/0",
        "redis+sentinel://h:port/unsubd", "redis+sentinel://h,/unsubd", "redis+sentinel://h/unsubd/db",
        "redis+sentinel://h:99999/unsubd", "redis+sentinel://:a/b@h/unsubd", "redis+sentinel://:a#b@h/unsubd",
        "unix+sentinel://h/unsubd", "redis+sentinel://h/unsubd?db=x",
    ],
)  # fmt: skip
def test_any_other_shape_is_refused(url: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  the setting says it in words of its own
        server.connect(url)


def test_a_server_without_sentinels_has_no_primary_to_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SentinelConnectionPool, "get_master_address", lambda _: ("10.0.0.7", 6379))

    assert sentinel.primary(server.connect(URL)) == "10.0.0.7:6379"
    assert sentinel.primary(fakeredis.FakeRedis()) == ""
