"""The U-Net, called with batches of any size: recorded for some sizes, and padded to the next of those."""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeVar

import structlog
import torch
from torch import nn

from core.telemetry import UNET_ROWS
from gpu_worker.engine.recording import REFUSALS, Recorder

log = structlog.get_logger(__name__)

_SHAPES: Final = 16
"""That are kept recorded beside those that were warmed up."""

_Inputs = Mapping[str, Any]
_Key = tuple[tuple[int, ...], ...]
_Result = TypeVar("_Result")


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
        self._warm: dict[_Key, _Recorded] = {}
        self._met: OrderedDict[_Key, _Recorded] = OrderedDict()

    def warm_up(self, inputs: _Inputs) -> None:
        """Record every bucket for the shape of ``inputs``, of which the first row is enough.

        Buckets that the device has no memory for are left out: such batches will find that out themselves.
        """
        if self._recorder is None:
            return
        recorded = _Recorded(self._run, self._recorder, inputs, self._buckets)
        recorded.record_all()
        self._warm[_key(inputs)] = recorded

    def __call__(self, inputs: _Inputs) -> torch.Tensor:
        """The U-Net's answer, a row for each row of ``inputs``; good until the next call."""
        rows = len(inputs["sample"])
        UNET_ROWS.labels(kind="pictures").inc(rows)
        recorded = self._recorded(inputs)
        answer = recorded(inputs) if recorded else None
        if answer is None:
            return self._run(inputs)
        UNET_ROWS.labels(kind="padding").inc(len(answer) - rows)
        return answer[:rows]

    def _recorded(self, inputs: _Inputs) -> "_Recorded | None":
        """What there is for the shape of ``inputs``; it is the last one met from now on."""
        if self._recorder is None:
            return None
        key = _key(inputs)
        if key in self._warm:
            return self._warm[key]
        if key not in self._met:
            self._met[key] = _Recorded(self._run, self._recorder, inputs, _halving(self._buckets))
            if len(self._met) > _SHAPES:
                self._met.popitem(last=False)
        self._met.move_to_end(key)
        return self._met[key]

    def _run(self, inputs: _Inputs) -> torch.Tensor:
        answer: torch.Tensor = self._unet(**inputs, return_dict=False)[0]
        return answer


class _Recorded:
    """The U-Net for one shape of inputs, on tensors of its own.

    A batch of each size runs as it is the first time, which has kernels built and chosen, and is recorded the
    second: that takes hardly longer than launching the kernels one by one.
    """

    def __init__(
        self,
        run: Callable[[_Inputs], torch.Tensor],
        recorder: Recorder,
        inputs: _Inputs,
        sizes: Sequence[int],
    ) -> None:
        self._recorder = recorder
        self._inputs = _enlarged(inputs, max(sizes))
        self._steps = {size: partial(run, _first_rows(self._inputs, size)) for size in sorted(sizes)}
        self._ran: set[int] = set()
        self._replays: dict[int, Callable[[], torch.Tensor]] = {}

    def record_all(self) -> None:
        """Record every size."""
        # The largest first: what it takes of memory is enough for the others.
        for size in sorted(self._steps, reverse=True):
            self._attempt(size, self._step)
            self._attempt(size, self._record)

    def __call__(self, inputs: _Inputs) -> torch.Tensor | None:
        """The answer for ``inputs``, then rows that nobody should look at; none for too large a batch."""
        rows = len(inputs["sample"])
        size = min((size for size in self._steps if size >= rows), default=None)
        if size is None:
            return None
        # Rows that are lacking are left as they were.
        _fill(self._inputs, inputs)
        return self._attempt(size, self._step)

    def _step(self, size: int) -> torch.Tensor:
        if size in self._ran:
            self._record(size)
            return self._replays[size]()
        answer = self._steps[size]()
        self._ran.add(size)
        return answer

    def _record(self, size: int) -> None:
        if size in self._ran and size not in self._replays:
            self._replays[size] = self._recorder(self._steps[size])

    def _attempt(self, size: int, step: Callable[[int], _Result]) -> _Result | None:
        """What ``step`` returns; if the device refuses it, so many rows or more are not tried again."""
        try:
            return step(size)
        except REFUSALS as error:
            log.warning("denoiser.not_recorded", rows=size, error=str(error))
            self._steps = {fewer: one for fewer, one in self._steps.items() if fewer < size}
            torch.cuda.empty_cache()
            return None


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


def _halving(buckets: Sequence[int]) -> list[int]:
    """The largest of ``buckets``, the next that is at most half of it, and so on."""
    found: list[int] = []
    for size in sorted(buckets, reverse=True):
        if not found or 2 * size <= found[-1]:
            found.append(size)
    return found
