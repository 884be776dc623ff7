"""The reference: diffusers' own pipeline, as anybody would call it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from diffusers.utils.logging import disable_progress_bar
from PIL import Image

from core.lifecycle import Scheduler
from core.messages import Parameters
from gpu_worker.demo_model import WEIGHTS
from gpu_worker.pipeline import Placement, best_placement, make_scheduler


class StockPipeline:
    """A model in diffusers' pipeline as it comes, with the threads that the worker uses.

    Args:
        folder: of the weights; the bundled model's unless given.
        family: which pipeline.
        placement: the worker's own unless given.
    """

    def __init__(
        self,
        folder: Path = WEIGHTS,
        *,
        family: Literal["sd1", "sdxl"] = "sd1",
        placement: Placement | None = None,
    ) -> None:
        disable_progress_bar()
        placement = placement or best_placement()
        kind = StableDiffusionXLPipeline if family == "sdxl" else StableDiffusionPipeline
        extra = {"add_watermarker": False} if family == "sdxl" else {}
        self.pipeline: Any = kind.from_pretrained(
            folder, use_safetensors=True, dtype=placement.dtype, **extra
        ).to(placement.device)
        self.pipeline.set_progress_bar_config(disable=True)
        self._config = dict(self.pipeline.scheduler.config)
        self._schedulers: dict[tuple[Scheduler, int], Any] = {}

    def make(self, asked: Sequence[Parameters]) -> list[Image.Image]:
        """One call for all of ``asked``.

        It takes one size, sampler, guidance and number of steps: the first one's, and the most steps; and
        no negative prompts unless the first one has one.
        """
        first, steps = asked[0], max(one.steps for one in asked)
        self.pipeline.scheduler = self._scheduler(first.scheduler, steps)
        made: list[Image.Image] = self.pipeline(
            [one.prompt for one in asked],
            # Models of the XL family take an empty one for words, and none for nothing, as ours do.
            negative_prompt=[one.negative_prompt for one in asked] if first.negative_prompt else None,
            width=first.width,
            height=first.height,
            num_inference_steps=steps,
            guidance_scale=first.guidance_scale,
            generator=[torch.Generator().manual_seed(one.seed) for one in asked],
        ).images
        return made

    def _scheduler(self, kind: Scheduler, steps: int) -> Any:  # noqa: ANN401 - diffusers is not typed
        key = (kind, steps)
        if key not in self._schedulers:
            self._schedulers[key] = make_scheduler(kind, self._config, steps=steps)
        return self._schedulers[key]


def batches(asked: Sequence[Parameters], size: int) -> list[Sequence[Parameters]]:
    """``asked`` in order, ``size`` at a time."""
    return [asked[start : start + size] for start in range(0, len(asked), size)]
