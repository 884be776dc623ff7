"""Jobs in a model of the service, and what became of them."""

import math
from dataclasses import dataclass, field
from enum import StrEnum


class Lane(StrEnum):
    """Whose jobs."""

    PREMIUM = "premium"
    BATCH = "batch"


@dataclass(slots=True, eq=False)
class Job:
    """One picture, and what became of it; times are moments of the simulation."""

    lane: Lane
    accepted: float
    left: int
    began: float = math.nan
    ended: float = math.nan


@dataclass(slots=True)
class Outcome:
    """What came of a run.

    Attributes:
        jobs: all that were accepted, in order of acceptance.
        windows: how long each window with jobs took.
        worker_seconds: by lane of the pool, starting included.
        most_workers: at one time, by lane of the pool.
        losses: workers that were taken away.
        busy: seconds for which workers took steps, and embedded and decoded between them.
    """

    jobs: list[Job] = field(default_factory=list)
    windows: list[float] = field(default_factory=list)
    worker_seconds: dict[Lane, float] = field(default_factory=lambda: dict.fromkeys(Lane, 0.0))
    most_workers: dict[Lane, int] = field(default_factory=lambda: dict.fromkeys(Lane, 0))
    losses: int = 0
    busy: float = 0.0

    def starts(self, lane: Lane) -> list[float]:
        """Seconds from acceptance to the end of the first step."""
        return [job.began - job.accepted for job in self.jobs if job.lane is lane]

    def latencies(self, lane: Lane) -> list[float]:
        """Seconds from acceptance to the recorded end."""
        return [job.ended - job.accepted for job in self.jobs if job.lane is lane]
