"""The customer."""

from datetime import datetime
from typing import Self

import strawberry

from core import models
from core.accounts.sessions import SessionTokens, tier_of
from core.clock import now
from schema.context import Context
from schema.types.enums import Tier
from schema.types.node import Node, to_global_id


@strawberry.type(description="How much of its allowance an account uses.")
class Usage:
    """Open generations against their limit."""

    open_generations: int = strawberry.field(description="Generations that are waiting or running.")
    max_open_generations: int = strawberry.field(description="How many may be, on your tier.")


@strawberry.type(description="The mail server would not take the latest letter to your address.")
class Bounce:
    """When, and in whose words why."""

    at: datetime = strawberry.field(description="When the letter was given up.")
    reason: str = strawberry.field(description="What the mail server said.")


@strawberry.type(description="A customer: you.")
class Account(Node):
    """An account as its owner sees it."""

    email: str = strawberry.field(description="Where letters go.")
    email_verified: bool = strawberry.field(description="Whether the address was proven to be yours.")
    tier: Tier = strawberry.field(description="What you are served as now.")
    premium_until: datetime | None = strawberry.field(description="When premium ends, if it was ever bought.")
    bounce: Bounce | None = strawberry.field(
        description="Why letters do not reach you. Null if the latest one was taken."
    )
    reminders: bool = strawberry.field(
        description="Whether a letter tells you a few days before premium ends; see `setReminders`."
    )
    created_at: datetime = strawberry.field(description="When you signed up.")
    row: strawberry.Private[models.Account]

    @classmethod
    def of(cls, row: models.Account) -> Self:
        """The account of a row."""
        return cls(
            id=to_global_id("Account", row.id),
            email=row.email,
            email_verified=row.email_verified_at is not None,
            tier=tier_of(row, at=now()),
            premium_until=row.premium_until,
            bounce=Bounce(at=row.bounced_at, reason=row.bounce_reason or "") if row.bounced_at else None,
            reminders=row.reminders_off_at is None,
            created_at=row.created_at,
            row=row,
        )

    @strawberry.field(description="How much of your allowance is in use.")
    async def usage(self, info: strawberry.Info[Context, None]) -> Usage:
        """Counted now."""
        used, limit = await info.context.services.generations.usage(self.row)
        return Usage(open_generations=used, max_open_generations=limit)


@strawberry.type(description="A sign-in. Send the access token as `Authorization: Bearer <accessToken>`.")
class Session:
    """Tokens of a signed-in customer."""

    access_token: str = strawberry.field(description="Good for some minutes; see `expiresAt`.")
    refresh_token: str = strawberry.field(
        description="Good once, for a new pair of tokens. Using it twice ends the session."
    )
    expires_at: datetime = strawberry.field(description="When the access token stops working.")
    account: Account = strawberry.field(description="Who signed in.")

    @classmethod
    def of(cls, tokens: SessionTokens) -> Self:
        """The session that these tokens belong to."""
        return cls(
            access_token=tokens.access_token,
            refresh_token=tokens.refresh_token,
            expires_at=tokens.expires_at,
            account=Account.of(tokens.account),
        )
