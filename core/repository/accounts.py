"""Accounts, their sessions and mailed tokens."""

from collections.abc import Collection
from datetime import datetime
from typing import Final
from uuid import UUID

from tortoise import connections

from core.models import Account, EmailToken, RefreshToken, SessionFamily, TokenPurpose

_ENDED: Final = """
    SELECT id FROM unnest($1::uuid[]) AS asked (id)
     WHERE NOT EXISTS (
        SELECT FROM session_family WHERE session_family.id = asked.id AND ended_at IS NULL
     )
"""


def email_key(email: str) -> str:
    """The form in which addresses are compared."""
    return email.strip().lower()


async def find_by_email(email: str) -> Account | None:
    """The account with this address, whatever its case."""
    return await Account.get_or_none(email_key=email_key(email))


async def lock(account_id: UUID) -> Account:
    """The account, locked until the transaction ends."""
    return await Account.select_for_update().get(id=account_id)


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
    await EmailToken.filter(account_id=account_id, purpose=purpose, used_at=None).delete()
    await EmailToken.create(account_id=account_id, purpose=purpose, hash=token_hash, expires_at=expires_at)


async def use_email_token(token_hash: str, *, purpose: TokenPurpose, now: datetime) -> Account | None:
    """Use a mailed token up; the account it was made for, or none when it is not good."""
    used = await EmailToken.filter(hash=token_hash, purpose=purpose, used_at=None, expires_at__gt=now).update(
        used_at=now
    )
    if not used:
        return None
    token = await EmailToken.get(hash=token_hash).select_related("account")
    return token.account
