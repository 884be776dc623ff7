"""The jobs that a worker holds: pulled premium first, grouped so that equal shapes are made together."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import structlog

from core.errors import InvalidMessageError
from core.lifecycle import Tier
from core.messages import Job
from core.queue import Consumer, Delivery
from gpu_worker.engine import Shape, shape_of

IDLE_WAIT: Final = 0.5
"""Seconds that an idle worker waits for a premium job before it looks for batch jobs."""

_GLANCE = 0.02

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """A job that was handed to this worker and is not settled yet."""

    job: Job
    delivery: Delivery

    @property
    def id(self) -> UUID:
        """The job's id."""
        return self.job.id

    @property
    def shape(self) -> Shape:
        """What it must share with others to be made together."""
        return shape_of(self.job.parameters)


def choose_batch(held: Sequence[Held], *, slots: int) -> list[Held]:
    """The jobs to make in the next pipeline call. Pure.

    Premium before batch, then in order of arrival; the first job's shape decides. At least one job, even one
    of more pictures than there are slots; beyond that as many as fit.
    """
    waiting = sorted(held, key=lambda one: one.job.tier is not Tier.PREMIUM)
    batch: list[Held] = []
    pictures = 0
    for one in waiting:
        fits = pictures + one.job.parameters.count <= slots
        if not batch or (one.shape == batch[0].shape and fits):
            batch.append(one)
            pictures += one.job.parameters.count
    return batch


class Intake:
    """Pulls jobs from both lanes, never more than the worker has slots for."""

    def __init__(
        self,
        *,
        premium: Consumer,
        batch: Consumer,
        slots: int,
        refuse: Callable[[Delivery], Awaitable[None]],
    ) -> None:
        self._premium = premium
        self._batch = batch
        self._slots = slots
        self._refuse = refuse
        self.held: list[Held] = []

    async def refill(self) -> None:
        """Pull jobs into the slots left over: premium first, then batch."""
        await self._pull(self._premium, wait=_GLANCE if self.held else IDLE_WAIT)
        await self._pull(self._batch, wait=_GLANCE)

    def release(self, one: Held) -> None:
        """Forget a job that is settled."""
        self.held.remove(one)

    async def _pull(self, consumer: Consumer, *, wait: float) -> None:
        room = self._slots - sum(one.job.parameters.count for one in self.held)
        if room <= 0:
            return
        for delivery in await consumer.fetch(room, wait=wait):
            try:
                job = Job.decode(delivery.data)
            except InvalidMessageError:
                log.exception("job_unreadable", subject=delivery.subject)
                await self._refuse(delivery)
            else:
                self.held.append(Held(job=job, delivery=delivery))
