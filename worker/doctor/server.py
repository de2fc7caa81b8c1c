"""Redis or Valkey: its version, whether what it says it keeps is kept, its memory, its replicas, its clock."""

import time
from collections.abc import Iterator
from typing import Any, cast

import redis

from handlers.errors import QueueUnavailable
from worker.doctor.finding import Finding, fail, ok, warn
from worker.sentinel import primary
from worker.server import away_as, servers
from worker.settings import Settings

_OLDEST = {"Redis": 7, "Valkey": 8}
_SKEW_WARN_S, _SKEW_FAIL_S = (
    2.0,
    600.0,
)  # the register leans ten minutes towards the unsubscribe: beyond, a clock decides
_TIGHT, _FULL = 0.8, 0.95
Info = dict[str, Any]


def look(layer: str, client: redis.Redis, settings: Settings, weakness: str) -> Iterator[Finding]:
    """Say how the server is. Shape: weakness: of its persistence, which somebody allowed."""
    name = "UNSUBD_STORE_URL" if layer == "store" else "UNSUBD_REDIS_URL"
    if len(nodes := servers(client)) > 1:
        for each in nodes:
            yield from look(layer, each, settings, weakness)
        return
    with away_as(QueueUnavailable, name):
        info = client.info()
        config = _config(client)
        found = primary(client)
    where = f"embedded in {settings.data_dir}" if layer == "redis" and settings.embedded else name
    where += f": primary {found}, as the Sentinels say" if found else ""
    yield _version(layer, info, where)
    yield _persistence(layer, info, config, weakness)
    yield _memory(layer, info, config)
    yield from _replicas(layer, info, settings.min_replicas)
    if found and not settings.min_replicas:
        told = "Sentinel may promote a replica that lacks what was acknowledged last"
        yield warn(layer, told, "UNSUBD_MIN_REPLICAS=1: only what a replica has is acknowledged")


def _config(client: redis.Redis) -> dict[str, str] | None:
    try:
        return cast(dict[str, str], client.config_get("append*", "maxmemory*"))
    except redis.ResponseError:
        return None  # managed servers forbid it


def _version(layer: str, info: Info, where: str) -> Finding:
    name = "Valkey" if "valkey_version" in info else "Redis"
    version = str(info.get("valkey_version", info.get("redis_version", "0")))
    oldest = _OLDEST[name]
    if int(version.partition(".")[0]) < oldest:
        return fail(layer, f"{name} {version}, {where}", f"expected {name} {oldest} or newer: update it")
    return ok(layer, f"{name} {version}, {where}, up for {int(info.get('uptime_in_seconds', 0)):,} s")


def _persistence(layer: str, info: Info, config: dict[str, str] | None, weakness: str) -> Finding:
    if weakness:
        remedy = "set appendonly yes and appendfsync always on the server: a crash may lose accepted requests"
        return warn(layer, f"WEAK: {weakness}, allowed by UNSUBD_ALLOW_WEAK_DURABILITY", remedy)
    for fact in ("aof_last_write_status", "aof_last_bgrewrite_status", "rdb_last_bgsave_status"):
        if info.get(fact, "ok") != "ok":
            return fail(layer, f"{fact} is {info[fact]}", "see the server's log and its disk: it cannot write its file")
    if config is None:
        return warn(layer, "the server does not tell its settings (CONFIG is forbidden)",
                    "see in its console: appendonly yes, appendfsync always, noeviction")  # fmt: skip
    if not info.get("aof_enabled", 1):
        return fail(layer, "no append-only file is written, whatever appendonly says", "start the server again")
    return ok(layer, "appendonly yes, appendfsync always, the last write succeeded")


def _memory(layer: str, info: Info, config: dict[str, str] | None) -> Finding:
    used, limit = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0) or (config or {}).get("maxmemory", 0))
    policy = str(info.get("maxmemory_policy", "noeviction"))
    most = limit or int(info.get("total_system_memory", 0))
    told = f"{used / 2**20:,.0f} MB used of {most / 2**20:,.0f} ({'maxmemory' if limit else 'the machine'}), {policy}"
    if limit and policy != "noeviction":
        return fail(layer, told, "maxmemory-policy noeviction: any other one throws suppressions away")
    if most and used > _FULL * most:
        return fail(layer, told, "more memory for the server: soon it takes no write")
    if most and used > _TIGHT * most:
        return warn(layer, told, "more memory for the server before it is full")
    return ok(layer, told)


def _replicas(layer: str, info: Info, wanted: int) -> Iterator[Finding]:
    count = int(info.get("connected_slaves", 0))
    if info.get("role", "master") != "master":
        yield fail(layer, "this server is a replica: it takes no write", "the URL of the primary, or fail over to it")
    elif count < wanted:
        told = f"{count} replicas, UNSUBD_MIN_REPLICAS is {wanted}: nothing is accepted"
        yield fail(layer, told, "start the replicas, or lower UNSUBD_MIN_REPLICAS")
    elif wanted or count:
        yield ok(layer, f"{count} replicas, {wanted} must confirm a write")


def clock(client: redis.Redis) -> Iterator[Finding]:
    """Say how far our clock is from the server's."""
    with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
        seconds, micros = client.time()
    skew_s = time.time() - seconds - micros / 1_000_000
    told = f"{skew_s * 1000:+.0f} ms from the server's"
    if abs(skew_s) > _SKEW_FAIL_S:
        yield fail("clock", told, "set both by NTP: the later of two wishes wins, and this clock decides which it was")
    elif abs(skew_s) > _SKEW_WARN_S:
        yield warn("clock", told, "set both by NTP")
    else:
        yield ok("clock", told)
