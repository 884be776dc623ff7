"""The parts of the bundled model, untrained: those of Stable Diffusion 1, with fewer channels and layers."""

import json
from collections.abc import Iterable
from typing import Final

from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from gpu_worker.demo_model.drawing import PICTURE_SIZE

LATENT_STEP: Final = 8
"""Pixels on a side of what one latent stands for."""

LATENT_CHANNELS: Final = 8
"""Twice Stable Diffusion's: four cannot hold the edges of flat shapes at this size."""

WINDOW: Final = 77
"""Tokens that the text encoder sees, the marks of start and end among them."""

_VOCABULARY: Final = 1024
_TEXT_WIDTH: Final = 160


def learn_tokenizer(captions: Iterable[str]) -> CLIPTokenizer:
    """CLIP's tokenizer with merges learned from ``captions``: few tokens for their words, no text refused."""
    letters = sorted(ByteLevel.alphabet())
    alphabet = [*letters, *(f"{letter}</w>" for letter in letters)]
    untrained = _tokenizer(alphabet, merges=[]).backend_tokenizer
    trainer = BpeTrainer(
        vocab_size=_VOCABULARY, end_of_word_suffix="</w>", initial_alphabet=letters, show_progress=False
    )
    untrained.train_from_iterator(captions, trainer)
    merges = [tuple(merge) for merge in json.loads(untrained.to_str())["model"]["merges"]]
    return _tokenizer([*alphabet, *("".join(merge) for merge in merges)], merges=merges)


def _tokenizer(pieces: list[str], merges: list[tuple[str, str]]) -> CLIPTokenizer:
    entries = dict.fromkeys([*pieces, "<|startoftext|>", "<|endoftext|>"])
    vocabulary = {entry: index for index, entry in enumerate(entries)}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=WINDOW)


def new_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """A text encoder for ``tokenizer``: (batch, 77) token ids to (batch, 77, 160)."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=_TEXT_WIDTH,
            intermediate_size=3 * _TEXT_WIDTH,
            projection_dim=_TEXT_WIDTH,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=WINDOW,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def new_unet() -> UNet2DConditionModel:
    """A U-Net on latents of shape (batch, 8, height / 8, width / 8)."""
    return UNet2DConditionModel(
        sample_size=PICTURE_SIZE // LATENT_STEP,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=(96, 144, 144),
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        norm_num_groups=16,
        # The number of heads, as diffusers reads it here: 24 channels each, a width that has fast kernels.
        attention_head_dim=(4, 6, 6),
        cross_attention_dim=_TEXT_WIDTH,
    )


def new_vae() -> AutoencoderKL:
    """An autoencoder with four levels, so that eight pixels become one latent as in the full model."""
    return AutoencoderKL(
        block_out_channels=(32, 64, 96, 96),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=8,
        latent_channels=LATENT_CHANNELS,
        sample_size=PICTURE_SIZE,
        mid_block_add_attention=False,
    )


def new_scheduler() -> DDIMScheduler:
    """The noise schedule: predicts the velocity, and ends in noise alone, so that dark pictures can be dark.

    After Lin et al., "Common Diffusion Noise Schedules and Sample Steps are Flawed" (2024).
    """
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
    )
