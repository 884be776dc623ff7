"""Ends a worker of which a part stands still: its signs of life would go on, and keep its jobs for ever."""

import asyncio
import faulthandler
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import structlog

from core.telemetry import STILL_SECONDS

STATUS: Final = 70
"""What such a process ends with: an error inside, by ``sysexits.h``."""

_LOOK_SECONDS: Final = 1.0

Progress = Callable[[], int | None]
"""Another number whenever a part has done something; none while it has nothing to do. For any thread."""

log = structlog.get_logger(__name__)


def end_process(part: str, seconds: float) -> None:
    """Say which part stood still and where every thread is, and end at once: nothing can be waited for."""
    log.critical("worker_stands_still", part=part, seconds=seconds)
    sys.stdout.flush()
    faulthandler.dump_traceback(all_threads=True)
    os._exit(STATUS)


class Watchdog:
    """Counts for how long each part has stood still.

    It counts its own looks and not the time: of a process that was stopped as a whole no part is to blame.

    Args:
        parts: what to look at, by name.
        patience: seconds after which a part has stood still for too long.
        every: seconds between two looks.
        end: is told which part that is, and for how many seconds.
    """

    def __init__(
        self,
        parts: Mapping[str, Progress],
        *,
        patience: float,
        every: float = _LOOK_SECONDS,
        end: Callable[[str, float], None] = end_process,
    ) -> None:
        self._parts = parts
        self._patience = patience
        self._every = every
        self._end = end
        self._seen: dict[str, int | None] = dict.fromkeys(parts)
        self._still = dict.fromkeys(parts, 0.0)

    def look(self) -> None:
        """Look at every part once."""
        for part, progress in self._parts.items():
            now = progress()
            stands = now is not None and now == self._seen[part]
            self._seen[part] = now
            self._still[part] = self._still[part] + self._every if stands else 0.0
            STILL_SECONDS.labels(part=part).set(self._still[part])
            if self._still[part] >= self._patience:
                self._end(part, self._still[part])

    @contextmanager
    def awake(self) -> Iterator[None]:
        """Look on from a thread of its own while the block runs; with a patience of 0 nobody does."""
        closing = threading.Event()

        def look_on() -> None:
            while not closing.wait(self._every):
                self.look()

        thread = threading.Thread(target=look_on, daemon=True, name="watchdog")
        if self._patience:
            thread.start()
        try:
            yield
        finally:
            closing.set()
            if self._patience:
                thread.join()


class LoopProgress:
    """How often the event loop that it is made on has come to what it was asked, once at each look."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._came = 0

    def __call__(self) -> int:
        """Ask again, and say how often it has come so far."""
        self._loop.call_soon_threadsafe(self._come)
        return self._came

    def _come(self) -> None:
        self._came += 1
