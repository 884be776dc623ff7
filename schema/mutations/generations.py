"""Asking for pictures, and thinking better of it."""

from collections.abc import Mapping
from typing import Annotated, Final

import strawberry
from strawberry.types.arguments import InputContext
from strawberry.types.base import get_object_definition
from strawberry.utils.str_converters import to_camel_case

from core.errors import NotFoundError
from core.generations import GenerationRequest
from core.lifecycle import Delivery, ImageFormat, Scheduler
from schema.context import Context
from schema.errors import (
    AlreadyFinished,
    EmailNotVerified,
    InvalidInput,
    NotFound,
    PremiumRequired,
    QuotaExceeded,
    RateLimited,
)
from schema.types.generation import Generation
from schema.types.node import key_of


@strawberry.input(description="What to draw, and how. What is left out takes the model's default.")
class GenerateInput:
    """A request for pictures."""

    prompt: str = strawberry.field(description="What to draw: 1 to the model's `maxPromptLength` characters.")
    negative_prompt: str = strawberry.field(
        default="", description="What to keep away from; as long as a prompt at most."
    )
    model: strawberry.ID | None = strawberry.field(
        default=None, description="A model's id, from `models`; the first of them if left out."
    )
    width: int | None = strawberry.field(
        default=None, description="Pixels, the model's `minSize` to `maxSize`, a multiple of 8."
    )
    height: int | None = strawberry.field(
        default=None, description="Pixels, the model's `minSize` to `maxSize`, a multiple of 8."
    )
    steps: int | None = strawberry.field(
        default=None, description="Denoising steps, 1 to the model's `maxSteps`."
    )
    guidance_scale: float | None = strawberry.field(
        default=None, description="How strictly to follow the prompt, 0 to the model's `maxGuidanceScale`."
    )
    seed: int | None = strawberry.field(
        default=None, description="0 to 2147483647; the same seed gives the same picture. Random if left out."
    )
    count: int = strawberry.field(
        default=1, description="How many pictures, 1 to the model's `maxCount`, each with the next seed."
    )
    scheduler: Scheduler | None = strawberry.field(
        default=None, description="The sampler; the model's own if left out."
    )
    format: ImageFormat = strawberry.field(default=ImageFormat.PNG, description="The pictures' encoding.")
    delivery: Delivery | None = strawberry.field(
        default=None, description="EMAIL by default on the normal tier, DOWNLOAD on premium."
    )
    idempotency_key: str | None = strawberry.field(
        default=None,
        description="Up to 128 characters of your choice: the same key with the same request never makes a "
        "second generation.",
    )

    def request(self) -> GenerationRequest:
        """The request in the service's words."""
        return GenerationRequest(
            prompt=self.prompt,
            negative_prompt=self.negative_prompt,
            model=self.model,
            width=self.width,
            height=self.height,
            steps=self.steps,
            guidance_scale=self.guidance_scale,
            seed=self.seed,
            count=self.count,
            scheduler=self.scheduler,
            format=self.format,
            delivery=self.delivery,
            idempotency_key=self.idempotency_key,
        )


_DEFINITION: Final = get_object_definition(GenerateInput, strict=True)
_PYTHON_NAMES: Final = {to_camel_case(field.python_name): field.python_name for field in _DEFINITION.fields}


def _built(kind: type, value: Mapping[str, object], _: InputContext) -> object:
    """The input of values that are coerced already.

    Strawberry's own conversion asks each field for its type and name every time: an eighth of a request.
    """
    return kind(**{_PYTHON_NAMES[name]: entry for name, entry in value.items()})


_DEFINITION.from_input = _built


GenerateResult = Annotated[
    Generation | InvalidInput | PremiumRequired | QuotaExceeded | EmailNotVerified | RateLimited,
    strawberry.union("GenerateResult", description="What came of `generate`."),
]
CancelGenerationResult = Annotated[
    Generation | NotFound | AlreadyFinished,
    strawberry.union("CancelGenerationResult", description="What came of `cancelGeneration`."),
]


@strawberry.type
class GenerationMutation:
    """Mutations about generations."""

    @strawberry.mutation(
        description="Ask for pictures. Once this answers with a Generation, you get them or a stated failure."
    )
    async def generate(
        self,
        info: strawberry.Info[Context, None],
        input: Annotated[GenerateInput, strawberry.argument(description="What to draw.")],  # noqa: A002 - the contract's name
    ) -> GenerateResult:
        """Accepts, or says which field is wrong."""
        accepted = await info.context.services.generations.accept(
            info.context.claims(), input.request(), request_id=info.context.request_id
        )
        return Generation.of(accepted)

    @strawberry.mutation(description="Cancel a generation that has not ended.")
    async def cancel_generation(
        self,
        info: strawberry.Info[Context, None],
        id: Annotated[strawberry.ID, strawberry.argument(description="The generation's id.")],  # noqa: A002 - the contract's name
    ) -> CancelGenerationResult:
        """Canceled for good."""
        viewer = await info.context.viewer()
        key = key_of(id, "Generation")
        if key is None:
            raise NotFoundError("There is no such generation.")
        return Generation.of(await info.context.services.generations.cancel(viewer.account, key))
