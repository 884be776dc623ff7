"""How often something may be tried, and how much is left: shared by all api processes through PostgreSQL.

Each allowance restores itself evenly, as the generic cell rate algorithm has it: all of it may be spent at
once, and then a ``limit``-th of the window later there is one attempt again. One statement takes from it, so
that no number of processes, or of attempts at the same moment, gets more.
"""

import hashlib
import math
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

from core.errors import QuotaExceededError, RateLimitedError
from core.lifecycle import Tier
from core.models import Account
from core.repository import rate_limits
from core.settings import LimitSettings
from core.telemetry import RATE_LIMITED

_MINUTE: Final = timedelta(minutes=1)
_HOUR: Final = timedelta(hours=1)
_DAY: Final = timedelta(days=1)


class Action(StrEnum):
    """What is counted, each for itself."""

    SIGNIN = "signin"
    SIGNUP = "signup"
    RESET = "reset"
    VOUCHER = "voucher"
    CHECKOUT = "checkout"
    PICTURES = "pictures"


@dataclass(frozen=True, slots=True)
class Allowance:
    """So many of an action in a window."""

    action: Action
    limit: int
    window: timedelta

    def cost(self, amount: int = 1) -> timedelta:
        """What an amount takes from the window; rounded down, so that ``limit`` of them fit into it."""
        return self.window // self.limit * amount

    def standing(self, restored_in: timedelta) -> "Standing":
        """Where a customer stands from whose allowance something is missing."""
        restored_in = max(restored_in, timedelta(0))
        left = (self.window - restored_in) // self.cost()
        return Standing(self, remaining=min(max(left, 0), self.limit), restored_in=restored_in)


@dataclass(frozen=True, slots=True)
class Standing:
    """How much of an allowance is left, and in how long all of it is there again."""

    allowance: Allowance
    remaining: int
    restored_in: timedelta

    def seconds_until(self, amount: int = 1) -> int:
        """In how many whole seconds, at least one, an amount is there; answers and headers say the same."""
        missing = self.restored_in + self.allowance.cost(amount) - self.allowance.window
        return max(math.ceil(missing.total_seconds()), 1)


touched: ContextVar[list[Standing] | None] = ContextVar("touched", default=None)
"""Where the request under way notes what it spent or was refused; the edge makes headers of it."""


def note(standing: Standing) -> None:
    """Have the answer of the request under way tell where the customer stands."""
    if (standings := touched.get()) is not None:
        standings.append(standing)


class RateLimiter:
    """Counts what customers and network addresses do.

    Args:
        settings: how much of it they may.
    """

    def __init__(self, settings: LimitSettings) -> None:
        self._allowances = {
            Action.SIGNIN: Allowance(Action.SIGNIN, settings.signin_attempts_per_minute, _MINUTE),
            Action.SIGNUP: Allowance(Action.SIGNUP, settings.signup_attempts_per_hour, _HOUR),
            Action.RESET: Allowance(Action.RESET, settings.reset_requests_per_hour, _HOUR),
            Action.VOUCHER: Allowance(Action.VOUCHER, settings.voucher_attempts_per_minute, _MINUTE),
            Action.CHECKOUT: Allowance(Action.CHECKOUT, settings.checkouts_per_hour, _HOUR),
        }
        self._pictures = {
            Tier.NORMAL: Allowance(Action.PICTURES, settings.pictures_per_day_normal, _DAY),
            Tier.PREMIUM: Allowance(Action.PICTURES, settings.pictures_per_day_premium, _DAY),
        }

    def pictures(self, tier: Tier) -> Allowance:
        """The pictures that an account of a tier may ask for in a day."""
        return self._pictures[tier]

    async def spend(self, action: Action, *, address: str, account: str | None = None) -> None:
        """Count one attempt, for a network address and then for an account, by its e-mail key.

        An address that has none left does not count against the account: nobody locks another out from there
        for longer.

        Raises:
            RateLimitedError: one of the two has none left.
        """
        allowance = self._allowances[action]
        for key in _keys(action, address=address, account=account):
            restored_in = await rate_limits.spend(key, cost=allowance.cost(), window=allowance.window)
            if restored_in is None:
                standing = await _refused(allowance, key)
                raise RateLimitedError(retry_after=standing.seconds_until())
            note(allowance.standing(restored_in))

    async def standings(self, *, address: str, account: Account | None, tier: Tier) -> list[Standing]:
        """Where somebody stands: the smaller of what the network address and the account have left.

        Args:
            address: the network address.
            account: the account, or none for a stranger, who has no pictures.
            tier: the account's.
        """
        keys = {
            allowance: _keys(action, address=address, account=account.email_key if account else None)
            for action, allowance in self._allowances.items()
        }
        if account is not None:
            keys[self._pictures[tier]] = [pictures_key(account.id)]
        restored = await rate_limits.restored_in([key for each in keys.values() for key in each])
        return [
            allowance.standing(max(restored.get(key, timedelta(0)) for key in each))
            for allowance, each in keys.items()
        ]

    async def pictures_refused(self, account_id: UUID, tier: Tier, count: int) -> QuotaExceededError:
        """The error for so many pictures that the rest of the day's allowance does not cover."""
        allowance = self._pictures[tier]
        standing = await _refused(allowance, pictures_key(account_id))
        reason = (
            f"At most {allowance.limit} pictures a day: {standing.remaining} are left, this asks for {count}."
        )
        return QuotaExceededError(reason, limit=allowance.limit, retry_after=standing.seconds_until(count))


async def _refused(allowance: Allowance, key: str) -> Standing:
    """Where somebody stands who gets no more, counted and noted."""
    restored = await rate_limits.restored_in([key])
    standing = allowance.standing(restored.get(key, timedelta(0)))
    note(standing)
    RATE_LIMITED.labels(action=allowance.action.value).inc()
    return standing


def pictures_key(account_id: UUID) -> str:
    """Under which the pictures of an account are counted."""
    return _hashed(Action.PICTURES, f"account:{account_id}")


def _keys(action: Action, *, address: str, account: str | None) -> list[str]:
    keys = [_hashed(action, f"address:{address}")]
    return keys if account is None else [*keys, _hashed(action, f"account:{account}")]


def _hashed(action: Action, key: str) -> str:
    return hashlib.sha256(f"{action}:{key}".encode()).hexdigest()
