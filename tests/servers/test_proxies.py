"""deploy/proxy on real nginx and Caddy: what the world reaches, what operators reach, and what the logs do not say."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.mails import address, recipient
from tests.harness.processes import free_port
from tests.harness.proxies import OPS, Caddy, Nginx, Proxy
from tests.harness.service import MASTERS, Service

pytestmark = pytest.mark.fault  # each starts a proxy

TAG = address(1).partition("@")[0].removeprefix("u+")
_SPELT = ("jane", TAG[:14], recipient(1).partition("@")[0], "secret")
_PUBLIC = {
    f"/u/{TAG}": 200, f"/p/{TAG}": 200, "/static/recipient.css": 200, "/v3/asm/groups": 401, "/look/acme/logo": 404,
}  # fmt: skip
_HIDDEN = (
    "/", "/ops", "/ops/login", "/ops/", "/metrics", "/docs", "/openapi.json", "/healthz", "/readyz", "/u", "/static",
    "/u/../ops/login", "/static/../metrics", "/static/%2e%2e/metrics", "/static/..%2fmetrics", "//metrics", "/METRICS",
)  # fmt: skip


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="unsubd-proxy-"))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def service(tmp_path: Path, redis_url: str) -> Service:
    return Service(
        tmp_path, redis_url=redis_url, secret_keys=",".join(MASTERS), address="u+{tag}@unsub.example.com",
        public_url="https://unsub.example.com", ops_http=f"127.0.0.1:{free_port()}", trusted_proxies="127.0.0.1",
    )  # fmt: skip


@pytest.fixture(params=[Nginx, Caddy])
def proxy(request: pytest.FixtureRequest, folder: Path, service: Service) -> Iterator[Proxy]:
    ops = int(service.env["UNSUBD_OPS_HTTP"].rpartition(":")[2])
    with request.param(folder, service.port, ops) as running:
        yield running


def test_the_world_reaches_what_is_public_and_nothing_else(proxy: Proxy, service: Service) -> None:
    with service.running("web"):
        assert {path: proxy.ask(path)[0] for path in _PUBLIC} == _PUBLIC
        assert proxy.ask("/v1/check", "POST", body="{}")[0] == 401
        assert proxy.ask("/in/relay", "POST", body="x")[0] in (401, 404)
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        assert proxy.ask(f"/u/{TAG}", "POST", body="List-Unsubscribe=One-Click", headers=form)[0] == 200
        for path in _HIDDEN:
            status, text = proxy.ask(path)
            assert status in (301, 400, 404), path
            assert "unsubd_workers" not in text


def test_operators_have_a_name_and_an_address_of_their_own(proxy: Proxy, service: Service) -> None:
    with service.running("web"):
        assert proxy.ask("/ops/login", host=OPS)[0] == 200
        assert "unsubd_workers" in proxy.ask("/metrics", host=OPS)[1]
        assert proxy.ask(f"/u/{TAG}", host=OPS)[0] == 404
        assert proxy.ask("/metrics", host=OPS, source="127.0.0.2")[0] == 403


def test_the_logs_name_nobody(proxy: Proxy, service: Service) -> None:
    paths = [
        f"/u/{TAG}", f"/u/{TAG}?source=secret", f"/p/{TAG}", f"/p/{TAG}/undo", f"/p//{TAG}", f"/u/../u/{TAG}", f"/u%2f{TAG}",
        "/v3/asm/suppressions/global/jane@example.com", "/v3/asm/suppressions/global/jane%40example.com",
        "/v3/asm/groups?email=secret", "/v1/evidence/acme/jane@example.com", "/nowhere/jane@example.com", f"/{TAG}",
    ]  # fmt: skip
    headers = {"Referer": "https://unsub.example.com/u/secret", "Cookie": "session=secret", "User-Agent": "secret"}
    with service.running("web"):
        for path in paths:
            proxy.ask(path, headers=headers)
        proxy.ask("/ops/search?recipient=jane@example.com", host=OPS, headers=headers)
        proxy.ask("/static/recipient.css")
    assert [proxy.ask(path, headers=headers)[0] for path in paths[:1]] == [502]  # unsubd is gone: errors have a log too
    proxy.stop()

    said = proxy.said()
    assert [line for line in said.splitlines() if any(word in line for word in _SPELT)] == []
    assert said.count("/u/***") >= 3
    assert said.count("/p/***") >= 2
    assert "/static/recipient.css" in said
