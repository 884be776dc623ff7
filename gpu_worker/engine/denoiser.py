"""The U-Net, called with batches of any size: recorded for some sizes, and padded to the next of those."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import structlog
import torch
from torch import nn

from core.telemetry import UNET_ROWS
from gpu_worker.engine.pace import Graph, Pace

log = structlog.get_logger(__name__)

_Inputs = Mapping[str, Any]
_Key = tuple[tuple[int, ...], ...]


class Recorder(Protocol):
    """Makes a function cheap to call again, with whatever its tensors then hold."""

    def __call__(self, function: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
        """What does the same as ``function`` does now; its answer is good until the next call of any."""


class CudaGraphs:
    """Records kernels once and launches them all at a stroke: small batches are bound by launching them.

    For one thread. All graphs share their memory, so they must run one after the other.

    Args:
        pace: says when one is launched.
    """

    def __init__(self, pace: Pace) -> None:
        self._pool: Any = None
        self._pace = pace

    def __call__(self, function: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
        """See :class:`Recorder`."""
        self._try(function)
        graph = torch.cuda.CUDAGraph()
        # Other threads go on allocating meanwhile.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            answer = function()
        self._pool = graph.pool()
        recorded = Graph(graph.replay)

        def replay() -> torch.Tensor:
            self._pace.launch(recorded)
            return answer

        return replay

    def _try(self, function: Callable[[], torch.Tensor]) -> None:
        """Have kernels built and chosen, which cannot be recorded."""
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call] # torch has no annotations
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            function()
        torch.cuda.current_stream().wait_stream(stream)


class Denoiser:
    """One model's U-Net.

    Inputs are named as the U-Net's own ``forward`` names them; all have one row for each row of the batch.

    Args:
        unet: whose answers it gives.
        recorder: records the U-Net for batches of some sizes; none runs it as it is.
        buckets: those sizes, in rows; a guided picture has two.
    """

    def __init__(
        self, unet: nn.Module, *, recorder: Recorder | None = None, buckets: Sequence[int] = ()
    ) -> None:
        self._unet = unet
        self._recorder = recorder
        self._buckets = buckets
        self._recorded: dict[_Key, _Recorded] = {}

    def warm_up(self, inputs: _Inputs) -> None:
        """Record every bucket for the shape of ``inputs``, of which the first row is enough.

        Buckets that the device has no memory for are left out: such batches will find that out themselves.
        """
        if self._recorder is None:
            return
        self._recorded[_key(inputs)] = _Recorded(self._run, self._recorder, inputs, self._buckets)

    def __call__(self, inputs: _Inputs) -> torch.Tensor:
        """The U-Net's answer, a row for each row of ``inputs``; good until the next call."""
        rows = len(inputs["sample"])
        UNET_ROWS.labels(kind="pictures").inc(rows)
        recorded = self._recorded.get(_key(inputs))
        bucket = recorded.bucket(rows) if recorded else None
        if recorded is None or bucket is None:
            return self._run(inputs)
        UNET_ROWS.labels(kind="padding").inc(bucket - rows)
        return recorded(inputs, bucket)[:rows]

    def _run(self, inputs: _Inputs) -> torch.Tensor:
        answer: torch.Tensor = self._unet(**inputs, return_dict=False)[0]
        return answer


class _Recorded:
    """The U-Net for one shape of inputs, recorded at every bucket on tensors of its own."""

    def __init__(
        self,
        run: Callable[[_Inputs], torch.Tensor],
        recorder: Recorder,
        inputs: _Inputs,
        buckets: Sequence[int],
    ) -> None:
        self._inputs = _enlarged(inputs, max(buckets))
        self._replays: dict[int, Callable[[], torch.Tensor]] = {}
        # The largest first: what it takes of memory is enough for the others.
        for rows in sorted(buckets, reverse=True):
            try:
                self._replays[rows] = recorder(partial(run, _first_rows(self._inputs, rows)))
            except torch.OutOfMemoryError:
                log.warning("denoiser.not_recorded", rows=rows)
                torch.cuda.empty_cache()

    def bucket(self, rows: int) -> int | None:
        """The smallest recorded size for ``rows``, or none."""
        return min((size for size in self._replays if size >= rows), default=None)

    def __call__(self, inputs: _Inputs, bucket: int) -> torch.Tensor:
        """Rows that ``inputs`` lack are left as they were: nobody looks at theirs."""
        _fill(self._inputs, inputs)
        return self._replays[bucket]()


def _enlarged(inputs: _Inputs, rows: int) -> dict[str, Any]:
    """Tensors like ``inputs`` with ``rows`` rows, each the first one of ``inputs``; channels last."""
    return {
        name: _enlarged(value, rows) if isinstance(value, Mapping) else _repeated(value[:1], rows)
        for name, value in inputs.items()
    }


def _repeated(row: torch.Tensor, rows: int) -> torch.Tensor:
    repeated = row.repeat(rows, *(1 for _ in row.shape[1:]))
    return repeated.contiguous(memory_format=torch.channels_last) if repeated.dim() == 4 else repeated  # noqa: PLR2004


def _first_rows(inputs: _Inputs, rows: int) -> dict[str, Any]:
    return {
        name: _first_rows(value, rows) if isinstance(value, Mapping) else value[:rows]
        for name, value in inputs.items()
    }


def _fill(own: _Inputs, inputs: _Inputs) -> None:
    for name, value in inputs.items():
        if isinstance(value, Mapping):
            _fill(own[name], value)
        else:
            own[name][: len(value)].copy_(value)


def _key(inputs: _Inputs) -> _Key:
    """What a recording depends on beside the number of rows."""
    return tuple(tuple(inputs[name].shape[1:]) for name in ("sample", "encoder_hidden_states"))
