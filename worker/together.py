"""Askers that come while a round trip is under way share the next one. No timer, so no added delay.

One `Together` belongs to one event loop; its work runs in a thread, because redis-py blocks there.

Why:     a round trip and a thread cost more than what is asked in it: over HTTP they were nine tenths of a check.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Question = TypeVar("Question")
Answer = TypeVar("Answer")


class Together(Generic[Question, Answer]):
    """Work that is done for many at once.

    Shape:   work: answers questions, in order; an exception in the place of an answer is raised for that asker alone, and
             one that is raised for all of them.  weight: how much one question is; a turn takes up to `most`, or one question.
    """

    def __init__(
        self,
        work: Callable[[list[Question]], Sequence[Answer | Exception]],
        weight: Callable[[Question], int] = lambda _: 1,
        most: int = 500,
    ) -> None:
        self._work, self._weight, self._most = work, weight, most
        self._waiting: list[tuple[Question, asyncio.Future[Answer]]] = []
        self._turns: asyncio.Task[None] | None = None

    async def ask(self, question: Question) -> Answer:
        """Return the answer to a question that was asked together with others'. Errors: what `work` has for it."""
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, answered))
        if self._turns is None or self._turns.done():
            self._turns = asyncio.create_task(self._take_turns())
        return await answered

    async def _take_turns(self) -> None:
        while self._waiting:
            turn = self._turn()
            try:
                answers = await asyncio.to_thread(self._work, [question for question, _ in turn])
            except Exception as error:  # noqa: BLE001  handed to everyone who waits for it
                answers = [error] * len(turn)
            for (_, answered), answer in zip(turn, answers, strict=True):
                if answered.cancelled():
                    continue  # its client hung up; what was done is done all the same
                if isinstance(answer, Exception):
                    answered.set_exception(answer)
                else:
                    answered.set_result(answer)

    def _turn(self) -> list[tuple[Question, asyncio.Future[Answer]]]:
        count, total = 0, 0
        while count < len(self._waiting) and (not count or total < self._most):
            total += self._weight(self._waiting[count][0])
            count += 1
        turn, self._waiting = self._waiting[:count], self._waiting[count:]
        return turn
