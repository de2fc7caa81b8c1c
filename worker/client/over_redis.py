"""The check beside the store: no web server between, one round trip. Needs the installation's own UNSUBD_ settings."""

import asyncio
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from queue import SimpleQueue
from types import TracebackType
from typing import Any

from handlers.address import one_address
from handlers.errors import ConfigError, StoreUnavailable, UnsubdError
from worker.check import Answer, Check, Question, checked
from worker.installation import Installation, open_installation, store_url, with_embedded_secrets
from worker.minting import minting_at
from worker.server import away_as, connect_async
from worker.settings import load_settings
from worker.store.asking import Rows
from worker.store.reading import Reading

from . import Checked, CheckFailed, Headers, HeadersFailed

_AT_ONCE = 2000
_CONNECTIONS = 40  # callers at a time, of two each; redis-py's pool has 100 and raises when it is used up


class _Turns:
    """So many at a time. Why: `threading.Semaphore`, which is written in Python, took 5 of a check's 93 us."""

    def __init__(self) -> None:
        self._free: SimpleQueue[None] = SimpleQueue()
        for _ in range(_CONNECTIONS):
            self._free.put(None)

    def __enter__(self) -> None:
        self._free.get()

    def __exit__(self, *_: object) -> None:
        self._free.put(None)


class RedisClient:
    """One sender's view of the store. Threads may share it; close it, or use it in a `with`.

    Errors:  CheckFailed  the settings do not fit, the servers are away.
    """

    def __init__(self, sender: str) -> None:
        self._sender = sender
        self._free = _Turns()
        self._opened = ExitStack()
        self._installation = _open(self._opened)

    def check(self, group: int, recipients: Sequence[str], bypass: Collection[str] = ()) -> list[Checked]:
        """Return one answer per recipient, in order.

        Shape:   bypass: names of SendGrid's mail_settings, e.g. bypass_unsubscribe_management.
        Errors:  CheckFailed  the store is away, an unknown group, not an address: nobody was declared allowed.
        """
        try:
            with self._free:
                answers = checked(self._installation, Check(self._sender, group, recipients, bypass))
            return [*map(_checked, answers)]
        except UnsubdError as error:
            raise CheckFailed(str(error)) from error

    def headers(self, group: int, recipients: Sequence[str], *, mailto_only: bool = False) -> list[Headers]:
        """Return the headers of each recipient's mail, in order.

        Errors:  HeadersFailed  the servers are away, an unknown or essential group, not an address, no https link.
        Repeat:  the same headers.
        """
        with self._free:
            return _headers(self._installation, self._sender, group, recipients, mailto_only=mailto_only)

    def close(self) -> None:
        """Close the connections."""
        self._opened.close()

    def __enter__(self) -> "RedisClient":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()


class AsyncRedisClient:
    """`RedisClient` for asyncio: open it with `async with`. Tasks may share it."""

    def __init__(self, sender: str) -> None:
        self._sender = sender
        self._free = asyncio.Semaphore(_CONNECTIONS)
        self._opened = ExitStack()

    async def __aenter__(self) -> "AsyncRedisClient":
        self._installation = await asyncio.to_thread(_open, self._opened)
        self._store: Any = connect_async(store_url(self._installation.settings))
        return self

    async def check(self, group: int, recipients: Sequence[str], bypass: Collection[str] = ()) -> list[Checked]:
        """As `RedisClient.check`."""
        try:
            known = await asyncio.to_thread(self._installation.groups.group, self._sender, group)
            question = Question.of(known, bypass)
            exact = [one_address(each) for each in recipients]
            found: list[Checked] = []
            for start in range(0, len(exact), _AT_ONCE):
                found += map(_checked, await self._asked(question, exact[start : start + _AT_ONCE]))
        except UnsubdError as error:
            raise CheckFailed(str(error)) from error
        return found

    async def headers(self, group: int, recipients: Sequence[str], *, mailto_only: bool = False) -> list[Headers]:
        """As `RedisClient.headers`."""
        async with self._free:
            return await asyncio.to_thread(
                _headers, self._installation, self._sender, group, recipients, mailto_only=mailto_only
            )

    async def _asked(self, question: Question, recipients: Sequence[str]) -> list[Answer]:
        reading = self._installation.store.asking(self._sender, question.group.id, recipients)
        with away_as(StoreUnavailable, "UNSUBD_STORE_URL"):
            async with self._free:
                rows = await self._read(reading)
        return [question.answer(recipient, each) for recipient, each in zip(recipients, rows, strict=True)]

    async def _read(self, reading: Reading[list[Rows]]) -> list[Rows]:
        replies: Any = None
        while True:
            try:
                commands = reading.send(replies)
            except StopIteration as stop:
                rows: list[Rows] = stop.value
                return rows
            async with self._store.pipeline(transaction=False) as pipeline:
                for command in commands:
                    pipeline.execute_command(*command)
                replies = await pipeline.execute()

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        await self._store.aclose()
        await asyncio.to_thread(self._opened.close)


def _open(opened: ExitStack) -> Installation:
    try:
        return opened.enter_context(open_installation(with_embedded_secrets(load_settings())))
    except (UnsubdError, ConfigError) as error:
        raise CheckFailed(str(error)) from error


def _headers(
    installation: Installation, sender: str, group: int, recipients: Sequence[str], *, mailto_only: bool
) -> list[Headers]:
    try:
        found = minting_at(installation, sender, group).headers(group, recipients, mailto_only=mailto_only)
    except (UnsubdError, ConfigError) as error:
        raise HeadersFailed(str(error)) from error
    return [Headers(each.recipient, dict(each.lines)) for each in found]


def _checked(answer: Answer) -> Checked:
    source = answer.row.source if answer.row else None
    return Checked(
        answer.recipient, answer.suppressed, answer.scope, answer.since, source, answer.version, answer.essential
    )
