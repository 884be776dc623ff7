"""What runs beside the ticks: embedding prompts, decoding, loading models. The U-Net waits for none of it."""

import itertools
import queue
import threading
from collections.abc import Callable
from contextlib import nullcontext
from typing import TypeVar

import structlog
import torch

_Result = TypeVar("_Result")

log = structlog.get_logger(__name__)


class Aside:
    """One thread that does what it is given, premium's first and otherwise in order.

    On CUDA it has a stream of its own, so that its kernels fill what the ticks leave free.
    """

    def __init__(self, device: torch.device) -> None:
        # torch has no annotations for these.
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self._tasks: queue.PriorityQueue[tuple[int, int, Callable[[], None]]] = queue.PriorityQueue()
        self._numbers = itertools.count()
        self._thread: threading.Thread | None = None

    def submit(
        self, work: Callable[[], _Result], then: Callable[[_Result | Exception], None], *, premium: bool
    ) -> None:
        """Have ``work`` done soon. From one thread only.

        Args:
            work: sees whatever the calling thread has launched on the device so far.
            then: called on this object's thread with what ``work`` returned or raised, which the device has
                finished by then; must not raise.
            premium: whether it goes before what is not.
        """
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name="engine-aside", daemon=True)
            self._thread.start()
        launched = torch.cuda.Event() if self._stream else None  # type: ignore[no-untyped-call]
        if launched is not None:
            launched.record()

        def task() -> None:
            then(self._outcome(work, launched))

        self._tasks.put((0 if premium else 1, next(self._numbers), task))

    def _outcome(self, work: Callable[[], _Result], launched: torch.cuda.Event | None) -> _Result | Exception:
        try:
            if self._stream is None or launched is None:
                return work()
            self._stream.wait_event(launched)
            result = work()
            self._stream.synchronize()
        except Exception as error:  # noqa: BLE001 - it is told to whoever asked
            return error
        return result

    def _serve(self) -> None:
        with torch.cuda.stream(self._stream) if self._stream else nullcontext():
            while True:
                _, _, task = self._tasks.get()
                task()
