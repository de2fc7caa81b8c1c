"""Concurrent deliveries share a job: posts of the web server, and mails of the LMTP server.

Why:     RQ costs 18 round trips and a fork a job; a campaign's answers come by hundreds at once. While jobs wait, ours is
         begun no sooner for being small: then a small turn waits a moment for more deliveries. Without that, 200 posts a second
         were 160 jobs a second, about what one Redis serves.
"""

import time
from collections.abc import Sequence

from handlers.message import InboundMessage
from worker.intake import Intake
from worker.queue import BATCH
from worker.together import Together

_MANY_JOBS = 10  # that wait; fewer are begun at once
_TURN_S = 0.025  # from one turn's begin to the next one's: 40 small jobs a second of a process
_SMALL = 16  # messages; a larger job is worth its round trips, and its deliveries wait for nobody


class Gatherer:
    """The door for messages, for one event loop."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self._next_s = 0.0
        self._together: Together[Sequence[InboundMessage], None] = Together(self._accept, len, BATCH)

    async def accept(self, messages: Sequence[InboundMessage]) -> None:
        """Return when *messages* are durable, alone or together with others'.

        Errors:  Unavailable  nothing may be acknowledged.    temporary
        """
        await self._together.ask(messages)

    def _accept(self, deliveries: list[Sequence[InboundMessage]]) -> list[None]:
        messages = [message for each in deliveries for message in each]
        if len(messages) < _SMALL and self._intake.queue.waiting() > _MANY_JOBS:
            # In a thread: who comes meanwhile shares the next turn.
            time.sleep(max(0.0, self._next_s - time.monotonic()))
        self._next_s = time.monotonic() + _TURN_S
        self._intake.accept(messages)
        return [None] * len(deliveries)
