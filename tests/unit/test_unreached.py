"""Why a URL of ours could not be asked: each cause has its own remedy, and no path is spelled."""

import socket
import ssl
from collections.abc import Iterator

import fakeredis
import httpx2
import pytest

from tests.unit import house
from worker import hook_test
from worker.doctor import canary as flights
from worker.hooks import Hook
from worker.installation import Installation
from worker.unreached import unreached

URL = "https://unsub.acme.io/u/am33sltomflsov-acme-12-jane.doe_example.com"


def because(cause: BaseException) -> httpx2.ConnectError:
    error = httpx2.ConnectError("")
    error.__cause__ = cause
    return error


NO_NAME = because(socket.gaierror(socket.EAI_NONAME, "Name or service not known"))


@pytest.mark.parametrize(
    ("error", "told", "remedy"),
    [
        (NO_NAME, "DNS knows no host unsub.acme.io", "make its DNS record"),
        (because(socket.gaierror(socket.EAI_AGAIN, "")), "DNS did not answer about unsub.acme.io", "make its DNS record"),
        (because(ConnectionRefusedError(111, "")), "unsub.acme.io: nobody listens there",
         "start unsubd run (or web), or the proxy before it"),
        (because(ssl.SSLCertVerificationError(1, "")), "unsub.acme.io: the certificate is not trusted",
         "give it one for this name"),
        (because(ssl.SSLError(1, "")), "unsub.acme.io speaks no TLS", "put TLS before it: deploy/proxy"),
        (httpx2.ReadTimeout(""), "unsub.acme.io: no answer in time",
         "see firewall and proxy, and whether unsubd run is alive"),
        (httpx2.RemoteProtocolError(""), "unsub.acme.io: no answer (RemoteProtocolError)",
         "see the proxy's log, and whether unsubd run is alive"),
        (httpx2.InvalidURL(""), "this is no URL of a web server", "expected e.g. https://unsub.example.com"),
    ],
)  # fmt: skip
def test_each_cause_has_its_remedy(error: Exception, told: str, remedy: str) -> None:
    if isinstance(cause := error.__cause__, ssl.SSLCertVerificationError):
        cause.verify_message = "expired"

    found = unreached(URL, error)

    assert found[0].startswith(told)
    assert found[1] == remedy
    assert "jane" not in " ".join(found)


def test_a_closed_port_is_told_by_the_real_client() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/in/relay"
    with pytest.raises(httpx2.ConnectError) as caught:
        httpx2.get(url)

    assert unreached(url, caught.value)[0].endswith(": nobody listens there")


@pytest.fixture
def installation() -> Iterator[Installation]:
    given = {"public_url": "https://unsub.acme.io", "in_relay": "s3cret", "http": "127.0.0.1:8125"}
    with house.opened(fakeredis.FakeServer(), **given) as installation:
        yield installation


def relay(installation: Installation) -> Hook:
    hook = installation.hooks.find("relay", "default")
    assert hook is not None
    return hook


def test_a_hook_test_before_there_is_dns_says_how_to_test_here(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def post(*_: object) -> httpx2.Response:
        raise NO_NAME

    monkeypatch.setattr(hook_test, "post", post)

    (hop, text) = hook_test.run(installation, relay(installation), "https://unsub.acme.io/in/relay")[-1]
    (landed,) = flights.fly(installation, 1, lambda _: None)

    assert hop == "failed"
    assert text.startswith("DNS knows no host unsub.acme.io: make its DNS record")
    assert text.endswith("--url http://127.0.0.1:8125/in/relay")
    assert landed.detail == "/in/relay: cannot be sent: DNS knows no host unsub.acme.io"
    assert landed.remedy.endswith("unsubd hook test relay default --url http://127.0.0.1:8125/in/relay")


def test_a_url_without_the_endpoints_path_is_told(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hook_test, "post", lambda *_: httpx2.Response(404))

    lines = hook_test.run(installation, relay(installation), "http://127.0.0.1:8125")

    assert lines[-1] == ("failed", "http://127.0.0.1:8125 is no whole endpoint, expected /in/relay at its end")
