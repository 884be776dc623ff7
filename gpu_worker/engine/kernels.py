"""What a U-Net and a decoder do between their convolutions and matrix products, in few passes over memory.

Triton kernels for CUDA. Pictures have their channels last in memory; ``rows`` are the pixels of a picture.
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl

from gpu_worker.engine.fp8 import GREATEST, LEAST, Scaled

_ROWS = 64
_COLUMNS = 64
_FEWEST_ROWS = 256
_PROGRAMS = 1024
_PARTS = (64, 256, _PROGRAMS)
"""Of a picture, at the most: a kernel is built for each of these, and reads nothing for parts that lack."""
_OF_SIZE = ("rows", "parts")
"""Arguments that differ from size to size of a picture: a kernel is not to be built anew for each."""
_GREATEST = tl.constexpr(GREATEST)
_LEAST = tl.constexpr(LEAST)
_WIDE = 2048
"""Columns from which a row takes more warps than four."""


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
    """See :func:`gpu_worker.engine.fusion.group_norm`."""
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    samples, channels, height, width = pixels.shape
    rows = height * width
    blocks = triton.cdiv(channels, _COLUMNS)
    wanted = max(1, _PROGRAMS // (samples * blocks))
    part = max(_FEWEST_ROWS, triton.next_power_of_2(triton.cdiv(rows, wanted)))
    parts = triton.cdiv(rows, part)
    moments = torch.empty((samples, parts, 2, channels), device=pixels.device, dtype=torch.float32)
    _moments[samples, parts, blocks](
        pixels, moments, rows, channels, part, parts, ROWS=_ROWS, COLUMNS=_COLUMNS
    )
    affine = torch.empty((samples, 2, channels), device=pixels.device, dtype=torch.float32)
    size = channels // groups
    _affine[samples, groups](
        moments,
        weight,
        bias,
        bias if shift is None else shift,
        affine,
        rows,
        channels,
        part,
        parts,
        size,
        eps,
        0 if shift is None else shift.expand(samples, channels).stride(0),
        SHIFTED=shift is not None,
        PARTS=min(size for size in _PARTS if size >= parts),
        COLUMNS=triton.next_power_of_2(size),
    )
    result = torch.empty_like(pixels)
    _apply[triton.cdiv(rows, _ROWS), blocks, samples](
        pixels, affine, result, rows, channels, SILU=silu, ROWS=_ROWS, COLUMNS=_COLUMNS
    )
    return result


def add(pixels: torch.Tensor, other: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """See :func:`gpu_worker.engine.fusion.add`."""
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    other = other.contiguous(memory_format=torch.channels_last)
    samples, channels, height, width = pixels.shape
    rows = samples * height * width
    result = torch.empty_like(pixels)
    _add[triton.cdiv(rows, _ROWS), triton.cdiv(channels, _COLUMNS)](
        pixels,
        other,
        pixels if bias is None else bias,
        result,
        rows,
        channels,
        BIASED=bias is not None,
        ROWS=_ROWS,
        COLUMNS=_COLUMNS,
    )
    return result


def add_layer_norm(
    tokens: torch.Tensor,
    other: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    *,
    eps: float,
    scaled: bool = False,
) -> tuple[torch.Tensor, torch.Tensor | Scaled]:
    """See :func:`gpu_worker.engine.fusion.add_layer_norm`."""
    tokens = tokens.contiguous()
    total = torch.empty_like(tokens)
    return total, _layer_norm(
        tokens, weight, bias, eps=eps, scaled=scaled, other=other.contiguous(), total=total
    )


def layer_norm(
    tokens: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, *, eps: float, scaled: bool = False
) -> torch.Tensor | Scaled:
    """See :func:`gpu_worker.engine.fusion.layer_norm`."""
    return _layer_norm(tokens.contiguous(), weight, bias, eps=eps, scaled=scaled)


def geglu(tokens: torch.Tensor, *, scaled: bool = False) -> torch.Tensor | Scaled:
    """See :func:`gpu_worker.engine.fusion.geglu`."""
    tokens = tokens.contiguous()
    channels = tokens.shape[-1] // 2
    shape = (*tokens.shape[:-1], channels)
    rows = tokens.numel() // (2 * channels)
    if scaled:
        answer = _new_scaled(shape, tokens.device)
        _geglu_scaled[(rows,)](tokens, answer.values, answer.scales, channels, **_whole_rows(channels))
        return answer
    result = torch.empty(shape, device=tokens.device, dtype=tokens.dtype)
    block = min(1024, triton.next_power_of_2(channels))
    _geglu[rows, triton.cdiv(channels, block)](tokens, result, channels, COLUMNS=block)
    return result


def scale(tokens: torch.Tensor) -> Scaled:
    """See :func:`gpu_worker.engine.fp8.scale`."""
    tokens = tokens.contiguous()
    channels = tokens.shape[-1]
    answer = _new_scaled(tokens.shape, tokens.device)
    _scale[(tokens.numel() // channels,)](
        tokens, answer.values, answer.scales, channels, **_whole_rows(channels)
    )
    return answer


def _layer_norm(
    tokens: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    *,
    eps: float,
    scaled: bool,
    other: torch.Tensor | None = None,
    total: torch.Tensor | None = None,
) -> torch.Tensor | Scaled:
    """Of ``tokens``, or of their sum with ``other``, which is then left in ``total``."""
    channels = tokens.shape[-1]
    answer = _new_scaled(tokens.shape, tokens.device) if scaled else None
    normal = torch.empty_like(tokens) if answer is None else answer.values
    _add_layer_norm[(tokens.numel() // channels,)](
        tokens,
        tokens if other is None else other,
        weight,
        bias,
        tokens if total is None else total,
        normal,
        normal if answer is None else answer.scales,
        channels,
        eps,
        ADDED=other is not None,
        SCALED=scaled,
        **_whole_rows(channels),
    )
    return normal if answer is None else answer


def _new_scaled(shape: Sequence[int], device: torch.device) -> Scaled:
    scales = torch.empty((*shape[:-1], 1), device=device, dtype=torch.float32)
    return Scaled(torch.empty(shape, device=device, dtype=torch.float8_e4m3fn), scales)


def _whole_rows(channels: int) -> dict[str, int]:
    """How to start a kernel of which each program has a row."""
    columns = triton.next_power_of_2(channels)
    return {"COLUMNS": columns, "num_warps": 4 if columns < _WIDE else 16}


@triton.jit(do_not_specialize=_OF_SIZE)
def _moments(x, out, rows, channels, part, parts, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """For each channel of a part of a picture: the mean, and the sum of squared distances from it.

    Tiles are joined by Chan, Golub and LeVeque's formula (1983), which does not lose small spreads.
    """
    sample = tl.program_id(0)
    index = tl.program_id(1)
    columns = tl.program_id(2) * COLUMNS + tl.arange(0, COLUMNS)
    inside = columns < channels
    stop = tl.minimum((index + 1) * part, rows)
    base = x + sample.to(tl.int64) * rows * channels
    mean = tl.zeros([COLUMNS], tl.float32)
    spread = tl.zeros([COLUMNS], tl.float32)
    count = 0.0
    for first in range(index * part, stop, ROWS):
        lines = first + tl.arange(0, ROWS)
        there = (lines < stop)[:, None] & inside[None, :]
        tile = tl.load(
            base + lines.to(tl.int64)[:, None] * channels + columns[None, :], mask=there, other=0.0
        )
        tile = tile.to(tl.float32)
        new = tl.minimum(stop - first, ROWS) * 1.0
        tile_mean = tl.sum(tile, 0) / new
        distance = tl.where(there, tile - tile_mean[None, :], 0.0)
        apart = tile_mean - mean
        total = count + new
        mean += apart * (new / total)
        spread += tl.sum(distance * distance, 0) + apart * apart * (count * new / total)
        count = total
    at = out + (sample * parts + index).to(tl.int64) * 2 * channels + columns
    tl.store(at, mean, mask=inside)
    tl.store(at + channels, spread, mask=inside)


@triton.jit(do_not_specialize=_OF_SIZE)
def _affine(
    moments,
    weight,
    bias,
    shift,
    out,
    rows,
    channels,
    part,
    parts,
    size,
    eps,
    shift_stride,
    SHIFTED: tl.constexpr,
    PARTS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """For each channel of a group: by what to multiply it, and what to add, so that the group is normal."""
    sample = tl.program_id(0)
    offsets = tl.arange(0, COLUMNS)
    inside = offsets < size
    channel = tl.program_id(1) * size + offsets
    index = tl.arange(0, PARTS)
    counts = tl.minimum(tl.maximum(rows - index * part, 0), part) * 1.0
    there = (index < parts)[:, None] & inside[None, :]
    at = moments + (sample * parts + index).to(tl.int64)[:, None] * 2 * channels + channel[None, :]
    means = tl.load(at, mask=there, other=0.0)
    spreads = tl.load(at + channels, mask=there, other=0.0)
    moved = tl.zeros([COLUMNS], tl.float32)
    if SHIFTED:
        moved = tl.load(shift + sample * shift_stride + channel, mask=inside, other=0.0).to(tl.float32)
        means += moved[None, :]
    total = rows * size * 1.0
    mean = tl.sum(tl.where(there, means * counts[:, None], 0.0)) / total
    distance = tl.where(there, means - mean, 0.0)
    variance = tl.sum(spreads + distance * distance * counts[:, None]) / total
    factor = tl.load(weight + channel, mask=inside, other=0.0).to(tl.float32) / tl.sqrt(variance + eps)
    constant = tl.load(bias + channel, mask=inside, other=0.0).to(tl.float32) + (moved - mean) * factor
    at = out + sample * 2 * channels + channel
    tl.store(at, factor, mask=inside)
    tl.store(at + channels, constant, mask=inside)


@triton.jit(do_not_specialize=_OF_SIZE)
def _apply(x, affine, out, rows, channels, SILU: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    sample = tl.program_id(2)
    lines = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = columns < channels
    there = (lines < rows)[:, None] & inside[None, :]
    at = affine + sample * 2 * channels + columns
    factor = tl.load(at, mask=inside, other=0.0)
    constant = tl.load(at + channels, mask=inside, other=0.0)
    place = (sample.to(tl.int64) * rows + lines)[:, None] * channels + columns[None, :]
    tile = tl.load(x + place, mask=there, other=0.0).to(tl.float32) * factor[None, :] + constant[None, :]
    if SILU:
        tile = tile * tl.sigmoid(tile)
    tl.store(out + place, tile.to(out.dtype.element_ty), mask=there)


@triton.jit(do_not_specialize=_OF_SIZE)
def _add(
    x, other, bias, out, rows, channels, BIASED: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    lines = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = columns < channels
    there = (lines < rows)[:, None] & inside[None, :]
    place = lines.to(tl.int64)[:, None] * channels + columns[None, :]
    tile = tl.load(x + place, mask=there, other=0.0).to(tl.float32)
    tile += tl.load(other + place, mask=there, other=0.0).to(tl.float32)
    if BIASED:
        tile += tl.load(bias + columns, mask=inside, other=0.0).to(tl.float32)[None, :]
    tl.store(out + place, tile.to(out.dtype.element_ty), mask=there)


@triton.jit
def _add_layer_norm(
    x,
    other,
    weight,
    bias,
    total,
    normal,
    scales,
    channels,
    eps,
    ADDED: tl.constexpr,
    SCALED: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    columns = tl.arange(0, COLUMNS)
    inside = columns < channels
    place = tl.program_id(0).to(tl.int64) * channels + columns
    line = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
    if ADDED:
        line += tl.load(other + place, mask=inside, other=0.0).to(tl.float32)
        rounded = line.to(total.dtype.element_ty)
        tl.store(total + place, rounded, mask=inside)
        line = rounded.to(tl.float32)
    mean = tl.sum(line, 0) / channels
    distance = tl.where(inside, line - mean, 0.0)
    inverse = 1 / tl.sqrt(tl.sum(distance * distance, 0) / channels + eps)
    factor = tl.load(weight + columns, mask=inside, other=0.0).to(tl.float32)
    constant = tl.load(bias + columns, mask=inside, other=0.0).to(tl.float32)
    line = distance * inverse * factor + constant
    if SCALED:
        line = _scaled(line, scales)
    tl.store(normal + place, line.to(normal.dtype.element_ty), mask=inside)


@triton.jit
def _geglu(x, out, channels, COLUMNS: tl.constexpr):
    line = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = columns < channels
    at = x + line * 2 * channels + columns
    wanted = tl.load(at, mask=inside, other=0.0).to(tl.float32)
    gate = tl.load(at + channels, mask=inside, other=0.0).to(tl.float32)
    # GELU by the error function, Hendrycks and Gimpel (2016).
    gate = 0.5 * gate * (1 + tl.math.erf(gate * 0.7071067811865476))
    tl.store(out + line * channels + columns, (wanted * gate).to(out.dtype.element_ty), mask=inside)


@triton.jit
def _geglu_scaled(x, out, scales, channels, COLUMNS: tl.constexpr):
    """As ``_geglu``, a row a program."""
    line = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, COLUMNS)
    inside = columns < channels
    at = x + line * 2 * channels + columns
    wanted = tl.load(at, mask=inside, other=0.0).to(tl.float32)
    gate = tl.load(at + channels, mask=inside, other=0.0).to(tl.float32)
    gate = 0.5 * gate * (1 + tl.math.erf(gate * 0.7071067811865476))
    scaled = _scaled(wanted * gate, scales)
    tl.store(out + line * channels + columns, scaled.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _scale(x, out, scales, channels, COLUMNS: tl.constexpr):
    columns = tl.arange(0, COLUMNS)
    inside = columns < channels
    place = tl.program_id(0).to(tl.int64) * channels + columns
    scaled = _scaled(tl.load(x + place, mask=inside, other=0.0).to(tl.float32), scales)
    tl.store(out + place, scaled.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _scaled(line, scales):
    """A row, 0 beyond its end, divided so that its largest is ``GREATEST``; ``scales`` notes by how much."""
    step = tl.maximum(tl.max(tl.abs(line), 0), _LEAST) / _GREATEST
    tl.store(scales + tl.program_id(0), step)
    return line / step
