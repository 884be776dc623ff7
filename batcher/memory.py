"""Has glibc give back what letters took: where there is another C library, nothing here does anything."""

import asyncio
import ctypes
from typing import Final

from core.clock import pause

_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8
"""Of glibc's ``mallopt``."""

_LARGE: Final = 128 * 1024
"""Bytes from which an allocation goes back to the system as soon as it is freed."""

_TRIM_SECONDS: Final = 10.0


def use_one_heap() -> None:
    """Before any thread is started: keep all threads to one heap, and large allocations out of it.

    Each thread that encodes a letter would hold on to a heap of its own; and having seen a few large
    attachments freed, glibc would take all later ones from the heap.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_MMAP_THRESHOLD, _LARGE)


async def trim(*, stop: asyncio.Event, every: float = _TRIM_SECONDS) -> None:
    """Give free pages back every few seconds until ``stop`` is set.

    Small attachments come from the heap, and whatever stays above them keeps glibc from cutting it off.

    Args:
        stop: ends it.
        every: seconds; it takes a few milliseconds, on a thread.
    """
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    while not stop.is_set():
        await pause(stop, seconds=every)
        if malloc_trim is not None:
            await asyncio.to_thread(malloc_trim, 0)
