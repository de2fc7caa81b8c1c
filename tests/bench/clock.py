"""What the clock costs: the same batches recorded with it and without it, in turn, on a durable Redis.

python -m tests.bench.clock
"""

import os
import statistics
import tempfile
import time
from pathlib import Path
from unittest.mock import patch

from tests.harness import processes
from tests.harness.redis_server import RedisServer
from tests.harness.service import MASTERS
from tests.unit.house import decided, now_ms
from worker.clock import Clock
from worker.installation import Installation, open_installation
from worker.journal import configure_logging
from worker.settings import load_settings

_BATCH, _ROUNDS = 500, 30


def _seconds(installation: Installation, start: int) -> float:
    sources = ("imap:news", "relay:default")
    batch = [
        decided(f"{number:064x}", sender=f"s{number % 3}", recipient=f"p{number}@example.com", source=sources[number % 2],
                received_ms=now_ms() - number % 7 * 1000)
        for number in range(start, start + _BATCH)
    ]  # fmt: skip
    began = time.perf_counter()
    installation.intake.record(batch, queued_ms=now_ms())
    return time.perf_counter() - began


def main() -> None:
    """Print the medians per message, with and without, and their ratio."""
    configure_logging(quiet=True)
    binary = processes.require("redis-server", processes.PACKAGES["redis-server"])
    with tempfile.TemporaryDirectory() as folder, RedisServer(binary, Path(folder)) as server:
        environ = {"UNSUBD_REDIS_URL": server.url, "UNSUBD_SECRET_KEYS": MASTERS[0], "UNSUBD_DATA_DIR": folder}
        with open_installation(load_settings(environ)) as installation:
            on, off = [], []
            for number in range(_ROUNDS):
                on.append(_seconds(installation, 2 * number * _BATCH))
                with patch.object(Clock, "recorded"):
                    off.append(_seconds(installation, (2 * number + 1) * _BATCH))
    with_clock, without = (statistics.median(each) / _BATCH * 1e6 for each in (on, off))
    print(f"with {with_clock:.1f} us, without {without:.1f} us a message: {with_clock - without:+.1f} us, ratio "
          f"{with_clock / without:.3f} ({_ROUNDS} batches of {_BATCH} each, load {os.getloadavg()[0]:.1f})")  # fmt: skip


if __name__ == "__main__":
    main()
