"""Questions that go to the database together."""

import asyncio
from collections.abc import Sequence

import pytest

from core.repository.coalescing import AT_ONCE, MOST, Coalescer


class Oracle:
    """Answers with the double, once it may; of a negative number it knows nothing."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []
        self.may = asyncio.Event()

    async def answer(self, numbers: Sequence[int]) -> list[int]:
        self.asked.append(list(numbers))
        await self.may.wait()
        if any(number < 0 for number in numbers):
            raise ValueError("negative")
        return [2 * number for number in numbers]


async def test_what_is_asked_at_the_same_moment_is_asked_once_and_each_gets_its_own_answer() -> None:
    oracle = Oracle()
    oracle.may.set()
    questions = Coalescer(oracle.answer)
    assert await asyncio.gather(*(questions.ask(number) for number in range(5))) == [0, 2, 4, 6, 8]
    assert oracle.asked == [[0, 1, 2, 3, 4]]


async def test_what_comes_while_as_many_statements_as_may_are_under_way_waits_and_goes_together() -> None:
    oracle = Oracle()
    questions, asking = Coalescer(oracle.answer), []
    for number in range(AT_ONCE + 3):
        asking.append(asyncio.create_task(questions.ask(number)))
        await asyncio.sleep(0.01)
    assert oracle.asked == [[number] for number in range(AT_ONCE)]
    oracle.may.set()
    assert await asyncio.gather(*asking) == [2 * number for number in range(AT_ONCE + 3)]
    assert oracle.asked[AT_ONCE:] == [[AT_ONCE, AT_ONCE + 1, AT_ONCE + 2]]


async def test_no_statement_has_more_questions_than_it_may() -> None:
    oracle = Oracle()
    oracle.may.set()
    questions = Coalescer(oracle.answer)
    await asyncio.gather(*(questions.ask(number) for number in range(3 * MOST)))
    assert [len(one) for one in oracle.asked] == [MOST] * 3


async def test_questions_that_have_to_be_apart_are_asked_one_after_the_other() -> None:
    oracle = Oracle()
    oracle.may.set()
    questions = Coalescer(oracle.answer, apart=lambda number: number % 2)
    assert await asyncio.gather(*(questions.ask(number) for number in (1, 3, 2, 5))) == [2, 6, 4, 10]
    assert oracle.asked == [[1, 2], [3], [5]]


async def test_what_goes_wrong_is_told_to_all_who_asked_together_and_to_nobody_later() -> None:
    oracle = Oracle()
    oracle.may.set()
    questions = Coalescer(oracle.answer)
    found = await asyncio.gather(questions.ask(1), questions.ask(-1), return_exceptions=True)
    assert [type(one) for one in found] == [ValueError, ValueError]
    assert await questions.ask(4) == 8


async def test_whoever_stops_waiting_takes_nobodys_answer_away() -> None:
    oracle = Oracle()
    questions = Coalescer(oracle.answer)
    first, second = (asyncio.create_task(questions.ask(number)) for number in (1, 2))
    await asyncio.sleep(0.01)
    first.cancel()
    oracle.may.set()
    assert await second == 4
    with pytest.raises(asyncio.CancelledError):
        await first
