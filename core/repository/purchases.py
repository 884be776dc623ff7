"""Premium time: vouchers, payment pages, and what came of them."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from tortoise import connections

from core.models import Account, Checkout, Purchase, Voucher

# $1 is now and $2 how long before its end a purchase is announced. One that is shorter than twice that is
# announced in its middle. Of purchases that follow one another the last one alone is an end.
_ENDS_SOON: Final = """
    purchase.reminded_at IS NULL AND purchase.revoked_at IS NULL
    AND purchase.ends_at > $1 AND purchase.ends_at <= $1 + $2::interval
    AND purchase.ends_at - least($2::interval, (purchase.ends_at - purchase.starts_at) / 2) <= $1
    AND purchase.ends_at = account.premium_until
    AND account.email_verified_at IS NOT NULL AND account.reminders_off_at IS NULL AND account.email <> ''
"""

_LOCK_ENDING: Final = f"""
    SELECT account.id FROM account JOIN purchase ON purchase.account_id = account.id
     WHERE {_ENDS_SOON} LIMIT $3 FOR NO KEY UPDATE OF account SKIP LOCKED
"""  # noqa: S608 - both parts stand here

# A statement of its own, which sees what whoever had the lock before has written.
_MARK_REMINDED: Final = f"""
    UPDATE purchase SET reminded_at = $1 FROM account
     WHERE account.id = ANY ($3::uuid[]) AND purchase.account_id = account.id AND {_ENDS_SOON}
    RETURNING purchase.account_id, purchase.ends_at
"""  # noqa: S608 - as above


async def use_voucher(code_hash: str, *, now: datetime) -> Voucher | None:
    """Redeem a voucher; none when it is unknown, used or expired."""
    voucher = await Voucher.select_for_update().get_or_none(code_hash=code_hash, redeemed_at=None)
    if voucher is None or (voucher.expires_at is not None and voucher.expires_at <= now):
        return None
    voucher.redeemed_at = now
    await voucher.save(update_fields=["redeemed_at"])
    return voucher


async def lock_checkout(checkout_id: UUID) -> tuple[Checkout, Account | None] | None:
    """A checkout and its account, locked until the transaction ends.

    None if there is no such checkout; without an account if that was deleted. The account is locked first, as
    in everything that locks what belongs to it: its deletion does so too.
    """
    known = await Checkout.get_or_none(id=checkout_id)
    if known is None:
        return None
    account = await Account.select_for_update().get_or_none(id=known.account_id)
    # Read again: another delivery of the same webhook may have had the locks.
    checkout = await Checkout.select_for_update().get_or_none(id=checkout_id)
    return None if checkout is None else (checkout, account)


async def find_purchase(reference: str) -> Purchase | None:
    """The purchase that was made by a payment, voucher or grant."""
    return await Purchase.get_or_none(reference=reference)


async def lock_purchase(purchase_id: UUID) -> tuple[Purchase, Account] | None:
    """A purchase and its account, which is locked until the transaction ends; none when either is gone."""
    known = await Purchase.get_or_none(id=purchase_id)
    if known is None:
        return None
    account = await Account.select_for_update().get_or_none(id=known.account_id)
    purchase = await Purchase.get_or_none(id=purchase_id)
    return None if purchase is None or account is None else (purchase, account)


async def purchases_of(account_id: UUID) -> Sequence[Purchase]:
    """An account's purchases, in the order in which they are used up."""
    return await Purchase.filter(account_id=account_id).order_by("starts_at", "created_at")


async def extend_premium(
    account: Account, *, days: int, source: str, reference: str, now: datetime
) -> Account:
    """Add premium time after what the account already has; the account must be locked."""
    starts_at = max(now, account.premium_until or now)
    ends_at = starts_at + timedelta(days=days)
    await Purchase.create(
        account=account, source=source, reference=reference, days=days, starts_at=starts_at, ends_at=ends_at
    )
    account.premium_until = ends_at
    await account.save(update_fields=["premium_until"])
    return account


async def revoke_premium(account: Account, purchase: Purchase, *, now: datetime) -> None:
    """Take back what is left of a purchase; the account must be locked.

    Used time stays used. Purchases that follow move forward by what was left, so none of them loses any.
    """
    end = min(purchase.ends_at, max(purchase.starts_at, now))
    left = purchase.ends_at - end
    if left and account.premium_until is not None:
        later = await Purchase.filter(account_id=account.id, starts_at__gte=purchase.ends_at)
        for other in later:
            other.starts_at -= left
            other.ends_at -= left
            await other.save(update_fields=["starts_at", "ends_at"])
        account.premium_until -= left
        await account.save(update_fields=["premium_until"])
    purchase.ends_at = end
    purchase.revoked_at = now
    await purchase.save(update_fields=["ends_at", "revoked_at"])


async def mark_ending(*, now: datetime, lead: timedelta, limit: int) -> list[tuple[UUID, datetime]]:
    """Purchases whose end is near and was not announced yet, marked as announced. In a transaction.

    Any number of processes may ask at once, and each purchase is told to one of them, once.

    Args:
        now: the moment.
        lead: how long before its end one is announced; one that is short in its middle.
        limit: how many at most.

    Returns:
        The accounts, each with the end of its premium time.
    """
    connection = connections.get("default")
    # The account comes first, as in everything that locks what belongs to it.
    locked = await connection.execute_query_dict(_LOCK_ENDING, [now, lead, limit])
    if not locked:
        return []
    ids = [row["id"] for row in locked]
    marked = await connection.execute_query_dict(_MARK_REMINDED, [now, lead, ids])
    return [(row["account_id"], row["ends_at"]) for row in marked]
