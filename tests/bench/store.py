"""The store by itself: octets a suppression, apply and check beside what the same client and server do bare, and growth.

python -m tests.bench.store [--counts 1000000 10000000]. What has a rival is measured in turn with it, seven times.
"""

import argparse
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis
from redis.crc import key_slot

from handlers.request import Action, Request
from tests.bench.measure import RUNS, Row, in_turn, machine, per_second, save, table, telling
from tests.harness import processes
from tests.harness.names import NAMES
from tests.harness.redis_server import RedisServer
from worker.server import connect
from worker.store import Store, layout
from worker.store.reading import question_of

NOW = 1_700_000_000_000
GROUP = 12
_BATCH = 1000
_NODES = 3
_SLOTS = 16384
_SINGLES = 2000
_LARGE = 1_000_000  # what is wanted of slots and octets is wanted of so many


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


def memory(count: int) -> Iterator[Row]:
    """One sender of so many, growing while it is checked."""
    with served() as client, served() as other:
        store, empty = Store(client, NAMES), octets(client)
        errors, stop = Counter[str](), threading.Event()
        asking = threading.Thread(target=_check_meanwhile, args=(client, stop, errors))
        filled(store, "acme", range(100))
        asking.start()
        filled(store, "acme", range(100, count))
        stop.set()
        asking.join()
        slow: Any = client.slowlog_get(1000)
        length = sum(len(person(number)) for number in range(1000)) / 1000
        yield Row(
            f"a suppression, one sender of {count:,}, addresses of {length:.1f} characters", "octets",
            [(octets(client) - empty) / count], target=56 if count >= _LARGE else None, higher_is_better=False,
        )  # fmt: skip
        yield Row(
            f"growing to {count:,} while checking: commands over 10 ms",
            "",
            [len(slow)],
            target=0,
            higher_is_better=False,
        )
        yield Row(
            f"the same: wrong answers of {errors['asked']:,}", "", [errors["wrong"]], target=0, higher_is_better=False
        )
        if count >= _LARGE:
            yield from spread(client, store)
        small = Store(other, NAMES)
        filled(small, "acme", range(10_000))
        ours, limit = in_turn(lambda: _one_us(store), lambda: _one_us(small))
        yield Row(
            f"check of one address among {count:,}", "us", ours, "among 10,000", limit, 1.2, higher_is_better=False
        )


def small_senders() -> Iterator[Row]:
    """A thousand senders of a hundred."""
    with served() as client:
        store, empty = Store(client, NAMES), octets(client)
        for number in range(1000):
            store.apply(wishes(f"s{number}", range(100)))
        yield Row(
            "a suppression, 1,000 senders of 100", "octets", [(octets(client) - empty) / 100_000], target=80,
            higher_is_better=False,
        )  # fmt: skip


def _one_us(store: Store) -> float:
    """Microseconds of a check of one address, of people here and there."""
    people = [person(number * 7919 % 10_000) for number in range(_SINGLES)]
    return 1e6 / per_second(_SINGLES, lambda: [store.asked("acme", GROUP, [each]) for each in people])


def _check_meanwhile(client: redis.Redis, stop: threading.Event, errors: Counter[str]) -> None:
    store, known = Store(client, NAMES), [person(number) for number in range(100)]
    while not stop.is_set():
        errors["asked"] += 200
        errors["wrong"] += sum(own is None for _, own in store.asked("acme", GROUP, known))
        errors["wrong"] += sum(own is not None for _, own in store.asked("acme", GROUP, ["x" + each for each in known]))
        time.sleep(0.01)


def spread(client: redis.Redis, store: Store) -> Iterator[Row]:
    """Over how many slots of a Cluster the sender lies, and what the fullest of three nodes has of the mean."""
    sizes = [client.hlen(layout.bucket_key("acme", each)) for each in range(store._hints.buckets("acme"))]
    slots = [key_slot(layout.bucket_key("acme", each).encode()) for each in range(len(sizes))]
    nodes = Counter[int]()
    for slot, size in zip(slots, sizes, strict=True):
        nodes[slot * _NODES // _SLOTS] += int(size)  # type: ignore[arg-type]
    yield Row(f"slots of its {len(sizes):,} buckets", "", [len(set(slots))], target=5000)
    heaviest = max(nodes.values()) * _NODES / sum(nodes.values())
    yield Row("heaviest of three nodes by the mean", "", [heaviest], target=1.05, higher_is_better=False)


def applied(per_round: int = 10_000) -> Iterator[Row]:
    """Apply beside plain HSETs of the same octets into as many hashes, both a thousand in a pipeline."""
    with served() as client:
        store, rounds = Store(client, NAMES), Counter[str]()
        filled(store, "acme", range(50_000))

        def next_of(name: str) -> range:
            start = 50_000 + rounds[name] * per_round
            rounds[name] += 1
            return range(start, start + per_round)

        def bare(numbers: range) -> None:
            for start in range(numbers.start, numbers.stop, _BATCH):
                with client.pipeline(transaction=False) as pipeline:
                    for each in range(start, start + _BATCH):
                        pipeline.hset(f"plain:{{acme:{each % 500}}}", f"{person(each)}\0{GROUP}", b"v" * 16)
                    pipeline.execute()

        ours, limit = in_turn(
            lambda: per_second(per_round, lambda: filled(store, "acme", next_of("ours"))),
            lambda: per_second(per_round, lambda: bare(next_of("bare"))),
        )
        yield Row("apply, 1,000 in a pipeline", "/s", ours, "plain HSETs of the same octets", limit, 0.4)


def checked(count: int = 100_000) -> Iterator[Row]:
    """One check beside a PING of the same client, and beside a bare HMGET; a hundred thousand in one call."""
    with served() as client:
        store = Store(client, NAMES)
        filled(store, "acme", range(count))
        fields = question_of(NAMES, "acme", (0, GROUP), person(7)).fields
        bare = ("HMGET", layout.bucket_key("acme", 7), b"", *fields)
        ours, limit = in_turn(
            lambda: _one_us(store), lambda: 1e6 / per_second(_SINGLES, lambda: [client.ping() for _ in range(_SINGLES)])
        )
        yield Row(
            "check of one address, store", "us", ours, "PING of the same client", limit, 1.3, higher_is_better=False
        )
        ours, limit = in_turn(
            lambda: _one_us(store),
            lambda: 1e6 / per_second(_SINGLES, lambda: [client.execute_command(*bare) for _ in range(_SINGLES)]),
        )
        yield Row("the same", "us", ours, "HMGET of the same fields", limit, higher_is_better=False)
        people = [person(number) for number in range(count // 2, count * 3 // 2)]
        rates = [per_second(count, lambda: store.asked("acme", GROUP, people)) for _ in range(RUNS)]
        yield Row(f"check of {count:,} addresses, store, half of them suppressed", "/s", rates)


def main() -> None:
    """Measure, print the table, and keep it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--counts", type=int, nargs="+", default=[_LARGE, 10 * _LARGE], help="suppressions of the one large sender"
    )
    given = parser.parse_args()
    parts = [("apply", applied()), ("check", checked()), ("a thousand senders", small_senders())]
    rows = []
    for what, measured in [*parts, *((f"growing to {count:,}", memory(count)) for count in given.counts)]:
        with telling(f"store: {what}"):
            rows += list(measured)
    sys.stdout.write(f"{machine()}\n{table(rows)}\n")
    save(rows, Path("bench"))


if __name__ == "__main__":
    main()
