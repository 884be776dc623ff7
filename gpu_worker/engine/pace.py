"""When the next tick is chosen: as late as the device allows, so that whoever comes takes part in it."""

import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

import torch

_REMEMBERED: Final = 16
_MARGIN: Final = 0.002
"""Seconds that the device's work is to be there before it is needed: threads do not wake up to the moment."""


class Event(Protocol):
    """A place in the device's work; see :class:`torch.cuda.Event`."""

    def record(self) -> None:
        """Be behind all that has been launched so far."""

    def query(self) -> bool:
        """Whether the device has come so far."""

    def synchronize(self) -> None:
        """Wait until it has."""


class Graph:
    """Recorded kernels, and for how long after their launch the next tick did not have to be chosen.

    Args:
        replay: launches them.
    """

    def __init__(self, replay: Callable[[], None]) -> None:
        self.replay: Final = replay
        self._spared: deque[float] = deque(maxlen=_REMEMBERED)

    @property
    def to_spare(self) -> float:
        """Seconds that choosing can safely wait."""
        return min(self._spared, default=0.0) - _MARGIN

    def spared(self, seconds: float) -> None:
        """Take in that choosing could have waited for so long this time."""
        self._spared.append(seconds)


class Pace:
    """Keeps the engine's thread a little ahead of the device. For that thread.

    Where all of a tick is launched at a stroke, the next one is chosen when it is nearly done. How long that
    can wait is learned of each graph: the least that there was to spare in its last runs. Otherwise the
    thread launches at most one tick ahead.

    Args:
        event: makes one; none on the CPU, where a tick is done when its call returns.
        clock: in seconds.
    """

    def __init__(
        self, event: Callable[[], Event] | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._event = event
        self._clock = clock
        self._tick: Event | None = None
        self._graph: Graph | None = None
        self._next: Graph | None = None
        self._launched = 0.0
        self._chosen = 0.0
        self._lingered = 0.0

    def linger(self, take_in: Callable[[float], None]) -> None:
        """Let time pass until the next tick has to be chosen.

        Args:
            take_in: is called with the seconds that are left, and returns then or earlier.
        """
        to_spare = self._graph.to_spare if self._graph else 0.0
        self._lingered = 0.0
        while (seconds := self._launched + to_spare - self._clock()) > 0:
            self._lingered = to_spare
            take_in(seconds)
        self._chosen = self._clock()

    def launch(self, graph: Graph) -> None:
        """Launch ``graph`` when the tick before it is done.

        The driver's queue has no room for two graphs of a thousand kernels: launching one behind another
        spins with the driver's lock held, and for as long no other thread can embed a prompt or decode a
        picture.
        """
        if self._tick is not None:
            in_time, came = not self._tick.query(), self._clock()
            self._tick.synchronize()
            if self._graph and in_time:
                self._graph.spared(self._chosen - self._launched + self._clock() - came)
            elif self._graph and self._lingered:
                # For too long. Otherwise the device has stood still for want of work, which says nothing.
                self._graph.spared(self._lingered)
        graph.replay()
        self._next, self._launched = graph, self._clock()

    def keep(self) -> None:
        """After launching a tick: wait until the one before it is done."""
        if self._event is None:
            return
        self._graph, self._next = self._next, None
        before, self._tick = self._tick, self._event()
        self._tick.record()
        if before is not None:
            before.synchronize()

    def forget(self) -> None:
        """Let go of the graph that was launched last, once it is done: it holds memory of its model's."""
        if self._tick is not None:
            self._tick.synchronize()
        self._graph = None


def pace_on(device: torch.device) -> Pace:
    """What suits ``device``."""
    # That its event blocks leaves the processor to other threads.
    return Pace(partial(torch.cuda.Event, blocking=True) if device.type == "cuda" else None)
