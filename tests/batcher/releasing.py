"""Releasers at work."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from batcher.release import Releaser


@asynccontextmanager
async def running(*releasers: Releaser) -> AsyncIterator[None]:
    stop = asyncio.Event()
    tasks = [asyncio.create_task(releaser.run(stop=stop)) for releaser in releasers]
    try:
        yield
    finally:
        # Never cancelled: a fetch that is cancelled may swallow it, and go on for ever.
        stop.set()
        await asyncio.gather(*tasks)
