"""What systemd hears: the protocol on a real socket, and silence where nobody listens."""

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from worker.systemd import Systemd, watched


@pytest.fixture
def listener(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
        link.bind("notify")
        link.setblocking(False)
        yield link


def _heard(link: socket.socket) -> list[str]:
    heard = []
    while True:
        try:
            heard.append(link.recv(100).decode())
        except BlockingIOError:
            return heard


def test_ready_is_said_once(listener: socket.socket) -> None:
    systemd = Systemd({"NOTIFY_SOCKET": "notify"})
    systemd.beat()
    systemd.beat()

    assert _heard(listener) == ["READY=1"]


@pytest.mark.parametrize(
    ("left", "beats"),
    [
        ({"WATCHDOG_USEC": "60000000"}, 1),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": str(os.getpid())}, 1),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}, 0),
        ({"WATCHDOG_USEC": "1"}, 3),
        ({"WATCHDOG_USEC": "0"}, 0),
        ({"WATCHDOG_USEC": "often"}, 0),
        ({}, 0),
    ],
)
def test_a_beat_is_sent_as_often_as_systemd_asks(listener: socket.socket, left: dict[str, str], beats: int) -> None:
    systemd = Systemd({"NOTIFY_SOCKET": "notify"} | left)
    for _ in range(3):
        systemd.beat()

    assert _heard(listener) == ["READY=1"] + ["WATCHDOG=1"] * beats


def test_the_parts_of_a_supervisor_inherit_nothing_of_it() -> None:
    environ = {"NOTIFY_SOCKET": "notify", "WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1", "PATH": "/bin"}
    Systemd(environ)

    assert environ == {"PATH": "/bin"}


def test_an_abstract_socket_is_reached() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
        link.bind(f"\0unsubd-test-{os.getpid()}")
        link.setblocking(False)
        Systemd({"NOTIFY_SOCKET": f"@unsubd-test-{os.getpid()}"}).beat()

        assert _heard(link) == ["READY=1"]


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": "/nowhere/notify", "WATCHDOG_USEC": "1"}])
def test_nobody_who_listens_is_no_trouble(environ: dict[str, str]) -> None:
    systemd = Systemd(environ)
    systemd.beat()
    systemd.beat()

    assert environ == {}


def test_an_event_loop_tells_of_itself(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "notify")
    monkeypatch.setenv("WATCHDOG_USEC", "60000000")

    async def serve() -> None:
        async with watched():
            await asyncio.sleep(0)

    asyncio.run(serve())

    assert _heard(listener) == ["READY=1", "WATCHDOG=1"]
