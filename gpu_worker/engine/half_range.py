"""Decoders in half precision whose activations would leave its range: SDXL's."""

from typing import Final

import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.autoencoders.vae import Decoder
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from torch import nn

SHRINKING: Final = 1 / 64
"""A power of two, so that it rounds nothing. Sums may be 64 times as large as half precision can say."""


@torch.no_grad()
def shrink(decoder: Decoder) -> None:
    """Make every sum that ``decoder`` normalises afterwards smaller by ``SHRINKING``; its pictures stay.

    All that grows in it goes through a group normalisation before anything that is not linear, and that
    divides by how large it is. So the layers that write to the residual stream, and those between two
    normalisations, may write less of everything, if the normalisations' eps, which is compared with the
    square, is smaller too.
    """
    _write_less(decoder.conv_in.weight, decoder.conv_in.bias)
    for part in decoder.modules():
        if isinstance(part, ResnetBlock2D):
            _normalise_less(part.norm1, part.norm2)
            _write_less(part.conv1.weight, part.conv1.bias, part.conv2.weight, part.conv2.bias)
            if part.conv_shortcut is not None:
                # It reads what is smaller already.
                _write_less(part.conv_shortcut.bias)
        elif isinstance(part, Attention):
            _normalise_less(part.group_norm)
            _write_less(part.to_out[0].weight, part.to_out[0].bias)
        elif isinstance(part, Upsample2D):
            _write_less(part.conv.bias)
    _normalise_less(decoder.conv_norm_out)


def _write_less(*parameters: torch.Tensor) -> None:
    for parameter in parameters:
        parameter.mul_(SHRINKING)


def _normalise_less(*norms: nn.GroupNorm) -> None:
    for norm in norms:
        norm.eps *= SHRINKING**2
