"""The screen of `unsubd status`: everything has its age, and nothing steers the terminal."""

import io
from typing import Any

import pytest
from rich.console import Console

from worker.cli.screen import screen

_NONE = dict.fromkeys(("queued", "started", "scheduled", "failed", "finished"), 0)
NOW_S = 1_800_000_000.0
STATE: dict[str, Any] = {
    "queue": {"requests": _NONE | {"queued": 1234}, "messages": _NONE, "oldest_s": 7300.0},
    "workers": [
        {"name": "box-1", "state": "idle", "heartbeat_s": 4.0, "queues": ["unsubd"], "faults": [], "job": ""},
        {"name": "fleet", "state": "idle", "heartbeat_s": 4.0, "queues": ["a"], "faults": ["is not ours"], "job": ""},
    ],
    "sources": [
        {"name": "imap:news", "state": "refused", "messages": 7, "last_ms": (NOW_S - 75) * 1000, "age_s": 3.0, "held": 12,
         "detail": "\x1b[2Jno such \u202euser"},
    ],
    "quarantine": {"total": 3, "by_reason": {"quarantine:no-tag": 3}},
    "clock": {"server_s": 0, "skew_ms": 3},
    "durability": "appendfsync always",
    "outgoing": _NONE | {"scheduled": 5},
    "ages_s": {"count": 1_000, "p50": 0.4, "p99": 7.0, "max": 75.0},
    "owed": {"level": "alarm", "text": "3 requests wait since 2 h 1 min: no worker.", "oldest_s": 7300.0, "alarms": [
        {"level": "alarm", "what": "imap:news refuses our login", "remedy": "unsubd doctor", "link": "/ops/sources"},
    ]},
}  # fmt: skip


def shown(state: dict[str, Any], width: int = 140) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(screen(state, NOW_S))
    return out.getvalue()


def test_everything_has_its_count_and_its_age() -> None:
    text = shown(STATE)

    for words in (
        "1,234",
        "2 h 1 min",
        "box-1",
        "4 s ago",
        "is not ours",
        "1 min ago",
        "12",
        "quarantine:no-tag",
        "+3 ms",
        "3 requests wait",
        "-> unsubd doctor",
        "p50 0.4 s, p99 7 s",
        "What goes out: 5 to repeat",
    ):
        assert words in text


def test_what_a_server_says_does_not_steer_the_terminal() -> None:
    text = shown(STATE)

    assert "\\x1b[2Jno such \\u202euser" in text
    assert all(line.isprintable() for line in text.splitlines())


@pytest.mark.parametrize("width", [80, 140])
def test_it_fits(width: int) -> None:
    assert max(len(line) for line in shown(STATE, width).splitlines()) <= width


def test_nothing_yet_is_said_in_words() -> None:
    text = shown(STATE | {"workers": [], "sources": [], "quarantine": {"total": 0, "by_reason": {}}})

    assert "none is alive: start unsubd run, or unsubd work" in text
    assert "none has worked yet" in text
    assert "empty" in text
