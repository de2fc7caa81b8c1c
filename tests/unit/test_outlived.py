"""What a service outlives: trouble that passes, at a start of a part or in the supervisor's own look, ends nothing."""

import errno
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import fakeredis
import pytest
import redis

from handlers.errors import ConfigError, QueueUnavailable
from worker import embedded, installation, service, supervisor
from worker.cli import service as cli_service
from worker.settings import Settings


def test_a_store_that_goes_away_before_the_links_are_printed_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    away = redis.Redis(unix_socket_path=str(tmp_path / "nobody"))
    house = SimpleNamespace(settings=Settings(data_dir=tmp_path), redis=away)
    welcome = cli_service._Welcome(house, "")  # type: ignore[arg-type]
    monkeypatch.setattr(welcome, "_answers", lambda: True)
    monkeypatch.setattr(cli_service, "_ASK_EVERY_S", -1.0)

    welcome.when_ready()
    assert (welcome.said, capsys.readouterr().out) == (False, "")

    house.redis = fakeredis.FakeRedis()
    welcome.when_ready()
    welcome.when_ready()
    assert welcome.said
    assert capsys.readouterr().out.count("login?once=") == 1


def test_a_disk_that_refuses_the_look_at_the_store_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(_: Path) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(embedded, "revive", refuse)
    monkeypatch.setattr(supervisor, "_REVIVE_EVERY_S", -1.0)
    look = supervisor.reviver(Settings(data_dir=tmp_path))

    look()
    look()

    assert capsys.readouterr().err == "unsubd: [Errno 30] Read-only file system\n"


@pytest.mark.parametrize(
    ("code", "age_s", "is_first", "ends_all"),
    [
        (78, 1, True, True), (78, 59, True, True), (78, 61, True, False), (78, 1, False, False), (76, 1, True, True),
        (76, 9999, True, True), (76, 1, False, True), (75, 1, True, False), (1, 1, True, False), (0, 1, True, False),
    ],
)  # fmt: skip
def test_configuration_ends_a_service_that_starts_and_none_that_works(
    code: int, age_s: int, is_first: bool, ends_all: bool
) -> None:
    process = SimpleNamespace(exitcode=code)
    child = supervisor._Child("web", process, time.monotonic() - age_s, is_first=is_first)  # type: ignore[arg-type]

    assert child.ends_all() is ends_all


@pytest.mark.parametrize("answer", ["MISCONF Redis is configured to save RDB snapshots", "BUSY Redis is busy running"])
def test_a_ping_that_is_refused_for_now_is_an_outage(answer: str) -> None:
    client = Mock(ping=Mock(side_effect=redis.ResponseError(answer)))

    with pytest.raises(QueueUnavailable, match=f"cannot write now .{answer.split()[0]}"):
        installation._require_durable(Settings(), client, client)


def test_a_ping_that_is_refused_for_good_is_configuration() -> None:
    client = Mock(ping=Mock(side_effect=redis.ResponseError("unknown command 'PING'")))

    with pytest.raises(ConfigError, match="refuses the connection"):
        installation._require_durable(Settings(), client, client)


@pytest.mark.parametrize("is_told", [True, False])
def test_a_web_server_that_is_told_to_stop_while_it_opens_does_not_serve(
    monkeypatch: pytest.MonkeyPatch, is_told: bool
) -> None:
    serve = Mock()

    @contextmanager
    def opened(_: Settings) -> Iterator[None]:
        if is_told:
            os.kill(os.getpid(), signal.SIGTERM)
        yield

    monkeypatch.setattr(service, "_opened", opened)
    monkeypatch.setattr("worker.web.doors.listeners", Mock())
    monkeypatch.setattr("worker.web.app.serve", serve)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        service.run_web(Settings())
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

    assert serve.called is not is_told
