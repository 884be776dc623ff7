"""Customers, and how they are known again."""

from enum import StrEnum
from typing import Final
from uuid import UUID, uuid4

from tortoise import fields
from tortoise.indexes import Index
from tortoise.models import Model


class TokenPurpose(StrEnum):
    """What a mailed token may be used for."""

    VERIFY_EMAIL = "verify_email"
    RESET_PASSWORD = "reset_password"  # noqa: S105 - the name of a purpose, not a password


class Account(Model):
    """A customer. The address is kept as typed and compared in lower case (``email_key``).

    ``bounced_at`` and ``bounce_reason`` are of the latest letter, if the mail server would not take it for
    this address. Since ``reminders_off_at`` no letter comes that is not about something the customer did.
    There is a partial index, of those who were never verified (migration 0009).
    """

    id = fields.UUIDField(primary_key=True, default=uuid4)
    email = fields.CharField(max_length=254)
    email_key = fields.CharField(max_length=254, unique=True)
    password_hash = fields.CharField(max_length=100)
    email_verified_at = fields.DatetimeField(null=True)
    premium_until = fields.DatetimeField(null=True)
    bounced_at = fields.DatetimeField(null=True)
    bounce_reason = fields.TextField(null=True)
    reminders_off_at = fields.DatetimeField(null=True)
    created_at = fields.DatetimeField(auto_now_add=True)

    class Meta:
        table = "account"


class AccountDeletion(Model):
    """An account whose owner has left: nobody can reach it any more, and a batcher takes it apart.

    ``due_at`` is when one may try, or try again.
    """

    id = fields.UUIDField(primary_key=True, default=uuid4)
    account: fields.OneToOneRelation[Account] = fields.OneToOneField(
        "darkroom.Account", related_name="deletion"
    )
    account_id: UUID
    due_at = fields.DatetimeField(auto_now_add=True)
    requested_at = fields.DatetimeField(auto_now_add=True)

    class Meta:
        table = "account_deletion"


class SessionFamily(Model):
    """One sign-in and every refresh token that descends from it; ended as a whole.

    Beside the index below there is a partial one, of what was ended (migration 0009).
    """

    id = fields.UUIDField(primary_key=True, default=uuid4)
    account: fields.ForeignKeyRelation[Account] = fields.ForeignKeyField(
        "darkroom.Account", related_name="sessions"
    )
    account_id: UUID
    created_at = fields.DatetimeField(auto_now_add=True)
    ended_at = fields.DatetimeField(null=True)

    class Meta:
        table = "session_family"
        indexes: Final = (Index(fields=("account_id",), name="session_family_account"),)


class RefreshToken(Model):
    """A refresh token's SHA-256, never the token; ``used_at`` is when it was rotated.

    Beside the index below there is one on ``expires_at`` (migration 0009).
    """

    hash = fields.CharField(max_length=64, primary_key=True)
    family: fields.ForeignKeyRelation[SessionFamily] = fields.ForeignKeyField(
        "darkroom.SessionFamily", related_name="tokens"
    )
    family_id: UUID
    expires_at = fields.DatetimeField()
    used_at = fields.DatetimeField(null=True)

    class Meta:
        table = "refresh_token"
        indexes: Final = (Index(fields=("family_id",), name="refresh_token_family"),)


class EmailToken(Model):
    """A mailed token's SHA-256; single use."""

    hash = fields.CharField(max_length=64, primary_key=True)
    account: fields.ForeignKeyRelation[Account] = fields.ForeignKeyField(
        "darkroom.Account", related_name="email_tokens"
    )
    account_id: UUID
    purpose = fields.CharEnumField(TokenPurpose, max_length=20)
    expires_at = fields.DatetimeField()
    used_at = fields.DatetimeField(null=True)

    class Meta:
        table = "email_token"
        indexes: Final = (Index(fields=("account_id",), name="email_token_account"),)
