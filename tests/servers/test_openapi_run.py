"""`schemathesis run` itself, with the schemathesis.toml from here, against a running `unsubd web`: all phases and checks."""

import random
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.redis_server import RedisServer
from tests.harness.service import MASTERS, Service
from tests.servers.test_openapi import API, MAIL

ROOT = Path(__file__).parents[2]
EXAMPLES, WITHIN_S = 10, 400


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, redis_server: RedisServer) -> Iterator[tuple[Service, str]]:
    """A running web server and a key of a sender with group 12, which the document's examples name."""
    redis_server.empty()
    folder = tmp_path_factory.mktemp("openapi-run")
    address = "u+{tag}@unsub.example.com"
    house = Service(folder, redis_url=redis_server.url, secret_keys=",".join(MASTERS), address=address, **MAIL)
    house.last_line("sender", "add", "acme", "--max-groups", "100000")
    house.last_line("group", "add", "acme", "Weekly news", "--id", "12")
    with house.running("web"):
        yield house, house.last_line("sender", "key", "acme")


@pytest.mark.fault
@pytest.mark.timeout(WITHIN_S + 60)
@pytest.mark.parametrize("part", ["/v1/", "/v3/"])
def test_a_run_of_schemathesis_ends_and_finds_nothing(part: str, house: tuple[Service, str], tmp_path: Path) -> None:
    """Every run has another seed; a finding is told with it, and with the request to repeat."""
    service, key = house
    seed = random.SystemRandom().randrange(1 << 31)
    command = [
        Path(sys.executable).parent / "schemathesis", "--config-file", ROOT / "schemathesis.toml", "--no-color", "run",
        f"{service.url}/openapi.json", "--include-path-regex", f"^{part}", "--header", f"Authorization: Bearer {key}",
        "--max-examples", str(EXAMPLES), "--seed", str(seed), "--continue-on-failure",
    ]  # fmt: skip

    done = subprocess.run(command, cwd=tmp_path, env=service.env, capture_output=True, text=True, timeout=WITHIN_S)

    print(*re.findall(r"  Tested: \d+|\d+ generated, .*|Seed: \d+", done.stdout), sep=", ")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Tested: {sum(part in each for each in API)}\n" in done.stdout
    assert not [line for line in service.log.read_text().splitlines() if "failed" in line or "Traceback" in line]
