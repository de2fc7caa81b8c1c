"""Where a request comes from, and how many links of it may fail."""

import pytest
from starlette.requests import Request

from handlers.errors import ConfigError
from worker.settings import load_settings
from worker.web.guesses import MAX_FAILURES, Guesses
from worker.web.peers import Peers


def asked(peer: str, *forwarded: str) -> Request:
    headers = [(b"x-forwarded-for", each.encode("latin-1")) for each in forwarded]
    return Request({"type": "http", "headers": headers, "client": (peer, 1234)})


@pytest.mark.parametrize(
    ("trusted", "peer", "forwarded", "source"),
    [
        ("", "10.0.0.1", ["1.2.3.4"], "10.0.0.1"),
        ("10.0.0.0/8", "10.0.0.1", ["1.2.3.4"], "1.2.3.4"),
        ("10.0.0.0/8", "10.0.0.1", ["6.6.6.6, 1.2.3.4"], "1.2.3.4"),
        ("10.0.0.0/8", "10.0.0.1", ["6.6.6.6", "1.2.3.4 , 10.2.2.2"], "1.2.3.4"),
        ("10.0.0.0/8", "10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.0/8", "10.0.0.1", ["10.0.0.9"], "10.0.0.9"),
        ("10.0.0.0/8", "9.9.9.9", ["1.2.3.4"], "9.9.9.9"),
        ("10.0.0.0/8", "10.0.0.1", ["1.2.3.4", "nonsense"], "nonsense"),
        ("10.0.0.0/8", "10.0.0.1", ["1.2.3.4", ""], "10.0.0.1"),
        ("::1 127.0.0.1", "::1", ["2001:db8:1:2:3:4:5:6"], "2001:db8:1:2::/64"),
        ("10.0.0.1", "10.0.0.1", ["x" * 500], "x" * 45),
    ],
)
def test_the_source_is_what_the_last_trusted_proxy_saw(
    trusted: str, peer: str, forwarded: list[str], source: str
) -> None:
    assert Peers(trusted).source(asked(peer, *forwarded)) == source


def test_a_source_fails_so_often_and_another_as_often() -> None:
    guesses = Guesses(Peers(""))

    for peer in ("1.1.1.1", "2.2.2.2"):
        answers = [guesses.failed(asked(peer)) for _ in range(MAX_FAILURES + 1)]
        assert answers == [False] * MAX_FAILURES + [True]


def test_a_flood_of_sources_does_not_grow_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.web.guesses._MAX_SOURCES", 100)
    guesses = Guesses(Peers(""))
    for number in range(1000):
        guesses.failed(asked(f"1.1.{number // 250}.{number % 250}"))

    assert len(guesses._failures) <= 100


@pytest.mark.parametrize("value", ["proxy.example.com", "10.0.0.1/8", "10.0.0.0/8,::1"])
def test_a_proxy_that_is_no_network_is_a_problem_of_the_settings(value: str) -> None:
    with pytest.raises(ConfigError, match="UNSUBD_TRUSTED_PROXIES"):
        load_settings({"UNSUBD_TRUSTED_PROXIES": value})
