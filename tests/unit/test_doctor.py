"""The doctor: what each look makes of what it sees, and that none hides another."""

from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import fakeredis
import pytest

from handlers.errors import ConfigError
from tests.unit import house
from tests.unit.house import ENVIRON
from worker import doctor
from worker.doctor import Verdict, finding, mx, processes, server
from worker.doctor import house as at_home
from worker.installation import Installation
from worker.settings import Settings, load_settings

MXS = {"unsub.acme.io": ["mxa.mailgun.org", "mxb.mailgun.org"]}


@pytest.fixture
def installation() -> Iterator[Installation]:
    with house.opened(fakeredis.FakeServer()) as installation:
        yield installation


def settings(**environ: str) -> Settings:
    return load_settings(ENVIRON | {f"UNSUBD_{name.upper()}": value for name, value in environ.items()})


def judged(host: str, **environ: str) -> tuple[str, str]:
    found = mx.judged("unsub.acme.io", [host], settings(**environ))
    return found.verdict.value, found.remedy


@pytest.mark.parametrize(
    ("name", "near"),
    [("UNSUBD_POL_INTERVAL_S", "did you mean UNSUBD_POLL_INTERVAL_S?"), ("UNSUBD_SECRET_KEY_FILE",
     "did you mean UNSUBD_SECRET_KEYS_FILE?"), ("UNSUBD_XYZZY", "see every name: unsubd config")],
)  # fmt: skip
def test_a_misspelt_setting_is_named_with_the_right_name(name: str, near: str) -> None:
    first = next(at_home.settings(settings(), {name: "1"}))

    assert (first.verdict, first.remedy) == (Verdict.FAIL, near)
    assert first.detail.startswith(name)


def test_a_long_prefix_leaves_little_room_for_addresses() -> None:
    found = list(at_home.keys(settings(address="unsubscribe+{tag}@unsub.acme.io")))

    assert [each.verdict for each in found] == [Verdict.OK, Verdict.WARN]
    assert "addresses up to 25 characters stay readable" in found[1].detail


def test_a_key_file_that_others_may_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = tmp_path / "key"
    key.write_text("11" * 32)
    key.chmod(0o644)
    monkeypatch.setenv("UNSUBD_SECRET_KEYS_FILE", str(key))

    (found,) = at_home.files(settings())

    assert (found.verdict, found.remedy) == (Verdict.FAIL, f"chmod 600 {key}")


@pytest.mark.parametrize(
    ("host", "environ", "verdict", "remedy"),
    [
        ("mxa.mailgun.org", {"in_mailgun": "key"}, "OK", ""),
        ("mxa.mailgun.org", {}, "WARN", "unsubd hook add mailgun"),
        ("aspmx.l.google.com", {"imap_url": "imaps://u@imap.gmail.com/INBOX"}, "OK", ""),
        ("aspmx.l.google.com", {"in_mailgun": "key"}, "FAIL", "UNSUBD_IMAP_URL=imaps://user@host/INBOX"),
        ("mx.acme.io", {"lmtp": "unix:/run/lmtp"}, "OK", ""),
        ("mx.acme.io", {"in_mailgun": "key"}, "WARN", "compare the MX with the provider's page"),
        ("mx.acme.io", {}, "FAIL", "UNSUBD_IMAP_URL, UNSUBD_LMTP, or unsubd hook add"),
        ("notgoogle.com", {"lmtp": "unix:/run/lmtp"}, "OK", ""),
    ],
)
def test_where_mail_goes_against_what_takes_it(host: str, environ: dict[str, str], verdict: str, remedy: str) -> None:
    assert judged(host, **environ) == (verdict, remedy)


def test_a_domain_without_mail_is_broken_and_a_silent_dns_is_not() -> None:
    def gone(_: str) -> list[str]:
        raise mx.NoSuchDomain

    def silent(_: str) -> list[str]:
        raise mx.NoAnswer("LifetimeTimeout")

    asked = settings(address="u+{tag}@unsub.acme.io")
    assert [each.verdict for each in mx.look(asked, gone)] == [Verdict.FAIL]
    assert [each.verdict for each in mx.look(asked, silent)] == [Verdict.WARN]


def info(**facts: Any) -> dict[str, Any]:
    return {"redis_version": "7.2.4", "aof_enabled": 1, "used_memory": 2**20, "total_system_memory": 2**30} | facts


@pytest.mark.parametrize(
    ("facts", "broken"),
    [
        ({}, ""),
        ({"redis_version": "6.2.1"}, "Redis 6.2.1"),
        ({"aof_enabled": 0}, "no append-only file is written"),
        ({"aof_last_write_status": "err"}, "aof_last_write_status is err"),
        ({"maxmemory": 2**30, "maxmemory_policy": "allkeys-lru"}, "1 MB used of 1,024 (maxmemory), allkeys-lru"),
        ({"maxmemory": 2**20}, "1 MB used of 1 (maxmemory), noeviction"),
        ({"role": "slave"}, "this server is a replica"),
        ({"connected_slaves": 0}, "0 replicas, UNSUBD_MIN_REPLICAS is 1"),
    ],
)
def test_what_a_server_says_of_itself(facts: dict[str, Any], broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    client = fakeredis.FakeRedis()
    monkeypatch.setattr(client, "info", lambda: info(connected_slaves=1) | facts)
    monkeypatch.setattr(client, "config_get", lambda *_: {"appendonly": "yes", "appendfsync": "always"})

    found = [each for each in server.look("redis", client, settings(min_replicas="1"), "") if not each.ok]

    assert [each.detail[: len(broken)] for each in found] == ([broken] if broken else [])
    assert all(each.remedy for each in found)


@pytest.mark.parametrize("replicas", ["0", "1"])
def test_a_failover_that_may_lose_something_is_warned_of(replicas: str, monkeypatch: pytest.MonkeyPatch) -> None:
    client = fakeredis.FakeRedis()
    monkeypatch.setattr(client, "info", lambda: info(connected_slaves=1))
    monkeypatch.setattr(client, "config_get", lambda *_: {"appendonly": "yes", "appendfsync": "always"})
    monkeypatch.setattr(server, "primary", lambda _: "10.0.0.7:6379")

    found = list(server.look("redis", client, settings(min_replicas=replicas, redis_url="redis://h"), ""))

    assert "primary 10.0.0.7:6379, as the Sentinels say" in found[0].detail
    assert [each.remedy.partition(":")[0] for each in found if each.verdict is Verdict.WARN] == (
        ["UNSUBD_MIN_REPLICAS=1"] if replicas == "0" else []
    )


def test_a_worker_that_was_killed_is_named_before_redis_forgets_it(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {"name": "box-1", "heartbeat_s": 25.0, "queues": ["unsubd"], "faults": [], "state": "idle", "job": ""}
    queue = installation.queue
    monkeypatch.setattr(type(queue), "workers", lambda _: [row])

    killed, none = processes.workers(installation)

    assert killed.detail == "'box-1' was killed or hangs: no heartbeat for 25 s"
    assert (killed.verdict, none.verdict) == (Verdict.FAIL, Verdict.FAIL)
    assert "start unsubd run" in killed.remedy


def test_redis_away_hides_no_other_line() -> None:
    away = settings(redis_url="redis://127.0.0.1:1/0", imap_url="imap://u@localhost:1/INBOX", imap_password="x")

    found = {each.layer: each for each in doctor.examine(away, MXS.__getitem__)}

    assert (found["redis"].verdict, found["mailbox"].verdict) == (Verdict.FAIL, Verdict.FAIL)
    assert found["redis"].remedy == "start the server, or mend the URL"
    assert "IMAP" in found["mailbox"].detail or "imap" in found["mailbox"].detail
    assert found["worker"].detail == "not looked at: it needs Redis"
    assert {"settings", "keys", "files", "archive", "disk", "web", "public", "mx"} <= set(found)


def test_a_look_that_hangs_costs_only_its_own_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finding, "LIMIT_S", 0.05)
    released = Event()

    def hangs() -> list[finding.Finding]:
        released.wait(30)
        return []

    (found,) = finding.Started("mailbox", hangs).findings()
    released.set()

    assert (found.layer, found.verdict) == ("mailbox", Verdict.FAIL)
    assert found.detail.startswith("no answer within")


def test_what_a_look_refuses_is_a_failure_and_a_bug_stays_one() -> None:
    def refused() -> list[finding.Finding]:
        raise ConfigError("UNSUBD_X: wrong")

    (found,) = finding.Started("x", refused).findings()

    assert (found.verdict, found.detail) == (Verdict.FAIL, "UNSUBD_X: wrong")
    with pytest.raises(ZeroDivisionError):
        list(finding.Started("x", lambda: [1 / 0]).findings())  # type: ignore[list-item]
