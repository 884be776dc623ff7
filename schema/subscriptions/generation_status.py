"""Watching a generation until it ends."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Annotated
from uuid import UUID

import strawberry
import structlog

from core import models
from core.accounts.sessions import tier_of
from core.clock import now
from core.errors import NotFoundError, ServiceUnavailableError
from core.lifecycle import GenerationState
from core.messages import Control, Progress
from core.queue import Queue
from core.telemetry import SUBSCRIPTIONS
from schema.context import Context
from schema.types.generation import Generation, GenerationStatus
from schema.types.node import key_of

REREAD_SECONDS = 5.0
"""How long to trust the broker: progress may be lost, the row may not."""

RENEW_SECONDS = 5.0
"""How often workers are asked for previews again; they make them for 15 s after each request."""

log = structlog.get_logger(__name__)


class _Latest:
    """The newest progress with the newest preview; a slow reader skips what it was too slow for."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()
        self._progress: Progress | None = None

    def receive(self, progress: Progress) -> None:
        """Take the place of what has not been read, save its preview where there is no newer one."""
        if progress.preview is None and self._progress is not None:
            progress = progress.model_copy(update={"preview": self._progress.preview})
        self._progress = progress
        self._changed.set()

    async def read(self) -> Progress | None:
        """What came since the last time, once there is something; none when it is time to read the row."""
        try:
            async with asyncio.timeout(REREAD_SECONDS):
                await self._changed.wait()
        except TimeoutError:
            return None
        self._changed.clear()
        progress, self._progress = self._progress, None
        return progress


@strawberry.type
class GenerationSubscription:
    """Subscriptions to generations."""

    @strawberry.subscription(
        description="A generation's life: its present state at once, its terminal state last."
    )
    async def generation_status(
        self,
        info: strawberry.Info[Context, None],
        id: Annotated[strawberry.ID, strawberry.argument(description="The generation's id.")],  # noqa: A002 - the contract's name
        previews: Annotated[
            bool,
            strawberry.argument(
                description="Whether to send small pictures of what is being made, at most two a second."
            ),
        ] = False,
    ) -> AsyncGenerator[GenerationStatus, None]:
        """Can be joined at any time and from any replica."""
        services = info.context.services
        viewer = await info.context.viewer()
        key = key_of(id, "Generation")
        if key is None:
            raise NotFoundError("There is no such generation.")
        await services.generations.get(viewer.account, key)
        async with services.places.hold(viewer.account, tier_of(viewer.account, at=now())):
            latest = _Latest()
            # Listening first, reading after: nothing falls between the two.
            stop = await services.queue.subscribe_progress(key, latest.receive)
            SUBSCRIPTIONS.inc()
            asking = asyncio.create_task(_ask_for_previews(services.queue, key)) if previews else None
            try:
                row = await services.generations.get(viewer.account, key)
                progress = await services.queue.last_progress(key)
                step = 0
                while True:
                    step = max(step, progress.step if progress else 0)
                    preview = progress.preview if previews and progress and not row.state.terminal else None
                    yield await _status(info.context, row, step, preview)
                    if row.state.terminal:
                        return
                    progress = await latest.read()
                    if progress is None or progress.state is not row.state:
                        row = await services.generations.get(viewer.account, key)
            finally:
                if asking is not None:
                    asking.cancel()
                SUBSCRIPTIONS.dec()
                await stop()


async def _ask_for_previews(queue: Queue, key: UUID) -> None:
    """Have previews made of a generation, by whichever worker holds it or will, until canceled."""
    while True:
        try:
            await queue.publish_control(Control(id=key, action="preview"))
        except ServiceUnavailableError as error:
            # The next request makes up for it.
            log.warning("previews_not_asked_for", generation=str(key), error=str(error))
        await asyncio.sleep(RENEW_SECONDS)


async def _status(
    context: Context, row: models.Generation, step: int, preview: str | None
) -> GenerationStatus:
    if row.state is GenerationState.SUCCEEDED:
        step = row.steps
    elif row.state is GenerationState.QUEUED:
        step = 0
    outlook = await context.services.outlooks.of_one(row, step=step)
    finish_at = outlook.estimated_finish_at
    return GenerationStatus(
        generation=Generation.of(row, outlook=outlook),
        state=row.state,
        step=min(step, row.steps),
        total_steps=row.steps,
        fraction=min(step / row.steps, 1.0),
        queue_position=outlook.queue_position,
        eta_seconds=max(0.0, (finish_at - now()).total_seconds()) if finish_at else None,
        preview=preview,
    )
