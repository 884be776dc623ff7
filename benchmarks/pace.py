"""How fast a worker is, as a model of the service has it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """What was measured of one worker, for pictures that are all alike.

    Attributes:
        ticks: seconds of one step, by how many pictures take it together.
        steps: of a picture.
        slots: pictures that can take a step together.
        aside: seconds for which embedding and decoding one picture keep the device from ticks.
        before: seconds from acceptance until a job is with an idle worker, ready for its first step.
        after: seconds from a picture's decoding to its recorded end.
    """

    ticks: Mapping[int, float]
    steps: int
    slots: int
    aside: float = 0.0
    before: float = 0.0
    after: float = 0.0

    def tick(self, pictures: int) -> float:
        """Seconds of one step of so many pictures; between measured sizes on a straight line."""
        if pictures in self.ticks:
            return self.ticks[pictures]
        sizes = sorted(self.ticks)
        above = next((size for size in sizes if size > pictures), sizes[-1])
        below = max((size for size in sizes if size < pictures), default=0)
        if above < pictures:
            return self.ticks[above] * pictures / above
        low = self.ticks.get(below, 0.0)
        return low + (self.ticks[above] - low) * (pictures - below) / (above - below)

    def times(self, factor: float) -> Self:
        """The same worker on a machine that is slower by a factor."""
        return replace(
            self,
            ticks={size: factor * tick for size, tick in self.ticks.items()},
            aside=factor * self.aside,
            before=factor * self.before,
            after=factor * self.after,
        )

    @property
    def pictures_per_second(self) -> float:
        """Of a worker that is never short of work."""
        return self.slots / (self.steps * self.tick(self.slots) + self.slots * self.aside)
