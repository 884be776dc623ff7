"""Products of matrices in eight bits: FP8, nearly twice as fast as half precision on GPUs that have it.

Each row of the left matrix and each column of the right one has a scale of its own, so that its largest
number becomes the largest of the format E4M3, Micikevicius et al. (2022). Sums have more bits.
"""

from typing import Final, NamedTuple

import torch
from torch import nn
from torch.nn import functional

GREATEST: Final = 448.0
"""The largest number of E4M3."""

NARROWEST: Final = 640
"""Channels of a row from which its product is faster than in half precision, its scaling included."""

LEAST: Final = 1e-12
"""A row whose numbers are all smaller is divided as if this were its largest."""


class Scaled(NamedTuple):
    """A tensor in eight bits.

    Attributes:
        values: E4M3.
        scales: single precision, by which to multiply each row; of the shape of ``values``, but 1 wide.
    """

    values: torch.Tensor
    scales: torch.Tensor


class Fp8Linear(nn.Module):
    """A linear layer whose product is in eight bits."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        """Take a layer's ``weight``, shape (out, in), and ``bias``."""
        super().__init__()
        values, scales = _scale(weight.detach())
        self.weight = nn.Parameter(values, requires_grad=False)
        self.scales = nn.Parameter(scales.t().contiguous(), requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)
        self._dtype = weight.dtype

    def forward(self, tokens: torch.Tensor | Scaled) -> torch.Tensor:
        """Shape (samples, tokens, in) to (samples, tokens, out), in the precision that the layer had."""
        values, scales = tokens if isinstance(tokens, Scaled) else scale(tokens)
        shape = (*values.shape[:-1], len(self.weight))
        if not values.is_cuda:
            exact = values.float() * scales
            answer = functional.linear(exact, self.weight.float() * self.scales.t())
            return (answer if self.bias is None else answer + self.bias).to(self._dtype)
        product: torch.Tensor = torch._scaled_mm(  # noqa: SLF001 - torch has no other name for it
            values.flatten(0, -2),
            self.weight.t(),
            scale_a=scales.flatten(0, -2),
            scale_b=self.scales,
            bias=self.bias,
            out_dtype=self._dtype,
            use_fast_accum=True,
        )
        return product.view(shape)


def scale(tokens: torch.Tensor) -> Scaled:
    """``tokens`` in eight bits, each row of its last dimension by itself."""
    if tokens.is_cuda:
        from gpu_worker.engine import kernels  # noqa: PLC0415 - Triton is not there without CUDA

        return kernels.scale(tokens)
    return _scale(tokens)


def _scale(rows: torch.Tensor) -> Scaled:
    exact = rows.float()
    scales = exact.abs().amax(-1, keepdim=True).clamp(min=LEAST) / GREATEST
    return Scaled((exact / scales).to(torch.float8_e4m3fn), scales)
