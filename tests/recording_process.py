"""``python -m tests.recording_process``: a batcher's recorder that ends generations as its input says.

It reads one id a line, records that generation as succeeded, and answers with the moments between which it
did so, in seconds of the machine's monotonic clock.
"""

import asyncio
import sys
import time
from uuid import UUID

from core.clock import now
from core.lifecycle import GenerationState
from core.queue import Queue
from core.recording import Recorder
from core.repository.database import database
from core.settings import BrokerSettings, DatabaseSettings, read


async def serve() -> None:
    async with database(read(DatabaseSettings)):
        queue = await Queue.connect(read(BrokerSettings), name="recorder")
        recorder = Recorder(queue=queue)
        while line := await asyncio.to_thread(sys.stdin.readline):
            began = time.monotonic()
            recorded = await recorder.finish(UUID(line.strip()), GenerationState.SUCCEEDED, at=now())
            assert recorded is not None
            sys.stdout.write(f"{began} {time.monotonic()}\n")
            sys.stdout.flush()
        await queue.close()


if __name__ == "__main__":
    asyncio.run(serve())
