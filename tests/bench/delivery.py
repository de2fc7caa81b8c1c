"""How long from a delivery to the suppression, on real Dovecot, Redis and RQ workers: `make bench`.

One mail at a time: into an idle mailbox (IDLE wakes the poller), by LMTP and by webhook; then a burst into the mailbox. Prints
a table; asserts nothing. The floor of IDLE is Dovecot's own: it tells a client 0.5 s after the delivery.
"""

import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from smtplib import LMTP

from redis import Redis

from tests.bench.measure import Row, machine, save, table, telling
from tests.harness import processes
from tests.harness.dovecot import Dovecot, Mailbox
from tests.harness.mails import address, mail, recipient
from tests.harness.names import NAMES
from tests.harness.processes import free_port
from tests.harness.redis_server import RedisServer
from tests.harness.service import MASTERS, Service, until
from worker.store import Store

SINGLES = 100
BURST = 1000
_LOOK_S = 0.001
_WANTED_MS = {"IDLE": (700, 1500), "LMTP": (50, 200), "webhook": (50, 200)}  # median, 99th of a hundred


def main() -> None:
    """Measure and print."""
    folder = Path(tempfile.mkdtemp(prefix="unsubd-bench-"))
    folder.chmod(0o755)
    for name in ("redis", "dovecot", "service"):
        (folder / name).mkdir()
    try:
        with (
            RedisServer(processes.require("redis-server", "redis-server"), folder / "redis") as redis,
            Dovecot(processes.require("dovecot", "dovecot-imapd"), folder / "dovecot") as dovecot,
        ):
            rows = _measured(redis.url, Mailbox(dovecot, "bench"), folder / "service")
    finally:
        shutil.rmtree(folder)
    sys.stdout.write(f"{machine()}\n{table(rows)}\n")
    save(rows, Path("bench"))


def _measured(redis_url: str, mailbox: Mailbox, folder: Path) -> list[Row]:
    service = Service(
        folder, redis_url=redis_url, secret_keys=MASTERS[0], imap_url=mailbox.url, imap_password=mailbox.password,
        imap_ca_file=str(mailbox.ca_file), imap_backlog="all", workers="2", in_relay="bearer:t",
        lmtp=f"127.0.0.1:{free_port()}",
    )  # fmt: skip
    with service.running("run"), Redis.from_url(redis_url) as client:
        store = Store(client, NAMES)
        until(lambda: "state=idle" in service.log.read_text(), what="the poller idle")
        by = {"IDLE": _by_imap(mailbox), "LMTP": _by_lmtp(service), "webhook": _by_webhook(service)}
        rows = []
        for number, (way, deliver) in enumerate(by.items()):
            with telling(f"delivery to effect by {way}"):
                ms = sorted(_single_ms(store, deliver, 1000 * number + each) for each in range(SINGLES))
            for name, at, target in zip(("median", "99th"), (SINGLES // 2, SINGLES - 2), _WANTED_MS[way], strict=True):
                what = f"one mail, delivery to effect by {way}: {name} of {SINGLES}"
                rows.append(Row(what, "ms", [ms[at]], target=target, higher_is_better=False))
        with telling(f"{BURST:,} mails at once"):
            seconds = _burst(store, mailbox)
        return [
            *rows,
            Row(f"{BURST:,} mails at once, delivery to last effect, 2 workers", "mails/s", [BURST / seconds]),
        ]


def _single_ms(store: Store, deliver: Callable[[int], object], number: int) -> float:
    time.sleep(0.7)  # let the mailbox fall idle again
    begun = time.monotonic()
    deliver(number)
    while recipient(number) not in {name for name, _ in store.listed("acme", 1)}:
        assert time.monotonic() - begun < 120, "no effect"
        time.sleep(_LOOK_S)
    return (time.monotonic() - begun) * 1e3


def _by_imap(mailbox: Mailbox) -> Callable[[int], object]:
    return lambda number: mailbox.append_many([mail(address(number), f"single-{number}")])


def _by_lmtp(service: Service) -> Callable[[int], object]:
    host, _, port = service.env["UNSUBD_LMTP"].partition(":")

    def deliver(number: int) -> None:
        with LMTP(host, int(port)) as client:
            client.sendmail("jane@example.net", [address(number)], mail(address(number), f"single-{number}"))

    return deliver


def _by_webhook(service: Service) -> Callable[[int], object]:
    return lambda number: service.post("/in/relay", mail(address(number), f"single-{number}"), authorization="Bearer t")


def _burst(store: Store, mailbox: Mailbox) -> float:
    people = range(10_000, 10_000 + BURST)
    mails = [mail(address(number), f"burst-{number}") for number in people]
    begun = time.monotonic()
    mailbox.append_many(mails)
    _await(store, [recipient(number) for number in people])
    return time.monotonic() - begun


def _await(store: Store, recipients: list[str]) -> None:
    # Listed, not asked for: the service has a key of its own, which says in which bucket a recipient lies.
    until(lambda: {name for name, _ in store.listed("acme", 1)} >= {*recipients}, 120, "every effect")


if __name__ == "__main__":
    main()
