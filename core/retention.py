"""How long generations are kept, with their prompts and pictures."""

from datetime import datetime, timedelta

from core.lifecycle import Tier
from core.models import Generation
from core.settings import RetentionSettings


class Lifetimes:
    """From a generation's end to its deletion, by the tier that it was accepted as."""

    def __init__(self, settings: RetentionSettings) -> None:
        self._lifetimes = {
            Tier.NORMAL: timedelta(days=settings.keep_normal_days),
            Tier.PREMIUM: timedelta(days=settings.keep_premium_days),
        }

    def of(self, tier: Tier) -> timedelta:
        """How long generations of a tier are kept after their end."""
        return self._lifetimes[tier]

    def expires_at(self, generation: Generation) -> datetime | None:
        """When a generation is deleted; none before it has ended."""
        ended_at = generation.finished_at
        return None if ended_at is None else ended_at + self.of(generation.tier)
