"""Premium time: vouchers and grants."""

from datetime import timedelta
from uuid import UUID, uuid4

from core.accounts.limits import Action, RateLimiter
from core.accounts.tokens import hash_secret, new_secret
from core.clock import now
from core.errors import FieldProblem, InvalidInputError, InvalidVoucherError
from core.models import Account, LetterKind, Voucher
from core.outbox import write_letter
from core.repository import accounts
from core.repository.database import in_transaction

MAX_DAYS = 3660


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
            voucher = await accounts.use_voucher(code_hash, now=moment)
            if voucher is None:
                raise InvalidVoucherError("This code is not valid: unknown, already used, or expired.")
            return await _extend(
                account.id, days=voucher.days, source="voucher", reference=f"voucher:{code_hash}"
            )


async def grant_premium(account_id: UUID, *, days: int) -> Account:
    """Give premium time without payment: for operators.

    Raises:
        InvalidInputError: ``days`` is not within 1 to 3660.
    """
    _check_days(days)
    async with in_transaction():
        return await _extend(account_id, days=days, source="grant", reference=f"grant:{uuid4()}")


async def _extend(account_id: UUID, *, days: int, source: str, reference: str) -> Account:
    account = await accounts.extend_premium(
        await accounts.lock(account_id), days=days, source=source, reference=reference, now=now()
    )
    await write_letter(account_id, LetterKind.PREMIUM_STARTED)
    return account


def _check_days(days: int) -> None:
    if not 1 <= days <= MAX_DAYS:
        raise InvalidInputError([FieldProblem("days", f"must be 1 to {MAX_DAYS}, not {days}")])
