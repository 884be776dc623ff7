"""Premium time: given for a voucher, a payment or by an operator, and taken back."""

from datetime import timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID, uuid4

import structlog

from core.accounts.limits import Action, RateLimiter
from core.accounts.tokens import hash_secret, new_secret
from core.clock import now
from core.errors import FieldProblem, InvalidInputError, InvalidVoucherError, NotFoundError
from core.models import Account, LetterKind, Purchase, Voucher
from core.outbox import write_letter
from core.repository import accounts, purchases
from core.repository.database import in_transaction

MAX_DAYS: Final = 3660

log = structlog.get_logger(__name__)


class RevocationReason(StrEnum):
    """Why premium time is taken back."""

    REFUND = "refund"
    DISPUTE = "dispute"
    OPERATOR = "operator"


async def create_voucher(*, days: int, valid_days: int | None = None) -> str:
    """A new voucher's code, which is shown once and stored only as a hash.

    Args:
        days: how much premium time it gives.
        valid_days: in how many days it expires, or never.

    Raises:
        InvalidInputError: ``days`` is not within 1 to 3660.
    """
    _check_days(days)
    code, code_hash = new_secret()
    expires_at = now() + timedelta(days=valid_days) if valid_days else None
    await Voucher.create(code_hash=code_hash, days=days, expires_at=expires_at)
    return code


class Vouchers:
    """Redeeming codes, with attempts counted."""

    def __init__(self, *, limiter: RateLimiter) -> None:
        self._limiter = limiter

    async def redeem(self, account: Account, *, code: str, address: str) -> Account:
        """Turn a code into premium time, added after what the account already has.

        Raises:
            RateLimitedError: too many attempts for this account or from this network address.
            InvalidVoucherError: unknown, used or expired.
        """
        await self._limiter.spend(Action.VOUCHER, address=address, account=account.email_key)
        moment = now()
        code_hash = hash_secret(code.strip())
        async with in_transaction():
            voucher = await purchases.use_voucher(code_hash, now=moment)
            if voucher is None:
                raise InvalidVoucherError("This code is not valid: unknown, already used, or expired.")
            return await give_premium(
                await accounts.lock(account.id),
                days=voucher.days,
                source="voucher",
                reference=f"voucher:{code_hash}",
            )


async def grant_premium(account_id: UUID, *, days: int) -> Account:
    """Give premium time without payment: for operators.

    Raises:
        InvalidInputError: ``days`` is not within 1 to 3660.
    """
    _check_days(days)
    async with in_transaction():
        return await give_premium(
            await accounts.lock(account_id), days=days, source="grant", reference=f"grant:{uuid4()}"
        )


async def revoke_purchase(purchase_id: UUID) -> Account:
    """Take back what is left of a purchase, whatever it came from: for operators. Moves no money.

    Raises:
        NotFoundError: there is no such purchase, or it was revoked before.
    """
    async with in_transaction():
        found = await purchases.lock_purchase(purchase_id)
        if found is None or found[0].revoked_at is not None:
            raise NotFoundError(f"there is no purchase {purchase_id} that could be revoked")
        purchase, account = found
        await take_back_premium(account, purchase, reason=RevocationReason.OPERATOR)
        return account


async def give_premium(account: Account, *, days: int, source: str, reference: str) -> Account:
    """Add premium time and tell the customer; within a transaction that has locked the account.

    Args:
        account: whose time it is.
        days: how much.
        source: where it comes from.
        reference: what it was given for; it counts once.
    """
    account = await purchases.extend_premium(
        account, days=days, source=source, reference=reference, now=now()
    )
    await write_letter(account.id, LetterKind.PREMIUM_STARTED)
    log.info("premium_given", account=str(account.id), days=days, source=source)
    return account


async def take_back_premium(account: Account, purchase: Purchase, *, reason: RevocationReason) -> None:
    """End a purchase's time and tell the customer; within a transaction that has locked the account."""
    await purchases.revoke_premium(account, purchase, now=now())
    await write_letter(
        account.id, LetterKind.PREMIUM_REVOKED, {"reason": reason.value, "days": purchase.days}
    )
    log.info("premium_revoked", account=str(account.id), purchase=str(purchase.id), reason=reason.value)


def _check_days(days: int) -> None:
    if not 1 <= days <= MAX_DAYS:
        raise InvalidInputError([FieldProblem("days", f"must be 1 to {MAX_DAYS}, not {days}")])
