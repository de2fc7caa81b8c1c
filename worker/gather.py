"""Concurrent deliveries share a job: posts of the web server, and mails of the LMTP server.

Why:     RQ costs 18 round trips and a fork a job; a campaign's answers come by hundreds at once.
"""

from collections.abc import Sequence

from handlers.message import InboundMessage
from worker.intake import Intake
from worker.queue import BATCH
from worker.together import Together


class Gatherer:
    """The door for messages, for one event loop."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self._together: Together[Sequence[InboundMessage], None] = Together(self._accept, len, BATCH)

    async def accept(self, messages: Sequence[InboundMessage]) -> None:
        """Return when *messages* are durable, alone or together with others'.

        Errors:  Unavailable  nothing may be acknowledged.    temporary
        """
        await self._together.ask(messages)

    def _accept(self, deliveries: list[Sequence[InboundMessage]]) -> list[None]:
        self._intake.accept([message for messages in deliveries for message in messages])
        return [None] * len(deliveries)
