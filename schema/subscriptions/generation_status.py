"""Watching a generation until it ends."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Annotated

import strawberry

from core import models
from core.clock import now
from core.errors import NotFoundError
from core.lifecycle import GenerationState
from core.messages import Progress
from core.telemetry import SUBSCRIPTIONS
from schema.context import Context
from schema.types.generation import Generation, GenerationStatus
from schema.types.node import key_of

REREAD_SECONDS = 5.0
"""How long to trust the broker: progress may be lost, the row may not."""


class _Latest:
    """The newest progress; a slow reader skips what it was too slow for."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()
        self.progress: Progress | None = None

    def receive(self, progress: Progress) -> None:
        self.progress = progress
        self._changed.set()

    async def wait(self) -> None:
        """Until something new came, or it is time to read the row again."""
        try:
            async with asyncio.timeout(REREAD_SECONDS):
                await self._changed.wait()
        except TimeoutError:
            self.progress = None
        self._changed.clear()


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
        previews: Annotated[  # noqa: ARG002 - no worker makes any yet
            bool, strawberry.argument(description="Whether to send small pictures on the way.")
        ] = False,
    ) -> AsyncGenerator[GenerationStatus, None]:
        """Can be joined at any time and from any replica."""
        services = info.context.services
        viewer = await info.context.viewer()
        key = key_of(id, "Generation")
        if key is None:
            raise NotFoundError("There is no such generation.")
        row = await services.generations.get(viewer.account, key)
        latest = _Latest()
        # Listening first, reading after: nothing falls between the two.
        stop = await services.queue.subscribe_progress(key, latest.receive)
        SUBSCRIPTIONS.inc()
        try:
            row = await services.generations.get(viewer.account, key)
            progress = await services.queue.last_progress(key)
            step = 0
            while True:
                step = max(step, progress.step if progress else 0)
                yield await _status(info.context, row, progress, step)
                if row.state.terminal:
                    return
                await latest.wait()
                progress = latest.progress
                if progress is None or progress.state is not row.state:
                    row = await services.generations.get(viewer.account, key)
        finally:
            SUBSCRIPTIONS.dec()
            await stop()


async def _status(
    context: Context, row: models.Generation, progress: Progress | None, step: int
) -> GenerationStatus:
    if row.state is GenerationState.SUCCEEDED:
        step = row.steps
    elif row.state is GenerationState.QUEUED:
        step = 0
    outlook = await context.services.generations.outlook(row)
    finish_at = outlook.estimated_finish_at if outlook else None
    return GenerationStatus(
        generation=Generation.of(row),
        state=row.state,
        step=min(step, row.steps),
        total_steps=row.steps,
        fraction=min(step / row.steps, 1.0),
        queue_position=outlook.queue_position if outlook else None,
        eta_seconds=max(0.0, (finish_at - now()).total_seconds()) if finish_at else None,
        preview=progress.preview if progress else None,
    )
