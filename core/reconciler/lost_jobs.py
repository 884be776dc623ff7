"""Compares what the database says is on its way with what the broker holds, and brings back what is lost."""

import asyncio
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import structlog

from core.clock import now, pause
from core.errors import ConfigurationError, DarkroomError
from core.lifecycle import GenerationState, Tier
from core.models import Generation
from core.outbox import lane_of, publish
from core.queue import Lane, Queue, topology
from core.reconciler.dead_letters import DeadLetters
from core.repository import jobs
from core.repository.database import in_transaction
from core.repository.generations import Position
from core.settings import ReconcilerSettings
from core.telemetry import JOBS_LOST, JOBS_UNATTENDED

BATCH: Final = 200
"""Jobs that are looked for at a time."""

MOST_LOSSES: Final = 10
"""How often a job is brought back: one that is lost each time is so by its own fault."""

_TOGETHER: Final = 32
_SHORT_PAUSE: Final = 1.0
_LOST: Final = "The pictures could not be made; our side is at fault. Please ask for them again."
_RESULTS: Final = {Tier.PREMIUM: topology.PREMIUM_RESULTS, Tier.NORMAL: topology.NORMAL_RESULTS}
_BOUNDED: Final = {Lane.PREMIUM: topology.PREMIUM_JOBS, Lane.BATCH: topology.BATCH_JOBS}

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Suspect:
    """A job that no lane holds and no worker has.

    Attributes:
        missed_in: the lane that ought to hold it.
        published_at: when it was put there last: where it is later meanwhile, another has brought it back.
        told_until: the newest result at that moment: its own may be among those up to it.
    """

    missed_in: Lane
    published_at: datetime | None
    told_until: int


class LostJobs:
    """Brings back open jobs that the broker should hold and does not.

    A job is lost when no lane holds it, no worker's sign of life names it, and every result that there was
    then is recorded: a worker reports before it acknowledges, so that one which has just finished is never
    taken for lost. A job that a lane holds and will not deliver any more is failed, should no advisory have
    told of it.

    Any number of replicas may run; each loss is made up for and counted by one of them.
    """

    def __init__(self, *, queue: Queue, dead_letters: DeadLetters, settings: ReconcilerSettings) -> None:
        self._queue = queue
        self._dead_letters = dead_letters
        self._pause = settings.reconcile_seconds
        self._age = timedelta(seconds=settings.reconcile_age_seconds)
        self._suspects: dict[UUID, _Suspect] = {}
        self._after: Position | None = None
        self._unattended = 0

    async def run(self, *, stop: asyncio.Event) -> None:
        """Look again and again until ``stop`` is set, streams and the window's clock included."""
        while not stop.is_set():
            more = False
            try:
                if self._after is None:
                    await self._restore()
                more = await self.look()
            except DarkroomError as error:
                log.warning("reconciliation_postponed", error=repr(error))
            await pause(stop, seconds=_SHORT_PAUSE if more else self._pause)

    async def _restore(self) -> None:
        try:
            await self._queue.restore()
        except ConfigurationError as error:
            # A person has to act, and the jobs are looked for all the same.
            log.error("streams_differ", error=str(error))  # noqa: TRY400 - says all there is to say

    async def look(self) -> bool:
        """Settle what was missed before, and look for the next jobs; returns whether there are more.

        Raises:
            ServiceUnavailableError: database or broker do not answer; what is left comes next time.
        """
        held = frozenset(job_id for beat in await self._queue.workers() for job_id in beat.jobs)
        await self._settle_suspects(held)
        found = await jobs.published(before=now() - self._age, after=self._after, limit=BATCH)
        await self._examine(found, held)
        more = len(found) == BATCH
        if not more:
            JOBS_UNATTENDED.set(self._unattended)
            self._unattended = 0
        self._after = Position(found[-1].created_at, found[-1].id) if more else None
        return more

    async def _examine(self, found: list[Generation], held: Collection[UUID]) -> None:
        unheld = [generation for generation in found if generation.id not in held]
        self._unattended += sum(generation.state is GenerationState.RUNNING for generation in unheld)
        if not unheld:
            return
        # Before the lanes are looked at: what comes into them meanwhile is behind it.
        standings = {lane: await self._queue.standing(spec) for lane, spec in _BOUNDED.items()}
        places = await self._places((generation.id, lane_of(generation)) for generation in unheld)
        told_until = await self._queue.last_stored(topology.RESULTS)
        for generation in unheld:
            lane, place = lane_of(generation), places[generation.id]
            if place is None:
                suspect = _Suspect(
                    missed_in=lane, published_at=generation.published_at, told_until=told_until
                )
                self._suspects.setdefault(generation.id, suspect)
            elif lane in standings and standings[lane].gave_up(place):
                await self._dead_letters.exhausted(generation.id, lane, deliveries=topology.MAX_DELIVER)

    async def _settle_suspects(self, held: Collection[UUID]) -> None:
        suspects, self._suspects = self._suspects, {}
        if not suspects:
            return
        recorded = {tier: await self._queue.standing(spec) for tier, spec in _RESULTS.items()}
        places = await self._places((job_id, suspect.missed_in) for job_id, suspect in suspects.items())
        hopeless: list[Generation] = []
        async with in_transaction():
            rows = await jobs.lock_published(
                [job_id for job_id, place in places.items() if place is None and job_id not in held]
            )
            deadlines = await jobs.deadlines({row.window_id for row in rows if row.window_id is not None})
            for row in rows:
                suspect = suspects[row.id]
                if lane_of(row) is not suspect.missed_in or row.published_at != suspect.published_at:
                    continue
                if not recorded[row.tier].is_past(suspect.told_until):
                    self._suspects[row.id] = suspect
                elif row.losses >= MOST_LOSSES:
                    hopeless.append(row)
                else:
                    deadline = deadlines.get(row.window_id) if row.window_id is not None else None
                    await publish(self._queue, suspect.missed_in, row, deadline=deadline)
                    await jobs.note_loss(row.id, at=now())
                    JOBS_LOST.labels(lane=suspect.missed_in.value).inc()
                    log.warning("job_lost", generation=str(row.id), lane=suspect.missed_in, state=row.state)
        for row in hopeless:
            lane = suspects[row.id].missed_in
            cause = f"the broker's {lane} had lost the job {row.losses} times"
            await self._dead_letters.bury(row.id, lane, why="lost", error=_LOST, cause=cause)

    async def _places(self, looked_for: Iterable[tuple[UUID, Lane]]) -> dict[UUID, int | None]:
        """Where the lanes hold jobs, if they do."""
        remaining = list(looked_for)
        places: dict[UUID, int | None] = {}
        for start in range(0, len(remaining), _TOGETHER):
            part = remaining[start : start + _TOGETHER]
            found = await asyncio.gather(*(self._queue.position_of(lane, job_id) for job_id, lane in part))
            places |= {job_id: place for (job_id, _), place in zip(part, found, strict=True)}
        return places
