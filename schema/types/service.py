"""The models on offer and the state of the service."""

from datetime import datetime
from typing import Self

import strawberry

from core import catalogue
from core.messages import Heartbeat
from schema.context import Context
from schema.cost import ListSize
from schema.types.enums import Scheduler


@strawberry.type(description="What a request may ask of a model.")
class ModelLimits:
    """The bounds that `generate` checks."""

    min_size: int = strawberry.field(description="Least width and height, in pixels.")
    max_size: int = strawberry.field(description="Greatest width and height, in pixels.")
    size_step: int = strawberry.field(description="Widths and heights are multiples of this.")
    max_steps: int = strawberry.field(description="Most denoising steps.")
    max_guidance_scale: float = strawberry.field(description="Greatest guidance scale.")
    max_count: int = strawberry.field(description="Most pictures in one request.")
    max_prompt_length: int = strawberry.field(description="Longest prompt, in characters.")


@strawberry.type(description="What a request gets that does not say.")
class ModelDefaults:
    """The model's own taste."""

    width: int = strawberry.field(description="Pixels.")
    height: int = strawberry.field(description="Pixels.")
    steps: int = strawberry.field(description="Denoising steps.")
    guidance_scale: float = strawberry.field(description="Guidance scale.")
    scheduler: Scheduler = strawberry.field(description="The sampler.")


@strawberry.type(description="A model on offer.")
class Model:
    """An entry of the catalogue."""

    id: strawberry.ID = strawberry.field(description="What `generate` takes as `model`.")
    name: str = strawberry.field(description="For people.")
    description: str = strawberry.field(description="What it is good for.")
    license: str = strawberry.field(description="Under which licence its weights come.")
    limits: ModelLimits = strawberry.field(description="What may be asked of it.")
    defaults: ModelDefaults = strawberry.field(description="What you get when you do not say.")

    @classmethod
    def of(cls, entry: catalogue.ModelEntry) -> Self:
        """The model of a catalogue entry."""
        return cls(
            id=strawberry.ID(entry.id),
            name=entry.name,
            description=entry.description,
            license=entry.license,
            limits=ModelLimits(size_step=catalogue.SIZE_STEP, **entry.limits.model_dump()),
            defaults=ModelDefaults(**entry.defaults.model_dump()),
        )


@strawberry.type(description="A GPU worker that is warm.")
class Worker:
    """A worker as its heartbeat tells."""

    device: str = strawberry.field(description="What it computes on.")
    models: list[strawberry.ID] = strawberry.field(description="The models that it has loaded.")
    slots: int = strawberry.field(description="How many pictures it makes at once.")
    busy: int = strawberry.field(description="How many it is making now.")
    images_per_second: float = strawberry.field(description="Its recent rate.")

    @classmethod
    def of(cls, beat: Heartbeat) -> Self:
        """The worker of a heartbeat."""
        return cls(
            device=beat.device,
            models=[strawberry.ID(model) for model in beat.models],
            slots=beat.slots,
            busy=beat.busy,
            images_per_second=beat.images_per_second,
        )


@strawberry.type(description="The state of the service.")
class Service:
    """Read without signing in."""

    version: str = strawberry.field(description="Darkroom's version.")
    window_schedule: str | None = strawberry.field(
        description="When batch windows open, as a cron expression with seconds or `@every …`."
    )
    next_window_at: datetime | None = strawberry.field(description="When the next batch window opens.")

    @strawberry.field(description="The workers that are warm.", directives=[ListSize(assumed_size=10)])
    async def workers(self, info: strawberry.Info[Context, None]) -> list[Worker]:
        """By name. Only for this is the broker asked."""
        return [Worker.of(beat) for beat in await info.context.services.queue.workers()]
