"""How much of everything is left."""

import strawberry

from core.accounts.sessions import tier_of
from core.clock import now
from core.errors import UnauthenticatedError
from core.lifecycle import Tier
from schema.context import Context
from schema.cost import ListSize
from schema.types.rate_limit import RateLimit


@strawberry.type
class RateLimitQuery:
    """Queries about limits."""

    @strawberry.field(
        description="What is left of what you may do: for your account where you are signed in, and for your "
        "network address. Asking costs nothing.",
        directives=[ListSize(assumed_size=10)],
    )
    async def rate_limit(self, info: strawberry.Info[Context, None]) -> list[RateLimit]:
        """Every allowance."""
        services, address = info.context.services, info.context.address
        try:
            account = (await info.context.viewer()).account
        except UnauthenticatedError:
            standings = await services.limiter.standings(address=address, account=None, tier=Tier.NORMAL)
            return [RateLimit.of(standing) for standing in standings]
        tier = tier_of(account, at=now())
        standings = await services.limiter.standings(address=address, account=account, tier=tier)
        opened, most_open = await services.generations.usage(account)
        return [
            *(RateLimit.of(standing) for standing in standings),
            RateLimit.held("openGenerations", taken=opened, limit=most_open),
            RateLimit.held(
                "subscriptions",
                taken=await services.places.taken(account),
                limit=services.places.most(tier),
            ),
        ]
