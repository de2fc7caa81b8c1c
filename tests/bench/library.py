"""The library `unsubd` as a sender's program uses it: one address beside a bare round trip, and 100,000 at once.

python -m tests.bench.library
"""

import sys
import tempfile
from pathlib import Path

import pytest
import unsubd
from redis import Redis

from tests.bench.measure import RUNS, Row, in_turn, machine, per_second, save, table, telling
from tests.harness import processes
from tests.harness.redis_server import RedisServer
from tests.harness.service import MASTERS, Service

_SINGLES, _MANY = 2_000, 100_000


def main() -> None:
    """Measure, print the table, and keep it as JSON."""
    binary = processes.require("redis-server", processes.PACKAGES["redis-server"])
    with tempfile.TemporaryDirectory() as folder, RedisServer(binary, Path(folder)) as redis:
        service = Service(Path(folder), redis_url=redis.url, secret_keys=MASTERS[0])
        service.last_line("sender", "add", "acme")
        service.last_line("group", "add", "acme", "News", "--id", "1")
        people = [f"person{number}@example.com" for number in range(_MANY)]
        listed = Path(folder) / "people.csv"
        listed.write_text("email\n" + "\n".join(people[::10]) + "\n")
        service.last_line("import", "acme", "1", str(listed))
        rows = _measured(redis.url, people)
    sys.stdout.write(f"{machine()}\n{table(rows)}\n")
    save(rows, Path("bench"))


def _measured(redis_url: str, people: list[str]) -> list[Row]:
    environ = {"UNSUBD_REDIS_URL": redis_url, "UNSUBD_SECRET_KEYS": MASTERS[0]}
    with pytest.MonkeyPatch.context() as patch, Redis.from_url(redis_url) as bare:
        for name, value in environ.items():
            patch.setenv(name, value)
        with unsubd.RedisClient("acme") as client:
            assert sum(each.suppressed for each in client.check(1, people[:100])) == 10
            with telling("library: one address"):
                ours, limit = in_turn(
                    lambda: 1e6 / per_second(_SINGLES, lambda: [client.check(1, [each]) for each in people[:_SINGLES]]),
                    lambda: 1e6 / per_second(_SINGLES, lambda: [bare.ping() for _ in range(_SINGLES)]),
                )
            with telling("library: 100,000 addresses"):
                many = [per_second(_MANY, lambda: client.check(1, people)) for _ in range(RUNS)]
    return [
        Row("check of one address, library", "us", ours, "bare PING of the same client", limit, 1.3, higher_is_better=False),
        Row("check of 100,000 addresses, library", "addresses/s", many, target=100_000),
    ]  # fmt: skip


if __name__ == "__main__":
    main()
