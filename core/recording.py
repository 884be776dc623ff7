"""The one way into a terminal state, and the loop that records what workers report."""

import asyncio
from collections import deque
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from uuid import UUID

import structlog

from core import tracing
from core.clock import now
from core.errors import InvalidMessageError, ServiceUnavailableError
from core.failpoints import Failpoint, reach
from core.lifecycle import Delivery, GenerationState
from core.messages import Outcome, Progress, Started, StoredImage, decode_result
from core.models import Generation, LetterKind, Window
from core.outbox import write_letter
from core.queue import Consumer, Queue, signs_of_life
from core.queue import Delivery as Message
from core.repository import erasures, generations, jobs, windows
from core.repository.database import in_transaction
from core.telemetry import GENERATION_SECONDS, GENERATIONS_FINISHED, JOBS_DEAD, WINDOW_SECONDS

_FETCH = 64
_RETRY_SECONDS = 2.0
_ATTEMPTS = 5
"""How often a result is tried that cannot be written down, before its job counts as lost."""

log = structlog.get_logger(__name__)


class Recorder:
    """Writes the course of generations and tells the subscribers, in that order."""

    def __init__(self, *, queue: Queue) -> None:
        self._queue = queue

    async def start(self, generation_id: UUID, *, at: datetime, worker: str | None = None) -> None:
        """Record that a worker began; the state stays when the generation is already further."""
        before = await jobs.begin(generation_id, worker=worker, at=at)
        if before is GenerationState.QUEUED:
            await self._tell(generation_id, GenerationState.RUNNING)
        elif before is not None and before.terminal:
            # A late attempt: should it die before it reports, nobody else knows of its pictures.
            await erasures.note_leftovers(generation_id, ended_at=now())

    async def finish(
        self,
        generation_id: UUID,
        state: GenerationState,
        *,
        at: datetime,
        images: Sequence[StoredImage] = (),
        error: str | None = None,
        cause: str | None = None,
    ) -> Generation | None:
        """Enter a terminal state, with everything that follows from it, in one transaction.

        Args:
            generation_id: which generation.
            state: a terminal state.
            at: when it ended.
            images: its pictures, for SUCCEEDED.
            error: the reason fit for the customer, for FAILED and REJECTED.
            cause: what went wrong on our side, for the operator: FAILED is a dead letter with it.

        Returns:
            The generation, or none when it had already ended: the first terminal result stands.
        """
        with tracing.span(
            "finish", kind=tracing.Kind.CLIENT, db__system__name="postgresql", darkroom__state=state.value
        ):
            async with in_transaction():
                generation = await generations.transition(
                    generation_id, state, at=at, error=error, cause=cause
                )
                if generation is None:
                    return None
                await generations.store_images(generation_id, images)
                if _may_have_left_pictures(generation):
                    await erasures.note_leftovers(generation_id, ended_at=at)
                finished = await _write_letter_if_due(generation, at=at)
                reach(Failpoint.OUTCOME_BEFORE_COMMIT)
        reach(Failpoint.OUTCOME_AFTER_RECORD)
        GENERATIONS_FINISHED.labels(tier=generation.tier.value, state=state.value).inc()
        GENERATION_SECONDS.labels(tier=generation.tier.value).observe(
            (at - generation.created_at).total_seconds()
        )
        await self._tell(generation_id, state)
        if finished is not None:
            await window_finished(finished, queue=self._queue)
        return generation

    async def run(self, consumer: Consumer, *, stop: asyncio.Event) -> None:
        """Record what workers report until ``stop`` is set; the fetch under way then ends by itself."""
        while not stop.is_set():
            held = deque(await consumer.fetch(_FETCH, wait=1))
            # The last of them may wait longer than the broker does, and would be recorded all over again.
            async with signs_of_life(partial(list, held), every=consumer.ack_wait / 3):
                while held:
                    await self._settle(held[0])
                    held.popleft()

    async def _settle(self, message: Message) -> None:
        try:
            result = decode_result(message.data)
        except InvalidMessageError:
            log.exception("result_unreadable", subject=message.subject)
            await message.reject()
            return
        with structlog.contextvars.bound_contextvars(generation=str(result.id), request_id=result.request_id):
            try:
                with tracing.span(
                    f"record {result.kind}",
                    kind=tracing.Kind.CONSUMER,
                    parent=message.traceparent,
                    messaging__system="nats",
                    darkroom__generation=str(result.id),
                ):
                    await self._record(result)
            except ServiceUnavailableError as error:
                log.warning("result_postponed", error=repr(error))
                await message.nak(delay=_RETRY_SECONDS)
            except Exception:
                # Whatever it is, it must not hold up the results behind it.
                log.exception("result_not_recorded", attempt=message.attempt)
                if message.attempt < _ATTEMPTS:
                    await message.nak(delay=_RETRY_SECONDS)
                else:
                    await message.reject()
            else:
                await message.ack()

    async def _record(self, result: Started | Outcome) -> None:
        if isinstance(result, Started):
            await self.start(result.id, at=result.started_at, worker=result.worker)
            return
        reach(Failpoint.OUTCOME_BEFORE_RECORD)
        recorded = await self.finish(
            result.id,
            result.state,
            at=result.finished_at,
            images=result.images,
            error=result.reason,
            cause=result.cause,
        )
        if recorded is not None and result.cause is not None:
            JOBS_DEAD.labels(why="broken").inc()
        if recorded is None:
            await erasures.note_unrecorded(result.id, result.images, now=now())
        log.info(
            "outcome_recorded" if recorded else "outcome_superseded",
            state=result.state.value,
            worker=result.worker,
            attempt=result.attempt,
            images=len(result.images),
        )
        reach(Failpoint.OUTCOME_BEFORE_ACK)

    async def _tell(self, generation_id: UUID, state: GenerationState) -> None:
        # Progress may be lost: a subscriber reads the row again by itself.
        try:
            await self._queue.publish_progress(Progress(id=generation_id, state=state))
        except ServiceUnavailableError as error:
            log.warning("progress_lost", generation=str(generation_id), error=str(error))


def _may_have_left_pictures(generation: Generation) -> bool:
    """Whether an attempt that was not recorded may have stored any."""
    recorded = 1 if generation.state is GenerationState.SUCCEEDED else 0
    return generation.attempts > recorded or generation.losses > 0


async def window_finished(window: Window, *, queue: Queue) -> None:
    """Say how a window ended that has just done so; the next one opens at once if it had to put jobs off."""
    began = window.opened_at or window.tick_at
    ended = window.finished_at or now()
    WINDOW_SECONDS.observe((ended - began).total_seconds())
    log.info(
        "window_finished",
        window=str(window.id),
        jobs=window.jobs,
        customers=window.customers,
        seconds=round((ended - began).total_seconds(), 3),
        seconds_left=round((window.deadline - ended).total_seconds(), 3),
        **{state.value.lower(): jobs for state, jobs in window.counts.items()},
        put_off=window.put_off,
        failures=window.failures,
    )
    if not window.put_off:
        return
    try:
        await queue.beat()
    except ServiceUnavailableError as error:
        # The schedule's own beat opens it later.
        log.warning("early_window_missed", window=str(window.id), error=str(error))


async def _write_letter_if_due(generation: Generation, *, at: datetime) -> Window | None:
    """Returns the window that is finished by this end."""
    if generation.window_id is not None:
        closing = await windows.close_job(
            window_id=generation.window_id, account_id=generation.account_id, at=at
        )
        if closing.customer and await windows.has_news(
            window_id=generation.window_id, account_id=generation.account_id
        ):
            await write_letter(
                generation.account_id, LetterKind.WINDOW_FINISHED, {"window_id": str(generation.window_id)}
            )
        return closing.window
    if generation.delivery is Delivery.EMAIL and generation.state is not GenerationState.CANCELED:
        await write_letter(
            generation.account_id, LetterKind.GENERATION_FINISHED, {"generation_id": str(generation.id)}
        )
    return None
