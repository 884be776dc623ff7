"""Which jobs somebody is watching with previews, as far as a worker has heard."""

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final
from uuid import UUID

LEASE_SECONDS: Final = 15.0
"""Three times what a watcher takes between two requests: one or two may be lost."""
MOST: Final = 10_000


class Watched:
    """Jobs for which previews were asked for within the last seconds.

    Requests reach every worker, and may come before the job does: so each is kept until its lease ends,
    whoever runs the job. ``note`` is for one thread, ``in`` for any.

    Args:
        clock: seconds, never falling.
        most: how many jobs are kept; beyond that the one that was asked for longest ago goes.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, most: int = MOST) -> None:
        self._clock = clock
        self._most = most
        self._until: OrderedDict[UUID, float] = OrderedDict()
        """Ends of leases, the earliest first: all leases are equally long."""

    def note(self, job: UUID) -> None:
        """Somebody asks for previews of ``job``: from now on for ``LEASE_SECONDS``."""
        now = self._clock()
        self._until[job] = now + LEASE_SECONDS
        self._until.move_to_end(job)
        while len(self._until) > self._most or next(iter(self._until.values())) <= now:
            self._until.popitem(last=False)

    def __contains__(self, job: object) -> bool:
        """Whether somebody watches ``job``."""
        return isinstance(job, UUID) and self._until.get(job, 0.0) > self._clock()
