"""Who asks: a thread for each way in, every person once, and again and again until somebody took the request.

A person is accepted when the way in said so: a provider repeats a post that was not answered 2xx, a mail server keeps what got
no 250, a mailbox or Maildir has what lies in it. Beside them a thread of damaged and forged input, which must reach nobody.
"""

import http.client
import imaplib
import itertools
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from handlers.tag import Tag, mint
from tests.fuzz import run as fuzz
from tests.harness.dovecot import Mailbox
from tests.harness.lmtp import Client
from tests.harness.mails import APPLE, NEW, OLD, TEMPLATE, address, mail, recipient

_LOOK_S = 0.2
_FORM = {"Content-Type": "application/x-www-form-urlencoded"}
_RELAY = {"Content-Type": "message/rfc822", "Authorization": "Bearer t"}


class Crowd:
    """Everybody who asks. Shape: accepted: number of a person -> the way in; bad: inputs tried; escaped: what went wrong."""

    def __init__(self, folder: Path, port: int, lmtp: str, mailbox: Mailbox, seed: int) -> None:
        self._maildir, self._port, self._lmtp, self._mailbox, self._seed = folder, port, lmtp, mailbox, seed
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self.accepted: dict[int, str] = {}
        self.tries: Counter[str] = Counter()
        self.bad = 0
        self.escaped: list[str] = []
        ways: dict[str, tuple[Callable[[int], bool], float]] = {
            "relay": (self._post, 0.03), "lmtp": (self._deliver, 0.03), "one-click": (self._press, 0.05),
            "maildir": (self._drop, 0.03),
        }  # fmt: skip
        self._threads = [threading.Thread(target=self._ask, args=(name, *way)) for name, way in ways.items()]
        self._threads += [threading.Thread(target=self._append), threading.Thread(target=self._harm)]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Let nobody new ask; whoever asks now goes on until it is taken."""
        self._ended.set()

    def join(self, seconds: float) -> bool:
        """Wait for the last; say whether all were taken."""
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _next(self) -> int:
        with self._lock:
            return next(self._numbers)

    def _taken(self, number: int, way: str) -> None:
        with self._lock:
            self.accepted[number] = way

    def _ask(self, name: str, way: Callable[[int], bool], pause_s: float) -> None:
        while not self._ended.is_set():
            number = self._next()
            while not self._tried(name, way, number):
                time.sleep(_LOOK_S)
            self._taken(number, name)
            time.sleep(pause_s)

    def _tried(self, name: str, way: Callable[[int], bool], number: int) -> bool:
        self.tries[name] += 1
        try:
            return way(number)
        except (OSError, http.client.HTTPException, imaplib.IMAP4.error, AssertionError):
            return False  # the way in is away, or ends in the middle: it comes again

    def _post(self, number: int) -> bool:
        return self._answer("/in/relay", mail(address(number), f"soak-{number}"), _RELAY) == 204

    def _press(self, number: int) -> bool:
        tag = mint(NEW, Tag("acme", 1, recipient(number)), TEMPLATE).tag
        return self._answer(f"/u/{tag}", b"List-Unsubscribe=One-Click", _FORM) == 200

    def _deliver(self, number: int) -> bool:
        with Client(self._lmtp) as client:
            to = address(number)
            return client.deliver(mail(to, f"soak-{number}", APPLE).rstrip(b"\r\n") + b"\r\n\r\n", to) == ["250"]

    def _drop(self, number: int) -> bool:
        self._put(f"{number:09}.soak", mail(address(number), f"soak-{number}"))
        return True

    def _put(self, name: str, raw: bytes) -> None:
        (self._maildir / "tmp" / name).write_bytes(raw)
        os.rename(self._maildir / "tmp" / name, self._maildir / "new" / name)

    def _append(self) -> None:
        while not self._ended.is_set():
            numbers = [self._next() for _ in range(8)]
            raws = [mail(address(number), f"soak-{number}") for number in numbers]
            while not self._tried("imap", lambda _, raws=raws: self._mailbox.append_many(raws) is None, 0):  # type: ignore[misc]
                time.sleep(_LOOK_S)
            for number in numbers:
                self._taken(number, "imap")
            time.sleep(0.5)

    def _harm(self) -> None:
        """Damaged mail, tags that no key of ours signed, and posts without a proof, until the end."""
        seeds, chance = fuzz.corpus(), random.Random(f"{self._seed}/bad")
        for number in itertools.count():
            if self._ended.is_set():
                return
            raw = fuzz.made(self._seed, number, seeds)[:200_000]
            if number % 3 == 0:
                raw = mail(address(chance.randrange(10**6), OLD, sender="acme"), f"forged-{number}")
            self._one(chance.randrange(4), number, raw)
            self.bad += 1
            time.sleep(0.02)

    def _one(self, way: int, number: int, raw: bytes) -> None:
        if way == 0:
            self._put(f"bad-{number}", raw or b"\r\n")
            return
        place, headers, wrong = (
            ("/in/relay", _RELAY, {500}),
            ("/in/relay", {**_RELAY, "Authorization": "Bearer x"}, {500, 200, 204}),
            (f"/u/{mint(OLD, Tag('acme', 1, recipient(number)), TEMPLATE).tag}", _FORM, {500, 200, 204}),
        )[way - 1]
        try:
            status = self._answer(place, raw if way < 3 else b"List-Unsubscribe=One-Click", headers)
        except (OSError, http.client.HTTPException):
            return  # it is away: what was not taken harmed nobody
        if status in wrong:
            self.escaped.append(f"bad input {number} was answered {status} by {place[:10]}")

    def _answer(self, path: str, body: bytes, headers: dict[str, str]) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=15)
        try:
            connection.request("POST", path, body, headers)
            answer = connection.getresponse()
            answer.read()
            return answer.status
        finally:
            connection.close()
