"""Accounts, their sessions and mailed tokens."""

import re
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID, uuid4

from tortoise import connections

from core.models import (
    Account,
    AccountDeletion,
    Checkout,
    EmailToken,
    Letter,
    Purchase,
    RefreshToken,
    SessionFamily,
    TokenPurpose,
)

_UNSTORABLE: Final = re.compile("[\\x00\ud800-\udfff]")

_KEY_LENGTH: Final = 254

_SIGN_UP: Final = """
    INSERT INTO account (id, email, email_key, password_hash, created_at)
    VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (email_key) DO UPDATE SET password_hash =
        CASE WHEN account.email_verified_at IS NULL THEN excluded.password_hash ELSE account.password_hash END
    RETURNING id, email_verified_at IS NOT NULL AS verified
"""

MAX_EMAIL: Final = 254
"""Characters of an address, RFC 5321."""

_ENDED: Final = """
    SELECT id FROM unnest($1::uuid[]) AS asked (id)
     WHERE NOT EXISTS (
        SELECT FROM session_family WHERE session_family.id = asked.id AND ended_at IS NULL
     )
"""


def email_key(email: str) -> str:
    """The form in which addresses are compared; what the column cannot hold, and no address has, is cut."""
    return _UNSTORABLE.sub("\ufffd", email.strip().lower())[:_KEY_LENGTH]


async def sign_up(*, email: str, password_hash: str, at: datetime) -> tuple[UUID, bool]:
    """The account with this address, made if there was none, and whether its owner has proven the address.

    Until then the latest who asks sets the password. One statement that writes one row, whatever it finds.
    """
    [row] = await connections.get("default").execute_query_dict(
        _SIGN_UP, [uuid4(), email.strip(), email_key(email), password_hash, at]
    )
    return row["id"], row["verified"]


async def find_by_email(email: str) -> Account | None:
    """The account with this address, whatever its case; none for what cannot be one's."""
    key = email_key(email)
    if len(key) > MAX_EMAIL or "\x00" in key:
        return None
    return await Account.get_or_none(email_key=key)


async def lock(account_id: UUID) -> Account:
    """The account, locked until the transaction ends."""
    return await Account.select_for_update().get(id=account_id)


async def note_bounce(account_id: UUID, *, at: datetime, reason: str) -> None:
    """The mail server would not take a letter to the account's address."""
    await Account.filter(id=account_id).update(bounced_at=at, bounce_reason=reason)


async def forget_bounce(account_id: UUID) -> None:
    """It has taken one since."""
    await Account.filter(id=account_id).update(bounced_at=None, bounce_reason=None)


async def set_reminders_off(account_id: UUID, *, at: datetime | None) -> None:
    """Note since when an account wants no reminders, or that it wants them."""
    await Account.filter(id=account_id).update(reminders_off_at=at)


async def replace_hash(account: Account, *, password_hash: str) -> None:
    """Store another hash of the same password, unless the password was changed meanwhile."""
    await Account.filter(id=account.id, password_hash=account.password_hash).update(
        password_hash=password_hash
    )


async def close(account: Account, *, at: datetime) -> None:
    """Let nobody reach the account any more and forget its address, which is free again.

    The rest of it is for whoever takes the deletion up. The account must be locked.
    """
    await end_sessions(account.id, at=at)
    await EmailToken.filter(account_id=account.id).delete()
    await Letter.filter(account_id=account.id).delete()
    # What was paid stays, for the books, and is nobody's from now on.
    for sale in (Purchase, Checkout):
        await sale.filter(account_id=account.id).update(account_id=None)
    # No address is like this, nor is any password's hash empty.
    await Account.filter(id=account.id).update(email="", email_key=f"deleted:{account.id}", password_hash="")
    await AccountDeletion.create(account_id=account.id, due_at=at)


async def claim_deletions(*, now: datetime, lease: timedelta, limit: int) -> list[AccountDeletion]:
    """Deletions that are due, for this process alone until the lease ends. In a transaction."""
    deletions = (
        await AccountDeletion.select_for_update(skip_locked=True)
        .filter(due_at__lte=now)
        .order_by("due_at")
        .limit(limit)
    )
    ids = [deletion.account_id for deletion in deletions]
    await AccountDeletion.filter(account_id__in=ids).update(due_at=now + lease)
    return deletions


async def delete(account_id: UUID) -> None:
    """Delete an account with everything that is its own."""
    await Account.filter(id=account_id).delete()


async def open_session(account: Account, *, token_hash: str, expires_at: datetime) -> SessionFamily:
    """A new family with its first refresh token."""
    family = await SessionFamily.create(account=account)
    await RefreshToken.create(hash=token_hash, family=family, expires_at=expires_at)
    return family


async def live_session(family_id: UUID) -> SessionFamily | None:
    """The family with its account, unless it was ended. One statement."""
    return await SessionFamily.filter(id=family_id, ended_at=None).select_related("account").first()


async def ended_sessions(family_ids: Collection[UUID]) -> set[UUID]:
    """Those of the families that were ended or are not there. One statement, also for thousands."""
    rows = await connections.get("default").execute_query_dict(_ENDED, [list(family_ids)])
    return {row["id"] for row in rows}


async def end_session(family_id: UUID, *, at: datetime) -> None:
    """End a family: none of its tokens is good any more."""
    await SessionFamily.filter(id=family_id, ended_at=None).update(ended_at=at)


async def end_sessions(account_id: UUID, *, at: datetime, but: UUID | None = None) -> None:
    """End every family of an account, except for the family ``but``."""
    families = SessionFamily.filter(account_id=account_id, ended_at=None)
    if but is not None:
        families = families.exclude(id=but)
    await families.update(ended_at=at)


async def lock_refresh_token(token_hash: str) -> RefreshToken | None:
    """The token, locked until the transaction ends, with its family and account."""
    token = await RefreshToken.select_for_update().get_or_none(hash=token_hash)
    if token is not None:
        await token.fetch_related("family__account")
    return token


async def replace_email_token(
    account_id: UUID, *, purpose: TokenPurpose, token_hash: str, expires_at: datetime
) -> None:
    """Store a new mailed token; the unused ones before it stop working."""
    await drop_email_tokens(account_id, purpose=purpose)
    await EmailToken.create(account_id=account_id, purpose=purpose, hash=token_hash, expires_at=expires_at)


async def drop_email_tokens(account_id: UUID, *, purpose: TokenPurpose) -> None:
    """Let the unused mailed tokens of an account stop working."""
    await EmailToken.filter(account_id=account_id, purpose=purpose, used_at=None).delete()


async def use_email_token(token_hash: str, *, purpose: TokenPurpose, now: datetime) -> Account | None:
    """Use a mailed token up; the account it was made for, or none when it is not good."""
    used = await EmailToken.filter(hash=token_hash, purpose=purpose, used_at=None, expires_at__gt=now).update(
        used_at=now
    )
    if not used:
        return None
    token = await EmailToken.get(hash=token_hash).select_related("account")
    return token.account
