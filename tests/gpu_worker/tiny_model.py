"""A tiny Stable Diffusion of the true shape with random weights, for whatever does not look at pictures.

Every part is the part of a full Stable Diffusion 1 with fewer channels and layers. The weights come from a
fixed seed and are drawn so that pictures fill the range of colours and change with seed and prompt.
"""

import math
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

SEED = 1
WINDOW = 77
"""Tokens that the text encoder sees, the marks of start and end among them."""

# How much stronger than signal-keeping the layers are whose names hold these parts. Tuned by eye.
_GAINS = {
    "token_embedding": 0.3,
    "position_embedding": 0.1,
    "to_q": 2.0,  # sharp attention: different places of a picture follow different letters of the prompt
    "to_k": 2.0,
    "attn2.to_out": 2.5,  # the prompt's say against the noise's
    "unet.conv_out": 2.0,  # the U-Net's say against the noise that a picture starts from
    "vae.post_quant_conv": 0.01,  # small latents, so that the decoder's own layers show
}
_SOFTNESS = 1.6
_GRAIN = 0.5


def build(folder: Path) -> None:
    """Make the model in diffusers' layout as ``folder``."""
    _pipeline().save_pretrained(folder, safe_serialization=True)


def build_xl(plain_folder: Path, folder: Path) -> None:
    """Make a tiny XL model as ``folder``: the plain one, a second text encoder, a U-Net that takes both."""
    plain = StableDiffusionPipeline.from_pretrained(plain_folder, use_safetensors=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        second = CLIPTextModelWithProjection(
            CLIPTextConfig(**plain.text_encoder.config.to_diff_dict() | {"projection_dim": 32})
        )
        unet = UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(16, 32),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            layers_per_block=1,
            norm_num_groups=8,
            attention_head_dim=4,
            cross_attention_dim=128,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + 32,
        )
    StableDiffusionXLPipeline(
        vae=plain.vae,
        text_encoder=plain.text_encoder,
        text_encoder_2=second,
        tokenizer=plain.tokenizer,
        tokenizer_2=plain.tokenizer,
        unet=unet,
        scheduler=plain.scheduler,
        add_watermarker=False,
    ).save_pretrained(folder, safe_serialization=True)


def _pipeline() -> StableDiffusionPipeline:
    tokenizer = _tokenizer()
    with torch.random.fork_rng(devices=[]):
        parts = {"text_encoder": _text_encoder(tokenizer), "unet": _unet(), "vae": _vae()}
    generator = torch.Generator().manual_seed(SEED)
    for name, part in parts.items():
        _draw(name, part, generator)
    return StableDiffusionPipeline(
        **parts,
        tokenizer=tokenizer,
        scheduler=_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _tokenizer() -> CLIPTokenizer:
    """One token for each byte and one for each byte at a word's end: any text, in few entries."""
    letters = sorted(ByteLevel.alphabet())
    entries = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {entry: index for index, entry in enumerate(entries)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=WINDOW)


def _text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=128,
            projection_dim=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=WINDOW,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def _unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(32, 64, 64),
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        norm_num_groups=8,
        attention_head_dim=4,
        cross_attention_dim=64,
    )


def _vae() -> AutoencoderKL:
    """Four levels, so that eight pixels become one latent as in the full model."""
    return AutoencoderKL(
        block_out_channels=(16, 16, 32, 32),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=8,
        latent_channels=4,
        sample_size=128,
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


@torch.no_grad()
def _draw(part: str, module: torch.nn.Module, generator: torch.Generator) -> None:
    """Fill the matrices and kernels of ``module``; scales and offsets keep their ones and zeros."""
    for name, weight in module.named_parameters():
        if name.endswith("bias"):
            weight.zero_()
        elif weight.dim() > 1:
            full_name = f"{part}.{name}"
            gain = next((gain for key, gain in _GAINS.items() if key in full_name), 1.0)
            weight.copy_(gain * _drawn(weight.shape, generator, embedding="embedding.weight" in name))


def _drawn(shape: torch.Size, generator: torch.Generator, *, embedding: bool) -> torch.Tensor:
    """Random weights of one layer, shape (outputs, inputs) or (outputs, inputs, height, width)."""
    mix = torch.randn(shape[:2], generator=generator)
    if embedding:
        return mix
    # Without a mean, what activations have in common is not carried on: it would drown everything else.
    mix = (mix - mix.mean(dim=1, keepdim=True)) / math.sqrt(shape[1])
    if len(shape) == 2:
        return mix
    mix = mix[:, :, None, None]
    if shape[-1] == 1:
        return mix
    # Kernels that blur make large soft shapes, a little noise in them gives grain.
    line = torch.tensor([0.25, 0.5, 0.25])
    grain = torch.randn(shape, generator=generator) / math.sqrt(math.prod(shape[1:]))
    return _SOFTNESS * mix * torch.outer(line, line) + _GRAIN * grain
