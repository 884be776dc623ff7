"""Premium time: how it comes and what it cost."""

from typing import Final
from uuid import UUID, uuid4

from tortoise import fields
from tortoise.fields.base import OnDelete
from tortoise.indexes import Index
from tortoise.models import Model

from core.models.accounts import Account


class Voucher(Model):
    """Premium time for whoever redeems the code first; only the code's SHA-256 is kept."""

    code_hash = fields.CharField(max_length=64, primary_key=True)
    days = fields.IntField()
    created_at = fields.DatetimeField(auto_now_add=True)
    expires_at = fields.DatetimeField(null=True)
    redeemed_at = fields.DatetimeField(null=True)

    class Meta:
        table = "voucher"


class Checkout(Model):
    """A page on which somebody may pay for premium time. Prices are in the currency's minor unit.

    ``session`` and ``payment`` are the payment provider's names for the page and for what was paid there.
    A refund that is told before its payment leaves ``reversed_at`` without ``paid_at``. It outlives its
    account, for the books, and then says no longer whose it was.
    """

    id = fields.UUIDField(primary_key=True, default=uuid4)
    account: fields.ForeignKeyNullableRelation[Account] = fields.ForeignKeyField(
        "darkroom.Account", related_name="checkouts", null=True, on_delete=OnDelete.SET_NULL
    )
    account_id: UUID | None
    session = fields.CharField(max_length=200, unique=True)
    payment = fields.CharField(max_length=200, null=True)
    days = fields.IntField()
    price = fields.IntField()
    currency = fields.CharField(max_length=3)
    created_at = fields.DatetimeField(auto_now_add=True)
    paid_at = fields.DatetimeField(null=True)
    reversed_at = fields.DatetimeField(null=True)

    class Meta:
        table = "checkout"
        indexes: Final = (Index(fields=("account_id",), name="checkout_account"),)


class Purchase(Model):
    """Premium time that was bought, redeemed or granted: how an account came by ``premium_until``.

    An account's purchases follow one another without overlapping. One that was revoked ends where it was
    then, or where it would have started. ``reminded_at`` is when its end was announced. It outlives its
    account, for the books, and then says no longer whose it was.
    """

    id = fields.UUIDField(primary_key=True, default=uuid4)
    account: fields.ForeignKeyNullableRelation[Account] = fields.ForeignKeyField(
        "darkroom.Account", related_name="purchases", null=True, on_delete=OnDelete.SET_NULL
    )
    account_id: UUID | None
    source = fields.CharField(max_length=20)
    reference = fields.CharField(max_length=200, unique=True)
    days = fields.IntField()
    starts_at = fields.DatetimeField()
    ends_at = fields.DatetimeField()
    created_at = fields.DatetimeField(auto_now_add=True)
    revoked_at = fields.DatetimeField(null=True)
    reminded_at = fields.DatetimeField(null=True)

    class Meta:
        table = "purchase"
        indexes: Final = (
            Index(fields=("account_id",), name="purchase_account"),
            Index(fields=("ends_at",), name="purchase_end"),
        )
