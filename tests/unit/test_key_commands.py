"""`unsubd sender key`, `keys`, `revoke`: what is shown, and what is not."""

import json
from collections.abc import Callable, Iterator
from unittest.mock import patch

import fakeredis
import pytest
from typer.testing import CliRunner

from handlers.errors import Rejected
from tests.unit import house
from worker import installation
from worker.accounts import Accounts
from worker.cli import app

Command = Callable[..., list[str]]


@pytest.fixture
def server() -> fakeredis.FakeServer:
    return fakeredis.FakeServer()


@pytest.fixture
def command(server: fakeredis.FakeServer) -> Iterator[Command]:
    """Run a command on an installation with the senders acme and beta; return its lines."""
    for sender in ("acme", "beta"):
        Accounts(house.client(server)).add_sender(sender)

    def run(*words: str) -> list[str]:
        done = CliRunner().invoke(app, words, env=house.ENVIRON, catch_exceptions=False)
        if isinstance(done.exception, Exception):
            raise done.exception
        return done.stdout.splitlines()

    with patch.object(installation, "connect", autospec=True, side_effect=lambda _: house.client(server)):
        yield run


def test_keys_are_listed_without_themselves_and_revoked_by_id(command: Command, server: fakeredis.FakeServer) -> None:
    key = command("sender", "key", "acme", "--name", "robot", "--scope", "asm.groups.read", "--per-minute", "60")[-1]

    [row] = [json.loads(line) for line in command("sender", "keys", "acme", "--json")]

    assert (row["name"], row["scopes"], row["per_minute"]) == ("robot", ["asm.groups.read"], 60)
    [line] = command("sender", "keys", "acme")
    assert line.split()[:2] == [row["id"], "robot"]
    assert line.endswith("60 a minute  asm.groups.read")
    assert key not in line + str(row)
    assert command("sender", "keys", "beta") == []
    with pytest.raises(Rejected, match="none of that id"):
        command("sender", "revoke", "beta", row["id"])
    assert command("sender", "revoke", "acme", row["id"]) == [f"revoked {row['id']} (robot)"]
    assert Accounts(house.client(server)).keys.find(key) is None


def test_a_sender_gets_a_parent_which_is_not_itself(command: Command, server: fakeredis.FakeServer) -> None:
    command("sender", "edit", "beta", "--parent", "acme")

    assert Accounts(house.client(server)).sender("beta").parent == "acme"
    with pytest.raises(Rejected, match="parent"):
        command("sender", "edit", "acme", "--parent", "acme")
