"""The worker's sign of life: that it is there, what it can do, and which jobs it holds."""

import asyncio
from collections.abc import Callable, Collection
from typing import Final

import structlog

from core.clock import now
from core.errors import ServiceUnavailableError
from core.messages import Heartbeat
from core.queue import Queue
from gpu_worker.assignment import Assignment
from gpu_worker.engine import Engine
from gpu_worker.settings import WorkerSettings

_BEAT_SECONDS: Final = 3.0

log = structlog.get_logger(__name__)


class Presence:
    """Gives heartbeats.

    Args:
        settings: as whom.
        queue: the broker.
        engine: with what.
        device: on what.
        held: the jobs that it holds at the moment.
    """

    def __init__(
        self,
        *,
        settings: WorkerSettings,
        queue: Queue,
        engine: Engine,
        device: str,
        held: Callable[[], Collection[Assignment]],
    ) -> None:
        self._settings = settings
        self._queue = queue
        self._engine = engine
        self._device = device
        self._held = held
        self._started_at = now()

    async def beat(self) -> None:
        """Give a sign of life every three seconds, for as long as the task runs."""
        while True:
            try:
                await self._queue.put_heartbeat(self._heartbeat())
            except ServiceUnavailableError as error:
                log.warning("heartbeat_lost", error=str(error))
            await asyncio.sleep(_BEAT_SECONDS)

    async def leave(self) -> None:
        """Take the last one back."""
        try:
            await self._queue.remove_heartbeat(self._settings.worker_name)
        except ServiceUnavailableError as error:
            # It expires by itself.
            log.warning("heartbeat_left_behind", error=str(error))

    def _heartbeat(self) -> Heartbeat:
        held = self._held()
        return Heartbeat(
            worker=self._settings.worker_name,
            models=self._engine.models,
            device=self._device,
            slots=self._settings.worker_slots,
            busy=min(self._settings.worker_slots, sum(one.pictures for one in held)),
            images_per_second=round(self._engine.images_per_second, 3),
            speeds=tuple(self._engine.speeds),
            tiers=self._settings.worker_tiers,
            jobs=tuple(one.id for one in held),
            started_at=self._started_at,
            beat_at=now(),
        )
