"""In which order a window's jobs are released: in fair rounds, each with equal shapes together. Pure.

The workers take jobs in the order of their release, and pictures of one shape share a call of the U-Net.
"""

import math
from collections import defaultdict
from collections.abc import Collection, Iterable
from datetime import datetime
from operator import attrgetter
from typing import Final, Protocol, TypeVar
from uuid import UUID

_ROUND_SHARE: Final = 1 / 20
"""A round as a part of what each customer with a backlog has had in mid-window.

By a tenth they may differ there: the other half of it is for what the workers hold, and finish in an order of
their own.
"""


class Waiting(Protocol):
    """What ordering looks at; see :class:`core.models.Generation`. Sizes in pixels."""

    @property
    def id(self) -> UUID:
        """Its own."""

    @property
    def account_id(self) -> UUID:
        """Whose it is."""

    @property
    def model(self) -> str:
        """What makes it."""

    @property
    def width(self) -> int:
        """Of each picture."""

    @property
    def height(self) -> int:
        """Of each picture."""

    @property
    def created_at(self) -> datetime:
        """When it was accepted."""


_Job = TypeVar("_Job", bound=Waiting)
_Shape = tuple[str, int, int]


def release_order(waiting: Iterable[_Job]) -> list[_Job]:
    """The jobs in rounds, each with as many of every customer's as :func:`round_size` says, the oldest first.

    Within a round equal shapes lie together, and the shapes of a model. The next round has them the other
    way round, so that it begins with the shape that the one before ended with. Within a shape customers take
    turns. What only one customer has left is one round: nobody waits for it.
    """
    lines: defaultdict[UUID, list[_Job]] = defaultdict(list)
    ranks = _Ranks()
    for job in sorted(waiting, key=attrgetter("created_at", "id")):
        lines[job.account_id].append(job)
        ranks.add(job)
    backlogs = sorted(len(line) for line in lines.values())
    size = round_size(backlogs)
    contested = backlogs[-2] if len(backlogs) > 1 else 0

    def place(turn: int, job: _Job) -> tuple[object, ...]:
        number = turn // size if turn < contested else math.ceil(contested / size)
        model, shape = ranks.of(job)
        way = -1 if number % 2 else 1
        return number, way * model, way * shape, turn, job.created_at, job.id

    placed = [(place(turn, job), job) for line in lines.values() for turn, job in enumerate(line)]
    placed.sort(key=lambda one: one[0])
    return [job for _, job in placed]


def round_size(backlogs: Collection[int]) -> int:
    """How many jobs of each customer make a round, at least one, for customers with so many jobs.

    A customer with many jobs is at no moment further ahead than that of one with others waiting.
    """
    return max(1, int(_mid_window_share(backlogs) * _ROUND_SHARE))


def _mid_window_share(backlogs: Collection[int]) -> float:
    """How many jobs each customer that has more still waiting has had once half of all are done."""
    left, share = sum(backlogs) / 2, 0.0
    for place, jobs in enumerate(sorted(backlogs)):
        customers = len(backlogs) - place
        if (jobs - share) * customers >= left:
            return share + left / customers
        left -= (jobs - share) * customers
        share = jobs
    return share


class _Ranks:
    """Models and shapes numbered as they come: those of the oldest job first."""

    def __init__(self) -> None:
        self._models: dict[str, int] = {}
        self._shapes: dict[_Shape, int] = {}

    def add(self, job: Waiting) -> None:
        self._models.setdefault(job.model, len(self._models))
        self._shapes.setdefault(_shape(job), len(self._shapes))

    def of(self, job: Waiting) -> tuple[int, int]:
        return self._models[job.model], self._shapes[_shape(job)]


def _shape(job: Waiting) -> _Shape:
    """What jobs must have in common to be denoised in one call: not steps, guidance or sampler."""
    return job.model, job.width, job.height
