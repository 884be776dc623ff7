"""From a folder of weights to a diffusers pipeline on a device, and the samplers it can run with."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)
from diffusers.utils.logging import disable_progress_bar

from core.errors import ConfigurationError, WeightsError
from core.lifecycle import Scheduler

_FP8_CAPABILITY: Final = (8, 9)
"""NVIDIA's Ada; Hopper is 9.0."""

LCM_TRAINING_STEPS: Final = 50
"""Steps of the sampler that latent consistency models are distilled from: more of them need a finer one."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where pictures are made, and in which precision; with ``fp8``, large products have eight bits."""

    device: torch.device
    dtype: torch.dtype
    fp8: bool = False

    @property
    def name(self) -> str:
        """What to call the device in a heartbeat, such as ``cpu`` or ``NVIDIA H200``."""
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type


def best_placement(
    precision: Literal["auto", "float32", "float16", "bfloat16"] = "auto", *, fp8: bool = False
) -> Placement:
    """The first CUDA device where there is one, else the CPU.

    On the CPU this also sets how many threads torch computes with, see :func:`use_cores`.

    Args:
        precision: of the weights; half precision on CUDA and single precision on the CPU where it is auto.
        fp8: whether large products are to have eight bits.

    Raises:
        ConfigurationError: the device has no FP8.
    """
    if torch.cuda.is_available():
        device = torch.device("cuda", torch.cuda.current_device())
        if fp8 and torch.cuda.get_device_capability(device) < _FP8_CAPABILITY:
            raise ConfigurationError(
                f"{torch.cuda.get_device_name(device)} has no FP8: from 8.9 on they have"
            )
        return Placement(device, getattr(torch, "float16" if precision == "auto" else precision), fp8)
    if fp8:
        raise ConfigurationError("only GPUs have FP8")
    use_cores()
    return Placement(torch.device("cpu"), getattr(torch, "float32" if precision == "auto" else precision))


def use_cores() -> None:
    """Have torch compute with every core that this process may use, or as ``OMP_NUM_THREADS`` says."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(len(os.sched_getaffinity(0)))


def load_pipeline(
    folder: Path, *, family: Literal["sd1", "sdxl"], variant: str | None, placement: Placement
) -> Any:  # noqa: ANN401 - diffusers is not typed
    """Load ``folder`` (diffusers' layout, safetensors) as the pipeline of its family, ready to be called.

    Raises:
        WeightsError: the files do not fit together.
    """
    disable_progress_bar()
    kind = StableDiffusionXLPipeline if family == "sdxl" else StableDiffusionPipeline
    # The watermark of the XL pipeline would change pixels, and depends on which packages are there.
    extra = {"add_watermarker": False} if family == "sdxl" else {}
    try:
        pipeline = kind.from_pretrained(
            str(folder),
            dtype=placement.dtype,
            variant=variant,
            use_safetensors=True,
            local_files_only=True,
            **extra,
        )
    except (OSError, ValueError, RuntimeError, TypeError, KeyError) as error:
        raise WeightsError(f"{folder} does not load: {error}") from error
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(placement.device)


def make_scheduler(kind: Scheduler, config: Mapping[str, Any], *, steps: int) -> Any:  # noqa: ANN401 - as above
    """The sampler ``kind`` with the noise schedule that the model was trained with.

    Args:
        kind: which sampler.
        config: the configuration of the scheduler that came with the model.
        steps: how many steps it will be asked for.
    """
    match kind:
        case Scheduler.DDIM:
            # Latents have no fixed range; clipping is for models that work on pixels.
            return DDIMScheduler.from_config(config, clip_sample=False)
        case Scheduler.EULER:
            return EulerDiscreteScheduler.from_config(config)
        case Scheduler.EULER_ANCESTRAL:
            return EulerAncestralDiscreteScheduler.from_config(config)
        case Scheduler.DPMPP_2M:
            return DPMSolverMultistepScheduler.from_config(config, use_karras_sigmas=False)
        case Scheduler.DPMPP_2M_KARRAS:
            return DPMSolverMultistepScheduler.from_config(config, use_karras_sigmas=True)
        case Scheduler.LCM:
            return LCMScheduler.from_config(config, original_inference_steps=max(LCM_TRAINING_STEPS, steps))
