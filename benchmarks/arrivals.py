"""When customers come, and how long they waited. Pure."""

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

DAY: Final = 86_400.0
_BUSIEST: Final = 14 * 3600.0


def poisson_arrivals(*, rate: float, count: int, seed: int) -> list[float]:
    """Seconds from the start at which ``count`` independent customers come, ``rate`` of them a second.

    The gaps of a Poisson process are exponentially distributed. The same seed gives the same moments, scaled
    by the rate.
    """
    chance = random.Random(seed)  # noqa: S311 - repeatable, not secret
    moments, at = [], 0.0
    for _ in range(count):
        at += chance.expovariate(rate)
        moments.append(at)
    return moments


def daily_arrivals(*, per_day: float, swing: float, days: float, seed: int) -> Iterator[float]:
    """Seconds from a midnight at which independent customers come, by day more of them than by night.

    Args:
        per_day: how many come in a day.
        swing: by how much their rate at two in the afternoon is above its mean, and at two at night below; as
            a share of it, 0 to 1.
        days: for how long.
        seed: the same gives the same moments.
    """
    chance = random.Random(seed)  # noqa: S311 - repeatable, not secret
    most = per_day / DAY * (1 + swing)
    at = 0.0
    while per_day:
        at += chance.expovariate(most)
        if at >= days * DAY:
            return
        # Of a Poisson process at the highest rate each is kept as often as the rate then is of that.
        rate = 1 + swing * math.cos(2 * math.pi * (at - _BUSIEST) / DAY)
        if chance.random() * (1 + swing) < rate:
            yield at


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of ``values`` that ``share`` (0 to 1) of them do not exceed: the nearest rank.

    Raises:
        ValueError: there are no values, or the share is outside its range.
    """
    if not values or not 0 < share <= 1:
        raise ValueError(f"no percentile {share} of {len(values)} values")
    return sorted(values)[math.ceil(share * len(values)) - 1]


@dataclass(frozen=True, slots=True)
class Latencies:
    """How long some customers waited, in seconds."""

    seconds: tuple[float, ...]

    @property
    def p50(self) -> float:
        """The median."""
        return percentile(self.seconds, 0.5)

    @property
    def p95(self) -> float:
        """What 95 of 100 did not exceed."""
        return percentile(self.seconds, 0.95)

    def __str__(self) -> str:
        return f"p50 {self.p50:.2f} s, worst {max(self.seconds):.2f} s, {len(self.seconds)} jobs"
