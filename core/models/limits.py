"""What customers have spent of their limits, and hold of them. Both tables are unlogged."""

from uuid import UUID, uuid4

from tortoise import fields
from tortoise.models import Model

from core.models.accounts import Account


class RateLimit(Model):
    """What was spent of one allowance; ``key`` is a SHA-256, so that no address stands here.

    ``restored_at`` is when all of it will be there again. The table is unlogged: a crash of the server
    gives everybody a fresh start.
    """

    key = fields.CharField(max_length=64, primary_key=True)
    restored_at = fields.DatetimeField(db_index=True)

    class Meta:
        table = "rate_limit"


class Subscription(Model):
    """One of an account's places for live subscriptions, held by an api process that renews it. Unlogged."""

    id = fields.UUIDField(primary_key=True, default=uuid4)
    account: fields.ForeignKeyRelation[Account] = fields.ForeignKeyField(
        "darkroom.Account", related_name="subscriptions", db_index=False
    )
    account_id: UUID
    place = fields.IntField()
    process = fields.UUIDField(db_index=True)
    expires_at = fields.DatetimeField()

    class Meta:
        table = "subscription"
        unique_together = (("account", "place"),)
