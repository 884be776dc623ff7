"""What a U-Net and a decoder do between their convolutions and matrix products, in few passes over memory.

Triton kernels for CUDA. Pictures have their channels last in memory; ``rows`` are the pixels of a picture.
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl

from gpu_worker.engine.fp8 import GREATEST, LEAST, Scaled

_ROWS = 16
_COLUMNS = 128
_MEASURED_ROWS = 32
_MEASURED_COLUMNS = 64
"""Of a tile whose columns are summed."""
_FEWEST_ROWS = 256
_PROGRAMS = 1024
_PARTS = (64, 256, _PROGRAMS)
"""Of a picture, at the most: a kernel is built for each of these, and reads nothing for parts that lack."""
_TILE = 2048
"""Numbers that a program works on, where a row has no more."""
_GATED_COLUMNS = 256
"""Of a tile that needs no whole rows."""
_OF_SIZE = ("rows", "parts", "height", "width")
"""Arguments that differ from size to size of a picture: a kernel is not to be built anew for each."""
_GREATEST = tl.constexpr(GREATEST)
_LEAST = tl.constexpr(LEAST)


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
    """See :func:`gpu_worker.engine.operations.group_norm`."""
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    samples, channels, height, width = pixels.shape
    rows = height * width
    blocks = triton.cdiv(channels, _MEASURED_COLUMNS)
    wanted = max(1, _PROGRAMS // (samples * blocks))
    part = max(_FEWEST_ROWS, triton.next_power_of_2(triton.cdiv(rows, wanted)))
    parts = triton.cdiv(rows, part)
    moments = torch.empty((samples, parts, 2, channels), device=pixels.device, dtype=torch.float32)
    _moments[samples, parts, blocks](
        pixels, moments, rows, channels, part, parts, ROWS=_MEASURED_ROWS, COLUMNS=_MEASURED_COLUMNS
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
    _apply[triton.cdiv(rows, _ROWS), triton.cdiv(channels, _COLUMNS), samples](
        pixels, affine, result, rows, channels, SILU=silu, ROWS=_ROWS, COLUMNS=_COLUMNS
    )
    return result


def add(pixels: torch.Tensor, other: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """See :func:`gpu_worker.engine.operations.add`."""
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
    """See :func:`gpu_worker.engine.operations.add_layer_norm`."""
    tokens = tokens.contiguous()
    total = torch.empty_like(tokens)
    return total, _layer_norm(
        tokens, weight, bias, eps=eps, scaled=scaled, other=other.contiguous(), total=total
    )


def layer_norm(
    tokens: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, *, eps: float, scaled: bool = False
) -> torch.Tensor | Scaled:
    """See :func:`gpu_worker.engine.operations.layer_norm`."""
    return _layer_norm(tokens.contiguous(), weight, bias, eps=eps, scaled=scaled)


def geglu(tokens: torch.Tensor, *, scaled: bool = False) -> torch.Tensor | Scaled:
    """See :func:`gpu_worker.engine.operations.geglu`."""
    tokens = tokens.contiguous()
    channels = tokens.shape[-1] // 2
    rows = tokens.numel() // (2 * channels)
    answer, result, scales = _new_tokens((*tokens.shape[:-1], channels), tokens, scaled=scaled)
    tile = _whole_rows(channels) if scaled else _tile(min(_GATED_COLUMNS, triton.next_power_of_2(channels)))
    grid = (triton.cdiv(rows, tile["ROWS"]), triton.cdiv(channels, tile["COLUMNS"]))
    _geglu[grid](tokens, result, scales, rows, channels, SCALED=scaled, **tile)
    return answer


def scale(tokens: torch.Tensor) -> Scaled:
    """See :func:`gpu_worker.engine.fp8.scale`."""
    tokens = tokens.contiguous()
    channels = tokens.shape[-1]
    rows = tokens.numel() // channels
    answer, tile = _new_scaled(tokens.shape, tokens.device), _whole_rows(channels)
    _scale[(triton.cdiv(rows, tile["ROWS"]),)](tokens, answer.values, answer.scales, rows, channels, **tile)
    return answer


def interleave(quarters: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """See :func:`gpu_worker.engine.operations.interleave`."""
    quarters = quarters.contiguous(memory_format=torch.channels_last)
    samples, channels = quarters.shape[0], len(bias)
    height, width = (2 * (size - 1) for size in quarters.shape[2:])
    result = torch.empty(
        (samples, channels, height, width),
        device=quarters.device,
        dtype=quarters.dtype,
        memory_format=torch.channels_last,
    )
    _interleave[triton.cdiv(height * width, _ROWS), triton.cdiv(channels, _COLUMNS), samples](
        quarters, bias, result, height, width, channels, ROWS=_ROWS, COLUMNS=_COLUMNS
    )
    return result


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
    rows = tokens.numel() // channels
    answer, normal, scales = _new_tokens(tokens.shape, tokens, scaled=scaled)
    tile = _whole_rows(channels)
    _add_layer_norm[(triton.cdiv(rows, tile["ROWS"]),)](
        tokens,
        tokens if other is None else other,
        weight,
        bias,
        tokens if total is None else total,
        normal,
        scales,
        rows,
        channels,
        eps,
        ADDED=other is not None,
        SCALED=scaled,
        **tile,
    )
    return answer


def _new_tokens(
    shape: Sequence[int], like: torch.Tensor, *, scaled: bool
) -> tuple[torch.Tensor | Scaled, torch.Tensor, torch.Tensor]:
    """What a kernel will have filled, and where it puts numbers and scales."""
    if scaled:
        answer = _new_scaled(shape, like.device)
        return answer, answer.values, answer.scales
    result = torch.empty(shape, device=like.device, dtype=like.dtype)
    return result, result, result


def _new_scaled(shape: Sequence[int], device: torch.device) -> Scaled:
    scales = torch.empty((*shape[:-1], 1), device=device, dtype=torch.float32)
    return Scaled(torch.empty(shape, device=device, dtype=torch.float8_e4m3fn), scales)


def _whole_rows(channels: int) -> dict[str, int]:
    """How to start a kernel whose programs have whole rows."""
    return _tile(triton.next_power_of_2(channels))


def _tile(columns: int) -> dict[str, int]:
    """How to start a kernel whose programs have so many columns, of as many rows as make a tile."""
    return {
        "ROWS": max(1, _TILE // columns),
        "COLUMNS": columns,
        "num_warps": max(4, min(16, columns // _TILE * 4)),
    }


@triton.jit(do_not_specialize=_OF_SIZE)
def _moments(x, out, rows, channels, part, parts, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """For each channel of a part of a picture: the mean, and the sum of squared distances from it.

    Each place of a tile keeps its own by Welford's formula (1962), so that no thread waits for another until
    the end, when Chan, Golub and LeVeque's (1983) joins them. Neither loses small spreads.
    """
    sample = tl.program_id(0)
    index = tl.program_id(1)
    columns = tl.program_id(2) * COLUMNS + tl.arange(0, COLUMNS)
    inside = columns < channels
    start = index * part
    stop = tl.minimum(start + part, rows)
    base = x + sample.to(tl.int64) * rows * channels
    mean = tl.zeros([ROWS, COLUMNS], tl.float32)
    spread = tl.zeros([ROWS, COLUMNS], tl.float32)
    seen = 0.0
    for first in range(start, stop, ROWS):
        lines = first + tl.arange(0, ROWS)
        there = (lines < stop)[:, None] & inside[None, :]
        place = lines.to(tl.int64)[:, None] * channels + columns[None, :]
        tile = tl.load(base + place, mask=there, other=0.0).to(tl.float32)
        seen += 1
        distance = tl.where(there, tile - mean, 0.0)
        mean += distance * (1 / seen)
        spread += distance * tl.where(there, tile - mean, 0.0)
    counts = (tl.cdiv(tl.maximum(stop - start - tl.arange(0, ROWS), 0), ROWS) * 1.0)[:, None]
    joined = tl.sum(mean * counts, 0) / (stop - start)
    apart = mean - joined[None, :]
    at = out + (sample * parts + index).to(tl.int64) * 2 * channels + columns
    tl.store(at, joined, mask=inside)
    tl.store(at + channels, tl.sum(spread + apart * apart * counts, 0), mask=inside)


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


@triton.jit(do_not_specialize=_OF_SIZE)
def _add_layer_norm(
    x,
    other,
    weight,
    bias,
    total,
    normal,
    scales,
    rows,
    channels,
    eps,
    ADDED: tl.constexpr,
    SCALED: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    lines = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, COLUMNS)
    inside = columns < channels
    there = (lines < rows)[:, None] & inside[None, :]
    place = lines.to(tl.int64)[:, None] * channels + columns[None, :]
    tile = tl.load(x + place, mask=there, other=0.0).to(tl.float32)
    if ADDED:
        tile += tl.load(other + place, mask=there, other=0.0).to(tl.float32)
        rounded = tile.to(total.dtype.element_ty)
        tl.store(total + place, rounded, mask=there)
        tile = rounded.to(tl.float32)
    mean = tl.sum(tile, 1) / channels
    distance = tl.where(there, tile - mean[:, None], 0.0)
    inverse = 1 / tl.sqrt(tl.sum(distance * distance, 1) / channels + eps)
    factor = tl.load(weight + columns, mask=inside, other=0.0).to(tl.float32)
    constant = tl.load(bias + columns, mask=inside, other=0.0).to(tl.float32)
    tile = distance * inverse[:, None] * factor[None, :] + constant[None, :]
    if SCALED:
        tile = _scaled(tile, scales, lines, rows)
    tl.store(normal + place, tile.to(normal.dtype.element_ty), mask=there)


@triton.jit(do_not_specialize=_OF_SIZE)
def _geglu(x, out, scales, rows, channels, SCALED: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    lines = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    there = (lines < rows)[:, None] & (columns < channels)[None, :]
    at = x + lines.to(tl.int64)[:, None] * 2 * channels + columns[None, :]
    wanted = tl.load(at, mask=there, other=0.0).to(tl.float32)
    gate = tl.load(at + channels, mask=there, other=0.0).to(tl.float32)
    # GELU by the error function, Hendrycks and Gimpel (2016).
    tile = wanted * (0.5 * gate * (1 + tl.math.erf(gate * 0.7071067811865476)))
    if SCALED:
        tile = _scaled(tile, scales, lines, rows)
    place = lines.to(tl.int64)[:, None] * channels + columns[None, :]
    tl.store(out + place, tile.to(out.dtype.element_ty), mask=there)


@triton.jit(do_not_specialize=_OF_SIZE)
def _scale(x, out, scales, rows, channels, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    lines = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, COLUMNS)
    there = (lines < rows)[:, None] & (columns < channels)[None, :]
    place = lines.to(tl.int64)[:, None] * channels + columns[None, :]
    tile = _scaled(tl.load(x + place, mask=there, other=0.0).to(tl.float32), scales, lines, rows)
    tl.store(out + place, tile.to(out.dtype.element_ty), mask=there)


@triton.jit
def _scaled(tile, scales, lines, rows):
    """Whole rows, 0 beyond their end, each divided so that its largest is ``GREATEST``.

    ``scales`` notes by how much.
    """
    step = tl.maximum(tl.max(tl.abs(tile), 1), _LEAST) / _GREATEST
    tl.store(scales + lines, step, mask=lines < rows)
    return tile / step[:, None]


@triton.jit(do_not_specialize=_OF_SIZE)
def _interleave(x, bias, out, height, width, channels, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Each pixel of ``out``, of ``height`` by ``width``, from its quarter of the channels of ``x``."""
    sample = tl.program_id(2)
    lines = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = columns < channels
    there = (lines < height * width)[:, None] & inside[None, :]
    row, column = lines // width, lines % width
    quarter = row % 2 * 2 + column % 2
    pixel = (row + 1) // 2 * (width // 2 + 1) + (column + 1) // 2
    pixel += sample * (height // 2 + 1) * (width // 2 + 1)
    tile = tl.load(
        x + (pixel.to(tl.int64) * 4 + quarter)[:, None] * channels + columns[None, :], mask=there, other=0.0
    )
    tile = tile.to(tl.float32) + tl.load(bias + columns, mask=inside, other=0.0).to(tl.float32)[None, :]
    place = (sample.to(tl.int64) * height * width + lines)[:, None] * channels + columns[None, :]
    tl.store(out + place, tile.to(out.dtype.element_ty), mask=there)
