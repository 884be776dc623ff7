"""One job that this worker holds, from its delivery until it is settled."""

import asyncio
from collections.abc import Sequence
from uuid import UUID

from PIL import Image

from core.clock import now
from core.messages import Job
from core.queue import Delivery
from core.telemetry import FIRST_STEP_SECONDS
from gpu_worker.engine import Picture


class Assignment:
    """A job's pictures as the engine makes them; the engine's thread tells it, the event loop reads it.

    Args:
        job: what to make.
        delivery: its message, not settled yet.
    """

    def __init__(self, job: Job, delivery: Delivery) -> None:
        self.job = job
        self.delivery = delivery
        self.canceled = False
        self._loop = asyncio.get_running_loop()
        self._steps = [0] * job.parameters.count
        self._made: dict[int, Image.Image | Exception] = {}
        self._ended = asyncio.Event()
        self._told = 0

    @property
    def id(self) -> UUID:
        """The job's id."""
        return self.job.id

    @property
    def age(self) -> float:
        """Seconds since it was accepted."""
        return (now() - self.job.accepted_at).total_seconds()

    @property
    def pictures(self) -> int:
        """How many it asks for."""
        return self.job.parameters.count

    def news(self) -> int | None:
        """How many steps all of its pictures have done, or none when that has been told already."""
        step = min(self._steps)
        if step == self._told or self._ended.is_set():
            return None
        self._told = step
        return step

    async def made(self) -> Sequence[Image.Image | Exception]:
        """Its pictures in order, each an RGB picture or why there is none, once all have ended."""
        await self._ended.wait()
        return [self._made[index] for index in sorted(self._made)]

    def cancel(self) -> None:
        """Stop waiting: nobody wants the pictures any more. To be called on the event loop."""
        self.canceled = True
        self._ended.set()

    def stepped(self, picture: Picture, step: int) -> None:
        """See :class:`gpu_worker.engine.Listener`."""
        if not any(self._steps):
            FIRST_STEP_SECONDS.labels(tier=self.job.tier.value).observe(self.age)
        self._steps[picture.index] = step

    def ended(self, picture: Picture, made: Image.Image | Exception) -> None:
        """See :class:`gpu_worker.engine.Listener`."""
        self._made[picture.index] = made
        if len(self._made) == self.pictures:
            self._loop.call_soon_threadsafe(self._ended.set)
