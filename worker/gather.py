"""Concurrent deliveries share a job: while one batch is being accepted, the next gathers. No timer, so no added delay.

Posts of the web server and mails of the LMTP server, each in the event loop of its process.

Why:     RQ costs 18 round trips and a fork a job; a campaign's answers come by hundreds at once.
"""

import asyncio
from collections.abc import Sequence

from handlers.message import InboundMessage
from worker.intake import Intake
from worker.queue import BATCH


class Gatherer:
    """The door for messages, for one event loop."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self._waiting: list[tuple[Sequence[InboundMessage], asyncio.Future[None]]] = []
        self._flushing: asyncio.Task[None] | None = None

    async def accept(self, messages: Sequence[InboundMessage]) -> None:
        """Return when *messages* are durable, alone or together with others'.

        Errors:  Unavailable  nothing may be acknowledged.    temporary
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((messages, done))
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.create_task(self._flush())
        await done

    async def _flush(self) -> None:
        while self._waiting:
            batch = [self._waiting.pop(0)]
            while self._waiting and sum(len(messages) for messages, _ in batch) < BATCH:
                batch.append(self._waiting.pop(0))
            together = [message for messages, _ in batch for message in messages]
            try:
                await asyncio.to_thread(self._intake.accept, together)  # redis blocks
            except Exception as error:  # noqa: BLE001  handed to every delivery that waits for it
                outcome: Exception | None = error
            else:
                outcome = None
            for _, done in batch:
                if done.cancelled():
                    continue  # its client hung up; the work is durable all the same
                if outcome is None:
                    done.set_result(None)
                else:
                    done.set_exception(outcome)
