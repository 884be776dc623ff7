"""What leaves once a transaction has committed: jobs to the broker, letters to the mail server."""

import asyncio
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID, uuid4

import structlog

from core import tracing
from core.clock import now, pause
from core.errors import ServiceUnavailableError
from core.failpoints import Failpoint, reach
from core.lifecycle import Tier
from core.messages import Control, Job, Parameters
from core.models import Generation, LetterKind
from core.queue import Lane, Queue
from core.repository import generations, letters
from core.repository.accounts import email_key
from core.repository.database import in_transaction
from core.telemetry import JOBS_RELAYED

RELAY_AGE: Final = timedelta(seconds=5)
"""How long a job may stay unpublished before somebody other than its accepter publishes it."""

MARK_SECONDS: Final = 0.05
"""How long a published job waits for others to be marked with."""

_RELAY_BATCH = 100
_RELAY_PAUSE = 1.0

log = structlog.get_logger(__name__)


async def write_letter(account_id: UUID, kind: LetterKind, parameters: dict[str, Any] | None = None) -> None:
    """Ask for a letter; it leaves once the transaction around this call has committed."""
    letter_id = uuid4()
    await letters.add(
        letter_id=letter_id,
        message_id=_message_id(letter_id),
        account_id=account_id,
        kind=kind,
        parameters=parameters or {},
    )


async def write_letter_if_known(email: str, kind: LetterKind) -> None:
    """Ask for a letter to the account with this address; without one the same row is written, for nobody."""
    letter_id = uuid4()
    await letters.add_for_key(
        email_key(email), letter_id=letter_id, message_id=_message_id(letter_id), kind=kind, now=now()
    )


async def write_farewell(email: str) -> None:
    """Ask for the letter that tells an address that its account was deleted."""
    letter_id = uuid4()
    await letters.add_to_address(
        email, letter_id=letter_id, message_id=_message_id(letter_id), kind=LetterKind.ACCOUNT_DELETED
    )


def _message_id(letter_id: UUID) -> str:
    return f"<{letter_id}@darkroom>"


def parameters_of(generation: Generation) -> Parameters:
    """What decides how the pictures of a generation look."""
    return Parameters(
        prompt=generation.prompt,
        negative_prompt=generation.negative_prompt,
        model=generation.model,
        width=generation.width,
        height=generation.height,
        steps=generation.steps,
        guidance_scale=generation.guidance_scale,
        seed=generation.seed,
        count=generation.count,
        scheduler=generation.scheduler,
        format=generation.format,
    )


def job_of(generation: Generation, *, deadline: datetime | None = None) -> Job:
    """The message that carries a generation to a worker; of a window that has a deadline."""
    return Job(
        id=generation.id,
        tier=generation.tier,
        delivery=generation.delivery,
        parameters=parameters_of(generation),
        accepted_at=generation.created_at,
        deadline=deadline,
        request_id=generation.request_id,
    )


async def publish(
    queue: Queue, lane: Lane, generation: Generation, *, deadline: datetime | None = None
) -> bool:
    """Put a generation's job into a lane, as a part of the trace in which it was asked for.

    Returns:
        Whether the broker did not hold it there already.

    Raises:
        ServiceUnavailableError: the broker does not answer.
    """
    with tracing.span(
        f"publish {lane.value}",
        kind=tracing.Kind.PRODUCER,
        parent=generation.traceparent,
        links=_elsewhere(generation.traceparent),
        messaging__system="nats",
        darkroom__generation=str(generation.id),
    ):
        return await queue.publish_job(lane, job_of(generation, deadline=deadline))


def _elsewhere(asked_in: str | None) -> tuple[str, ...]:
    """What publishes a job later than it was asked for, such as a window's release, if that is traced."""
    here = tracing.place()
    return () if here is None or asked_in is None or here == asked_in else (here,)


def lane_of(generation: Generation) -> Lane:
    """The lane that ought to hold a generation's job."""
    return Lane.BATCH if generation.released_at else Lane.of(generation.tier)


class JobOutbox:
    """Publishes accepted generations: at once by whoever accepted them, later by any relay."""

    def __init__(self, *, queue: Queue) -> None:
        self._queue = queue
        self._published: list[UUID] = []
        self._marking: asyncio.Task[None] | None = None

    async def publish(self, generation: Generation) -> None:
        """Publish one job, to be marked soon. Without a broker nothing is lost: the relay tries again."""
        reach(Failpoint.JOB_BEFORE_PUBLISH)
        try:
            await publish(self._queue, lane_of(generation), generation)
        except ServiceUnavailableError as error:
            log.warning("job_left_to_relay", generation=str(generation.id), error=str(error))
            return
        reach(Failpoint.JOB_AFTER_PUBLISH)
        self._published.append(generation.id)
        if self._marking is None:
            self._marking = asyncio.create_task(self._mark_soon())

    async def mark(self) -> None:
        """Mark what was published. A job that a crash leaves unmarked is published again, and refused."""
        published, self._published = self._published, []
        if not published:
            return
        try:
            await generations.mark_published(published, at=now())
        except ServiceUnavailableError as error:
            log.warning("jobs_left_unmarked", jobs=len(published), error=repr(error))
            self._published += published

    async def _mark_soon(self) -> None:
        # One statement for all that were published meanwhile, where one each would double their cost.
        await asyncio.sleep(MARK_SECONDS)
        self._marking = None
        await self.mark()

    async def call_off(self, generation: Generation) -> None:
        """Take back the job of a generation that has ended: off the queue, and away from its worker.

        Raises:
            ServiceUnavailableError: the broker does not answer.
        """
        lanes = [Lane.PREMIUM] if generation.tier is Tier.PREMIUM else [Lane.NORMAL, Lane.BATCH]
        for lane in lanes:
            await self._queue.purge_job(lane, generation.id)
        await self._queue.publish_control(Control(id=generation.id, action="cancel"))

    async def relay(self) -> int:
        """Publish what a crash or an absent broker left behind; returns how many jobs that were.

        Raises:
            ServiceUnavailableError: the broker does not answer; the rest stays for the next call.
        """
        async with in_transaction():
            left = await generations.lock_unpublished(before=now() - RELAY_AGE, limit=_RELAY_BATCH)
            for generation in left:
                await publish(self._queue, lane_of(generation), generation)
            if left:
                reach(Failpoint.RELAY_BEFORE_MARK)
                await generations.mark_published([generation.id for generation in left], at=now())
        JOBS_RELAYED.inc(len(left))
        return len(left)

    async def run(self, *, stop: asyncio.Event) -> None:
        """Relay every second until ``stop`` is set."""
        while not stop.is_set():
            try:
                await self.relay()
            except ServiceUnavailableError as error:
                log.warning("relay_postponed", error=repr(error))
            await pause(stop, seconds=_RELAY_PAUSE)
            await self.mark()
