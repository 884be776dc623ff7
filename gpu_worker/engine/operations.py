"""What lies between a model's convolutions and products, in torch's operations or on CUDA in our kernels."""

from typing import Any

import torch
from torch.nn import functional

from gpu_worker.engine.fp8 import Scaled, scale


def group_norm(
    pixels: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    *,
    groups: int,
    eps: float,
    shift: torch.Tensor | None = None,
    silu: bool = False,
) -> torch.Tensor:
    """Group normalisation, Wu and He (2018).

    Args:
        pixels: shape (samples, channels, height, width).
        weight: of each channel.
        bias: of each channel.
        groups: of channels.
        eps: added to the variance.
        shift: added to the pixels beforehand, shape (samples or 1, channels).
        silu: whether the result goes through SiLU.
    """
    if pixels.is_cuda:
        return _kernels().group_norm(  # type: ignore[no-any-return]
            pixels, weight, bias, groups=groups, eps=eps, shift=shift, silu=silu
        )
    if shift is not None:
        pixels = pixels + shift[:, :, None, None]
    normal = functional.group_norm(pixels, groups, weight, bias, eps)
    return functional.silu(normal) if silu else normal


def add(pixels: torch.Tensor, other: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """The sum of two of shape (samples, channels, height, width), and of a bias of each channel."""
    if pixels.is_cuda:
        return _kernels().add(pixels, other, bias)  # type: ignore[no-any-return]
    total = pixels + other
    return total if bias is None else total + bias[:, None, None]


def add_layer_norm(
    tokens: torch.Tensor,
    other: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    *,
    eps: float,
    scaled: bool = False,
) -> tuple[torch.Tensor, torch.Tensor | Scaled]:
    """The sum of two of shape (samples, tokens, channels), and its :func:`layer_norm`."""
    if tokens.is_cuda:
        return _kernels().add_layer_norm(  # type: ignore[no-any-return]
            tokens, other, weight, bias, eps=eps, scaled=scaled
        )
    total = tokens + other
    return total, layer_norm(total, weight, bias, eps=eps, scaled=scaled)


def layer_norm(
    tokens: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, *, eps: float, scaled: bool = False
) -> torch.Tensor | Scaled:
    """Layer normalisation, Ba, Kiros and Hinton (2016), of the last of (samples, tokens, channels).

    Args:
        tokens: of any precision.
        weight: of each channel.
        bias: of each channel.
        eps: added to the variance.
        scaled: whether the result is wanted in eight bits.
    """
    if tokens.is_cuda:
        # Half the time of torch's own.
        return _kernels().layer_norm(  # type: ignore[no-any-return]
            tokens, weight, bias, eps=eps, scaled=scaled
        )
    normal = functional.layer_norm(tokens, weight.shape, weight, bias, eps)
    return scale(normal) if scaled else normal


def geglu(tokens: torch.Tensor, *, scaled: bool = False) -> torch.Tensor | Scaled:
    """The first half of the channels times the GELU of the second, Shazeer (2020), or that in eight bits."""
    if tokens.is_cuda:
        return _kernels().geglu(tokens, scaled=scaled)  # type: ignore[no-any-return]
    wanted, gate = tokens.chunk(2, dim=-1)
    result = wanted * functional.gelu(gate)
    return scale(result) if scaled else result


def interleave(quarters: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """A picture of four that have every second row and column each, and the bias of each channel.

    Args:
        quarters: shape (samples, 4 * channels, height / 2 + 1, width / 2 + 1), in this order the even rows'
            even columns, their odd ones, the odd rows' even columns and their odd ones; the odd ones' first
            column or row is not used, nor the even ones' last.
        bias: of each channel.

    Returns:
        Shape (samples, channels, height, width).
    """
    if quarters.is_cuda:
        return _kernels().interleave(quarters, bias)  # type: ignore[no-any-return]
    samples, _, rows, columns = quarters.shape
    shape = (samples, len(bias), 2 * (rows - 1), 2 * (columns - 1))
    result = torch.empty(shape, dtype=quarters.dtype, memory_format=torch.channels_last)
    for place, quarter in enumerate((quarters + bias.repeat(4)[:, None, None]).chunk(4, dim=1)):
        row, column = divmod(place, 2)
        result[:, :, row::2, column::2] = quarter[:, :, row : rows - 1 + row, column : columns - 1 + column]
    return result


def _kernels() -> Any:  # noqa: ANN401 - Triton has no annotations, and is not there without CUDA
    from gpu_worker.engine import kernels  # noqa: PLC0415

    return kernels
