"""Watching a generation until it ends."""

from collections.abc import AsyncGenerator
from typing import Annotated

import strawberry

from core.accounts.sessions import tier_of
from core.clock import now
from core.errors import NotFoundError
from core.statuses import Status
from schema.context import Context
from schema.types.generation import Generation, GenerationStatus
from schema.types.node import key_of


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
        account = viewer.account
        async with (
            services.places.hold(account, tier_of(account, at=now())),
            services.statuses.follow(key, account_id=account.id, previews=previews) as follower,
        ):
            while True:
                status = await follower.read()
                yield _told(status)
                if status.row.state.terminal:
                    return


def _told(status: Status) -> GenerationStatus:
    """What a subscriber is told; an estimate that has passed in the meantime is now."""
    row, moment = status.row, now()
    outlook = status.outlook.not_before(moment)
    finish_at = outlook.estimated_finish_at
    return GenerationStatus(
        generation=Generation.of(row, outlook=outlook),
        state=row.state,
        step=status.step,
        total_steps=row.steps,
        fraction=status.step / row.steps,
        queue_position=outlook.queue_position,
        eta_seconds=(finish_at - moment).total_seconds() if finish_at else None,
        preview=status.preview,
    )
