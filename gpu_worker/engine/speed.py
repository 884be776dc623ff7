"""How fast the engine is, measured while it works, the recent counting more."""

import math
from collections.abc import Sequence
from typing import Final

from core.messages import Speed

_MEMORY_SECONDS: Final = 60.0
"""Seconds of work after which a measurement counts for 1/e of a fresh one."""


class Speedometer:
    """Counts work and the time that it took, model by model. Time without work does not count."""

    def __init__(self) -> None:
        self._models: dict[str, _Tally] = {}
        self._whole = _Tally()

    @property
    def images_per_second(self) -> float:
        """Pictures a second of work; 0 before the first."""
        return self._whole.pictures / self._whole.seconds if self._whole.pictures else 0.0

    @property
    def speeds(self) -> Sequence[Speed]:
        """Of each model that has worked yet."""
        return [
            Speed(
                model=model,
                megapixel_steps_per_second=tally.megapixel_steps / tally.seconds,
                seconds_per_step=tally.seconds / tally.ticks,
            )
            for model, tally in list(self._models.items())
            if tally.seconds > 0
        ]

    def note(self, model: str, *, seconds: float, megapixels: float, finished: int) -> None:
        """Count one tick.

        Args:
            model: whose tick it was.
            seconds: from the end of the tick before, or from when there was something to do again.
            megapixels: of the pictures that took a step, together.
            finished: those whose last step it was.
        """
        for tally in (self._whole, self._models.setdefault(model, _Tally())):
            tally.add(seconds=seconds, megapixels=megapixels, finished=finished)


class _Tally:
    def __init__(self) -> None:
        self.seconds = self.megapixel_steps = self.pictures = self.ticks = 0.0

    def add(self, *, seconds: float, megapixels: float, finished: int) -> None:
        kept = math.exp(-seconds / _MEMORY_SECONDS)
        self.seconds = kept * self.seconds + seconds
        self.megapixel_steps = kept * self.megapixel_steps + megapixels
        self.pictures = kept * self.pictures + finished
        self.ticks = kept * self.ticks + 1
