"""The servers of the tests are what the tests take them for."""

import imaplib
import os
import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import PIPE

import pytest
import redis

from tests.harness import processes
from tests.harness.dovecot import Dovecot, Mailbox
from tests.harness.processes import require
from tests.harness.redis_server import RedisServer


def test_own_settings_do_not_reach_a_test(tmp_path_factory: pytest.TempPathFactory) -> None:
    base = tmp_path_factory.getbasetemp()

    assert not [name for name in os.environ if name.startswith("UNSUBD_")]
    assert Path(os.environ["HOME"]).is_relative_to(base)
    assert Path(os.environ["XDG_STATE_HOME"]).is_relative_to(base)


def test_missing_server_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)

    with pytest.raises(pytest.skip.Exception, match="apt-get install no-such-package"):
        require("no-such-binary", "no-such-package")


def test_missing_server_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")

    with pytest.raises(pytest.fail.Exception, match="apt-get install no-such-package"):
        require("no-such-binary", "no-such-package")


@pytest.mark.parametrize("valkey", [False, True], ids=["redis", "valkey"])
@pytest.mark.parametrize("end", [RedisServer.stop, RedisServer.kill], ids=["stopped", "killed"])
def test_restarted_server_keeps_its_data(
    own_redis: Callable[..., RedisServer], valkey: bool, end: Callable[[RedisServer], None]
) -> None:
    server = own_redis(valkey=valkey)
    server.client().set("key", "value")
    end(server)

    with pytest.raises(redis.ConnectionError):
        server.client().ping()
    server.restart()

    assert server.client().get("key") == b"value"


@pytest.mark.parametrize("kind", ["redis", "valkey"])
def test_server_is_durable(request: pytest.FixtureRequest, kind: str) -> None:
    url: str = request.getfixturevalue(f"{kind}_url")

    with redis.Redis.from_url(url, decode_responses=True) as client:
        assert client.config_get("append*")["appendonly"] == "yes"
        assert client.config_get("append*")["appendfsync"] == "always"


@pytest.mark.parametrize("turn", [1, 2])
def test_each_test_finds_redis_empty(redis_url: str, valkey_url: str, turn: int) -> None:
    for url in (redis_url, valkey_url):
        with redis.Redis.from_url(url) as client:
            assert client.dbsize() == 0
            client.set("turn", turn)


def test_own_redis_takes_other_settings(own_redis: Callable[..., RedisServer]) -> None:
    client = own_redis(appendfsync="everysec", maxmemory_policy="allkeys-lru").client(decode_responses=True)

    assert client.config_get("appendfsync") == {"appendfsync": "everysec"}
    assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "allkeys-lru"}


def test_mailbox_returns_what_was_appended(dovecot: Mailbox) -> None:
    dovecot.append(b"Subject: one\n\nbody\n", flags=r"\Seen $Word")

    assert dovecot.messages() == [(1, {r"\Seen", "$Word"}, b"Subject: one\r\n\r\nbody\r\n")]


@pytest.mark.parametrize("turn", [1, 2])
def test_each_test_has_an_empty_mailbox(dovecot: Mailbox, turn: int) -> None:
    assert dovecot.messages() == []
    dovecot.append(b"Subject: %d\r\n\r\n" % turn)


def test_dropped_messages_keep_order_and_bytes(dovecot: Mailbox) -> None:
    raws = [b"Subject: %d\r\n\r\n\xff bare\rreturn\r\n" % number for number in range(300)]
    dovecot.append_many(raws[:200])
    dovecot.append_many(raws[200:])

    assert [raw for _, _, raw in dovecot.messages()] == raws


def test_messages_arrive_in_a_folder(dovecot: Mailbox) -> None:
    dovecot.create("Other")
    dovecot.append(b"Subject: one\r\n\r\n", folder="Other")
    dovecot.append_many([b"Subject: two\r\n\r\n"], folder="Other")

    assert [uid for uid, _, _ in dovecot.messages("Other")] == [1, 2]
    assert dovecot.messages() == []


def test_keyword_can_be_stored(dovecot: Mailbox) -> None:
    dovecot.append(b"Subject: one\r\n\r\n")
    dovecot.store(1, "$UnsubdDone")

    assert dovecot.messages()[0][1] == {"$UnsubdDone"}


def test_server_offers_what_the_poller_uses(dovecot: Mailbox) -> None:
    with dovecot.imap() as client:
        client.select()
        permanent = client.untagged_responses["PERMANENTFLAGS"]
        _, capabilities = client.capability()

    assert rb"\*" in permanent[-1]
    assert {b"IDLE", b"MOVE", b"UIDPLUS"} <= set(capabilities[0].split())


def test_certificate_is_refused_without_our_authority(dovecot: Mailbox) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        imaplib.IMAP4_SSL(dovecot.host, dovecot.imaps_port, ssl_context=ssl.create_default_context())


def test_plain_port_lets_in_and_refuses(dovecot: Mailbox) -> None:
    with imaplib.IMAP4("127.0.0.1", dovecot.imap_port) as client:
        with pytest.raises(imaplib.IMAP4.error, match="AUTHENTICATIONFAILED"):
            client.login(dovecot.user, "wrong")
        assert client.login(dovecot.user, dovecot.password)[0] == "OK"


def test_restarted_mailbox_keeps_its_messages(dovecot: Mailbox) -> None:
    dovecot.append(b"Subject: one\r\n\r\n")
    dovecot.stop()

    with pytest.raises(ConnectionError):
        dovecot.messages()
    dovecot.start()

    assert [uid for uid, _, _ in dovecot.messages()] == [1]


@pytest.mark.parametrize("end", [Dovecot.stop, Dovecot.kill], ids=["stopped", "killed"])
def test_stopped_server_ends_open_sessions(dovecot: Mailbox, end: Callable[[Dovecot], None]) -> None:
    with dovecot.imap() as client:
        client.select()
        end(dovecot.server)

        with pytest.raises((imaplib.IMAP4.abort, ConnectionError)):
            client.noop()


def test_server_that_does_not_start_says_why(own_redis: Callable[..., RedisServer]) -> None:
    with pytest.raises(RuntimeError, match="no-such-setting"):
        own_redis(no_such_setting="1")


def test_free_port_is_outside_outgoing_range() -> None:
    assert processes.free_port() < 32_000


def test_a_port_that_another_run_has_taken_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "from tests.harness import processes as p; print(p.free_port(), flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=PIPE, stdout=PIPE, text=True) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        theirs, ours = int(other.stdout.readline()), processes.free_port()
        offers = iter([theirs, ours, ours + 1, ours + 2, ours + 3])
        monkeypatch.setattr(processes.random, "randrange", lambda *_: next(offers))

        assert processes.free_port() not in {theirs, ours}
        other.stdin.close()


def test_a_dovecot_that_another_answers_for_does_not_start(dovecot: Mailbox, tmp_path: Path) -> None:
    """The other's greeting is no proof: for every test of a run the two would be mixed up."""
    second = Dovecot(processes.require("dovecot", processes.PACKAGES["dovecot"]), tmp_path)
    configuration = tmp_path / "dovecot.conf"
    configuration.write_text(configuration.read_text().replace(str(second.imap_port), str(dovecot.imap_port)))
    second.imap_port = dovecot.imap_port

    with pytest.raises(RuntimeError, match="Address already in use"):
        second.start()
