"""What the ticks do not wait for: embedding prompts, decoding, loading models."""

import itertools
import queue
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeVar

import torch

_Result = TypeVar("_Result")
_Task = Callable[[], None]


class Aside(ABC):
    """Does what it is given: premium's first, of either tier what ticks wait for, and otherwise in order."""

    def __init__(self) -> None:
        self._tasks = _Tasks()

    def submit(
        self,
        work: Callable[[], _Result],
        then: Callable[[_Result | Exception], None],
        *,
        premium: bool,
        feeds: bool = False,
    ) -> None:
        """Have ``work`` done soon. From the engine's thread only.

        Args:
            work: sees whatever the engine's thread has launched on the device so far, unless it feeds.
            then: called after it, on the same thread, with what ``work`` returned or raised, which the device
                has finished by then; must not raise.
            premium: whether it goes before what is not.
            feeds: whether a slot is filled with what comes of it, which is not to stand empty until the tick
                under way has ended and pictures of others are decoded.
        """
        work = self._in_order(work, feeds=feeds)
        self._tasks.put(lambda: then(_outcome(work)), premium=premium, feeds=feeds)

    @abstractmethod
    def _in_order(self, work: Callable[[], _Result], *, feeds: bool) -> Callable[[], _Result]:
        """``work``, so that it sees what it has to and the device has finished what it returns."""

    @property
    @abstractmethod
    def waiting(self) -> bool:
        """Whether there is something to do for which it needs the engine's thread."""

    @abstractmethod
    def between_ticks(self, hurry: Callable[[], bool]) -> None:
        """Give it the engine's thread for as long as it needs it.

        Args:
            hurry: asked before each task; while premium waits for a tick, only premium's are done.
        """


class Beside(Aside):
    """For CUDA: a thread and a stream of its own, whose kernels fill what the ticks leave free."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        # What is nearly done is done first.
        self._stream = torch.cuda.Stream(device, priority=-1)  # type: ignore[no-untyped-call] # torch has no annotations
        self._thread = threading.Thread(target=self._serve, name="engine-aside", daemon=True)
        self._thread.start()

    def _in_order(self, work: Callable[[], _Result], *, feeds: bool) -> Callable[[], _Result]:
        launched = torch.cuda.Event()  # type: ignore[no-untyped-call] # as above
        launched.record()

        def in_order() -> _Result:
            if not feeds:
                self._stream.wait_event(launched)
            result = work()
            self._stream.synchronize()
            return result

        return in_order

    @property
    def waiting(self) -> bool:
        """See :class:`Aside`; it has a thread."""
        return False

    def between_ticks(self, hurry: Callable[[], bool]) -> None:
        """See :class:`Aside`; it has a thread."""

    def _serve(self) -> None:
        with torch.cuda.stream(self._stream):
            while True:
                self._tasks.get()()


class Between(Aside):
    """For the CPU: done between ticks, on their thread.

    A second thread would compute on the same cores. And once two threads have more OpenMP threads together
    than there are cores, GNU's runtime stops spinning at barriers in both, for good: a tick of 16 rows of the
    bundled model then takes 158 ms in place of 112 on two cores.
    """

    def _in_order(self, work: Callable[[], _Result], *, feeds: bool) -> Callable[[], _Result]:  # noqa: ARG002 - in order it is
        return work

    @property
    def waiting(self) -> bool:
        """See :class:`Aside`."""
        return bool(self._tasks)

    def between_ticks(self, hurry: Callable[[], bool]) -> None:
        """See :class:`Aside`."""
        while self._tasks and (self._tasks.premium_waits or not hurry()):
            self._tasks.get()()


def aside_on(device: torch.device) -> Aside:
    """What suits ``device``."""
    return Beside(device) if device.type == "cuda" else Between()


class _Tasks:
    """A queue that premium jumps, and then what feeds the ticks."""

    def __init__(self) -> None:
        self._queue: queue.PriorityQueue[tuple[bool, bool, int, _Task]] = queue.PriorityQueue()
        self._numbers = itertools.count()

    def put(self, task: _Task, *, premium: bool, feeds: bool) -> None:
        self._queue.put((not premium, not feeds, next(self._numbers), task))

    def get(self) -> _Task:
        return self._queue.get()[3]

    def __bool__(self) -> bool:
        return not self._queue.empty()

    @property
    def premium_waits(self) -> bool:
        return bool(self._queue.queue) and not self._queue.queue[0][0]


def _outcome(work: Callable[[], _Result]) -> _Result | Exception:
    try:
        return work()
    except Exception as error:  # noqa: BLE001 - it is told to whoever asked
        return error
