"""The batch tier with everything around it but models: batchers, a mail server, and workers that only wait.

The workers speak to queue and object store as ``gpu_worker`` does, and make every picture in the same time.
"""

import asyncio
import hashlib
import mailbox
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Final

from PIL import Image

from benchmarks.backing import Backing
from benchmarks.processes import Child, running
from core.clock import now
from core.lifecycle import GenerationState, Tier
from core.messages import Heartbeat, Job, Outcome, Speed, Started, StoredImage
from core.queue import Delivery, Queue, topology
from core.settings import StorageSettings
from core.storage import Storage
from infra.local.ports import Ports

SHAPES: Final = ((128, 64), (64, 128), (256, 32))
"""Widths and heights of the pictures, in pixels: of one area, so that all are the same work."""

STEPS: Final = 20

_BEAT_SECONDS: Final = 3
_FETCH_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """What the workers do.

    Attributes:
        workers: how many they are.
        slots: jobs that each has in its hands.
        seconds: for which it has each.
    """

    workers: int
    slots: int
    seconds: float

    def speed(self, model: str) -> Speed:
        """What one says of itself."""
        width, height = SHAPES[0]
        work = width * height / 1e6 * STEPS
        return Speed(
            model=model,
            megapixel_steps_per_second=work * self.slots / self.seconds,
            seconds_per_step=self.seconds / STEPS,
        )


class BatchTier:
    """What runs, as an operator sees it.

    Args:
        batchers: their processes.
        maildir: where the mail server keeps what it took.
    """

    def __init__(self, *, batchers: Sequence[Child], maildir: Path) -> None:
        self.batchers = batchers
        self._maildir = maildir

    def letters(self) -> Counter[str]:
        """How often each letter has arrived, by its ``Message-ID``."""
        folder = mailbox.Maildir(self._maildir, create=False)
        return Counter(str(folder.get_message(key)["Message-ID"]) for key in folder.keys())  # noqa: SIM118 - no mapping


@asynccontextmanager
async def open_batch_tier(
    folder: Path, ports: Ports, backing: Backing, *, batchers: int, window: str, window_seconds: float
) -> AsyncIterator[BatchTier]:
    """So many ``python -m batcher`` and a mail server.

    Args:
        folder: where they keep what they have.
        ports: where they listen.
        backing: the servers that they need.
        batchers: how many.
        window: the schedule.
        window_seconds: from a window's opening to its deadline.
    """
    env = {
        **os.environ,
        **backing.environment,
        "DARKROOM_STORAGE_URL": f"file://{folder}/objects",
        "DARKROOM_DOWNLOAD_SECRET": "d" * 20,
        "DARKROOM_SMTP_PORT": str(ports.of("mail")),
        "DARKROOM_WINDOW": window,
        "DARKROOM_WINDOW_DEADLINE_MINUTES": str(window_seconds / 60),
    }
    maildir = folder / "mail"
    mail_server = (sys.executable, "-m", "infra.local.mail_server", str(ports.of("mail")), str(maildir))
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(running(mail_server, env=os.environ, log=folder / "mail.log"))
        argv = (sys.executable, "-m", "batcher")
        children = [
            await stack.enter_async_context(running(argv, env=env, log=folder / f"batcher-{number}.log"))
            for number in range(1, batchers + 1)
        ]
        yield BatchTier(batchers=children, maildir=maildir)


@asynccontextmanager
async def open_workers(folder: Path, backing: Backing, *, pace: Pace, model: str) -> AsyncIterator[None]:
    """Workers that take what is released, for as long as the block runs."""
    storage = Storage.open(StorageSettings(storage_url=f"file://{folder}/objects"))
    stop = asyncio.Event()
    async with AsyncExitStack() as stack:
        tasks: list[asyncio.Task[None]] = []
        for number in range(1, pace.workers + 1):
            queue = await Queue.connect_when_there(backing.broker, name=f"worker-{number}")
            stack.push_async_callback(queue.close)
            worker = _Worker(
                name=f"worker-{number}", queue=queue, storage=storage, pace=pace, speed=pace.speed(model)
            )
            tasks.append(asyncio.create_task(worker.run(stop)))
        try:
            yield
        finally:
            # Never cancelled: a fetch that is cancelled swallows the message that answers it.
            stop.set()
            await asyncio.gather(*tasks)


class _Worker:
    def __init__(self, *, name: str, queue: Queue, storage: Storage, pace: Pace, speed: Speed) -> None:
        self._name = name
        self._queue = queue
        self._storage = storage
        self._pace = pace
        self._speed = speed
        self._held: set[asyncio.Task[None]] = set()
        self._started_at = now()

    async def run(self, stop: asyncio.Event) -> None:
        beating = asyncio.create_task(self._beat())
        consumer = self._queue.consumer(topology.BATCH_JOBS)
        while not stop.is_set():
            room = self._pace.slots - len(self._held)
            if room <= 0:
                await asyncio.wait(self._held, return_when=asyncio.FIRST_COMPLETED)
                continue
            for delivery in await consumer.fetch(room, wait=_FETCH_SECONDS):
                task = asyncio.create_task(self._carry_out(delivery))
                self._held.add(task)
                task.add_done_callback(self._held.discard)
        await asyncio.gather(*self._held)
        beating.cancel()
        with suppress(asyncio.CancelledError):
            await beating

    async def _carry_out(self, delivery: Delivery) -> None:
        job = Job.decode(delivery.data)
        started = Started(id=job.id, worker=self._name, attempt=delivery.attempt, started_at=now())
        await self._queue.publish_result(Tier.NORMAL, started)
        await asyncio.sleep(self._pace.seconds)
        outcome = Outcome(
            id=job.id,
            worker=self._name,
            attempt=delivery.attempt,
            state=GenerationState.SUCCEEDED,
            images=(await self._store(job, delivery.attempt),),
            finished_at=now(),
        )
        await self._queue.publish_result(Tier.NORMAL, outcome)
        await delivery.ack()

    async def _store(self, job: Job, attempt: int) -> StoredImage:
        """A picture of one colour, its seed's."""
        asked, encoded = job.parameters, BytesIO()
        colour = asked.seed % 256, asked.seed // 256 % 256, 128
        Image.new("RGB", (asked.width, asked.height), colour).save(encoded, "PNG")
        data, key = encoded.getvalue(), f"generations/{job.id}/{attempt}/0.png"
        await self._storage.put(key, data, content_type="image/png")
        return StoredImage(
            key=key,
            width=asked.width,
            height=asked.height,
            seed=asked.seed,
            content_type="image/png",
            byte_size=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
        )

    async def _beat(self) -> None:
        while True:
            beat = Heartbeat(
                worker=self._name,
                models=(self._speed.model,),
                device="none",
                slots=self._pace.slots,
                busy=len(self._held),
                speeds=(self._speed,),
                started_at=self._started_at,
                beat_at=now(),
            )
            await self._queue.put_heartbeat(beat)
            await asyncio.sleep(_BEAT_SECONDS)
