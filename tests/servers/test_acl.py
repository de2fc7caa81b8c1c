"""The rights that the README gives to unsubd's user of Redis: enough for all it does, and for nothing of others."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import redis
from redis.exceptions import NoPermissionError

from handlers.errors import ConfigError
from handlers.request import Action
from handlers.tag import Minted, Tag
from tests.harness.dovecot import Mailbox
from tests.harness.names import NAMES
from tests.harness.redis_server import RedisServer
from tests.harness.service import Service, until
from tests.harness.trial import Trial, settings
from tests.store_model import NOW, asked
from worker.store import Store
from worker.store.tags import StoredTags

pytestmark = [pytest.mark.fault, pytest.mark.timeout(300)]
README = Path(__file__).parents[2] / "README.md"
JANE = "jane@example.com"


def _rights() -> list[str]:
    """The words of the README's line, after user and password."""
    [line] = re.findall(r"^user unsubd on >PASSWORD (.+)$", README.read_text(), re.MULTILINE)
    return str(line).split()


def _as_user(server: RedisServer) -> str:
    server.client().execute_command("ACL", "SETUSER", "unsubd", "on", ">secret", *_rights())
    return server.url.replace("redis://", "redis://unsubd:secret@")


@pytest.mark.parametrize("valkey", [False, True], ids=["redis", "valkey"])
def test_the_rights_are_enough_for_everything(
    tmp_path: Path, own_redis: Callable[..., RedisServer], dovecot: Mailbox, *, valkey: bool
) -> None:
    server, name = own_redis(valkey=valkey), "Valkey" if valkey else "Redis"
    replica = own_redis(valkey=valkey, replicaof=f"127.0.0.1 {server.port}", repl_diskless_sync_delay="0")
    until(lambda: replica.client().info("replication")["master_link_status"] == "up")
    service = Service(tmp_path, **settings(_as_user(server), dovecot, min_replicas="1"))
    trial = Trial(service, dovecot)
    trial.register()
    with service.running("run"):
        trial.send(range(30))
        trial.verdict(server.url, "smallest rights", f"a user with the README's rights on {name}", "test_acl")
        (tmp_path / "list.csv").write_text("email\n" + "".join(f"p{number}@example.com\n" for number in range(2000)))
        for words in (
            ("import", "acme", "1", str(tmp_path / "list.csv")), ("check", "acme", "1", JANE), ("export", "acme"),
            ("suppress", "acme", "1", JANE, "--reason", "asked"), ("resubscribe", "acme", "1", JANE, "--reason", "asked"),
            ("status",), ("quarantine", "list"), ("trace", JANE), ("evidence", "acme", JANE), ("forget", JANE, "--yes"),
            ("keys", "list"), ("report",), ("reconcile",), ("backup", str(tmp_path / "backup")), ("migrate",),
        ):  # fmt: skip
            done = service.command(*words)
            assert done.returncode == 0, (words, done.stderr)
        assert "no permission" not in service.command("doctor").stdout.lower()
    assert server.client().acl_log() == []


def test_the_rights_are_for_nothing_of_others(own_redis: Callable[..., RedisServer]) -> None:
    server = own_redis()
    with redis.Redis.from_url(_as_user(server)) as client:
        for words in (
            "GET theirs", "SET theirs 1", "FLUSHALL", "FLUSHDB", "SHUTDOWN", "CONFIG SET appendonly no", "KEYS *", "ACL LIST",
            "REPLICAOF NO ONE", "MODULE LIST", "MONITOR", "PUBLISH theirs 1", "SWAPDB 0 1", "MIGRATE host 1 key 0 1",
        ):  # fmt: skip
            with pytest.raises(NoPermissionError):
                client.execute_command(*words.split())
        with pytest.raises(redis.ResponseError, match=r"(?i)permission"):
            client.eval("return redis.call('GET', KEYS[1])", 1, "theirs")


@pytest.mark.parametrize("missing", ["get", "set"])  # the second is first asked for in a script
def test_a_right_that_is_missing_is_named(tmp_path: Path, own_redis: Callable[..., RedisServer], missing: str) -> None:
    server = own_redis()
    url = _as_user(server)
    server.client().execute_command("ACL", "SETUSER", "unsubd", f"-{missing}")

    refused = Service(tmp_path, **settings(url)).command("sender", "add", "acme")

    assert (refused.returncode, len(refused.stderr.splitlines())) == (78, 1)
    assert "can't run this command" in refused.stderr or f"no permissions to run the '{missing}'" in refused.stderr
    assert "the rights that the README lists" in refused.stderr


@pytest.mark.parametrize("missing", ["hset", "hincrby"])  # in a pipeline, and in a script in a pipeline
def test_a_right_that_is_missing_spells_no_address(own_redis: Callable[..., RedisServer], missing: str) -> None:
    server = own_redis()
    with redis.Redis.from_url(_as_user(server)) as client:
        server.client().execute_command("ACL", "SETUSER", "unsubd", f"-{missing}")
        minted = Minted("h", "u+h@unsub.example.com", True, "a" * 26), Tag("acme", 12, JANE)
        wishes = [asked(Action.UNSUBSCRIBE, ("acme", 12, each), NOW, "page", each) for each in (JANE, f"other.{JANE}")]

        with pytest.raises(ConfigError, match="the rights that the README lists") as told:
            StoredTags(client).keep([minted]) if missing == "hset" else Store(client, NAMES).apply(wishes)

    assert "jane" not in str(told.value)
    assert "jane" not in repr(told.value.__cause__)
