"""Backups: everything comes back as it was, what is damaged never does, what was interrupted goes on."""

import gzip
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from fakeredis import FakeRedis

from handlers.errors import ConfigError, Rejected
from handlers.request import Action
from tests.harness import growth
from tests.harness.names import NAMES
from tests.store_model import NOW, asked
from worker import backup
from worker.backup import file, keys
from worker.store import Store, script

OCTETS = bytes(range(256))


@pytest.fixture(autouse=True)
def run(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which run of the servers it is; fakeredis does not tell."""
    found = ["the first"]
    monkeypatch.setattr(backup, "_run_of", lambda client: found[-1])
    return found


MASTER = "aa11"


def _filled() -> FakeRedis:
    client = FakeRedis(server_type="redis")
    client.sadd("unsubd:masters", MASTER)
    client.set("unsubd:pseudonym-key", OCTETS)
    client.hset("unsubd:supp:{acme}:1", mapping={b"%d\xff@example.com" % number: OCTETS for number in range(1500)})
    client.zadd("unsubd:quarantine:index:no-tag", {b"a\n\xfe": 1.5, b"b": float("inf"), b"c": 1790000000123})
    client.rpush("rq:queue:unsubd", "1", "2", "1")
    client.hset("rq:job:1", mapping={"origin": "unsubd", "data": OCTETS})
    client.sadd("unsubd:supp:{acme}", *range(1000))
    client.set("unsubd:seen:1", "2", ex=6 * 86400)
    return client


def _content(client: FakeRedis) -> dict[bytes, Any]:
    read = {
        b"string": client.get,
        b"hash": client.hgetall,
        b"set": client.smembers,
        b"list": lambda key: client.lrange(key, 0, -1),
        b"zset": lambda key: client.zrange(key, 0, -1, withscores=True),
    }
    keys: Any = client.keys()
    return {key: (read[client.type(key)](key), client.pexpiretime(key)) for key in keys}


def _quiet(count: int, words: str) -> None:
    pass


def _restored(servers: backup.Servers, path: Path, fingerprints: Sequence[str], progress: backup.Progress) -> int:
    return backup.restore(servers, path, file.verified(path), fingerprints, progress)


def test_everything_comes_back_as_it_was(tmp_path: Path) -> None:
    source, target = _filled(), FakeRedis()

    count = backup.backup((source, source), tmp_path / "b", ["00" * 32], _quiet)

    assert _restored((target, target), tmp_path / "b", [MASTER], _quiet) == count == 8
    assert _content(target) == _content(source)
    assert stat.S_IMODE(os.stat(tmp_path / "b").st_mode) == 0o600
    assert gzip.decompress((tmp_path / "b").read_bytes()).startswith(b'{"unsubd":"backup","format":2,')
    assert file.verified(tmp_path / "b").head["secret_keys"] == ["00" * 32]


def test_what_ends_by_itself_and_what_is_not_ours_stays(tmp_path: Path) -> None:
    source, target = _filled(), FakeRedis()
    source.set("unsubd:session:1", "x", ex=12 * 3600)
    source.set("somebody's", "own")
    source.set("rq:workers", "x")
    source.hset("rq:job:2", mapping={"origin": "mails", "data": "x"})
    source.rpush("rq:queue:mails", "2")

    backup.backup((source, source), tmp_path / "b", [], _quiet)
    _restored((target, target), tmp_path / "b", [MASTER], _quiet)

    assert _content(target) == _content(_filled()) | {
        b"unsubd:seen:1": _content(source)[b"unsubd:seen:1"],
    }
    assert "secret_keys" not in file.verified(tmp_path / "b").head


def test_two_servers_become_one_and_one_becomes_two(tmp_path: Path) -> None:
    one, queue, store, again = _filled(), FakeRedis(), FakeRedis(), FakeRedis()

    backup.backup((one, one), tmp_path / "one", [], _quiet)
    _restored((queue, store), tmp_path / "one", [MASTER], _quiet)
    backup.backup((queue, store), tmp_path / "two", [], _quiet)
    _restored((again, again), tmp_path / "two", [MASTER], _quiet)

    of_store = {b"unsubd:masters", b"unsubd:pseudonym-key", b"unsubd:supp:{acme}:1", b"unsubd:supp:{acme}"}
    assert (set(store.keys()), of_store & set(queue.keys())) == (of_store, set())
    assert _content(again) == _content(one)


@pytest.mark.parametrize("damage", ["cut", "one octet", "a line less", "no backup", "nothing", "a newer format"])
def test_what_is_not_whole_is_refused_before_a_key_is_written(tmp_path: Path, damage: str) -> None:
    source, target, path = _filled(), FakeRedis(), tmp_path / "b"
    backup.backup((source, source), path, [], _quiet)
    whole = path.read_bytes()
    text = gzip.decompress(whole)
    path.write_bytes({
        "cut": whole[:-40],
        "one octet": gzip.compress(text.replace(b"1499", b"1498", 1)),
        "a line less": gzip.compress(b"".join(text.splitlines(True)[:3] + text.splitlines(True)[4:])),
        "no backup": gzip.compress(b'{"some": "log"}\n'),
        "nothing": b"",
        "a newer format": gzip.compress(text.replace(b'"format":2', b'"format":3', 1)),
    }[damage])  # fmt: skip

    with pytest.raises(Rejected, match=r"expected"):
        _restored((target, target), path, [MASTER], _quiet)

    assert target.keys() == []


def test_a_change_is_told_from_a_cut_and_where_it_is(tmp_path: Path) -> None:
    source, path = _filled(), tmp_path / "b"
    backup.backup((source, source), path, [], _quiet)
    whole = path.read_bytes()
    place = len(whole) // 2

    for content, told in (
        (
            whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :],
            r"changed since it was written, behind octet [\d,]+,",
        ),
        (whole[:-40], "cut off: its end is missing,"),
        (whole[:30] + bytes([whole[30] ^ 1]) + whole[31:], "no backup that is whole,"),
    ):
        path.write_bytes(content)
        with pytest.raises(Rejected, match=told):
            file.verified(path)


def test_every_cut_is_noticed(tmp_path: Path) -> None:
    source, path = _filled(), tmp_path / "b"
    backup.backup((source, source), path, [], _quiet)
    whole = path.read_bytes()

    for length in range(0, len(whole), max(1, len(whole) // 200)):
        path.write_bytes(whole[:length])
        with pytest.raises(Rejected):
            file.verified(path)


class Interrupted(Exception):
    """The power went."""


def _after(calls: int) -> Any:
    left = iter(range(calls))

    def progress(count: int, words: str) -> None:
        if next(left, None) is None:
            raise Interrupted

    return progress


@pytest.mark.parametrize("calls", range(6))
def test_an_interrupted_backup_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: int) -> None:
    monkeypatch.setattr(backup, "_SCANNED", 2)
    monkeypatch.setattr(keys, "_LINES", 3)
    source, target = _filled(), FakeRedis()
    with pytest.raises(Interrupted):
        backup.backup((source, source), tmp_path / "b", [], _after(calls))
    with (tmp_path / "b.part").open("ab") as part:
        part.write(b"half a member")  # what a crash leaves behind the last whole one
    assert not (tmp_path / "b").exists()

    asked: list[Sequence[bytes]] = []
    lines = keys.lines
    monkeypatch.setattr(keys, "lines", lambda client, some: asked.append(some) or lines(client, some))
    backup.backup((source, source), tmp_path / "b", [], _quiet)

    _restored((target, target), tmp_path / "b", [MASTER], _quiet)
    assert _content(target) == _content(source)
    assert calls < 3 or sum(map(len, asked)) < 8, "it began again"
    assert not (tmp_path / "b.part").exists()


@pytest.mark.parametrize("what", ["long ago", "another installation", "without keys"])
def test_what_was_begun_as_another_backup_does_not_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(backup, "_SCANNED", 2)
    before, source, target = _filled(), _filled(), FakeRedis()
    for number in range(20):
        before.set(f"unsubd:only-before-{number}", "1")
    if what == "another installation":
        before.sadd("unsubd:masters", "ff99")
    with pytest.raises(Interrupted):
        backup.backup((before, before), tmp_path / "b", [], _after(8))
    assert file.unfinished(tmp_path / "b.part") is not None
    if what == "long ago":
        monkeypatch.setattr(backup, "_GOES_ON_MS", 0)

    backup.backup((source, source), tmp_path / "b", ["00" * 32] if what == "without keys" else [], _quiet)

    _restored((target, target), tmp_path / "b", [MASTER], _quiet)
    assert _content(target) == _content(source)
    assert ("secret_keys" in file.verified(tmp_path / "b").head) == (what == "without keys")


@pytest.mark.parametrize("calls", range(8))
def test_an_interrupted_restore_goes_on_and_nothing_starts_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    monkeypatch.setattr(keys, "_LINES", 2)
    source, target = _filled(), FakeRedis()
    backup.backup((source, source), tmp_path / "b", [], _quiet)
    backup.backup((source, source), tmp_path / "other", ["11" * 32], _quiet)

    with pytest.raises(Interrupted):
        _restored((target, target), tmp_path / "b", [MASTER], _after(calls))

    with pytest.raises(ConfigError, match="not all here"):
        backup.require_whole(target)
    with pytest.raises(Rejected, match="another copy"):
        _restored((target, target), tmp_path / "other", [MASTER], _quiet)
    assert _restored((target, target), tmp_path / "b", [MASTER], _quiet) == 8
    assert _content(target) == _content(source)
    backup.require_whole(target)


def test_a_full_quarantine_is_written_in_parts_that_fit_into_memory() -> None:
    client = FakeRedis()
    client.hset("unsubd:quarantine:raw", mapping={str(number): b"x" * 262_144 for number in range(40)})

    lines = list(keys.lines(client, [b"unsubd:quarantine:raw"]))

    assert sum(len(line["value"]) for line in lines) == 80
    assert max(sum(map(len, line["value"])) for line in lines) < 2 << 20
    assert max(sum(len(line["value"]) for line in some) for some in keys.together(iter(lines))) < 80


def test_a_copy_goes_only_where_nothing_is(tmp_path: Path) -> None:
    source, target = _filled(), FakeRedis()
    backup.backup((source, source), tmp_path / "b", [], _quiet)
    target.set("unsubd:ran", "1")

    with pytest.raises(Rejected, match="holds an installation already"):
        _restored((target, FakeRedis()), tmp_path / "b", [MASTER], _quiet)

    assert target.keys() == [b"unsubd:ran"]


def test_without_the_master_key_nothing_is_restored(tmp_path: Path) -> None:
    source, target = _filled(), FakeRedis()
    backup.backup((source, source), tmp_path / "b", [], _quiet)

    with pytest.raises(ConfigError, match=f"fingerprint {MASTER}"):
        _restored((target, target), tmp_path / "b", ["bb22"], _quiet)

    assert target.keys() == []


PEOPLE = [f"person.{number}@example.com" for number in range(200)]


def _with_buckets(senders: Sequence[str]) -> FakeRedis:
    client = FakeRedis(server_type="redis")
    client.sadd("unsubd:masters", MASTER)
    for sender in senders:
        Store(client, NAMES).apply(
            [asked(Action.UNSUBSCRIBE, (sender, 12, each), NOW, "page", each) for each in PEOPLE], now_ms=NOW
        )
    return client


def test_a_backup_holds_every_row_whatever_splits_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = _with_buckets(["acme", "bolt"]), FakeRedis()
    splits = iter(range(3, 60))

    def grow(commands: Any) -> None:
        for sender in ("acme", "bolt"):
            source.delete(f"unsubd:growing:{{{sender}}}")
            growth.grow(lambda commands: script.send(source, commands), NAMES, sender, next(splits))

    walk = keys.walk  # a split between any two reads of a bucket
    monkeypatch.setattr(keys, "walk", lambda *asked: (grow(found) or found for found in walk(*asked, at_once=1)))
    backup.backup((source, source), tmp_path / "b", [], _quiet)
    _restored((target, target), tmp_path / "b", [MASTER], _quiet)

    store = Store(target, NAMES)
    for sender in ("acme", "bolt"):
        assert next(splits) > 9
        assert all(own and own.suppressed for _, own in store.asked(sender, 12, PEOPLE))
        assert sorted(name for name, _ in store.stopped(sender, 12)) == sorted(PEOPLE)
        growth.grow(lambda commands: script.send(target, commands), NAMES, sender, 40)
        assert int(target.hget(f"unsubd:buckets:{{{sender}}}", "buckets")) == 40  # type: ignore[arg-type]
        assert store.counted(sender, [12]) == [len(PEOPLE)]


@pytest.mark.parametrize("calls", range(4))
def test_a_backup_that_was_interrupted_among_buckets_goes_on(tmp_path: Path, calls: int) -> None:
    source, target = _with_buckets(["acme", "bolt", "cole"]), FakeRedis()
    with pytest.raises(Interrupted):
        backup.backup((source, source), tmp_path / "b", [], _after(calls))

    backup.backup((source, source), tmp_path / "b", [], _quiet)

    assert _restored((target, target), tmp_path / "b", [MASTER], _quiet) == len(source.keys())
    assert _content(target) == _content(source)


def test_a_backup_is_begun_anew_when_a_server_was(tmp_path: Path, run: list[str]) -> None:
    """A cursor of another run, or of another node of a Cluster, would leave keys out."""
    source, target = _with_buckets(["acme", "bolt", "cole"]), FakeRedis()
    with pytest.raises(Interrupted):
        backup.backup((source, source), tmp_path / "b", [], _after(2))
    source.set("unsubd:tag:late", "came since")  # and a cursor that goes on would be past it
    run.append("another")

    backup.backup((source, source), tmp_path / "b", [], _quiet)

    _restored((target, target), tmp_path / "b", [MASTER], _quiet)
    assert _content(target) == _content(source)


def test_a_sender_whose_directory_is_lost_is_in_a_backup(tmp_path: Path) -> None:
    source, target = _with_buckets(["acme"]), FakeRedis()
    source.delete("unsubd:buckets:{acme}")
    source.hset("unsubd:senders", "acme", "{}")

    backup.backup((source, source), tmp_path / "b", [], _quiet)
    _restored((target, target), tmp_path / "b", [MASTER], _quiet)

    assert all(own for _, own in Store(target, NAMES).asked("acme", 12, PEOPLE))
