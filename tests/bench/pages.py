"""What the console's pages cost with a full store: time, commands and octets of Redis, and the size of each page.

python -m tests.bench.pages [REQUESTS QUARANTINED]        default: 1,000,000 and 100,000
"""

import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlencode

from handlers import message
from handlers.errors import Rejected
from handlers.request import DecidedMessage, Outcome, Suggestion
from tests.harness import processes
from tests.harness.redis_server import RedisServer
from tests.harness.web import Answer, Web, serving
from tests.unit.house import decided, now_ms
from worker.accounts import Accounts
from worker.installation import Installation
from worker.journal import configure_logging
from worker.quarantine.shelf import Selection
from worker.trace import traced

TOKEN = "t0ken"
_BATCH = 500
_SENDERS, _SOURCES = 3, 8
_OUTCOMES = (Outcome.NO_TAG, Outcome.BAD_TAG, Outcome.MALFORMED)
_HOUR_MS = 3_600_000


@dataclass(frozen=True)
class Cost:
    """Of one page. Units: ms by the clock, and of processor, ours and Redis's; octets that Redis answered, and of the page."""

    status: int
    ms: float
    cpu_ms: float
    commands: int
    redis_bytes: int
    page_bytes: int


def furnish(accounts: Accounts) -> None:
    """Add the senders and their groups."""
    for number in range(_SENDERS):
        accounts.add_sender(f"s{number}")
        accounts.add_group(f"s{number}", "Weekly news", "", 12 + number)


def fill(installation: Installation, requests: int, quarantined: int, *, start: int = 0) -> None:
    """Record *requests* and quarantine as many messages as said, spread over two days, senders and sources."""
    for first in range(start, start + requests, _BATCH):
        installation.intake.record([_request(each) for each in range(first, min(first + _BATCH, start + requests))])
    for first in range(start, start + quarantined, _BATCH):
        kept = [_untagged(each) for each in range(first, min(first + _BATCH, start + quarantined))]
        installation.quarantine.keep(kept)
        installation.intake.record([each for _, each in kept])


def _request(number: int) -> DecidedMessage:
    at_ms = now_ms() - number * 7919 % (48 * _HOUR_MS)
    names = {"sender": f"s{number % _SENDERS}", "group": 12 + number % _SENDERS, "recipient": address(number)}
    return decided(sha256(b"%d" % number).hexdigest(), received_ms=at_ms, source=_source(number), **names)


def address(number: int) -> str:
    """Return the recipient of a request."""
    return f"person.{number}@example.com"


def _source(number: int) -> str:
    return f"imap:box{number % _SOURCES}"


def _untagged(number: int) -> tuple[message.InboundMessage, DecidedMessage]:
    raw = (
        f"From: P <q{number}@example.net>\r\nTo: info@example.org\r\nSubject: Please stop {number}\r\n"
        f"Message-ID: {_message_id(number)}\r\n\r\nPlease take me off the list.\r\n"
    ).encode()
    mail = message.read(raw, source=_source(number))
    hint = Suggestion("s0", 0, f"q{number}@example.net", "asks in words") if number % 10 == 0 else None
    at_ms = now_ms() - number * 104_729 % (48 * _HOUR_MS)
    outcome = _OUTCOMES[number % len(_OUTCOMES)]
    return mail, DecidedMessage(mail.key, mail.source, outcome, "no address carries a tag", at_ms, suggestion=hint)


def _message_id(number: int) -> str:
    return f"<q{number}@example.net>"


class Console:
    """A person who is logged in."""

    def __init__(self, web: Web) -> None:
        self._web = web
        self._headers = {"cookie": web.post("/ops/login", f"token={TOKEN}".encode()).cookie}

    def get(self, path: str) -> Answer:
        """GET *path*."""
        return self._web.get(path, self._headers)

    def search(self, what: str) -> Answer:
        """Search, and go where the answer is."""
        csrf = re.search(r'name="csrf" value="([^"]+)"', self.get("/ops/search").text)
        body = urlencode({"csrf": csrf[1] if csrf else "", "q": what}).encode()
        kind = {"content-type": "application/x-www-form-urlencoded", "origin": f"http://127.0.0.1:{self._web.port}"}
        answer = self._web.post("/ops/search", body, self._headers | kind)
        return self.get(answer.headers["location"]) if answer.status == 303 else answer


def pages(web: Web) -> dict[str, Cost]:
    """Return by its name what each page costs."""
    console = Console(web)
    newest = web.installation.quarantine.ids(Selection(), 200)
    paths = (
        "/ops", "/ops/live", "/ops/queue", "/ops/quarantine", "/ops/quarantine?suggested=1",
        "/ops/quarantine?reason=bad-tag", f"/ops/quarantine/{newest[100]}", "/ops/senders", "/ops/senders/s0",
        "/ops/sources", "/ops/keys", "/ops/audit", "/ops/anomalies", "/metrics",
    )  # fmt: skip
    found = {path.replace(newest[100], "ID"): _cost(web, lambda path=path: console.get(path)) for path in paths}  # type: ignore[misc]
    digest = _untagged(0)[0].key[:12]
    wanted = {"address": address(7), "stranger": "nobody@example.com", "message-id": _message_id(0), "digest": digest,
              "unknown message-id": "<nobody@example.net>", "unknown digest": "0" * 12}  # fmt: skip
    for what, text in wanted.items():
        found[f"search {what}"] = _cost(web, lambda text=text: console.search(text))  # type: ignore[misc]
    for what in ("address", "stranger", "message-id", "digest", "unknown digest"):
        found[f"trace {what}"] = _cost(web, lambda text=wanted[what]: _traced(web, text))  # type: ignore[misc]
    return found


def _traced(web: Web, what: str) -> Answer:
    """What `unsubd trace` prints, as if it were a page."""
    with suppress(Rejected):
        return Answer(
            200, {}, "\n".join(each.what for each in traced(web.installation, what, full=False).events).encode()
        )
    return Answer(200, {}, b"nothing")


def _cost(web: Web, ask: object) -> Cost:
    assert callable(ask)
    ask()  # caches of the process, as a page has them that is looked at every few seconds
    before, began = _spent(web), time.perf_counter()
    answer: Answer = ask()
    took_ms, after = (time.perf_counter() - began) * 1000, _spent(web)
    spent = {name: after[name] - before[name] for name in before}
    commands, octets = round(spent["total_commands_processed"]) - 1, round(spent["total_net_output_bytes"])
    cpu_ms = (spent["used_cpu_user"] + spent["used_cpu_sys"] + spent["ours"]) * 1000
    return Cost(answer.status, took_ms, cpu_ms, commands, octets, len(answer.body))


def _spent(web: Web) -> dict[str, float]:
    info = web.installation.redis.info("stats", "cpu")
    names = ("total_commands_processed", "total_net_output_bytes", "used_cpu_user", "used_cpu_sys")
    return {name: float(info[name]) for name in names} | {"ours": time.process_time()}


@contextmanager
def opened(folder: Path) -> Iterator[Web]:
    """Serve an installation with its senders on a Redis of its own."""
    binary = processes.require("redis-server", processes.PACKAGES["redis-server"])
    with RedisServer(binary, folder) as server, serving(folder, server.url, admin_token=TOKEN) as web:
        furnish(web.installation.accounts)
        yield web


def main() -> None:
    """Fill a store and print the pages' costs."""
    configure_logging(quiet=True)
    requests, quarantined = (int(each) for each in sys.argv[1:3] or ("1000000", "100000"))
    with tempfile.TemporaryDirectory() as folder, opened(Path(folder)) as web:
        began = time.perf_counter()
        fill(web.installation, requests, quarantined)
        print(f"{requests:,} requests and {web.installation.quarantine.count(Selection()):,} messages in quarantine, "
              f"in {time.perf_counter() - began:.0f} s; load {os.getloadavg()[0]:.1f}")  # fmt: skip
        print(f"{'page':34} {'status':>6} {'ms':>8} {'cpu ms':>8} {'commands':>9} {'Redis kB':>9} {'page kB':>8}")
        for path, cost in pages(web).items():
            print(f"{path:34} {cost.status:>6} {cost.ms:>8.1f} {cost.cpu_ms:>8.1f} {cost.commands:>9} "
                  f"{cost.redis_bytes / 1024:>9.1f} {cost.page_bytes / 1024:>8.1f}")  # fmt: skip


if __name__ == "__main__":
    main()
