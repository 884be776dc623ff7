"""The one place that reads the wall clock, and waits by it."""

import asyncio
from datetime import UTC, datetime


def now() -> datetime:
    """The present moment, aware, in UTC."""
    return datetime.now(UTC)


async def pause(stop: asyncio.Event, *, seconds: float) -> None:
    """Wait so long, or until ``stop`` is set."""
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return
