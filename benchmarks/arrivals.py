"""When customers come, and how long they waited. Pure."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass


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
