"""A job to publish."""

from uuid import uuid4

from core.clock import now
from core.lifecycle import Delivery, Scheduler, Tier
from core.messages import Job, Parameters


def job(tier: Tier = Tier.PREMIUM) -> Job:
    """Of no model that there is, for tests that make no picture."""
    return Job(
        id=uuid4(),
        tier=tier,
        delivery=Delivery.DOWNLOAD,
        parameters=Parameters(
            prompt="x",
            model="m",
            width=64,
            height=64,
            steps=1,
            guidance_scale=1,
            seed=1,
            scheduler=Scheduler.DDIM,
        ),
        accepted_at=now(),
    )
