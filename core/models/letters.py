"""Letters between their reason and the mail server."""

from enum import StrEnum
from typing import Any, Final
from uuid import UUID, uuid4

from tortoise import fields
from tortoise.indexes import Index
from tortoise.models import Model

from core.models.accounts import Account


class LetterKind(StrEnum):
    """What a letter is about; each has a template of the same name in the batcher."""

    VERIFY_EMAIL = "verify_email"
    ADDRESS_TAKEN = "address_taken"
    RESET_PASSWORD = "reset_password"  # noqa: S105 - the name of a letter, not a password
    PREMIUM_STARTED = "premium_started"
    PREMIUM_ENDS_SOON = "premium_ends_soon"
    PREMIUM_REVOKED = "premium_revoked"
    PAYMENT_FAILED = "payment_failed"
    GENERATION_FINISHED = "generation_finished"
    WINDOW_FINISHED = "window_finished"
    ACCOUNT_DELETED = "account_deleted"


class LetterState(StrEnum):
    """Where a letter stands between its row and the mail server."""

    PENDING = "PENDING"
    CLAIMED = "CLAIMED"
    SENT = "SENT"
    FAILED = "FAILED"


class Letter(Model):
    """A letter to be rendered and sent by a batcher; ``message_id`` never changes over its attempts.

    ``recipient`` is the address where there is no account to have it, and goes once the letter has left. A
    letter with neither is for nobody, and dropped: it was written because a stranger must not be able to
    tell that there was nobody to write to. ``traceparent`` is where in a trace it was written.
    """

    id = fields.UUIDField(primary_key=True, default=uuid4)
    account: fields.ForeignKeyNullableRelation[Account] = fields.ForeignKeyField(
        "darkroom.Account", related_name="letters", null=True
    )
    account_id: UUID | None
    recipient = fields.CharField(max_length=254, null=True)
    kind = fields.CharEnumField(LetterKind, max_length=24)
    parameters: fields.JSONField[dict[str, Any]] = fields.JSONField(default=dict)
    message_id = fields.CharField(max_length=100, unique=True)
    state = fields.CharEnumField(LetterState, max_length=8, default=LetterState.PENDING)
    attempts = fields.IntField(default=0)
    due_at = fields.DatetimeField(auto_now_add=True)
    claimed_until = fields.DatetimeField(null=True)
    sent_at = fields.DatetimeField(null=True)
    error = fields.TextField(null=True)
    traceparent = fields.CharField(max_length=55, null=True)
    created_at = fields.DatetimeField(auto_now_add=True)

    class Meta:
        table = "letter"
        indexes: Final = (
            Index(fields=("state", "due_at"), name="letter_due"),
            Index(fields=("account_id",), name="letter_account"),
        )

    @property
    def address(self) -> str | None:
        """To whom it goes, with its account loaded; none when it is for nobody."""
        return self.account.email if self.account else self.recipient
