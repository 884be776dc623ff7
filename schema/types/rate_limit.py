"""What is left of what may be done."""

from datetime import datetime
from typing import Self

import strawberry

from core.accounts.limits import Standing
from core.clock import now


@strawberry.type(description="How much is left of what you may do.")
class RateLimit:
    """One allowance, as it stands now."""

    name: str = strawberry.field(
        description="`signin`, `signup`, `reset`, `voucher` and `checkout`: attempts; `pictures`: asked for; "
        "`openGenerations`: that wait or run; `subscriptions`: that are live."
    )
    limit: int = strawberry.field(description="How much there is in all.")
    remaining: int = strawberry.field(description="How much is left.")
    window_seconds: int | None = strawberry.field(
        description="In how many seconds it restores itself, evenly; null for what you give back yourself."
    )
    restored_at: datetime | None = strawberry.field(
        description="When all of it is there again; null for what you give back yourself."
    )

    @classmethod
    def of(cls, standing: Standing) -> Self:
        """The allowance of a standing."""
        return cls(
            name=standing.allowance.action.value,
            limit=standing.allowance.limit,
            remaining=standing.remaining,
            window_seconds=round(standing.allowance.window.total_seconds()),
            restored_at=now() + standing.restored_in,
        )

    @classmethod
    def held(cls, name: str, *, taken: int, limit: int) -> Self:
        """Something that is given back, not restored by time."""
        return cls(
            name=name, limit=limit, remaining=max(limit - taken, 0), window_seconds=None, restored_at=None
        )
