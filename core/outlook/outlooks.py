"""Looks up what the estimates are made from: the queue, the window's clock and the workers."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from core.clock import now
from core.lifecycle import GenerationState, Tier
from core.messages import Heartbeat
from core.models import Generation
from core.outlook.estimate import Ahead, Outlook, Task, finish_of_running, finish_of_waiting, megapixel_steps
from core.queue import Workers
from core.repository import generations, windows


class Outlooks:
    """Says where generations stand, and when they should be finished.

    Args:
        workers: who makes the pictures, and how fast.
    """

    def __init__(self, *, workers: Workers) -> None:
        self._workers = workers

    async def of(self, rows: Sequence[Generation]) -> list[Outlook]:
        """The outlooks of generations, in their order; the queue is asked once, however many they are."""
        queued = [row for row in rows if row.state is GenerationState.QUEUED]
        ahead = await _ahead(queued) if queued else {}
        opens_at = None if all(_released(row) for row in queued) else await next_window_at()
        workers = () if all(row.state.terminal for row in rows) else await self._workers.recent()
        moment = now()

        def look(row: Generation) -> Outlook:
            if row.state is not GenerationState.QUEUED:
                return _begun(row, step=0, workers=workers, moment=moment)
            opens = moment if _released(row) else opens_at
            return _queued(row, ahead[row.id], opens_at=opens, workers=workers, moment=moment)

        return [look(row) for row in rows]

    def at_step(self, row: Generation, step: int) -> Outlook:
        """The outlook of a running generation of which ``step`` steps are done, at least one."""
        return _begun(row, step=step, workers=(), moment=now())


async def next_window_at() -> datetime | None:
    """When the next batch window opens, or none before a batcher ever ran."""
    clock = await windows.clock()
    if clock is None:
        return None
    # A beat that is due but not yet noted would read as a time in the past.
    return max(clock.next_at, now() + timedelta(seconds=1))


async def released_work() -> Mapping[str, float]:
    """The megapixel-steps of the normal tier, by model, that the workers have or may take at this moment."""
    stretches = await generations.stretches([now()], tiers=[Tier.NORMAL])
    [ahead] = Ahead.of_each(stretches, tier=Tier.NORMAL, released=True, places=1)
    return ahead.released


async def _ahead(queued: Sequence[Generation]) -> dict[UUID, Ahead]:
    """What stands before each of these, counted once for all."""
    moments = sorted({row.created_at for row in queued})
    places = {moment: place for place, moment in enumerate(moments)}
    stretches = await generations.stretches(moments, tiers={row.tier for row in queued})
    found: dict[tuple[Tier, bool], list[Ahead]] = {}
    for row in queued:
        kind = row.tier, _released(row)
        if kind not in found:
            found[kind] = Ahead.of_each(stretches, tier=kind[0], released=kind[1], places=len(moments))
    return {row.id: found[row.tier, _released(row)][places[row.created_at]] for row in queued}


def _queued(
    row: Generation,
    ahead: Ahead,
    *,
    opens_at: datetime | None,
    workers: Sequence[Heartbeat],
    moment: datetime,
) -> Outlook:
    finish_at = opens_at and finish_of_waiting(
        task_of(row), ahead, opens_at=opens_at, workers=workers, now=moment
    )
    return Outlook(queue_position=1 + ahead.jobs, estimated_finish_at=finish_at)


def _begun(row: Generation, *, step: int, workers: Sequence[Heartbeat], moment: datetime) -> Outlook:
    if row.state.terminal or row.started_at is None:
        return Outlook()
    return Outlook(
        estimated_finish_at=finish_of_running(
            task_of(row), step=step, started_at=row.started_at, workers=workers, now=moment
        )
    )


def _released(row: Generation) -> bool:
    """Whether the workers may take it: premium at once, the others when they are in a window."""
    return row.tier is Tier.PREMIUM or row.window_id is not None


def task_of(row: Generation) -> Task:
    """What a generation asks of the workers."""
    work = megapixel_steps(width=row.width, height=row.height, steps=row.steps, count=row.count)
    return Task(tier=row.tier, model=row.model, steps=row.steps, megapixel_steps=work)
