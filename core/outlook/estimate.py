"""The estimates: from the work ahead of a generation and what the workers do in a second. Pure.

Work is counted in megapixel-steps: millions of pixels times steps, summed over pictures. Nothing is estimated
from a rate that nobody has measured: where one is missing, the answer is none.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Final, Self

from core.lifecycle import Tier
from core.messages import Heartbeat
from core.repository.generations import Stretch

RUNNING_SHARE: Final = 0.5
"""How much of the running work ahead is still to be done: on average half, as nobody asks how far it is."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """Where an open generation stands: its place from 1, while it waits, and when it should be finished.

    Empty for one that has ended.
    """

    queue_position: int | None = None
    estimated_finish_at: datetime | None = None

    def not_before(self, moment: datetime) -> "Outlook":
        """The same some time later: what should be finished by then is due at once."""
        if self.estimated_finish_at is None or self.estimated_finish_at >= moment:
            return self
        return Outlook(self.queue_position, moment)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What one generation asks of the workers; ``steps`` is how many each of its pictures takes."""

    tier: Tier
    model: str
    steps: int
    megapixel_steps: float


def megapixel_steps(*, width: int, height: int, steps: int, count: int) -> float:
    """The work of ``count`` pictures; sizes in pixels."""
    return width * height / 1e6 * steps * count


@dataclass(frozen=True, slots=True, kw_only=True)
class Ahead:
    """What stands before a waiting generation.

    Attributes:
        jobs: how many generations wait before it.
        released: megapixel-steps by model that the workers have or may take already.
        waiting: megapixel-steps by model that wait for the same window.
    """

    jobs: int = 0
    released: Mapping[str, float] = field(default_factory=dict)
    waiting: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of_each(cls, stretches: Iterable[Stretch], *, tier: Tier, released: bool, places: int) -> list[Self]:
        """What is ahead of each of some generations, in the order of their acceptance.

        Args:
            stretches: the open generations.
            tier: their tier.
            released: whether the workers may take them; then what waits for a window is not ahead of them.
            places: how many moments the stretches were asked for: when each of them was accepted.
        """
        seen = [one for one in stretches if one.tier is tier and (one.released or not released)]
        seen.sort(key=attrgetter("after"), reverse=True)
        found: list[Self] = []
        jobs = 0
        work: dict[bool, dict[str, float]] = {True: defaultdict(float), False: defaultdict(float)}
        for place in range(places):
            while seen and seen[-1].after <= place:
                stretch = seen.pop()
                jobs += 0 if stretch.running else stretch.jobs
                share = RUNNING_SHARE if stretch.running else 1.0
                work[stretch.released][stretch.model] += share * stretch.megapixel_steps
            found.append(cls(jobs=jobs, released=dict(work[True]), waiting=dict(work[False])))
        return found


def finish_of_waiting(
    task: Task, ahead: Ahead, *, opens_at: datetime, workers: Sequence[Heartbeat], now: datetime
) -> datetime | None:
    """When a queued generation should be finished, ``now`` or later, or none while no rate is known.

    The work ahead and its own are done at the workers' joint rate, but no picture is quicker than its own
    steps one after another.

    Args:
        task: the generation.
        ahead: what stands before it.
        opens_at: when its window opens; ``now`` where the workers may take it already.
        workers: every worker.
        now: the present moment.
    """
    pace = _pace(task, workers)
    if pace is None:
        return None
    released, waiting = pace.seconds(ahead.released), pace.seconds(ahead.waiting)
    if released is None or waiting is None:
        return None
    begins_at = max(opens_at, now + timedelta(seconds=released)) + timedelta(seconds=waiting)
    by_work = begins_at + timedelta(seconds=task.megapixel_steps / pace.rates[task.model])
    by_steps = opens_at + timedelta(seconds=task.steps * pace.seconds_per_step)
    return max(by_work, by_steps)


def finish_of_running(
    task: Task, *, step: int, started_at: datetime, workers: Sequence[Heartbeat], now: datetime
) -> datetime | None:
    """When a running generation should be finished, ``now`` or later, or none while no rate is known.

    From its own pace once a step is done, from the workers' speeds otherwise.

    Args:
        task: the generation.
        step: how many steps are done, 0 where that is unknown.
        started_at: when a worker began.
        workers: every worker.
        now: the present moment.
    """
    if step:
        return max(now, now + (now - started_at) / step * (task.steps - step))
    finish_at = finish_of_waiting(task, Ahead(), opens_at=started_at, workers=workers, now=started_at)
    return max(now, finish_at) if finish_at else None


@dataclass(frozen=True, slots=True)
class _Pace:
    """What the workers do for the generations of one tier and model.

    Attributes:
        rates: megapixel-steps per second by model, 0 where nobody has measured it. Only of the models that
            share a worker with that one: others keep it waiting for nothing.
        seconds_per_step: of the fastest worker.
    """

    rates: Mapping[str, float]
    seconds_per_step: float

    def seconds(self, work: Mapping[str, float]) -> float | None:
        """How long the work keeps them, or none where a rate is missing for it."""
        in_the_way = {model: amount for model, amount in work.items() if model in self.rates}
        if not all(self.rates[model] for model in in_the_way):
            return None
        return sum(amount / self.rates[model] for model, amount in in_the_way.items())


def _pace(task: Task, workers: Sequence[Heartbeat]) -> _Pace | None:
    """What the workers do for the task, or none when nobody has measured its model."""
    taking = [worker for worker in workers if task.tier in worker.tiers]
    able = [worker for worker in taking if task.model in worker.models]
    own = [speed for worker in able for speed in worker.speeds if speed.model == task.model]
    if not own:
        return None
    rates = {model: 0.0 for worker in able for model in worker.models}
    for speed in (speed for worker in taking for speed in worker.speeds if speed.model in rates):
        rates[speed.model] += speed.megapixel_steps_per_second
    return _Pace(rates, min(speed.seconds_per_step for speed in own))
