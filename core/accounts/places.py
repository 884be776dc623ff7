"""How many subscriptions an account may have live at the same time, at all api processes together."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final
from uuid import uuid4

import structlog

from core.clock import pause
from core.errors import QuotaExceededError, ServiceUnavailableError
from core.lifecycle import Tier
from core.models import Account
from core.repository import rate_limits
from core.settings import LimitSettings
from core.telemetry import RATE_LIMITED

LEASE: Final = timedelta(seconds=60)
"""How long the places of an api process that died stay taken."""

_RENEW_SECONDS: Final = 20.0

log = structlog.get_logger(__name__)


class SubscriptionPlaces:
    """The places that this api process holds for its subscribers.

    Args:
        settings: how many an account has.
    """

    def __init__(self, settings: LimitSettings) -> None:
        self._most = {
            Tier.NORMAL: settings.max_subscriptions_normal,
            Tier.PREMIUM: settings.max_subscriptions_premium,
        }
        self._process = uuid4()

    def most(self, tier: Tier) -> int:
        """How many subscriptions an account of a tier may have live."""
        return self._most[tier]

    async def taken(self, account: Account) -> int:
        """How many it has."""
        return await rate_limits.places_taken(account.id)

    @asynccontextmanager
    async def hold(self, account: Account, tier: Tier) -> AsyncIterator[None]:
        """Hold a place for as long as the block runs.

        Raises:
            QuotaExceededError: all places of the account are taken.
        """
        most = self._most[tier]
        place = await rate_limits.take_place(account.id, process=self._process, places=most, lease=LEASE)
        if place is None:
            RATE_LIMITED.labels(action="subscriptions").inc()
            raise QuotaExceededError(
                f"At most {most} subscriptions of your account may be live; end one of them first.",
                limit=most,
            )
        try:
            yield
        finally:
            try:
                await rate_limits.leave_place(place)
            except ServiceUnavailableError as error:
                # It becomes free when its lease ends.
                log.warning("place_not_left", error=repr(error))

    async def run(self, *, stop: asyncio.Event) -> None:
        """Hold on to what is held until ``stop`` is set, then give all of it back."""
        while not stop.is_set():
            await pause(stop, seconds=_RENEW_SECONDS)
            try:
                if stop.is_set():
                    await rate_limits.leave_places(self._process)
                else:
                    await rate_limits.renew_places(self._process, lease=LEASE)
            except ServiceUnavailableError as error:
                log.warning("places_not_renewed", error=repr(error))
