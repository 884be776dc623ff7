"""The U-Net, called with batches of any size: compiled for some sizes, and padded to the next of those."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import nn

from core.telemetry import UNET_ROWS

_Inputs = Mapping[str, Any]
_Key = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Compilation:
    """How U-Nets are compiled.

    Attributes:
        buckets: sizes of a batch, in rows, that are compiled for; a guided picture has two rows. Each takes
            most of a minute on a large GPU the first time, and seconds from the cache on disk.
        compiler: makes the fast function of a module.
    """

    buckets: tuple[int, ...]
    compiler: Callable[[nn.Module], Callable[..., Any]]


def with_cuda_graphs(unet: nn.Module) -> Callable[..., Any]:
    """``unet`` through Inductor, replayed as a CUDA graph: a small batch is bound by launching kernels."""
    compiled: Callable[..., Any] = torch.compile(unet, mode="reduce-overhead", dynamic=False, fullgraph=True)
    return compiled


class Denoiser:
    """One model's U-Net. Not for two threads: CUDA graphs belong to the thread that recorded them.

    Inputs are named as the U-Net's own ``forward`` names them; all have one row for each row of the batch.
    """

    def __init__(self, unet: nn.Module, compilation: Compilation | None) -> None:
        self._unet = unet
        self._compiled = compilation.compiler(unet) if compilation else None
        self._buckets: Final = sorted(compilation.buckets) if compilation else []
        self._ready: set[_Key] = set()

    def warm_up(self, inputs: _Inputs) -> None:
        """Compile every bucket for the shape of ``inputs``, of which the first row is enough."""
        if self._compiled is None:
            return
        for rows in self._buckets:
            # To compile, to warm up and to record.
            for _ in range(3):
                self._run(self._compiled, _resized(inputs, rows))
        self._ready.add(_key(inputs))

    def __call__(self, inputs: _Inputs) -> torch.Tensor:
        """The U-Net's answer, a row for each row of ``inputs``; good until the next call."""
        rows = len(inputs["sample"])
        UNET_ROWS.labels(kind="pictures").inc(rows)
        bucket = next((size for size in self._buckets if size >= rows), None)
        if self._compiled is None or bucket is None or _key(inputs) not in self._ready:
            return self._run(self._unet, inputs)
        UNET_ROWS.labels(kind="padding").inc(bucket - rows)
        return self._run(self._compiled, _resized(inputs, bucket))[:rows]

    def _run(self, function: Callable[..., Any], inputs: _Inputs) -> torch.Tensor:
        if self._compiled is not None:
            # What the graphs gave for the tick before may be overwritten now.
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        answer: torch.Tensor = function(**inputs, return_dict=False)[0]
        return answer


def _resized(inputs: _Inputs, rows: int) -> dict[str, Any]:
    """``inputs`` with their last row repeated until there are ``rows``, or the first ``rows`` of them."""
    return {
        name: _resized(value, rows) if isinstance(value, Mapping) else _repeated(value, rows)
        for name, value in inputs.items()
    }


def _repeated(tensor: torch.Tensor, rows: int) -> torch.Tensor:
    missing = max(0, rows - len(tensor))
    return torch.cat([tensor[:rows], tensor[-1:].expand(missing, *tensor.shape[1:])])


def _key(inputs: _Inputs) -> _Key:
    """What a compiled function depends on beside the number of rows."""
    return tuple(tuple(inputs[name].shape[1:]) for name in ("sample", "encoder_hidden_states"))
