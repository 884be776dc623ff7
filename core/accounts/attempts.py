"""How often something may be tried, counted in this process."""

import time

from limits import RateLimitItem, RateLimitItemPerHour, RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import MovingWindowRateLimiter

from core.errors import RateLimitedError
from core.settings import LimitSettings


class AttemptLimiter:
    """Counts attempts per account and per network address, in a moving window."""

    def __init__(self, settings: LimitSettings) -> None:
        self._strategy = MovingWindowRateLimiter(MemoryStorage())
        self._signin = RateLimitItemPerMinute(settings.signin_attempts_per_minute)
        self._signup = RateLimitItemPerHour(settings.signup_attempts_per_hour)

    async def count_signin(self, *keys: str) -> None:
        """Count one attempt at a secret (password, voucher, mailed token) for each key.

        Raises:
            RateLimitedError: one of the keys has none left.
        """
        await self._count(self._signin, keys)

    async def count_signup(self, *keys: str) -> None:
        """Count one request for a letter (sign-up, reset) for each key.

        Raises:
            RateLimitedError: one of the keys has none left.
        """
        await self._count(self._signup, keys)

    async def _count(self, item: RateLimitItem, keys: tuple[str, ...]) -> None:
        for key in keys:
            if not await self._strategy.hit(item, key):
                reset, _ = await self._strategy.get_window_stats(item, key)
                raise RateLimitedError(retry_after=max(1.0, reset - time.time()))
