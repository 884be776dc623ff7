"""GraphQL's view of the enumerations of :mod:`core.lifecycle`; each is described where it is registered."""

import strawberry

from core.lifecycle import Delivery, GenerationState, ImageFormat, Scheduler, Tier

__all__ = ["Delivery", "GenerationState", "ImageFormat", "Scheduler", "Tier"]

strawberry.enum(
    Tier, description="NORMAL: served in the next batch window, by e-mail. PREMIUM: served at once."
)
strawberry.enum(
    Delivery, description="How finished pictures reach you: by signed link, or attached to a letter."
)
strawberry.enum(ImageFormat, description="The encoding of the pictures. PNG is lossless.")
strawberry.enum(Scheduler, description="The sampler that takes the denoising steps.")
strawberry.enum(
    GenerationState,
    description="QUEUED, RUNNING, then one of SUCCEEDED, FAILED, REJECTED or CANCELED, which never changes.",
)
