"""Askers that come at once share a turn, and none hears another's trouble."""

import asyncio
import threading
from collections.abc import Sequence

import pytest

from worker.together import Together


class _Work:
    """Doubles numbers; a negative one is refused, and 13 breaks the turn. `turns`: what was asked together."""

    def __init__(self) -> None:
        self.turns: list[list[int]] = []
        self.go_on = threading.Event()
        self.go_on.set()

    def __call__(self, questions: list[int]) -> Sequence[int | Exception]:
        self.turns.append(questions)
        self.go_on.wait(20)
        if 13 in questions:
            raise RuntimeError("the turn")
        return [ValueError("alone") if each < 0 else 2 * each for each in questions]


async def _asked(together: Together[int, int], numbers: Sequence[int]) -> list[int | BaseException]:
    return await asyncio.gather(*(together.ask(each) for each in numbers), return_exceptions=True)


def test_who_comes_during_a_turn_shares_the_next() -> None:
    work = _Work()

    async def run() -> list[int | BaseException]:
        together: Together[int, int] = Together(work)
        work.go_on.clear()
        first = asyncio.create_task(together.ask(1))
        while not work.turns:
            await asyncio.sleep(0.001)
        later = asyncio.create_task(_asked(together, [2, 3, 4]))
        await asyncio.sleep(0)
        work.go_on.set()
        return [await first, *await later]

    assert asyncio.run(run()) == [2, 4, 6, 8]
    assert work.turns == [[1], [2, 3, 4]]


def test_a_refusal_is_for_its_asker_alone_and_a_broken_turn_for_all_of_it() -> None:
    work = _Work()

    async def run() -> tuple[list[int | BaseException], list[int | BaseException], int]:
        together: Together[int, int] = Together(work)
        with pytest.raises(ValueError, match="alone"):
            await together.ask(-1)
        return await _asked(together, [1, -1, 2]), await _asked(together, [13, 5]), await together.ask(6)

    refused, broken, after = asyncio.run(run())

    assert [refused[0], refused[2]] == [2, 4]
    assert [str(each) for each in broken] == ["the turn", "the turn"]
    assert after == 12  # the next turn is a new one


def test_who_hung_up_costs_the_others_nothing() -> None:
    work = _Work()

    async def run() -> list[int]:
        together: Together[int, int] = Together(work)
        work.go_on.clear()
        tasks = [asyncio.create_task(together.ask(each)) for each in (1, 2, 3)]
        while not work.turns:
            await asyncio.sleep(0.001)
        tasks[1].cancel()
        work.go_on.set()
        return [await tasks[0], await tasks[2]]

    assert asyncio.run(run()) == [2, 6]


@pytest.mark.parametrize(("numbers", "turns"), [([4, 4, 4], [[4, 4], [4]]), ([50, 1], [[50], [1]])])
def test_a_turn_is_not_heavier_than_it_may_be_but_for_one_question(numbers: list[int], turns: list[list[int]]) -> None:
    work = _Work()

    asyncio.run(_asked(Together(work, weight=lambda each: each, most=8), numbers))

    assert work.turns == turns
