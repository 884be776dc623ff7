"""What customers have asked for, its pictures, and what is to be deleted of them."""

from typing import Final
from uuid import UUID, uuid4

from tortoise import fields
from tortoise.fields.base import OnDelete
from tortoise.indexes import Index
from tortoise.models import Model

from core.lifecycle import Delivery, GenerationState, ImageFormat, Scheduler, Tier
from core.models.accounts import Account
from core.models.windows import Window


class Generation(Model):
    """One accepted request for pictures.

    ``published_at`` is empty while the job is only in this row: the relay publishes what stays so.
    ``traceparent`` is where in a trace it was asked for. ``worker`` began with it last, ``attempts`` is how
    often one has, ``losses`` how often the broker had lost its job. ``cause`` is why our side failed it, for
    the operator: with it, it is a dead letter. ``retry_of`` is the dead one that an operator made this from.
    Beside the indexes below there are partial ones, of what is open, of what is unpublished (migration 0002),
    of what is dead, and of retries (0007), and of what has ended, by tier (0009).
    """

    id = fields.UUIDField(primary_key=True, default=uuid4)
    account: fields.ForeignKeyRelation[Account] = fields.ForeignKeyField(
        "darkroom.Account", related_name="generations", db_index=False
    )
    account_id: UUID
    tier = fields.CharEnumField(Tier, max_length=10)
    delivery = fields.CharEnumField(Delivery, max_length=10)
    state = fields.CharEnumField(GenerationState, max_length=10, default=GenerationState.QUEUED)
    prompt = fields.TextField()
    negative_prompt = fields.TextField(default="")
    model = fields.CharField(max_length=100)
    width = fields.IntField()
    height = fields.IntField()
    steps = fields.IntField()
    guidance_scale = fields.FloatField()
    seed = fields.IntField()
    count = fields.IntField()
    scheduler = fields.CharEnumField(Scheduler, max_length=20)
    format = fields.CharEnumField(ImageFormat, max_length=5)
    idempotency_key = fields.CharField(max_length=128, null=True)
    request_fingerprint = fields.CharField(max_length=64)
    request_id = fields.CharField(max_length=64, default="")
    traceparent = fields.CharField(max_length=55, null=True)
    error = fields.TextField(null=True)
    created_at = fields.DatetimeField(auto_now_add=True)
    published_at = fields.DatetimeField(null=True)
    started_at = fields.DatetimeField(null=True)
    finished_at = fields.DatetimeField(null=True)
    window: fields.ForeignKeyNullableRelation[Window] = fields.ForeignKeyField(
        "darkroom.Window", related_name="generations", null=True, on_delete=OnDelete.SET_NULL, db_index=False
    )
    window_id: UUID | None
    released_at = fields.DatetimeField(null=True)
    worker = fields.CharField(max_length=255, null=True)
    attempts = fields.IntField(db_default=0)
    losses = fields.IntField(db_default=0)
    cause = fields.TextField(null=True)
    retry_of: UUID | None = fields.UUIDField(null=True)
    images: fields.ReverseRelation["Image"]

    class Meta:
        table = "generation"
        unique_together = (("account", "idempotency_key"),)
        indexes: Final = (
            Index(fields=("account_id", "created_at", "id"), name="generation_listing"),
            Index(fields=("window_id", "account_id"), name="generation_window"),
            Index(fields=("state", "created_at"), name="generation_state"),
        )


class Image(Model):
    """A stored picture of a generation. Sizes in pixels and bytes."""

    id = fields.UUIDField(primary_key=True, default=uuid4)
    generation: fields.ForeignKeyRelation[Generation] = fields.ForeignKeyField(
        "darkroom.Generation", related_name="images"
    )
    generation_id: UUID
    index = fields.IntField()
    key = fields.CharField(max_length=200)
    width = fields.IntField()
    height = fields.IntField()
    seed = fields.IntField()
    content_type = fields.CharField(max_length=20)
    byte_size = fields.IntField()
    sha256 = fields.CharField(max_length=64)

    class Meta:
        table = "image"
        unique_together = (("generation", "index"),)


class Erasure(Model):
    """Objects that nobody is to see again: a batcher deletes all whose keys begin with ``prefix``.

    ``due_at`` is when one may try, or try again; from ``until`` on nothing can appear there any more. With
    ``keeps_recorded`` the pictures that are recorded stay.
    """

    prefix = fields.CharField(max_length=200, primary_key=True)
    due_at = fields.DatetimeField(db_index=True)
    until = fields.DatetimeField()
    keeps_recorded = fields.BooleanField(db_default=False)

    class Meta:
        table = "erasure"
