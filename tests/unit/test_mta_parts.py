"""The two services as parts of the whole: their settings, the map's commands, and what doctor, status and journal say."""

import asyncio
import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import patch

import fakeredis
import pytest
from typer.testing import CliRunner, Result

from handlers.errors import ConfigError, Rejected, UnknownAccount
from handlers.route import Route
from tests.harness.mta import serving
from tests.unit import house
from worker import service
from worker.cli.mta import app
from worker.doctor import ways_in
from worker.doctor.finding import Verdict
from worker.installation import Installation
from worker.listening import listening
from worker.mta.map import Routes
from worker.mta.milter import Milter
from worker.mta.policy import Policy
from worker.mta.server import Server
from worker.settings import load_settings
from worker.sources import source_states

PARTS = {"policy": Policy, "milter": Milter}


@pytest.fixture
def acme(monkeypatch: pytest.MonkeyPatch) -> Iterator[Installation]:
    """acme with group 12; commands find the same Redis."""
    for name, value in house.ENVIRON.items():
        monkeypatch.setenv(name, value)
    with house.opened(fakeredis.FakeServer()) as installation:
        installation.accounts.add_sender("acme")
        installation.accounts.add_group("acme", "Weekly news", "", 12)
        yield installation


def command(*words: str) -> Result:
    return CliRunner().invoke(app, ["map", *words])


# --- the map


def test_a_route_is_added_listed_replaced_and_removed(acme: Installation) -> None:
    assert (
        command("add", "from:News@Example.com", "acme", "12").output == "from:news@example.com  acme 12 (Weekly news)\n"
    )
    command("add", "port:2525", "acme", "0")
    assert "smtpd_recipient_limit=1" in command("add", "port:2525", "acme", "12", "--discard").output

    assert [json.loads(line) for line in command("list", "--json").output.splitlines()] == [
        {"key": "from:news@example.com", "sender": "acme", "group": 12, "discard": False},
        {"key": "port:2525", "sender": "acme", "group": 12, "discard": True},
    ]
    assert command("list").output == "from:news@example.com  acme 12\nport:2525  acme 12  discard\n"
    command("remove", "from:news@example.com")
    assert Routes(acme.redis).every() == {"port:2525": Route("acme", 12, discard=True)}


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("add", "news@example.com", "acme", "12"), Rejected), (("add", "port:25", "beta", "12"), UnknownAccount),
        (("add", "port:25", "acme", "99"), UnknownAccount), (("remove", "port:25"), Rejected),
    ],
)  # fmt: skip
def test_what_cannot_be_a_route_is_refused(acme: Installation, words: tuple[str, ...], error: type[Exception]) -> None:
    assert type(command(*words).exception) is error
    assert Routes(acme.redis).every() == {}


# --- settings


@pytest.mark.parametrize("part", PARTS)
def test_a_part_runs_when_its_setting_is_set(part: str) -> None:
    address = {f"UNSUBD_{part.upper()}": "127.0.0.1:2424"}

    assert part in service.parts_of(load_settings(house.ENVIRON | address))
    assert part not in service.parts_of(load_settings(house.ENVIRON))
    with pytest.raises(ConfigError, match=f"^UNSUBD_{part.upper()}: not set"):
        service.PARTS[part](load_settings(house.ENVIRON))


@pytest.mark.parametrize("part", PARTS)
def test_only_this_machine_may_ask(part: str) -> None:
    with pytest.raises(ConfigError, match=f"^UNSUBD_{part.upper()}: expected unix:"):
        load_settings({f"UNSUBD_{part.upper()}": "0.0.0.0:2424"})


@pytest.mark.parametrize("part", PARTS)
def test_a_taken_place_names_its_setting(tmp_path: Path, part: str) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(ConfigError, match=f"^UNSUBD_{part.upper()}: unix:.*not a socket"),
        listening(f"unix:{tmp_path}/file", f"UNSUBD_{part.upper()}"),
    ):
        pass


# --- what is told


@pytest.mark.parametrize("part", PARTS)
def test_doctor_asks_what_a_mail_server_asks_first(acme: Installation, tmp_path: Path, part: str) -> None:
    address = f"unix:{tmp_path}/{part}"
    with listening(address, "X") as listener, serving(part, PARTS[part](acme), listener):
        (found,) = ways_in.asked(part, address)
    assert (found.verdict, found.detail) == (Verdict.OK, f"{address} answers")

    (source,) = source_states(acme.redis)
    assert (source["name"], source["state"]) == (f"mta:{part}", "stopped")
    (found,) = ways_in.asked(part, address)
    assert found.verdict is Verdict.FAIL
    assert found.detail.startswith(f"UNSUBD_{part.upper()}: ")
    assert found.remedy.startswith(f"start unsubd run, or unsubd {part}")


def test_doctor_notices_another_server(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/other"
    with listening(address, "X") as listener, ThreadPoolExecutor(1) as pool:
        pool.submit(_answer_once, listener)
        (found,) = ways_in.asked("policy", address)
    assert found.detail.endswith("answers b'220', expected b'action=DUNNO'")


def _answer_once(listener: socket.socket) -> None:
    with listener.accept()[0] as link:
        link.recv(999)
        link.sendall(b"220 hello")


def test_what_was_told_is_one_line_and_a_counter_and_names_nobody(acme: Installation, tmp_path: Path) -> None:
    Routes(acme.redis).add("from:news@example.com", Route("acme", 12))
    policy = Policy(acme)
    with (
        listening(f"unix:{tmp_path}/p", "X") as listener,
        serving("policy", policy, listener),
        socket.socket(socket.AF_UNIX) as client,
    ):
        client.connect(f"{tmp_path}/p")
        for _ in range(3):
            client.sendall(b"request=smtpd_access_policy\nsender=news@example.com\nrecipient=jane@example.org\n\n")
            assert client.recv(99) == b"action=DUNNO\n\n"

    (line,) = [each for each in acme.journal.lines(acme.redis, 9) if each["event"] == "told"]
    assert (line["service"], line["permitted"]) == ("policy", 3)
    assert acme.journal.counters(acme.redis)["unsubd_mta_answers_total", "policy:permitted"] == 3
    assert "jane" not in str(acme.journal.lines(acme.redis, 9))
    assert source_states(acme.redis)[0]["messages"] == 3


def test_routes_that_cannot_be_read_any_more_end_the_service(acme: Installation, tmp_path: Path) -> None:
    policy = Policy(acme)

    async def run() -> None:
        with (
            listening(f"unix:{tmp_path}/p", "X") as listener,
            patch("worker.mta.server._TELL_EVERY_S", 0.01),
            patch("worker.mta.server._REFRESH_EVERY_S", 0.01),
            patch.object(Routes, "every", autospec=True, side_effect=[{}, KeyError("sender")]),
        ):
            await Server("policy", policy.asking, policy.converse).run(listener, asyncio.Event())

    with pytest.raises(KeyError):
        asyncio.run(run())
