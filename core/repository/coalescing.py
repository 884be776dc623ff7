"""Questions that come while others are being answered go to the database together.

A round trip costs both sides more than what most of them ask for, and a busy api has many at a time. Nobody
waits for company: what comes alone is asked alone, at once.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Final, Generic, TypeVar

MOST: Final = 64
"""Questions in one statement."""

AT_ONCE: Final = 2
"""Statements under way. With more of them each would have fewer questions."""

Question = TypeVar("Question")
Answer = TypeVar("Answer")


class Coalescer(Generic[Question, Answer]):
    """Asks several questions in one statement.

    Args:
        answer: answers questions in their order. What it raises, each of them raises.
        apart: of two questions with the same the later one waits for another statement.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Question]], Awaitable[Sequence[Answer]]],
        *,
        apart: Callable[[Question], Hashable] = id,
    ) -> None:
        self._answer = answer
        self._apart = apart
        self._waiting: dict[asyncio.Future[Answer], Question] = {}
        self._scheduled = False
        self._under_way: set[asyncio.Task[None]] = set()

    async def ask(self, question: Question) -> Answer:
        """The answer to one question; whoever stops waiting for it keeps nobody else from theirs."""
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[Answer] = loop.create_future()
        self._waiting[answered] = question
        if not self._scheduled and len(self._under_way) < AT_ONCE:
            # Behind everything that is ready now, which may bring more questions.
            self._scheduled = True
            loop.call_soon(self._begin)
        return await answered

    def _begin(self) -> None:
        self._scheduled = False
        while self._waiting and len(self._under_way) < AT_ONCE:
            together: dict[Hashable, asyncio.Future[Answer]] = {}
            for answered, question in self._waiting.items():
                together.setdefault(self._apart(question), answered)
                if len(together) == MOST:
                    break
            asked = {answered: self._waiting.pop(answered) for answered in together.values()}
            task = asyncio.create_task(self._settle(asked))
            self._under_way.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self._begin()

    async def _settle(self, asked: dict[asyncio.Future[Answer], Question]) -> None:
        wanted = {answered: question for answered, question in asked.items() if not answered.done()}
        try:
            answers = await self._answer(list(wanted.values())) if wanted else ()
            for answered, answer in zip(wanted, answers, strict=True):
                if not answered.done():
                    answered.set_result(answer)
        except Exception as error:  # noqa: BLE001 - whoever asked is told
            for answered in wanted:
                if not answered.done():
                    answered.set_exception(error)
        finally:
            for answered in asked:
                answered.cancel()
