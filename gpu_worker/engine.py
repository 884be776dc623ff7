"""Makes pictures: the loaded models, and one pipeline call for all pictures of equal shape."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid4

import numpy as np
import structlog
import torch
from PIL import Image

from core.catalogue import HubSource, ModelEntry
from core.errors import ConfigurationError, GenerationFailedError
from core.lifecycle import Scheduler
from core.messages import Job, Parameters
from gpu_worker.pipeline import Placement, embed_prompt, load_pipeline, make_scheduler, tokens_beyond_window

WARM_UP_STEPS: Final = 2

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Shape:
    """All that pictures must have in common to be made in one pipeline call. Sizes in pixels."""

    model: str
    width: int
    height: int
    steps: int
    guidance_scale: float
    scheduler: Scheduler


@dataclass(frozen=True, slots=True)
class Picture:
    """What is one picture's own. ``index`` counts the pictures of its job from 0."""

    job: UUID
    index: int
    prompt: str
    negative_prompt: str
    seed: int


def shape_of(parameters: Parameters) -> Shape:
    """What ``parameters`` ask to have in common with others."""
    return Shape(
        model=parameters.model,
        width=parameters.width,
        height=parameters.height,
        steps=parameters.steps,
        guidance_scale=parameters.guidance_scale,
        scheduler=parameters.scheduler,
    )


def pictures_of(job: Job) -> list[Picture]:
    """The pictures that ``job`` asks for, in order, each with its own seed."""
    asked = job.parameters
    return [
        Picture(job.id, index, asked.prompt, asked.negative_prompt, asked.seed_of(index))
        for index in range(asked.count)
    ]


@dataclass(frozen=True, slots=True)
class _Model:
    entry: ModelEntry
    pipeline: Any
    scheduler_config: dict[str, Any]


class Engine:
    """The models of this process on one device. Not for two threads at once: a call uses the whole device."""

    def __init__(self, *, placement: Placement) -> None:
        self._placement = placement
        self._models: dict[str, _Model] = {}

    @property
    def models(self) -> tuple[str, ...]:
        """Ids of the loaded models, in the order of loading."""
        return tuple(self._models)

    def load(self, entry: ModelEntry, folder: Path) -> None:
        """Load ``entry`` from its weights in ``folder`` onto the device.

        Raises:
            WeightsError: the files do not fit together.
        """
        began = time.monotonic()
        variant = entry.source.variant if isinstance(entry.source, HubSource) else None
        pipeline = load_pipeline(folder, family=entry.family, variant=variant, placement=self._placement)
        self._models[entry.id] = _Model(entry, pipeline, dict(pipeline.scheduler.config))
        _log.info(
            "engine.loaded",
            model=entry.id,
            device=self._placement.name,
            dtype=str(self._placement.dtype),
            seconds=round(time.monotonic() - began, 2),
        )

    def warm_up(self) -> None:
        """Make a picture of the default size with every model and throw it away.

        What the first picture alone pays for is then paid before a customer waits for it.

        Raises:
            GenerationFailedError: a model gives no usable picture on this device.
        """
        for model in self._models.values():
            began = time.monotonic()
            defaults = model.entry.defaults
            shape = Shape(
                model=model.entry.id,
                width=defaults.width,
                height=defaults.height,
                steps=WARM_UP_STEPS,
                guidance_scale=defaults.guidance_scale,
                scheduler=defaults.scheduler,
            )
            for made in self.run(shape, [Picture(uuid4(), 0, "", "", 0)], lambda _step, _total: None):
                if isinstance(made, GenerationFailedError):
                    raise GenerationFailedError(f"model {shape.model} does not warm up: {made}") from made
            _log.info("engine.warm", model=shape.model, seconds=round(time.monotonic() - began, 2))

    def run(
        self, shape: Shape, pictures: Sequence[Picture], on_step: Callable[[int, int], None]
    ) -> list[Image.Image | GenerationFailedError]:
        """Make ``pictures`` in one call; what they look like does not depend on each other.

        Args:
            shape: what they have in common.
            pictures: at least one.
            on_step: called with (steps done, steps in all) after each step, in this thread. What it raises
                ends the call and comes out of it.

        Returns:
            For each of ``pictures``, in order, an RGB picture or why there is none.

        Raises:
            ConfigurationError: the model is not loaded.
        """
        if shape.model not in self._models:
            raise ConfigurationError(f"model {shape.model} is not loaded, only {', '.join(self._models)}")
        model = self._models[shape.model]
        pipeline = model.pipeline
        pipeline.scheduler = make_scheduler(shape.scheduler, model.scheduler_config, steps=shape.steps)

        def step_done(_pipeline: object, step: int, _timestep: object, _tensors: object) -> dict[str, object]:
            on_step(step + 1, shape.steps)
            return {}

        result = pipeline(
            **self._embed(model, shape, pictures),
            width=shape.width,
            height=shape.height,
            num_inference_steps=shape.steps,
            guidance_scale=shape.guidance_scale,
            # On the CPU whatever the device is: a device's own generator draws other noise for the same seed.
            generator=[torch.Generator("cpu").manual_seed(picture.seed) for picture in pictures],
            callback_on_step_end=step_done,
            output_type="np",
        )
        held_back = getattr(result, "nsfw_content_detected", None) or [False] * len(pictures)
        return [_finished(pixels, held=held) for pixels, held in zip(result.images, held_back, strict=True)]

    def _embed(self, model: _Model, shape: Shape, pictures: Sequence[Picture]) -> dict[str, torch.Tensor]:
        """The prompts' embeddings, each made alone and then laid together along the batch."""
        pipeline = model.pipeline
        # Models distilled for guidance take its scale as an input instead of a second pass.
        guided = shape.guidance_scale > 1 and pipeline.unet.config.time_cond_proj_dim is None
        embedded = []
        for picture in pictures:
            if beyond := tokens_beyond_window(pipeline, picture.prompt):
                _log.warning("engine.prompt_cut", job=str(picture.job), tokens_unseen=beyond)
            embedded.append(embed_prompt(pipeline, picture.prompt, picture.negative_prompt, guided=guided))
        return {name: torch.cat([one[name] for one in embedded]) for name in embedded[0]}


def _finished(pixels: np.ndarray[Any, Any], *, held: bool) -> Image.Image | GenerationFailedError:
    """One picture from the decoder's output, shape (height, width, 3), values 0 to 1."""
    if held:
        return GenerationFailedError("The model's safety check held this picture back.")
    if not np.isfinite(pixels).all():
        return GenerationFailedError("The model gave no usable picture for these parameters.")
    return Image.fromarray((pixels * 255).round().astype(np.uint8))
