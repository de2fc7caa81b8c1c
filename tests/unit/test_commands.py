"""Every command: what prints facts prints them as JSON, too, alone on standard output; why a command need not stands here."""

import json
from collections.abc import Iterator
from unittest.mock import patch

import click
import fakeredis
import pytest
from structlog.testing import capture_logs
from typer.main import get_command
from typer.testing import CliRunner

from handlers.errors import ConfigError
from tests.unit import house
from tests.unit.house import mail
from tests.unit.letters import tagged
from worker import installation
from worker.cli import app
from worker.cli import service as cli_service

SERVICE = "runs until it is stopped, and says what it does in the journal"
CHANGE = "changes one thing: the exit code is the answer, and what it made is a word alone on the last line"
TEXT = "its output is itself what another program takes, as it stands"
PERSON = "talks with a person"
WITHOUT_JSON = {
    **dict.fromkeys(("run", "poll", "work", "web", "lmtp", "policy", "milter"), SERVICE),
    **dict.fromkeys(
        (
            "anomaly dismiss",
            "forward add",
            "forward remove",
            "hook remove",
            "keys retire",
            "mta map add",
            "mta map remove",
        ),
        CHANGE,
    ),
    **dict.fromkeys(("group add", "group archive", "group edit", "group restore", "sender add", "sender edit"), CHANGE),
    **dict.fromkeys(("sender key", "sender revoke", "sender source add", "sender source remove"), CHANGE),
    **dict.fromkeys(("headers", "stamp"), TEXT),
    **dict.fromkeys(("demo", "hook add", "mailbox login"), PERSON),
}
LISTS = (
    ["status"], ["config"], ["report"], ["keys", "list"], ["sender", "list"], ["group", "list", "acme"], ["hook", "list"],
    ["quarantine", "list"], ["quarantine", "replay", "--reason", "no-tag", "--dry-run"], ["forward", "list"],
    ["mailbox", "list"], ["mta", "map", "list"], ["sender", "keys", "acme"], ["sender", "source", "list", "acme"],
    ["trace", "jane@example.com"], ["check", "acme", "12", "jane@example.com", "new@example.com"],
    ["evidence", "acme", "jane@example.com"], ["suppress", "acme", "12", "ann@example.com", "--reason", "phone"],
    ["export", "acme", "12"], ["tag", "read", tagged()], ["forget", "ann@example.com", "--yes"],
)  # fmt: skip


def commands(found: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    inner: dict[str, click.Command] | None = getattr(found, "commands", None)
    if inner is None:
        yield " ".join(path), found
        return
    for name, each in inner.items():
        yield from commands(each, (*path, name))


EVERY = dict(commands(get_command(app)))


def has_json(command: click.Command) -> bool:
    return any("--json" in each.opts for each in command.params)


@pytest.mark.parametrize("name", sorted(EVERY))
def test_a_command_has_json_or_a_reason(name: str) -> None:
    assert has_json(EVERY[name]) != (name in WITHOUT_JSON), WITHOUT_JSON.get(name, "prints facts, and has no --json")


def test_the_reasons_are_of_commands_that_exist() -> None:
    assert set(WITHOUT_JSON) <= set(EVERY)


@pytest.mark.parametrize("words", LISTS, ids=" ".join)
def test_json_stands_alone_on_standard_output(words: list[str]) -> None:
    server = fakeredis.FakeServer()
    with house.opened(server) as acme:
        acme.accounts.add_sender("acme")
        acme.accounts.add_group("acme", "Weekly news", "", 12)
        acme.intake.record(acme.intake.accept([mail(), mail("info@elsewhere.example", "two")]).decided)
    with (
        capture_logs(),
        patch.object(installation, "connect", autospec=True, side_effect=lambda _: house.client(server)),
    ):
        done = CliRunner().invoke(app, [*words, "--json"], env=house.ENVIRON)

    assert done.exit_code == 0, done.output
    assert all(isinstance(json.loads(line), dict) for line in done.stdout.splitlines())


@pytest.mark.parametrize("answer", ["", "n\n"], ids=["nobody there", "no"])
def test_forget_says_how_to_go_on_where_nobody_said_yes(answer: str) -> None:
    done = CliRunner().invoke(app, ["forget", "ann@example.com"], env=house.ENVIRON, input=answer)

    assert done.exit_code == 2  # 64 of the process: see `worker.cli`
    assert "nothing was forgotten" in done.stderr
    assert "--yes" in done.stderr


@pytest.mark.parametrize("service", ["run", "web", "work", "poll", "lmtp", "policy", "milter"])
def test_every_service_names_a_setting_that_nobody_reads_once(service: str) -> None:
    environ = house.ENVIRON | {"UNSUBD_POL_INTERVAL_S": "5"}
    with patch.object(cli_service, "own_settings", autospec=True, side_effect=ConfigError("far enough")):
        done = CliRunner().invoke(app, [service], env=environ)

    assert str(done.exception) == "far enough"
    assert done.stderr == "unsubd: UNSUBD_POL_INTERVAL_S: no such setting, it has no effect: see unsubd config\n"
