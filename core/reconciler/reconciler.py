"""Ends what nobody else will end: generations whose time is over, and jobs that were delivered too often."""

import asyncio
from typing import Final

import structlog
from pydantic import BaseModel, ConfigDict, ValidationError

from core.clock import now, pause
from core.errors import ServiceUnavailableError
from core.lifecycle import GenerationState
from core.outbox import JobOutbox
from core.queue import Delivery, Lane, Queue, topology
from core.reconciler.dead_letters import DeadLetters
from core.reconciler.lost_jobs import LostJobs
from core.recording import Recorder
from core.repository import generations
from core.settings import ReconcilerSettings

OVERDUE: Final = "The pictures were not finished before the window's deadline. Please ask for them again."

_OVERDUE_BATCH = 100
_OVERDUE_PAUSE = 5.0
_FETCH = 16
_RETRY_SECONDS = 5.0

log = structlog.get_logger(__name__)


class Advisory(BaseModel):
    """What the broker says of a message that it gives up: where it is, and how often it was delivered."""

    model_config = ConfigDict(frozen=True)

    type: str
    stream: str
    consumer: str
    stream_seq: int
    deliveries: int


class Reconciler:
    """Fails what would stay open for ever, so that customers are told; any number of replicas may run."""

    def __init__(self, *, queue: Queue, recorder: Recorder, settings: ReconcilerSettings) -> None:
        self._queue = queue
        self._recorder = recorder
        self._outbox = JobOutbox(queue=queue)
        self._dead_letters = DeadLetters(queue=queue, recorder=recorder)
        self._lost_jobs = LostJobs(queue=queue, dead_letters=self._dead_letters, settings=settings)
        self._advisories = queue.consumer(topology.EXHAUSTED)

    async def run(self, *, stop: asyncio.Event) -> None:
        """Look for overdue generations and lost jobs, and follow the broker's advisories, until ``stop``."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch_deadlines(stop))
            tasks.create_task(self._follow_advisories(stop))
            tasks.create_task(self._lost_jobs.run(stop=stop))

    async def fail_overdue(self) -> int:
        """Fail open generations whose window's deadline has passed; returns how many that were.

        Raises:
            ServiceUnavailableError: the broker does not answer; the rest stays for the next call.
        """
        overdue = await generations.overdue(now=now(), limit=_OVERDUE_BATCH)
        for generation_id in overdue:
            failed = await self._recorder.finish(
                generation_id, GenerationState.FAILED, at=now(), error=OVERDUE
            )
            if failed is not None:
                await self._outbox.call_off(failed)
                log.warning("generation_overdue", generation=str(generation_id))
        return len(overdue)

    async def settle(self, message: Delivery) -> None:
        """Fail the generation that an advisory is about, and take its job off the queue."""
        try:
            advisory = Advisory.model_validate_json(message.data)
        except ValidationError:
            log.exception("advisory_unreadable", subject=message.subject)
            await message.ack()
            return
        with structlog.contextvars.bound_contextvars(
            stream=advisory.stream, consumer=advisory.consumer, sequence=advisory.stream_seq
        ):
            try:
                await self._give_up(advisory)
            except ServiceUnavailableError as error:
                log.warning("advisory_postponed", error=repr(error))
                await message.nak(delay=_RETRY_SECONDS)
            else:
                await message.ack()

    async def _give_up(self, advisory: Advisory) -> None:
        if advisory.stream not in (Lane.PREMIUM, Lane.BATCH):
            # A result that cannot be recorded, a waiting job that cannot be read: what it was about is
            # found missing, and made again.
            log.error("message_given_up", advisory=advisory.type, deliveries=advisory.deliveries)
            return
        lane = Lane(advisory.stream)
        job_id = await self._queue.job_at(lane, advisory.stream_seq)
        if job_id is None:
            # Ended and purged meanwhile, or refused by a worker that could not read it.
            log.error("job_gone", advisory=advisory.type, deliveries=advisory.deliveries)
            return
        await self._dead_letters.exhausted(job_id, lane, deliveries=advisory.deliveries)

    async def _watch_deadlines(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                found = await self.fail_overdue()
            except ServiceUnavailableError as error:
                log.warning("overdue_postponed", error=repr(error))
                found = 0
            if found < _OVERDUE_BATCH:
                await pause(stop, seconds=_OVERDUE_PAUSE)

    async def _follow_advisories(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            for message in await self._advisories.fetch(_FETCH, wait=1):
                await self.settle(message)
