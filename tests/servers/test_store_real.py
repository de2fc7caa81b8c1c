"""The store on redis-server and Valkey: the rules and histories of `unit/test_store_model.py` once more, and what only a
real server does: stop, fill up, turn read-only, lack a replica."""

import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import redis
from redis.connection import AbstractConnection

from handlers.errors import StoreUnavailable
from handlers.request import Action, Effect, Request
from handlers.tag import Minted, StoredTag, Tag
from tests import store_model
from tests.harness.redis_server import RedisServer
from tests.harness.service import until
from tests.store_model import NOW, asked

pytest.register_assert_rewrite("tests.store_rules")
from tests.harness.names import NAMES, answers  # noqa: E402
from tests.store_rules import JANE, LedgerRules, NeighbourRules, RegisterRules  # noqa: E402
from worker import server  # noqa: E402
from worker.store import Store, script  # noqa: E402
from worker.store.buckets import Buckets  # noqa: E402
from worker.store.first_layout import FirstLayout  # noqa: E402
from worker.store.line import Line  # noqa: E402
from worker.store.reading import Hints, Reading  # noqa: E402
from worker.store.tags import StoredTags  # noqa: E402


@pytest.fixture(params=["redis_url", "valkey_url"])
def client(request: pytest.FixtureRequest) -> Iterator[redis.Redis]:
    with server.connect(request.getfixturevalue(request.param)) as client:
        yield client


@pytest.fixture
def store(client: redis.Redis) -> Store:
    return Store(client, NAMES)


class TestRegister(RegisterRules):
    pass


class TestNeighbours(NeighbourRules):
    pass


class TestLedger(LedgerRules):
    pass


def test_store_and_model_agree_on_random_histories(store: Store) -> None:
    store_model.run_histories(store, examples=20, steps=30)


def test_repeating_everything_in_any_order_flips_no_state(store: Store) -> None:
    store_model.run_repeats(store, examples=20)


# --- servers that cannot


@pytest.fixture(params=[False, True], ids=["redis", "valkey"])
def own_server(request: pytest.FixtureRequest, own_redis: Callable[..., RedisServer]) -> RedisServer:
    return own_redis(valkey=request.param, repl_diskless_sync_delay="0")


@pytest.fixture
def own_client(own_server: RedisServer) -> Iterator[redis.Redis]:
    with server.connect(own_server.url) as client:
        yield client


@pytest.fixture
def own_store(own_client: redis.Redis) -> Store:
    return Store(own_client, NAMES)


def _request(nonce: str = "form 1") -> Request:
    return asked(Action.UNSUBSCRIBE, JANE, NOW, "page", nonce)


def test_stopped_server_is_unavailable(own_server: RedisServer, own_client: redis.Redis, own_store: Store) -> None:
    own_store.apply([_request()])
    own_server.stop()
    ref, tag = "a" * 26, Tag(*JANE)
    for ask in (
        lambda: own_store.apply([_request()]),
        lambda: answers(own_store, "acme", 12, [JANE[2]]),
        lambda: own_store.row(*JANE),
        lambda: list(own_store.listed("acme", 12)),
        lambda: StoredTags(own_client).keep([(Minted(f"h{ref}", f"u+h{ref}@unsub.example.com", True, ref), tag)]),
        lambda: StoredTags(own_client).found([StoredTag(ref)]),
    ):
        with pytest.raises(StoreUnavailable, match=r"^UNSUBD_STORE_URL: the server does not answer"):
            ask()
    own_server.restart()

    assert own_store.apply([_request()]) == [Effect.ADDED]


CANNOT_WRITE = {
    "OOM": ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0"),
    "READONLY": ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE"),
    "NOREPLICAS": ("CONFIG SET min-replicas-to-write 1", "CONFIG SET min-replicas-to-write 0"),
    "MASTERDOWN": (
        "CONFIG SET replica-serve-stale-data no\nREPLICAOF 127.0.0.1 1",
        "REPLICAOF NO ONE\nCONFIG SET replica-serve-stale-data yes",
    ),
}


def _say(client: redis.Redis, commands: str) -> None:
    for command in commands.splitlines():
        client.execute_command(*command.split())


class _TimeLimit(Exception):
    """What Celery and RQ raise in whatever a job does, by a signal."""


def _by_line(client: redis.Redis) -> Callable[[list[Any]], list[Any]]:
    return Line(client).ask


def _by_stream(client: redis.Redis) -> Callable[[list[Any]], list[Any]]:
    line = Line(client)
    return lambda commands: line.stream(commands[:-1], lambda: commands[-1:])


def _by_script(client: redis.Redis) -> Callable[[list[Any]], list[Any]]:
    return partial(script.send, client)


@pytest.mark.parametrize("client", ["redis_url"], indirect=True)
@pytest.mark.parametrize("late_ms", [0, 300])
@pytest.mark.parametrize("commands", [1, 2])
@pytest.mark.parametrize("way", [_by_line, _by_stream, _by_script])
def test_an_answer_that_nobody_read_is_never_the_next_ones(
    redis_url: str, client: redis.Redis, monkeypatch: pytest.MonkeyPatch, way: Any, commands: int, late_ms: int
) -> None:
    client.mset({"theirs": "suppressed", "ours": "allowed"})
    with server.connect(redis_url) as ours:
        ask = way(ours)
        ask([("GET", "ours")] * commands)
        if late_ms:
            client.client_pause(late_ms)  # redis-py finds what came before the next question, and no more
        _interrupted(monkeypatch, lambda: ask([("GET", "theirs")] * commands))
        assert ask([("GET", "ours")] * commands) == [b"allowed"] * commands


@pytest.mark.parametrize("client", ["redis_url"], indirect=True)
def test_a_question_whose_answer_nobody_takes_leaves_nothing_behind(redis_url: str, client: redis.Redis) -> None:
    client.mset({"theirs": "suppressed", "ours": "allowed"})
    with server.connect(redis_url) as ours:
        line = Line(ours)
        line.ask([("GET", "ours")])
        first, second = line.begin([("GET", "theirs")] * 3), line.begin([("GET", "theirs")])
        first.close()
        del second
        assert line.ask([("GET", "ours")]) == line.ask([("GET", "ours")]) == [b"allowed"]
        assert len(ours.connection_pool._get_in_use_connections()) == 1


@pytest.mark.parametrize("client", ["redis_url"], indirect=True)
@pytest.mark.parametrize("late_ms", [0, 300])
def test_a_connection_that_is_half_open_is_not_asked(
    redis_url: str, client: redis.Redis, monkeypatch: pytest.MonkeyPatch, late_ms: int
) -> None:
    """It is in no database yet, or the answer to its greeting comes when the first question was sent."""
    client.set("where", "0")
    with server.connect(redis_url.removesuffix("/0") + "/1") as ours:
        ours.set("where", "1")
        ours.close()
        line = Line(ours)
        if late_ms:
            client.client_pause(late_ms)
        _interrupted(monkeypatch, lambda: line.ask([("GET", "where")]))
        assert line.ask([("GET", "where")]) == line.ask([("GET", "where")]) == [b"1"]


@pytest.mark.parametrize("client", ["redis_url"], indirect=True)
def test_what_a_kept_connection_says_unasked_is_heard_by_nobody(redis_url: str, client: redis.Redis) -> None:
    client.mset({"theirs": "suppressed", "ours": "allowed"})
    with server.connect(redis_url) as ours:
        line = Line(ours)
        line.ask([("GET", "ours")])
        line._kept[0].send_command("GET", "theirs")
        time.sleep(0.1)
        assert line.ask([("GET", "ours")]) == line.ask([("GET", "ours")]) == [b"allowed"]


@pytest.mark.parametrize("client", ["redis_url"], indirect=True)
def test_a_list_that_cannot_be_asked_to_its_end_leaves_nothing_behind(redis_url: str, client: redis.Redis) -> None:
    client.mset({"theirs": "suppressed", "ours": "allowed"})

    def reading(name: str) -> Reading[bytes]:
        if name == "wrong":
            raise _TimeLimit
        return (yield [("GET", name)])[0]

    with server.connect(redis_url) as ours:
        buckets = Buckets(ours, Hints(), NAMES, min_replicas=0)
        for asked_ in (["theirs", "wrong"], ["ours", "theirs", "wrong"]):
            with pytest.raises(_TimeLimit):
                list(buckets.ask_each(map(reading, asked_)))
            assert list(buckets.ask_each(map(reading, ["ours"] * 3))) == [b"allowed"] * 3
        assert next(buckets.ask_each(map(reading, ["ours", "theirs"]))) == b"allowed"
        assert list(buckets.ask_each(map(reading, ["ours"] * 3))) == [b"allowed"] * 3
        assert len(ours.connection_pool._get_in_use_connections()) == 1


def test_a_command_is_worked_on_while_the_next_is_made(client: redis.Redis) -> None:
    line = Line(client)

    def has_done(number: int) -> bool:
        return client.llen("done") == number

    def commands() -> Iterator[script.Command]:
        for number in range(3):
            until(partial(has_done, number), what=f"{number} commands done")
            yield "RPUSH", "done", number

    assert line.stream(commands(), lambda: [("LLEN", "done")]) == [1, 2, 3, 3]


@pytest.mark.parametrize("client", ["redis_url"], indirect=True)
@pytest.mark.parametrize("when", [0, 1, 2])
def test_what_a_connection_took_with_it_is_written_once_more(redis_url: str, client: redis.Redis, when: int) -> None:
    with server.connect(redis_url) as ours:
        line = Line(ours)
        [number] = line.ask([("CLIENT", "ID")])

        def commands(of: str) -> Iterator[script.Command]:
            for each in range(3):
                if of == "killed" and each == when:
                    client.client_kill_filter(_id=str(number))
                yield "HSET", of, each, each

        last = [("HLEN", "killed"), ("HLEN", "whole")]
        assert len(line.stream(commands("killed"), lambda: last)) == 5
        assert client.hlen("killed") == 3
        assert line.stream(commands("whole"), lambda: last) == [1, 1, 1, 3, 3]
        assert len(ours.connection_pool._get_in_use_connections()) == 1


@pytest.mark.parametrize("client", ["redis_url"], indirect=True)
def test_what_was_written_before_a_signal_is_told_of(
    client: redis.Redis, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    people = [f"p{number}@example.com" for number in range(100)]
    requests = [asked(Action.UNSUBSCRIBE, ("acme", 12, each), NOW, "page", each) for each in people]
    made, real = [0], store._write

    def until_the_signal(*words: Any) -> Any:
        made[0] += 1
        if made[0] > 80:
            raise _TimeLimit
        return real(*words)

    store.apply(requests[:1])  # the server knows the script
    before = store.changes("acme", 12)
    with monkeypatch.context() as patch:
        patch.setattr(store, "_write", until_the_signal)
        with pytest.raises(_TimeLimit):
            store.apply(requests)

    until(lambda: store.counted("acme", [12]) == [64], what="the call that was sent")
    assert store.changes("acme", 12) > before
    assert store.apply(requests)[99] == Effect.ADDED


@pytest.mark.parametrize("client", ["redis_url"], indirect=True)
def test_a_connection_is_not_looked_after_in_the_middle_of_a_stream(redis_url: str, client: redis.Redis) -> None:
    with server.connect(redis_url) as ours:
        line = Line(ours)
        [number] = line.ask([("CLIENT", "ID")])
        [connection] = line._kept

        def commands() -> Iterator[script.Command]:
            for each in range(3):
                yield "RPUSH", "rows", each
                connection.next_health_check = 0  # it has been idle for 30 s by now

        assert line.stream(commands(), lambda: [("CLIENT", "ID")]) == [1, 2, 3, number]


@pytest.mark.parametrize("client", ["redis_url"], indirect=True)
def test_a_stream_that_is_not_made_to_its_end_leaves_nothing_behind(redis_url: str, client: redis.Redis) -> None:
    client.mset({"theirs": "suppressed", "ours": "allowed"})

    def commands() -> Iterator[script.Command]:
        yield "GET", "theirs"
        raise _TimeLimit

    with server.connect(redis_url) as ours:
        line = Line(ours)
        for _ in range(3):
            with pytest.raises(_TimeLimit):
                line.stream(commands(), list)
            assert line.ask([("GET", "ours")]) == [b"allowed"]
        assert len(ours.connection_pool._get_in_use_connections()) == 1


@pytest.mark.parametrize("client", ["redis_url"], indirect=True)
def test_a_fork_has_a_line_of_its_own(redis_url: str, client: redis.Redis) -> None:
    with server.connect(redis_url) as ours:
        line = Line(ours)
        [before] = line.ask([("CLIENT", "ID")])
        hear, say = os.pipe()
        if not (child := os.fork()):
            os.write(say, b"%d" % line.ask([("CLIENT", "ID")])[0])
            os._exit(0)
        os.waitpid(child, 0)

        assert int(os.read(hear, 99)) != before
        assert line.ask([("CLIENT", "ID")]) == [before]
        os.close(hear)
        os.close(say)


@pytest.mark.parametrize("client", ["redis_url"], indirect=True)
def test_a_kept_connection_that_the_server_closed_is_opened_again(redis_url: str, client: redis.Redis) -> None:
    with server.connect(redis_url) as ours:
        line = Line(ours)
        for commands in ([("PING",)], [("PING",)] * 3):
            [number] = line.ask([("CLIENT", "ID")])
            client.client_kill_filter(_id=str(number))
            assert line.ask(commands) == [True] * len(commands)


@pytest.mark.parametrize("client", ["redis_url"], indirect=True)
def test_a_connection_with_an_answer_in_it_is_given_to_nobody(
    redis_url: str, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.mset({"theirs": "suppressed", "ours": "allowed"})
    with server.connect(redis_url) as ours:
        ours.ping()
        _interrupted(monkeypatch, lambda: ours.get("theirs"))
        time.sleep(0.1)
        assert ours.get("ours") == b"allowed"


def _interrupted(monkeypatch: pytest.MonkeyPatch, ask: Callable[[], object]) -> None:
    """Have a signal's exception come when the question is sent and nothing read: within microseconds, anywhere else."""

    def stopped(*_: object, **__: object) -> None:
        raise _TimeLimit

    with monkeypatch.context() as patch:
        patch.setattr(AbstractConnection, "read_response", stopped)
        with pytest.raises(_TimeLimit):
            ask()


@pytest.mark.parametrize("word", CANNOT_WRITE)
def test_server_that_cannot_write_is_unavailable(own_client: redis.Redis, own_store: Store, word: str) -> None:
    answers(own_store, "acme", 12, [JANE[2]])
    broken, mended = CANNOT_WRITE[word]
    _say(own_client, broken)

    with pytest.raises(StoreUnavailable, match=rf"cannot write now \({word}\)$"):
        own_store.apply([_request()])

    _say(own_client, mended)
    assert own_store.apply([_request()]) == [Effect.ADDED]


def test_full_server_still_answers_checks(own_client: redis.Redis, own_store: Store) -> None:
    own_store.apply([_request()])
    own_client.config_set("maxmemory", 1)

    assert answers(own_store, "acme", 12, [JANE[2]])[0].suppressed
    some = [asked(Action.UNSUBSCRIBE, ("acme", 12, f"joe{number}@example.com"), NOW, "page", "") for number in range(9)]
    with pytest.raises(StoreUnavailable):
        own_store.apply(some)  # one call, of which all or nothing is written
    assert own_store.rows([("acme", 12, each.recipient) for each in some]) == [None] * 9


@pytest.mark.parametrize("command", ["CONFIG SET maxmemory 1", "SET unsubd:supp:{acme:0} not-a-hash"])
def test_no_error_spells_an_address(own_client: redis.Redis, own_store: Store, command: str) -> None:
    _say(own_client, command)

    with pytest.raises((StoreUnavailable, redis.ResponseError)) as caught:
        own_store.apply([_request()])

    error: BaseException | None = caught.value
    while error is not None:
        assert "jane" not in str(error)
        error = error.__cause__ or error.__context__


def test_missing_replica_is_unavailable(own_client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_WAIT_MS", 20)
    store = Store(own_client, NAMES, min_replicas=1)
    tag = (Minted("h", "u+h@unsub.example.com", True, "a" * 26), Tag(*JANE))

    with pytest.raises(StoreUnavailable, match="UNSUBD_MIN_REPLICAS: 0 of 1 replicas confirmed"):
        store.apply([_request()])
    with pytest.raises(StoreUnavailable, match="UNSUBD_MIN_REPLICAS: 0 of 1 replicas confirmed"):
        StoredTags(own_client, min_replicas=1).keep([tag])


def test_wait_ends_before_socket_gives_up() -> None:
    assert server._WAIT_MS < 1000 * server._TIMEOUT_S


def test_replica_that_became_ours_is_unavailable_even_when_nothing_changes(own_client: redis.Redis) -> None:
    store = Store(own_client, NAMES)
    store.apply([_request()], now_ms=NOW)
    own_client.replicaof("127.0.0.1", "1")

    with pytest.raises(StoreUnavailable, match=r"cannot write now \(READONLY\)"):
        Store(own_client, NAMES, min_replicas=1).apply([_request()], now_ms=NOW)


def test_replica_confirms(
    own_server: RedisServer, own_client: redis.Redis, own_redis: Callable[..., RedisServer]
) -> None:
    valkey = "valkey_version" in own_client.info("server")
    replica = own_redis(valkey=valkey, appendonly="no", replicaof=f"127.0.0.1 {own_server.port}")
    own_client.wait(1, 4000)
    effects = Store(own_client, NAMES, min_replicas=1).apply([_request()])

    assert effects == [Effect.ADDED]
    assert answers(Store(replica.client(), NAMES), "acme", 12, [JANE[2]])[0].suppressed


# --- the layout


def test_no_bucket_leaves_the_listpack_whatever_the_addresses(client: redis.Redis, store: Store) -> None:
    """One address in a hundred has 65 to 254 octets; the first batch finds a single bucket."""
    people = [f"{'l' * (53 + number % 190 if number % 100 == 0 else 3)}{number:06d}@ex.com" for number in range(3000)]
    for start in range(0, len(people), 1000):
        some = people[start : start + 1000]
        store.apply([asked(Action.UNSUBSCRIBE, ("acme", 12, each), NOW, "page", each) for each in some])

    assert all(65 <= len(each) <= 254 for each in people[::100])
    keys = list(client.scan_iter("unsubd:supp:*"))
    assert {client.object("encoding", key) for key in keys} == {b"listpack"}
    assert len(keys) >= 15
    assert sorted(name for name, _ in store.stopped("acme", 12)) == sorted(people)


def test_a_call_that_fails_halfway_is_said_and_repeated(client: redis.Redis, store: Store) -> None:
    people = [f"p{number}@example.com" for number in range(300)]
    wishes = [asked(Action.UNSUBSCRIBE, ("acme", 12, each), NOW, "page", each) for each in people]
    store.apply(wishes[20:])
    client.rename("unsubd:supp:{acme:1}", "unsubd:supp:{acme:1}:aside")
    client.set("unsubd:supp:{acme:1}", "no hash")

    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        store.apply(wishes[:20])

    client.rename("unsubd:supp:{acme:1}:aside", "unsubd:supp:{acme:1}")
    assert store.apply(wishes[:20]) == [Effect.ADDED] * 20
    assert store.counted("acme", [12]) == [300]


def test_the_first_layout_is_put_aside_and_moved(client: redis.Redis, store: Store) -> None:
    row = (NOW // 1000).to_bytes(4) + NOW.to_bytes(6) + bytes([1, 21]) + b"evidence"
    client.hset("unsubd:supp:{elder}:12", JANE[2], row)
    client.sadd("unsubd:supp:{elder}", 12)
    FirstLayout(client).shut(["bolt"])
    answered = store.asked("elder", 12, [JANE[2]])

    assert [own and own.suppressed for _, own in answered] == [True]
    assert sum(store.migrate()) == 1
    assert Store(client, NAMES).asked("elder", 12, [JANE[2]]) == answered
    assert client.keys("unsubd:first:*") == []
    for key in ("unsubd:supp:{elder}:12", "unsubd:supp:{elder}:0", "unsubd:supp:{bolt}:0"):
        with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
            client.hget(key, JANE[2])
