"""The store by itself: octets a suppression, apply and check beside what the same client and server do bare, and growth.

`python -m tests.bench.store [--count 1000000]`. What has a rival is measured in turn with it, seven times, and told as the
median ratio with its spread: the machine drifts, so a time alone says little. A table, then one line of JSON.
"""

import argparse
import json
import os
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis
from redis.crc import key_slot

from handlers.request import Action, Request
from tests.harness import processes
from tests.harness.names import NAMES
from tests.harness.redis_server import RedisServer
from worker.server import connect
from worker.store import Store, layout

ROUNDS = 7
NOW = 1_700_000_000_000
GROUP = 12
_BATCH = 1000
_NODES = 3
_SLOTS = 16384
Figure = tuple[str, str, str]
"""What was measured, the figure, and what it is to be."""


def person(number: int) -> str:
    """An address of about 23 characters."""
    return f"jane.do{number:07d}@mx{number % 97:02d}.com"


def wishes(sender: str, numbers: range) -> list[Request]:
    """Unsubscribes of so many people, by mails of different times."""
    return [
        Request(f"{number * 0x9E3779B97F4A7C15 % 2**128:032x}", Action.UNSUBSCRIBE, sender, GROUP, person(number),
                NOW + 977 * number, "imap:INBOX", "bench")
        for number in numbers
    ]  # fmt: skip


def filled(store: Store, sender: str, numbers: range) -> None:
    """Apply them, a thousand at a time."""
    for start in range(numbers.start, numbers.stop, _BATCH):
        store.apply(wishes(sender, range(start, min(start + _BATCH, numbers.stop))))


@contextmanager
def served() -> Iterator[redis.Redis]:
    """A Redis without a file, so that the disk is in no figure; its log keeps commands over 10 ms."""
    binary = processes.require("redis-server", processes.PACKAGES["redis-server"])
    with (
        tempfile.TemporaryDirectory() as folder,
        RedisServer(binary, Path(folder), appendonly="no", slowlog_log_slower_than="10000") as server,
        connect(server.url) as client,
    ):
        yield client


def octets(client: redis.Redis) -> int:
    """What the server holds, without the buffers of whoever asks."""
    info: Any = client.info("memory")
    return int(info["used_memory"]) - int(info["mem_clients_normal"])


def seconds(call: Callable[[], object]) -> float:
    """How long a call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def ratio(ours: Callable[[int], object], bare: Callable[[int], object]) -> str:
    """Our time by the bare one's, in turn; each is told which round it is."""
    found = sorted(
        seconds(lambda each=each: ours(each)) / seconds(lambda each=each: bare(each))
        for each in range(ROUNDS)  # type: ignore[misc]
    )
    return f"{statistics.median(found):.2f} ({found[0]:.2f} to {found[-1]:.2f})"


def memory(count: int) -> Iterator[Figure]:
    """One sender of so many; a thousand senders of a hundred."""
    with served() as client:
        store, empty = Store(client, NAMES), octets(client)
        errors, stop = Counter[str](), threading.Event()
        asking = threading.Thread(target=_check_meanwhile, args=(client, stop, errors))
        filled(store, "acme", range(100))
        asking.start()
        filled(store, "acme", range(100, count))
        stop.set()
        asking.join()
        payload = sum(len(person(number)) for number in range(1000)) / 1000
        yield (
            f"octets a suppression, one sender of {count:,}, address {payload:.1f}",
            f"{(octets(client) - empty) / count:.1f}",
            "56",
        )
        slow: Any = client.slowlog_get(100)
        yield "commands over 10 ms while it grew", str(len(slow)), "0"
        yield f"wrong answers of {errors['asked']:,} checks while it grew", str(errors["wrong"]), "0"
        yield from spread(client, store)
    with served() as client:
        store, empty = Store(client, NAMES), octets(client)
        for number in range(1000):
            store.apply(wishes(f"s{number}", range(100)))
        yield "octets a suppression, 1,000 senders of 100", f"{(octets(client) - empty) / 100_000:.1f}", "80"


def _check_meanwhile(client: redis.Redis, stop: threading.Event, errors: Counter[str]) -> None:
    store, known = Store(client, NAMES), [person(number) for number in range(100)]
    while not stop.is_set():
        errors["asked"] += 200
        errors["wrong"] += sum(own is None for _, own in store.asked("acme", GROUP, known))
        errors["wrong"] += sum(own is not None for _, own in store.asked("acme", GROUP, ["x" + each for each in known]))
        time.sleep(0.01)


def spread(client: redis.Redis, store: Store) -> Iterator[Figure]:
    """Over how many slots of a Cluster the sender lies, and what the fullest of three nodes has of the mean."""
    sizes = [client.hlen(layout.bucket_key("acme", each)) for each in range(store._hints.buckets("acme"))]
    slots = [key_slot(layout.bucket_key("acme", each).encode()) for each in range(len(sizes))]
    nodes = Counter[int]()
    for slot, size in zip(slots, sizes, strict=True):
        nodes[slot * _NODES // _SLOTS] += int(size)  # type: ignore[arg-type]
    yield f"slots of {len(sizes):,} buckets", f"{len(set(slots)):,}", "5,000 at 1M"
    yield "heaviest of three nodes by the mean", f"{max(nodes.values()) * _NODES / sum(nodes.values()):.3f}", "1.05"


def applied(per_round: int = 10_000) -> Iterator[Figure]:
    """Apply beside plain HSETs of the same octets into as many hashes, both a thousand in a pipeline."""
    with served() as client:
        store = Store(client, NAMES)
        filled(store, "acme", range(50_000))

        def ours(number: int) -> None:
            filled(store, "acme", range(50_000 + number * per_round, 50_000 + (number + 1) * per_round))

        def bare(number: int) -> None:
            for start in range(number * per_round, (number + 1) * per_round, _BATCH):
                with client.pipeline(transaction=False) as pipeline:
                    for each in range(start, start + _BATCH):
                        pipeline.hset(f"plain:{{acme:{each % 500}}}", f"{person(each)}\0{GROUP}", b"v" * 16)
                    pipeline.execute()

        yield "time of apply by that of plain HSETs", ratio(ours, bare), "2.5"


def checked(count: int = 100_000) -> Iterator[Figure]:
    """One check beside a PING of the same client; a hundred thousand in one call."""
    with served() as client:
        store = Store(client, NAMES)
        filled(store, "acme", range(count))
        one = [person(7)]
        store.asked("acme", GROUP, one)
        times = 2000
        yield (
            "time of one check by that of a PING",
            ratio(
                lambda _: [store.asked("acme", GROUP, one) for _ in range(times)],
                lambda _: [client.ping() for _ in range(times)],
            ),
            "1.3",
        )
        people = [person(number) for number in range(count // 2, count * 3 // 2)]  # every second one is suppressed
        rates = []
        for _ in range(ROUNDS):
            began, cpu_s = time.perf_counter(), time.process_time()
            store.asked("acme", GROUP, people)
            rates.append((count / (time.perf_counter() - began), count / (time.process_time() - cpu_s)))
        wall, cpu = (statistics.median(each) for each in zip(*rates, strict=True))
        yield f"addresses a second, {count:,} in one call", f"{wall:,.0f}", "100,000"
        yield "the same, by the CPU seconds of the asking process", f"{cpu:,.0f}", ""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000, help="suppressions of the one large sender")
    given = parser.parse_args()
    found = [*applied(), *checked(), *memory(given.count)]
    for name, figure, wanted in found:
        print(f"{name:70} {figure:>22}   {wanted}")
    print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores")
    print(json.dumps([{"what": name, "figure": figure, "target": wanted} for name, figure, wanted in found]))


if __name__ == "__main__":
    main()
