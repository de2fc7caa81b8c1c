"""Over HTTP: a check, a batch of checks, a webhook's mail to its durable answer; beside a bare ASGI answer of the same server.

python -m tests.bench.served. The server has core 1 to itself, wrk core 0; Redis is durable (AOF, fsync always).
"""

import re
import shutil
import socket
import subprocess
import sys
import tempfile
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.measure import Row, in_turn, machine, save, table, telling
from tests.harness import processes
from tests.harness.mails import address
from tests.harness.redis_server import RedisServer
from tests.harness.service import MASTERS, Service, until

_ROOT = Path(__file__).parents[2]
_PEOPLE, _BATCH, _CONNECTIONS, _SECONDS = 100_000, 1000, 32, 2
_MAIL_KEY = "bench:a-secret"


@dataclass(frozen=True)
class Load:
    """What wrk measured. Shape: rate: answers a second."""

    rate: float
    p99_ms: float


def main() -> None:
    """Measure, print the table, and keep it as JSON."""
    folder = Path(tempfile.mkdtemp(prefix="unsubd-bench-"))
    try:
        binary = processes.require("redis-server", processes.PACKAGES["redis-server"])
        (folder / "redis").mkdir()
        with RedisServer(binary, folder / "redis") as redis:
            rows = _measured(folder, redis)
    finally:
        shutil.rmtree(folder)
    sys.stdout.write(f"{machine()}\n{table(rows)}\n")
    save(rows, Path("bench"))


def _measured(folder: Path, redis: RedisServer) -> list[Row]:
    service = Service(folder, redis_url=redis.url, secret_keys=MASTERS[0], in_relay=f"basic:{_MAIL_KEY}", log="json")
    service.last_line("sender", "add", "acme")
    service.last_line("group", "add", "acme", "News", "--id", "1")
    _suppress_every_tenth(service)
    key = service.last_line("sender", "key", "acme", "--per-minute", "100000000")
    authorization = f"Bearer {key}"
    with service.running("web") as web, _bare() as bare_url:
        subprocess.run(["taskset", "-acp", "1", str(web.pid)], check=True, capture_output=True)
        one = _script(folder, "one", _CHECK % (1, authorization))
        many = _script(folder, "many", _CHECK % (_BATCH, authorization))
        mail = _script(folder, "mail", _MAIL % (b64encode(_MAIL_KEY.encode()).decode(), address(1)))
        hello = _script(folder, "hello", 'wrk.method = "POST" wrk.body = "{}"')
        check = f"{service.url}/v1/check"
        with telling("check of one address"):
            loads, bare = in_turn(lambda: _wrk(check, one), lambda: _wrk(bare_url, hello))
        rows = [
            Row("check of one address over HTTP", "/s", [each.rate for each in loads], "bare ASGI answer",
                [each.rate for each in bare], target=0.3),
            Row("its p99", "ms", [each.p99_ms for each in loads], "p99 of the bare answer",
                [each.p99_ms for each in bare], target=4, higher_is_better=False),
        ]  # fmt: skip
        with telling("check of 1,000 addresses"):
            batches = [_wrk(check, many, connections=4).rate * _BATCH for _ in range(7)]
        rows.append(Row("check of 1,000 addresses over HTTP", "addresses/s", batches, target=80_000))
        with telling("webhook to durable answer"):
            ours, limit = in_turn(
                lambda: _wrk(f"{service.url}/in/relay", mail).rate, lambda: _wrk(bare_url, hello).rate
            )
        rows.append(Row("webhook's mail to its durable answer", "/s", ours, "bare ASGI answer", limit, target=0.1))
        return rows


def _suppress_every_tenth(service: Service) -> None:
    people = "\n".join(f"person{number}@example.com" for number in range(0, _PEOPLE, 10))
    (service.folder / "people.csv").write_text(f"email\n{people}\n")
    service.last_line("import", "acme", "1", str(service.folder / "people.csv"))


@contextmanager
def _bare() -> Iterator[str]:
    port = processes.free_port()
    command = [sys.executable, "-m", "uvicorn", "tests.bench.bare:app", "--port", str(port), "--log-level", "error"]
    process = subprocess.Popen(["taskset", "-c", "1", *command, "--no-access-log"], cwd=_ROOT)
    try:
        until(lambda: _listens(port), 20, "the bare server")
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.terminate()
        process.wait(10)


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


_CHECK = """
local count, place = %d, 0
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "%s"
function request()
  local names = {}
  for number = 1, count do
    place = (place + 7919) %% 100000
    names[number] = '"person' .. place .. '@example.com"'
  end
  return wrk.format(nil, nil, nil, '{"group": 1, "recipients": [' .. table.concat(names, ",") .. ']}')
end
"""
_MAIL = """
local place, run = 0, os.time() .. "-" .. math.random(1e9)
wrk.method = "POST"
wrk.headers["Content-Type"] = "message/rfc822"
wrk.headers["Authorization"] = "Basic %s"
function request()
  place = place + 1
  local mail = "From: person@example.com\\r\\nTo: %s\\r\\nSubject: unsubscribe\\r\\nMessage-ID: <" .. run .. "-" .. place
    .. "@example.com>\\r\\nDate: Sat, 28 Nov 2026 10:00:00 +0000\\r\\n\\r\\nunsubscribe\\r\\n"
  return wrk.format(nil, nil, nil, mail)
end
"""


def _script(folder: Path, name: str, content: str) -> Path:
    path = folder / f"{name}.lua"
    path.write_text(content)
    return path


def _wrk(url: str, script: Path, connections: int = _CONNECTIONS) -> Load:
    words = ["taskset", "-c", "0", processes.require("wrk", "wrk"), "-t1", f"-c{connections}", f"-d{_SECONDS}s"]
    said = subprocess.run([*words, "--latency", "-s", str(script), url], check=True, capture_output=True, text=True)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said.stdout)
    p99 = re.search(r"99%\s+([\d.]+)(us|ms|s)", said.stdout)
    assert rate is not None, said.stdout
    assert p99 is not None, said.stdout
    failed = [int(each) for each in re.findall(r"Non-2xx or 3xx responses: (\d+)", said.stdout)]
    assert not sum(failed), f"{url}: {said.stdout}"
    return Load(float(rate[1]), float(p99[1]) * {"us": 1e-3, "ms": 1, "s": 1e3}[p99[2]])


if __name__ == "__main__":
    main()
