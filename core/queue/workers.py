"""The workers as last seen, for whoever asks more often than they give a sign of life."""

import asyncio
import time
from collections.abc import Sequence
from typing import Final

import structlog

from core.errors import ServiceUnavailableError
from core.messages import Heartbeat
from core.queue.client import Queue

REMEMBERED_SECONDS: Final = 1.0

log = structlog.get_logger(__name__)


class Workers:
    """Reads the heartbeats at most once in a while, however many ask.

    Args:
        queue: the broker.
        remembered: for how many seconds an answer is good.
    """

    def __init__(self, *, queue: Queue, remembered: float = REMEMBERED_SECONDS) -> None:
        self._queue = queue
        self._remembered = remembered
        self._reading = asyncio.Lock()
        self._read_at = float("-inf")
        self._beats: Sequence[Heartbeat] = ()

    async def recent(self) -> Sequence[Heartbeat]:
        """The workers as of the last second, by name.

        None while the broker does not answer, which is remembered as long: nobody waits for it twice.
        """
        async with self._reading:
            if time.monotonic() - self._read_at >= self._remembered:
                self._beats = await self._read()
                self._read_at = time.monotonic()
            return self._beats

    async def _read(self) -> Sequence[Heartbeat]:
        if not self._queue.healthy:
            return ()
        try:
            return await self._queue.workers()
        except ServiceUnavailableError as error:
            log.warning("workers_unknown", error=str(error))
            return ()
