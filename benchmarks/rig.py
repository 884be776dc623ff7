"""A broker and a worker as in production, and ears for what the worker says."""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final
from uuid import UUID, uuid4

from benchmarks.broker import broker_environment, open_broker
from benchmarks.customers import Ask
from benchmarks.metrics import Metrics
from benchmarks.orders import DEMO
from benchmarks.processes import BenchmarkError, Child, running
from core.clock import now
from core.lifecycle import Delivery, GenerationState, Tier
from core.messages import Job, Outcome, Parameters, decode_result
from core.queue import Lane, Queue
from core.queue.topology import NORMAL_RESULTS, PREMIUM_RESULTS, ConsumerSpec
from infra.local.ports import Ports

SLOTS: Final = 8
"""Pictures that take a step together, and the batch size of what ours is compared with."""

WORKER: Final = "benchmark"
_READY_SECONDS: Final = 480
_READY_PAUSE: Final = 0.02
_LANES: Final = {Tier.PREMIUM: Lane.PREMIUM, Tier.NORMAL: Lane.BATCH}


class Rig:
    """A nats-server with JetStream of its own, and what workers say on it.

    Args:
        queue: a connection, with every stream declared.
        folder: for objects, weights and logs.
        env: what a worker needs to find broker and object store.
        slots: of the worker.
    """

    def __init__(self, queue: Queue, folder: Path, env: dict[str, str], slots: int) -> None:
        self.queue = queue
        self.folder = folder
        self.env = env
        self.slots = slots
        self._open: dict[UUID, asyncio.Future[float]] = {}

    async def publish(self, asked: Sequence[Parameters], *, tier: Tier) -> list[asyncio.Future[float]]:
        """Put a job for each of ``asked`` where a worker takes those of ``tier`` from.

        Returns for each the moment, of the monotonic clock, at which its outcome will have arrived; or a
        BenchmarkError when it is no picture.
        """
        futures = []
        for one in asked:
            job = Job(id=uuid4(), tier=tier, delivery=Delivery.DOWNLOAD, parameters=one, accepted_at=now())
            futures.append(asyncio.get_running_loop().create_future())
            self._open[job.id] = futures[-1]
            await self.queue.publish_job(_LANES[tier], job)
        return futures

    def asking(self, tier: Tier) -> Ask:
        """How customers of ``tier`` ask for a picture."""

        async def ask(asked: Parameters) -> None:
            [ended] = await self.publish([asked], tier=tier)
            await ended

        return ask

    async def listen(self, spec: ConsumerSpec, closing: asyncio.Event) -> None:
        """Note outcomes until ``closing`` is set."""
        consumer = self.queue.consumer(spec)
        while not closing.is_set():
            deliveries = await consumer.fetch(self.slots, wait=0.5)
            at = time.monotonic()
            for delivery in deliveries:
                result = decode_result(delivery.data)
                if isinstance(result, Outcome):
                    self._note(result, at)
            await asyncio.gather(*(delivery.ack() for delivery in deliveries))

    def _note(self, outcome: Outcome, at: float) -> None:
        ended = self._open.pop(outcome.id)
        if outcome.state is GenerationState.SUCCEEDED:
            ended.set_result(at)
        else:
            ended.set_exception(BenchmarkError(f"a job ended {outcome.state}: {outcome.reason}"))

    async def ready(self, child: Child) -> None:
        """Wait for the first heartbeat of the worker.

        Raises:
            BenchmarkError: the worker has ended, or is not ready in time.
        """
        deadline = time.monotonic() + _READY_SECONDS
        while not any(beat.worker == WORKER for beat in await self.queue.workers()):
            child.check()
            if time.monotonic() > deadline:
                raise BenchmarkError(f"the worker is not ready after {_READY_SECONDS} s:\n{child.tail()}")
            await asyncio.sleep(_READY_PAUSE)


@asynccontextmanager
async def open_rig(folder: Path, *, slots: int = SLOTS, catalogue: Path | None = None) -> AsyncIterator[Rig]:
    """A broker on a free port of the loopback interface, its data in ``folder``.

    Args:
        folder: an empty one.
        slots: of the worker that will be there.
        catalogue: the file that lists the worker's models; the bundled model alone unless given.
    """
    async with open_broker(folder, Ports(folder / "ports.json")) as broker:
        env = {
            **os.environ,
            **broker_environment(broker),
            "DARKROOM_STORAGE_URL": f"file://{folder}/objects",
            "DARKROOM_WEIGHTS_DIR": f"{folder}/weights",
            "DARKROOM_CATALOGUE": str(catalogue or ""),
            "DARKROOM_MODELS": json.dumps([] if catalogue else [DEMO.id]),
            "DARKROOM_WORKER_NAME": WORKER,
            "DARKROOM_WORKER_SLOTS": str(slots),
        }
        queue = await Queue.connect_when_there(broker, name="benchmark")
        rig, closing = Rig(queue, folder, env, slots), asyncio.Event()
        ears = [asyncio.create_task(rig.listen(spec, closing)) for spec in (PREMIUM_RESULTS, NORMAL_RESULTS)]
        try:
            yield rig
        finally:
            closing.set()
            await asyncio.gather(*ears)
            await queue.close()


@asynccontextmanager
async def open_worker(rig: Rig) -> AsyncIterator[Metrics]:
    """``python -m gpu_worker``, warm; yields where its metrics are read."""
    port = Ports(rig.folder / "ports.json").of("metrics")
    env = {**rig.env, "DARKROOM_METRICS_PORT": str(port)}
    argv = (sys.executable, "-m", "gpu_worker")
    async with running(argv, env=env, log=rig.folder / "gpu_worker.log") as child:
        await rig.ready(child)
        yield Metrics(f"http://127.0.0.1:{port}/metrics")
