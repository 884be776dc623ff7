"""Work on the device that is recorded once and launched again and again."""

from collections.abc import Callable
from typing import Any, Final, Protocol, TypeVar

import torch

from gpu_worker.engine.pace import Graph

REFUSALS: Final = (torch.OutOfMemoryError, torch.AcceleratorError)
"""With which a device refuses to record, or has no memory for it."""

_Answer = TypeVar("_Answer")


class Recorder(Protocol):
    """Makes a function cheap to call again, with whatever its tensors then hold."""

    def __call__(self, function: Callable[[], _Answer]) -> Callable[[], _Answer]:
        """What does as ``function`` does, which has run before; the answer is good until the next call."""


class CudaGraphs:
    """Records kernels once and launches them all at a stroke: small batches are bound by launching them.

    Records on one thread, and replays one after the other: all graphs share their memory.

    Args:
        launch: called to launch one.
        stream: to record on, or torch's own for this. What is replayed beside what another has recorded is
            recorded on another stream: to each stream belongs a scratch space for products of matrices.
    """

    def __init__(self, launch: Callable[[Graph], None], *, stream: torch.cuda.Stream | None = None) -> None:
        self._launch = launch
        self._stream = stream
        self._pool: Any = None

    def __call__(self, function: Callable[[], _Answer]) -> Callable[[], _Answer]:
        """See :class:`Recorder`."""
        graph = torch.cuda.CUDAGraph()
        # Other threads go on allocating meanwhile.
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
            answer = function()
        self._pool = graph.pool()
        recorded = Graph(graph.replay)

        def replay() -> _Answer:
            self._launch(recorded)
            return answer

        return replay
