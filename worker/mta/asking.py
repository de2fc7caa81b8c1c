"""The questions of a mail server, put to the check: those that come at once share a round trip, without a timer.

Why:     a mail server asks one recipient a time on each of its connections; a campaign's come by thousands a second.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence

from handlers.address import one_address
from handlers.errors import ConfigError, QueueUnavailable, Unavailable, UnknownAccount
from handlers.route import Origin, Route, find
from worker.check import check
from worker.installation import Installation
from worker.mta.map import Routes

_BATCH = 500
_TROUBLED_S = 12.0  # an outage is noticed anew at least every time the routes are read
_Waiting = tuple[Route, str, asyncio.Future[bool]]


class Asking:
    """What one service asks, for one event loop; and what is to be told of it: `told` counts answers by their word."""

    def __init__(self, installation: Installation) -> None:
        self.installation = installation
        self._map = Routes(installation.redis)
        self._routes: Mapping[str, Route] | None = None
        self._waiting: list[_Waiting] = []
        self._flushing: asyncio.Task[None] | None = None
        self.told: Counter[str] = Counter()
        self.asked = 0
        self._trouble = ""
        self._troubled_at = 0.0

    @property
    def trouble(self) -> str:
        """What keeps questions without an answer now, "" when nothing does."""
        return self._trouble if time.monotonic() - self._troubled_at < _TROUBLED_S else ""

    def _note(self, error: Exception) -> None:
        self._trouble, self._troubled_at = str(error), time.monotonic()

    async def refresh(self) -> None:
        """Read the routes anew; while Redis is away those known stay.

        Why:     our outage must not stop mail that is none of our business; mapped mail waits for the check anyway.
        """
        try:
            self._routes = await asyncio.to_thread(self._map.every)
        except Unavailable as error:
            self._note(error)

    def route(self, origin: Origin) -> Route | None:
        """Return the route of a mail. Errors: QueueUnavailable  the routes were never read.    temporary"""
        if self._routes is None:
            raise QueueUnavailable("UNSUBD_REDIS_URL: the routes of mail were never read")
        return find(self._routes, origin)

    async def suppressed(self, route: Route, recipient: str) -> bool:
        """Say whether mail on *route* must not go to *recipient*.

        Errors:  AddressError  not an address.    permanent
                 Unavailable   nobody can say.    temporary
        """
        self.asked += 1
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append((route, one_address(recipient), done))
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.create_task(self._flush())
        return await done

    async def _flush(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:_BATCH], self._waiting[_BATCH:]
            together: dict[tuple[str, int], list[_Waiting]] = {}
            for each in batch:
                together.setdefault((each[0].sender, each[0].group), []).append(each)
            for (sender, group), some in together.items():
                await self._answer(sender, group, some)

    async def _answer(self, sender: str, group: int, some: Sequence[_Waiting]) -> None:
        recipients = [recipient for _, recipient, _ in some]
        failure: Exception | None = None
        answers: Sequence[bool] = [True] * len(some)
        try:
            found = await asyncio.to_thread(check, self.installation, sender, group, recipients)  # redis blocks
            answers = [each.suppressed for each in found]
        except UnknownAccount as error:  # the map names what is not there: no fault of the mail
            failure = QueueUnavailable(f"unsubd mta map: {error}")
        except Exception as error:  # noqa: BLE001  handed to everyone who waits for it
            failure = error
        for (_, _, done), answer in zip(some, answers, strict=True):
            if done.cancelled():
                continue  # whoever asked hung up
            if failure is None:
                done.set_result(answer)
            else:
                done.set_exception(failure)

    async def failed(self, service: str, error: Exception) -> None:
        """Tell why a question has no answer; of a bug without its text, which may quote a mail."""
        if isinstance(error, (Unavailable, ConfigError)):
            self._note(error)
        else:
            await asyncio.to_thread(self.installation.journal.failed, service, type(error).__name__)
