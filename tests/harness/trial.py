"""Requests by mail, by webhook and by one-click while something is broken, and the verdict: none lost, each in effect once."""

import http.client
import threading
import time
from collections import Counter
from collections.abc import Iterable

from redis import Redis, RedisError

from tests.harness.dovecot import Mailbox
from tests.harness.figures import figure
from tests.harness.mails import address, mail, recipient
from tests.harness.names import NAMES
from tests.harness.service import MASTERS, Service, until
from worker.server import connect
from worker.store import Store
from worker.store.ledger import Ledger

AGAIN_S = 0.3
ONE_CLICK = "application/x-www-form-urlencoded"


def settings(redis_url: str, mailbox: Mailbox | None = None, **more: str) -> dict[str, str]:
    """Return what a service under trial needs."""
    given = {
        "redis_url": redis_url, "secret_keys": ",".join(MASTERS), "address": "u+{tag}@unsub.example.com",
        "in_relay": "bearer:t", "poll_interval_s": "2",
    }  # fmt: skip
    if mailbox:
        given |= {"imap_url": mailbox.url, "imap_password": mailbox.password, "imap_ca_file": str(mailbox.ca_file)}
        given |= {"imap_backlog": "all"}
    return given | more


class Trial:
    """One installation's requests. Whoever posts comes again until it is told "done", as providers and mail clients do."""

    def __init__(self, service: Service, mailbox: Mailbox | None = None) -> None:
        self._service = service
        self._mailbox = mailbox
        self._threads: list[threading.Thread] = []
        self.sent: set[int] = set()
        self.answers: Counter[int] = Counter()

    def register(self) -> None:
        """Make the sender and group that the requests name."""
        self._service.last_line("sender", "add", "acme")
        self._service.last_line("group", "add", "acme", "Weekly news")

    def send(self, numbers: Iterable[int]) -> None:
        """Send requests: a third each by mail (all by post without a mailbox), by webhook and by one-click."""
        mails = []
        for number in numbers:
            self.sent.add(number)
            if self._mailbox and number % 3 == 0:
                mails.append(mail(address(number), f"trial-{number}"))
            else:
                thread = threading.Thread(target=self._post, args=(number,), daemon=True)
                self._threads.append(thread)
                thread.start()
        if self._mailbox and mails:
            self._mailbox.append_many(mails)

    def _post(self, number: int) -> None:
        to = address(number)
        path, body, headers = (
            (f"/u/{to.partition('+')[2].partition('@')[0]}", b"List-Unsubscribe=One-Click", {"Content-Type": ONE_CLICK})
            if number % 3 == 2
            else (
                "/in/relay",
                mail(to, f"trial-{number}"),
                {"Content-Type": "message/rfc822", "Authorization": "Bearer t"},
            )
        )
        while not self._is_taken(path, body, headers):
            time.sleep(AGAIN_S)

    def _is_taken(self, path: str, body: bytes, headers: dict[str, str]) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self._service.port, timeout=30)
        try:
            connection.request("POST", path, body, headers)
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException):
            status = 0
        finally:
            connection.close()
        self.answers[status] += 1
        return 200 <= status < 300

    def settled(self, redis_url: str, seconds: float = 75) -> None:
        """Wait until everything that was sent is in effect and written down. Shape: redis_url: Sentinels' too."""
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        assert not any(thread.is_alive() for thread in self._threads), f"not taken: {self.answers}"
        with connect(redis_url) as client:
            until(lambda: self._is_over(client), seconds, "every effect")

    def _is_over(self, client: "Redis") -> bool:
        try:
            return not self.lost(client) and sum(self._added(client).values()) >= len(self.sent)
        except RedisError:
            return False

    def lost(self, client: "Redis") -> set[str]:
        """Who asked and is not suppressed."""
        found = {name for name, _ in Store(client, NAMES).listed("acme", 1)}
        return {recipient(number) for number in self.sent} - found

    def _added(self, client: "Redis") -> Counter[str]:
        """How often the ledger says "added", by pseudonym."""
        records = Ledger(client, lambda _: "").records()
        results = (result for _, record in records for result in record["requests"])
        return Counter(each["recipient"] for each in results if each["effect"] == "added")

    def verdict(self, redis_url: str, promise: str, fault: str, test: str, **more: object) -> None:
        """Settle, check and keep the figure."""
        self.settled(redis_url)
        with connect(redis_url) as client:
            added, lost = self._added(client), self.lost(client)
            quarantined = client.hlen("unsubd:quarantine")
        doubled = sum(count - 1 for count in added.values())
        assert (len(added), quarantined) == (len(self.sent), 0)
        figure(promise, fault, test, requests=len(self.sent), lost=len(lost), duplicated=doubled, **more)
