"""One job that this worker holds, from its delivery until it is settled."""

import asyncio
import time
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from PIL import Image

from core.clock import now
from core.messages import Job
from core.queue import Delivery
from core.telemetry import FIRST_STEP_SECONDS
from gpu_worker.engine import Picture
from gpu_worker.timeline import Timeline

PREVIEW_SECONDS: Final = 0.5
"""The least time between two previews of a job."""


@dataclass(frozen=True, slots=True)
class News:
    """How far a job is.

    Attributes:
        step: how many steps all of its pictures have done.
        preview: a small RGB picture of one of them, where there is a new one.
    """

    step: int
    preview: Image.Image | None = None


class Assignment:
    """A job's pictures as the engine makes them; the engine's thread tells it, the event loop reads it.

    Previews are of one picture at a time, the first that has not ended: several by turns would flicker.

    Args:
        job: what to make.
        delivery: its message, not settled yet; when the job is delivered again, the newest one.
        watched: the jobs that somebody wants previews of.
        freed: called on the event loop whenever a picture has left its slot for the decoder.
        clock: seconds, never falling.
    """

    def __init__(
        self,
        job: Job,
        delivery: Delivery,
        *,
        watched: Container[UUID] = (),
        freed: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.job = job
        self.delivery = delivery
        self.timeline = Timeline()
        self.canceled = False
        self._loop = asyncio.get_running_loop()
        self._steps = [0] * job.parameters.count
        self._made: dict[int, Image.Image | Exception] = {}
        self._ended = asyncio.Event()
        self._told = 0
        self._watched = watched
        self._freed = freed
        self._clock = clock
        self._preview: Image.Image | None = None
        self._next_preview_at = clock()

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

    def news(self) -> News | None:
        """How far it is, or none when that has been told already. To be called on the event loop.

        A preview is told once, and one in ``PREVIEW_SECONDS`` at the most; the newest waits for its time.
        """
        step = min(self._steps)
        preview = self._preview if self._clock() >= self._next_preview_at else None
        if self._ended.is_set() or (step == self._told and preview is None):
            return None
        self._told = step
        if preview is not None:
            # In this order, so that the engine's thread does not find the place free and the time come.
            self._next_preview_at = self._clock() + PREVIEW_SECONDS
            self._preview = None
        return News(step, preview)

    @property
    def under_way(self) -> int:
        """How many of its pictures the engine has."""
        return 0 if self._ended.is_set() else self.pictures

    @property
    def in_slots(self) -> int:
        """How many of those have steps to do; the others are being decoded."""
        if self._ended.is_set():
            return 0
        steps = self.job.parameters.steps
        return sum(step < steps and index not in self._made for index, step in enumerate(self._steps))

    async def made(self) -> Sequence[Image.Image | Exception]:
        """Its pictures in order, each an RGB picture or why there is none, once all have ended."""
        await self._ended.wait()
        return [self._made[index] for index in sorted(self._made)]

    def cancel(self) -> None:
        """Stop waiting: nobody wants the pictures any more. To be called on the event loop."""
        self.canceled = True
        self._ended.set()

    def joined(self, picture: Picture) -> None:  # noqa: ARG002 - a listener
        """See :class:`gpu_worker.engine.Listener`."""
        self.timeline.joined()

    def stepped(self, picture: Picture, step: int) -> None:
        """See :class:`gpu_worker.engine.Listener`."""
        if not any(self._steps):
            FIRST_STEP_SECONDS.labels(tier=self.job.tier.value).observe(self.age)
        self._steps[picture.index] = step
        self.timeline.stepped()
        if step == picture.steps:
            self._loop.call_soon_threadsafe(self._freed)

    def wants_preview(self, picture: Picture) -> bool:
        """Whether a preview of ``picture`` would be told: so that none is drawn for nothing. For any thread.

        The job is watched, the picture is the one that is shown, the last preview has been told, and the next
        one's time has come.
        """
        return (
            self.id in self._watched
            and self._preview is None
            and self._clock() >= self._next_preview_at
            and picture.index == self._first_under_way()
        )

    def previewed(self, picture: Picture, image: Image.Image) -> None:
        """See :class:`gpu_worker.engine.Listener`."""
        if picture.index == self._first_under_way():
            self._preview = image

    def ended(self, picture: Picture, made: Image.Image | Exception) -> None:
        """See :class:`gpu_worker.engine.Listener`."""
        self._made[picture.index] = made
        self.timeline.ended()
        if len(self._made) == self.pictures:
            self._loop.call_soon_threadsafe(self._ended.set)

    def _first_under_way(self) -> int | None:
        return next((index for index in range(self.pictures) if index not in self._made), None)
