"""Models of the true shapes with random weights: as much to compute as the real ones, no download."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from core.catalogue import Defaults, DirectorySource, Limits, ModelEntry
from core.lifecycle import Scheduler
from gpu_worker.demo_model import WEIGHTS
from gpu_worker.pipeline import Placement

_SEED: Final = 1
_DECODER_LEVELS: Final = 4
_FEW_STEPS: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Blueprint:
    """How one model is built, and what is asked of it.

    Attributes:
        id: its name in catalogues.
        family: which pipeline it is for.
        size: width and height of its pictures, in pixels.
        steps: of a picture.
        unet: the U-Net's configuration.
        decoder: channels of the autoencoder's levels.
        scale: from the autoencoder's latents to the U-Net's.
        texts: a configuration for each text encoder.
    """

    id: str
    family: Literal["sd1", "sdxl"]
    size: int
    steps: int
    unet: dict[str, Any]
    decoder: tuple[int, ...]
    scale: float
    texts: tuple[dict[str, Any], ...]


_LARGE_TEXT: Final = {
    "vocab_size": 49408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "projection_dim": 768,
}
_LARGER_TEXT: Final = {
    "vocab_size": 49408,
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "projection_dim": 1280,
    "hidden_act": "gelu",
}
_TINY_TEXT: Final = {
    "vocab_size": 2048,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "projection_dim": 32,
}
_XL_BLOCKS: Final = {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
}
_DECODER: Final = (128, 256, 512, 512)
_SD_SCALE: Final = 0.18215
_XL_SCALE: Final = 0.13025

TRUE: Final = {
    "sd15": Blueprint(
        id="sd15",
        family="sd1",
        size=512,
        steps=20,
        unet={"cross_attention_dim": 768, "attention_head_dim": 8},
        decoder=_DECODER,
        scale=_SD_SCALE,
        texts=(_LARGE_TEXT,),
    ),
    "sdxl": Blueprint(
        id="sdxl",
        family="sdxl",
        size=1024,
        steps=20,
        unet={
            **_XL_BLOCKS,
            "block_out_channels": (320, 640, 1280),
            "transformer_layers_per_block": (1, 2, 10),
            "attention_head_dim": (5, 10, 20),
            "cross_attention_dim": 2048,
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 6 * 256 + 1280,
        },
        decoder=_DECODER,
        scale=_XL_SCALE,
        texts=(_LARGE_TEXT, _LARGER_TEXT),
    ),
}
"""Stable Diffusion 1.5 and XL, by the names that the command line takes."""

TINY: Final = {
    "sd15": Blueprint(
        id="sd15",
        family="sd1",
        size=64,
        steps=2,
        unet={
            "block_out_channels": (32, 64),
            "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
            "layers_per_block": 1,
            "cross_attention_dim": 32,
            "attention_head_dim": 4,
        },
        decoder=(32,) * _DECODER_LEVELS,
        scale=_SD_SCALE,
        texts=(_TINY_TEXT,),
    ),
    "sdxl": Blueprint(
        id="sdxl",
        family="sdxl",
        size=64,
        steps=2,
        unet={
            **_XL_BLOCKS,
            "block_out_channels": (32, 32, 64),
            "layers_per_block": 1,
            "cross_attention_dim": 64,
            "attention_head_dim": 4,
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 6 * 8 + 32,
        },
        decoder=(32,) * _DECODER_LEVELS,
        scale=_XL_SCALE,
        texts=(_TINY_TEXT, _TINY_TEXT),
    ),
}
"""The same kinds of parts, small enough for a processor to try a part of the benchmark."""


def entry(blueprint: Blueprint, folder: Path, *, few_steps: bool = False) -> ModelEntry:
    """How a catalogue lists the model that :func:`build` put into ``folder``.

    Args:
        blueprint: of the model.
        folder: its weights.
        few_steps: whether its pictures take four steps and no guidance, as those of distilled models do.
    """
    size = blueprint.size
    return ModelEntry(
        id=blueprint.id,
        name=blueprint.id,
        description="Random weights.",
        license="Apache-2.0",
        family=blueprint.family,
        source=DirectorySource(kind="directory", path=folder),
        defaults=Defaults(
            width=size,
            height=size,
            steps=_FEW_STEPS if few_steps else blueprint.steps,
            guidance_scale=1 if few_steps else 7.5,
            scheduler=Scheduler.DDIM,
        ),
        limits=Limits(
            min_size=size,
            max_size=size,
            max_steps=50,
            max_guidance_scale=20,
            max_count=4,
            max_prompt_length=1000,
        ),
    )


def write_catalogue(model: ModelEntry, path: Path) -> None:
    """Write a catalogue file that offers ``model`` alone."""
    # A TOML value of these kinds is written as JSON writes it.
    content = json.loads(model.model_dump_json())
    lines = ["[[model]]"]
    tables = {name: value for name, value in content.items() if isinstance(value, dict)}
    lines += [f"{name} = {json.dumps(value)}" for name, value in content.items() if name not in tables]
    for table, values in tables.items():
        lines += [f"[model.{table}]", *(f"{name} = {json.dumps(value)}" for name, value in values.items())]
    path.write_text("\n".join(lines) + "\n")


def build(blueprint: Blueprint, folder: Path, placement: Placement) -> None:
    """Put the model into ``folder`` in diffusers' layout, unless it is there already.

    It is made on the device and in the precision of ``placement``, which takes seconds on a GPU.
    """
    if (folder / "model_index.json").exists():
        return
    torch.manual_seed(_SEED)
    tokenizer = CLIPTokenizer.from_pretrained(WEIGHTS / "tokenizer")
    kinds: tuple[Callable[..., Any], ...] = (CLIPTextModel, CLIPTextModelWithProjection)
    before = torch.get_default_dtype()
    torch.set_default_dtype(placement.dtype)
    try:
        with torch.device(placement.device):
            unet = UNet2DConditionModel(sample_size=blueprint.size // 8, **blueprint.unet)
            vae = _autoencoder(blueprint)
            texts = [
                kind(_text(config, tokenizer)) for kind, config in zip(kinds, blueprint.texts, strict=False)
            ]
    finally:
        torch.set_default_dtype(before)
    parts: dict[str, Any] = {"unet": unet, "vae": vae, "scheduler": _scheduler()}
    parts |= {"text_encoder": texts[0], "tokenizer": tokenizer}
    if blueprint.family == "sdxl":
        parts |= {"text_encoder_2": texts[1], "tokenizer_2": tokenizer, "add_watermarker": False}
        pipeline: Any = StableDiffusionXLPipeline(**parts)
    else:
        parts |= {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
        pipeline = StableDiffusionPipeline(**parts)
    pipeline.save_pretrained(folder, safe_serialization=True)


def _autoencoder(blueprint: Blueprint) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=blueprint.decoder,
        down_block_types=("DownEncoderBlock2D",) * _DECODER_LEVELS,
        up_block_types=("UpDecoderBlock2D",) * _DECODER_LEVELS,
        layers_per_block=2,
        latent_channels=4,
        sample_size=blueprint.size,
        scaling_factor=blueprint.scale,
        # As the real XL model says of itself: its decoder's activations leave the range of half precision.
        force_upcast=blueprint.family == "sdxl",
    )


def _text(config: dict[str, Any], tokenizer: Any) -> CLIPTextConfig:  # noqa: ANN401 - transformers is not typed
    return CLIPTextConfig(
        **config,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
