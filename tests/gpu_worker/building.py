"""Builds every kernel for a GPU, where there is none: Triton's compiler refuses what its interpreter runs.

A program of its own, since Triton decides once between the two. It prints the name of each built kernel.
"""

import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction, mangle_type

from gpu_worker.engine import kernels

_HOPPER: Final = GPUTarget("cuda", 90, 32)


class Building:
    """Stands where a kernel does, and builds it for what it is called with."""

    def __init__(self, kernel: Any) -> None:
        self._kernel = kernel
        self._built: set[str] = set()

    def __getitem__(self, grid: Sequence[int]) -> Callable[..., None]:
        return self._build

    def _build(self, *given: object, num_warps: int = 4, **constants: object) -> None:
        names = self._kernel.arg_names
        types = dict.fromkeys(names, "constexpr") | {
            name: mangle_type(value) for name, value in zip(names, given, strict=False)
        }
        source = ASTSource(self._kernel, types, constants)
        if (key := source.hash()) not in self._built:
            self._built.add(key)
            triton.compile(source, target=_HOPPER, options={"num_warps": num_warps})
            sys.stdout.write(f"{self._kernel.__name__}\n")


def main() -> None:
    """Build each kernel in each of its forms."""
    for name, kernel in [*vars(kernels).items()]:
        if isinstance(kernel, JITFunction) and name != "_scaled":
            setattr(kernels, name, Building(kernel))
    pixels, tokens = torch.ones(1, 64, 8, 8).half(), torch.ones(1, 4, 64).half()
    channels = torch.ones(64).half()
    for shift in (None, channels[None]):
        kernels.group_norm(
            pixels, channels, channels, groups=4, eps=1e-5, shift=shift, silu=shift is not None
        )
    for bias in (None, channels):
        kernels.add(pixels, pixels, bias)
    kernels.interleave(pixels, channels[:16])
    kernels.scale(tokens)
    for scaled in (False, True):
        kernels.add_layer_norm(tokens, tokens, channels, channels, eps=1e-5, scaled=scaled)
        kernels.layer_norm(tokens, channels, channels, eps=1e-5, scaled=scaled)
        kernels.geglu(tokens, scaled=scaled)


if __name__ == "__main__":
    main()
