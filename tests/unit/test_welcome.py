"""The links that `unsubd run` prints: once, whole, and never the end of the service."""

from pathlib import Path
from types import SimpleNamespace

import fakeredis
import pytest
import redis

from worker.cli import service as cli_service
from worker.settings import Settings


def test_a_store_that_goes_away_before_the_links_are_printed_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    away = redis.Redis(unix_socket_path=str(tmp_path / "nobody"))
    installation = SimpleNamespace(settings=Settings(data_dir=tmp_path), redis=away)
    welcome = cli_service._Welcome(installation, "")  # type: ignore[arg-type]
    monkeypatch.setattr(welcome, "_answers", lambda: True)
    monkeypatch.setattr(cli_service, "_ASK_EVERY_S", -1.0)

    welcome.when_ready()
    assert (welcome.said, capsys.readouterr().out) == (False, "")

    installation.redis = fakeredis.FakeRedis()
    welcome.when_ready()
    welcome.when_ready()
    assert welcome.said
    assert capsys.readouterr().out.count("login?once=") == 1
