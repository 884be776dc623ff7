"""What the tests of the postman have in common."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime

from batcher.letters.postman import LEASE, Postman
from core.clock import now
from core.models import Letter, LetterState
from core.repository import letters


async def claimed(*, at: datetime | None = None, limit: int = 10) -> list[Letter]:
    """Claim the letters that are due."""
    return await letters.claim(now=at or now(), lease=LEASE, limit=limit)


async def only_letter() -> Letter:
    """The one that there is."""
    return await Letter.get()


@asynccontextmanager
async def running(*postmen: Postman) -> AsyncIterator[None]:
    """Have postmen work while the block runs."""
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        for postman in postmen:
            tasks.create_task(postman.run(stop=stop))
        try:
            yield
        finally:
            stop.set()


async def all_sent() -> None:
    """Wait until every letter has left."""
    async with asyncio.timeout(8):
        while await Letter.exclude(state=LetterState.SENT).exists():  # noqa: ASYNC110 - the database has no event
            await asyncio.sleep(0.02)
