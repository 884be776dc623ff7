"""Batch windows and their clock."""

from enum import StrEnum
from typing import Final
from uuid import UUID, uuid4

from tortoise import fields
from tortoise.indexes import Index
from tortoise.models import Model

from core.lifecycle import GenerationState
from core.models.accounts import Account


class WindowState(StrEnum):
    """Where a batch window stands."""

    COLLECTING = "COLLECTING"
    RELEASING = "RELEASING"
    RUNNING = "RUNNING"
    FINISHED = "FINISHED"


class Window(Model):
    """One batch window.

    ``tick_at`` is the broker's beat that opened it, so that a beat which comes again finds its row.
    ``put_off`` jobs waited, and were left to the next window because this one could not have made them in
    time, or had the workers so busy that none could be opened for them. How its own ended is written when the
    last one has; ``failures`` are the reasons, with their jobs.
    """

    id = fields.UUIDField(primary_key=True, default=uuid4)
    tick_at = fields.DatetimeField(unique=True)
    opened_at = fields.DatetimeField(null=True, auto_now_add=True)
    deadline = fields.DatetimeField()
    state = fields.CharEnumField(WindowState, max_length=12, default=WindowState.COLLECTING)
    jobs = fields.IntField(default=0)
    customers = fields.IntField(default=0, db_default=0)
    put_off = fields.IntField(default=0, db_default=0)
    released_at = fields.DatetimeField(null=True)
    finished_at = fields.DatetimeField(null=True)
    succeeded = fields.IntField(default=0, db_default=0)
    failed = fields.IntField(default=0, db_default=0)
    rejected = fields.IntField(default=0, db_default=0)
    canceled = fields.IntField(default=0, db_default=0)
    failures: fields.JSONField[dict[str, int]] = fields.JSONField(null=True)

    class Meta:
        table = "batch_window"

    @property
    def counts(self) -> dict[GenerationState, int]:
        """How its jobs ended, once it has finished."""
        return {
            GenerationState.SUCCEEDED: self.succeeded,
            GenerationState.FAILED: self.failed,
            GenerationState.REJECTED: self.rejected,
            GenerationState.CANCELED: self.canceled,
        }


class WindowAccount(Model):
    """One customer's part of a window: its letter is written when ``open_jobs`` reaches zero."""

    id = fields.UUIDField(primary_key=True, default=uuid4)
    window: fields.ForeignKeyRelation[Window] = fields.ForeignKeyField(
        "darkroom.Window", related_name="accounts"
    )
    window_id: UUID
    account: fields.ForeignKeyRelation[Account] = fields.ForeignKeyField(
        "darkroom.Account", related_name="windows"
    )
    account_id: UUID
    open_jobs = fields.IntField()

    class Meta:
        table = "window_account"
        unique_together = (("window", "account"),)
        indexes: Final = (Index(fields=("account_id",), name="window_account_account"),)


class WindowClock(Model):
    """The window schedule as last seen by a batcher; one row, ``id`` 1."""

    id = fields.IntField(primary_key=True, generated=False)
    expression = fields.CharField(max_length=100)
    next_at = fields.DatetimeField()

    class Meta:
        table = "window_clock"
