import asyncio
import os
from pathlib import Path

from batcher.memory import trim

ATTACHMENT = 64 * 1024
MEBIBYTE = 1024 * 1024


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def test_what_small_attachments_took_is_given_back_although_something_stays_above_them() -> None:
    attachments = [bytes([number % 256]) * ATTACHMENT for number in range(1024)]
    above = bytes([1]) * ATTACHMENT
    attachments.clear()
    before = resident_bytes()
    stop = asyncio.Event()
    trimming = asyncio.create_task(trim(stop=stop, every=0.01))
    async with asyncio.timeout(20):
        while resident_bytes() > before - 48 * MEBIBYTE:  # noqa: ASYNC110 - the system tells nobody
            await asyncio.sleep(0.01)
    stop.set()
    await trimming
    assert len(above) == ATTACHMENT
