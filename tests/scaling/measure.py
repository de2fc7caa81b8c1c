"""What one request, address and record costs in CPU and memory, on two real Redis servers: `python -m tests.scaling.measure`.

Prints the measured rows of `figures.py`. CPU seconds hold while the machine does other things, too; the wall does not.
"""

import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis import Redis

from handlers import message
from handlers.message import InboundMessage
from handlers.request import DecidedMessage
from handlers.tag import Tag, mint
from tests.harness import processes
from tests.harness.growth import grow
from tests.harness.mails import NEW, TEMPLATE, address, mail, recipient
from tests.harness.redis_server import RedisServer
from tests.harness.service import MASTERS
from worker.check import check
from worker.installation import Installation, open_installation
from worker.jobs import configure
from worker.settings import load_settings
from worker.store.script import send

COUNT = 10_000
_BATCH, _ASKED = 500, 1000


@dataclass(frozen=True)
class Spent:
    """What some work cost. Units: seconds of CPU: ours, the queue's server, the store's; octets that came to be
    held; took: seconds by the wall, which others on the machine lengthen.
    """

    ours: float
    queue: float
    store: float
    queue_octets: int
    store_octets: int
    took: float


def main() -> None:
    """Measure and print."""
    folder = Path(tempfile.mkdtemp(prefix="unsubd-scaling-"))
    for name in ("queue", "store"):
        (folder / name).mkdir()
    binary = processes.require("redis-server", processes.PACKAGES["redis-server"])
    with RedisServer(binary, folder / "queue") as queue, RedisServer(binary, folder / "store") as store:
        settings = load_settings({
            "UNSUBD_REDIS_URL": queue.url, "UNSUBD_STORE_URL": store.url, "UNSUBD_SECRET_KEYS": MASTERS[0],
            "UNSUBD_DATA_DIR": str(folder), "UNSUBD_ADDRESS": "u+{tag}@unsub.example.com",
        })  # fmt: skip
        configure(settings)
        with open_installation(settings) as installation:
            _measure(installation)


def _measure(installation: Installation) -> None:
    installation.accounts.add_sender("acme")
    installation.accounts.add_group("acme", "News", "", 1)
    _go_through(installation, 0, _BATCH)
    # As in a sender that has grown: no split is in what follows.
    grow(lambda commands: send(installation.store_redis, commands), installation.names, "acme", 128)
    _go_through(installation, _BATCH, _BATCH)
    messages = [_message(number) for number in range(2 * _BATCH, 2 * _BATCH + COUNT)]
    _say("first receipts", _spent(installation, lambda: installation.intake.decide(messages)))
    _say("accept by 500", _spent(installation, lambda: _accept(installation, messages)))
    _say("a job of 500", _spent(installation, lambda: _work(installation)))
    few = [_message(number) for number in range(100_000, 101_000)]
    _say("accept by 20", _spent(installation, lambda: _accept(installation, few, 20)), len(few))
    _say("a job of 20", _spent(installation, lambda: _work(installation)), len(few))
    pressed = installation.intake.decide([_message(number) for number in range(200_000, 201_000)], remember=False)
    _say("one by one, as a page", _spent(installation, lambda: _press(installation, pressed)), len(pressed))
    people = [recipient(number) for number in range(0, 20 * COUNT, 20)]
    _say("check by 1,000", _spent(installation, lambda: _check(installation, people)))
    _memory(installation)


def _message(number: int) -> InboundMessage:
    to = address(number)
    return message.read(mail(to, f"mail-{number}"), source="imap:default", envelope_to=to)


def _go_through(installation: Installation, start: int, count: int) -> None:
    _accept(installation, [_message(number) for number in range(start, start + count)])
    _work(installation)


def _accept(installation: Installation, messages: list[InboundMessage], at_once: int = _BATCH) -> None:
    for start in range(0, len(messages), at_once):
        installation.intake.accept(messages[start : start + at_once])


def _work(installation: Installation) -> None:
    """The real worker, which forks once a job."""
    installation.queue.worker(f"measured-{time.monotonic_ns()}").work(burst=True, logging_level="ERROR")


def _press(installation: Installation, pressed: list[DecidedMessage]) -> None:
    for each in pressed:
        installation.intake.record_now([each])


def _check(installation: Installation, people: list[str]) -> None:
    for start in range(0, len(people), _ASKED):
        check(installation, "acme", 1, people[start : start + _ASKED])


def _memory(installation: Installation) -> None:
    for server, what in ((installation.redis, "queue"), (installation.store_redis, "store")):
        for prefix, (keys, octets) in sorted(_by_prefix(server).items()):
            _line(f"memory of {what} {prefix}", f"{octets} octets in {keys} keys")
    before = _octets(installation.store_redis)
    tags = [Tag("acme", 1, f"{number:06d}.{'x' * 17}@example.com") for number in range(COUNT)]
    installation.tags.keep((mint(NEW, each, TEMPLATE, opaque=True), each) for each in tags)
    _line("a tag of form h", f"{(_octets(installation.store_redis) - before) / COUNT:.0f} octets")


def _by_prefix(server: Redis) -> dict[str, tuple[int, int]]:
    found: dict[str, tuple[int, int]] = {}
    for key in server.scan_iter(count=1000):
        prefix = ":".join(key.decode().split(":")[:2])
        keys, octets = found.get(prefix, (0, 0))
        found[prefix] = keys + 1, octets + int(server.memory_usage(key, samples=0) or 0)
    return found


def _spent(installation: Installation, work: Callable[[], object]) -> Spent:
    servers = (installation.redis, installation.store_redis)
    cpu, held, ours = [_cpu(each) for each in servers], [_octets(each) for each in servers], _our_cpu()
    began = time.monotonic()
    work()
    took, ours = time.monotonic() - began, _our_cpu() - ours
    return Spent(
        ours, *(_cpu(each) - was for each, was in zip(servers, cpu, strict=True)),
        *(_octets(each) - was for each, was in zip(servers, held, strict=True)), took,
    )  # fmt: skip


def _our_cpu() -> float:
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def _cpu(server: Redis) -> float:
    info: Any = server.info("cpu")
    return float(info["used_cpu_user"]) + float(info["used_cpu_sys"])


def _octets(server: Redis) -> int:
    info: Any = server.info("memory")
    return int(info["used_memory"]) - int(info["mem_clients_normal"])


def _say(what: str, spent: Spent, count: int = COUNT) -> None:
    micro = 1e6 / count
    _line(what, f"{spent.ours * micro:.0f} µs ours, {spent.queue * micro:.1f} µs queue, {spent.store * micro:.1f} µs store,"
                f" {spent.queue_octets / count:.0f} octets queue, {spent.store_octets / count:.0f} octets store,"
                f" {spent.took * micro:.0f} µs by the wall")  # fmt: skip


def _line(what: str, figure: str) -> None:
    sys.stdout.write(f"{what}: {figure}\n")


if __name__ == "__main__":
    main()
