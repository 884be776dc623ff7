"""Tells operators what waits where: on the broker, in the database, and who is there to work on it."""

import asyncio
from typing import Final

import structlog

from core.clock import now, pause
from core.errors import DarkroomError
from core.lifecycle import OPEN_STATES, Tier
from core.queue import Queue
from core.queue.topology import CONSUMERS
from core.repository import generations, windows
from core.telemetry import (
    CONSUMER_UNANSWERED,
    CONSUMER_WAITING,
    GENERATIONS_OPEN,
    JOBS_UNPUBLISHED,
    STREAM_MESSAGES,
    SURVEYED_AT,
    WINDOW_OPEN_SECONDS,
    WORKER_SLOTS,
    WORKERS_ALIVE,
)

PAUSE: Final = 5.0
"""Seconds between two looks."""

log = structlog.get_logger(__name__)


class Survey:
    """Sets the gauges that are of the whole service and of no one process.

    Every replica sees the same, so that dashboards take the greatest. What could not be looked at stays as it
    was, and the moment of the last whole look says how old that is.
    """

    def __init__(self, *, queue: Queue) -> None:
        self._queue = queue

    async def run(self, *, stop: asyncio.Event) -> None:
        """Look every few seconds until ``stop`` is set."""
        while not stop.is_set():
            try:
                await self.look()
            except DarkroomError as error:
                log.warning("survey_postponed", error=repr(error))
            await pause(stop, seconds=PAUSE)

    async def look(self) -> None:
        """Look once.

        Raises:
            ServiceUnavailableError: database or broker do not answer.
        """
        await self._look_at_streams()
        await self._look_at_workers()
        await self._look_at_rows()
        SURVEYED_AT.set(now().timestamp())

    async def _look_at_streams(self) -> None:
        for stream in dict.fromkeys(spec.stream for spec in CONSUMERS):
            STREAM_MESSAGES.labels(stream=stream).set(await self._queue.held_by(stream))
        for spec in CONSUMERS:
            standing = await self._queue.standing(spec)
            labels = {"stream": spec.stream, "consumer": spec.name}
            CONSUMER_WAITING.labels(**labels).set(standing.waiting)
            CONSUMER_UNANSWERED.labels(**labels).set(standing.unanswered)

    async def _look_at_workers(self) -> None:
        beats = await self._queue.workers()
        for tier in Tier:
            WORKERS_ALIVE.labels(tier=tier.value).set(sum(tier in beat.tiers for beat in beats))
        busy = sum(beat.busy for beat in beats)
        WORKER_SLOTS.labels(state="busy").set(busy)
        WORKER_SLOTS.labels(state="free").set(sum(beat.slots for beat in beats) - busy)

    async def _look_at_rows(self) -> None:
        counted = await generations.count_unfinished()
        for tier in Tier:
            for state in OPEN_STATES:
                GENERATIONS_OPEN.labels(tier=tier.value, state=state.value).set(counted[tier, state])
        JOBS_UNPUBLISHED.set(await generations.count_unpublished())
        oldest = await windows.oldest_unfinished()
        WINDOW_OPEN_SECONDS.set((now() - oldest).total_seconds() if oldest else 0)
