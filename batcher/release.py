"""Beats of the broker's clock become windows, and windows become jobs for the workers."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime, timedelta
from uuid import UUID

import structlog

from batcher.capacity import fitting
from batcher.clock import Clock
from batcher.order import release_order
from core import tracing
from core.clock import now
from core.errors import InvalidMessageError, ServiceUnavailableError
from core.failpoints import Failpoint, reach
from core.messages import Job
from core.models import Generation, Window, WindowState
from core.outbox import JobOutbox, publish
from core.outlook import released_work
from core.queue import Delivery, Lane, Queue, Workers, signs_of_life, topology
from core.recording import window_finished
from core.repository import windows
from core.repository.database import in_transaction
from core.settings import WindowSettings
from core.telemetry import WINDOW_JOBS, WINDOW_PUT_OFF

_IN_FLIGHT = 256
"""Messages fetched, published or settled at a time."""

_TICK_WAIT = 0.5
_FETCH_WAIT = 0.5
_EMPTY_FETCHES = 2
"""Fetches that may come back empty although jobs wait: the first declares a lost consumer again."""

_SIGNS_OF_LIFE = 4
"""For what is held, within the wait of the more impatient of the two consumers."""

_RETRY_SECONDS = 2.0

log = structlog.get_logger(__name__)


class Releaser:
    """Opens a window on every beat and hands its jobs to the workers; any number of replicas may run.

    What a window holds is decided in one transaction. Whatever dies after it, the same beat delivered again,
    or the next one, goes on from the database.
    """

    def __init__(self, *, queue: Queue, settings: WindowSettings) -> None:
        """Make a releaser.

        Raises:
            ConfigurationError: the schedule is not one that the broker could keep.
        """
        self._queue = queue
        self._clock = Clock(queue=queue, settings=settings)
        self._outbox = JobOutbox(queue=queue)
        self._workers = Workers(queue=queue)
        self._allowed = timedelta(minutes=settings.window_deadline_minutes)
        self._ticks = queue.consumer(topology.TICKS)
        self._jobs = queue.consumer(topology.NORMAL_JOBS)

    async def run(self, *, stop: asyncio.Event) -> None:
        """Start the clock and follow it until ``stop`` is set; a window under way is finished first."""
        await self._clock.start(stop=stop)
        while not stop.is_set():
            for tick in await self._ticks.fetch(1, wait=_TICK_WAIT):
                with tracing.span("window tick", kind=tracing.Kind.CONSUMER):
                    await self._settle(tick)
            await self._clock.look()

    async def _settle(self, tick: Delivery) -> None:
        jobs: dict[UUID, Delivery] = {}
        with structlog.contextvars.bound_contextvars(tick=tick.stored_at.isoformat()):
            try:
                every = self._queue.ack_wait(topology.NORMAL_JOBS) / _SIGNS_OF_LIFE
                async with signs_of_life(lambda: [tick, *jobs.values()], every=every):
                    await self._follow(tick, jobs)
                if jobs:
                    reach(Failpoint.WINDOW_BEFORE_SETTLE)
                await _settle_jobs(jobs)
            except ServiceUnavailableError as error:
                log.warning("window_postponed", error=repr(error))
                # The jobs first, so that they are there again when the beat is.
                await _for_each(jobs.values(), lambda job: job.nak(delay=0))
                await tick.nak(delay=_RETRY_SECONDS)
            else:
                await tick.ack()

    async def _follow(self, tick: Delivery, jobs: dict[UUID, Delivery]) -> None:
        await self._clock.note(tick)
        await self._collect(jobs)
        if jobs:
            reach(Failpoint.WINDOW_BEFORE_OPEN)
            await self._open(tick, list(jobs))
            reach(Failpoint.WINDOW_AFTER_OPEN)
        # Not this beat's window alone: one that a crash left behind may have lost its beat to a later one.
        for window in await windows.releasing():
            await self._release(window)

    async def _collect(self, jobs: dict[UUID, Delivery]) -> None:
        """Take the jobs that wait at this moment, and no later ones, or a busy queue would never end."""
        waiting = await self._queue.depth(Lane.NORMAL)
        empty = 0
        while waiting > 0 and empty < _EMPTY_FETCHES:
            fetched = await self._jobs.fetch(min(_IN_FLIGHT, waiting), wait=_FETCH_WAIT)
            empty = 0 if fetched else empty + 1
            waiting -= len(fetched)
            for message in fetched:
                try:
                    jobs[Job.decode(message.data).id] = message
                except InvalidMessageError:
                    log.exception("job_unreadable", subject=message.subject)
                    await message.reject()

    async def _open(self, tick: Delivery, job_ids: list[UUID]) -> None:
        with tracing.span("open window") as span:
            window = await self._decide(tick, job_ids)
            span.note(darkroom__window=str(window.id), darkroom__jobs=window.jobs)

    async def _decide(self, tick: Delivery, job_ids: list[UUID]) -> Window:
        opened_at = now()
        deadline = opened_at + self._allowed
        taken, put_off = await self._choose(job_ids, opened_at=opened_at, deadline=deadline)
        async with in_transaction():
            window = await windows.open_window(tick_at=tick.stored_at, deadline=deadline)
            if window.state is not WindowState.COLLECTING:
                return window
            await windows.assign(window, taken, put_off=put_off)
            followed = True
            if not window.jobs:
                await windows.discard(window)
                followed = not put_off or await windows.await_end(put_off=put_off)
        if not followed:
            # What kept the workers from them has ended meanwhile.
            await self._queue.beat()
        WINDOW_PUT_OFF.inc(put_off)
        if window.jobs:
            WINDOW_JOBS.observe(window.jobs)
        log.info(
            "window_opened" if window.jobs else "window_discarded",
            window=str(window.id),
            jobs=window.jobs,
            customers=window.customers,
            put_off=put_off,
            deadline=deadline.isoformat(),
        )
        return window

    async def _choose(
        self, job_ids: Sequence[UUID], *, opened_at: datetime, deadline: datetime
    ) -> tuple[list[UUID], int]:
        """What the workers can make in time, and how many others are left to the next window."""
        ordered = release_order(await windows.waiting(job_ids))
        taken = fitting(
            ordered,
            released=await released_work(),
            workers=await self._workers.recent(),
            deadline=deadline,
            now=opened_at,
        )
        return [job.id for job in taken], len(ordered) - len(taken)

    async def _release(self, window: Window) -> None:
        ordered = release_order(await windows.unreleased(window.id))
        with tracing.span("release window", darkroom__window=str(window.id), darkroom__jobs=len(ordered)):
            for start in range(0, len(ordered), _IN_FLIGHT):
                await self._offer(ordered[start : start + _IN_FLIGHT], window)
        finished = await windows.mark_running(window.id, at=now())
        log.info("window_released", window=str(window.id), jobs=len(ordered))
        if finished is not None:
            await window_finished(finished, queue=self._queue)

    async def _offer(self, part: Sequence[Generation], window: Window) -> None:
        offers = (
            publish(self._queue, Lane.BATCH, generation, deadline=window.deadline) for generation in part
        )
        await asyncio.gather(*offers)
        reach(Failpoint.WINDOW_MID_RELEASE)
        ids = [generation.id for generation in part]
        await windows.mark_released(ids, at=now())
        # One that was canceled since it was read has been called off before it was published.
        for generation in await windows.canceled(ids):
            await self._outbox.call_off(generation)


async def _settle_jobs(jobs: dict[UUID, Delivery]) -> None:
    """Take the jobs that the database has in a window, or no longer waiting, off the queue.

    The rest came after the window was closed, and wait for the next one.
    """
    waiting = await windows.unassigned(list(jobs))
    await _for_each([jobs[job_id] for job_id in jobs.keys() - waiting], Delivery.ack)
    await _for_each([jobs[job_id] for job_id in waiting], lambda job: job.nak(delay=0))


async def _for_each(messages: Iterable[Delivery], settle: Callable[[Delivery], Awaitable[None]]) -> None:
    remaining = list(messages)
    for start in range(0, len(remaining), _IN_FLIGHT):
        await asyncio.gather(*(settle(message) for message in remaining[start : start + _IN_FLIGHT]))
