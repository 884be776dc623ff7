"""``python -m gpu_worker``: the process that makes pictures."""

import asyncio
import os
import signal
import sys

from core import failpoints, telemetry, tracing
from core.catalogue import offered_models
from core.errors import DarkroomError
from core.queue import Queue, Role
from core.storage import Storage
from core.vitals import Vitals
from gpu_worker.engine import Engine, Policy
from gpu_worker.pipeline import best_placement
from gpu_worker.settings import GpuWorkerSettings
from gpu_worker.weights import WeightsStore
from gpu_worker.worker import Worker


def main() -> int:
    """Work until told to stop; a setting or weights that are wrong end the process with status 1."""
    try:
        settings = GpuWorkerSettings.from_environment()
        telemetry.configure(settings.telemetry, process="gpu_worker")
        failpoints.arm(settings.failpoints.failpoints, nats_url=settings.broker.nats_url)
        asyncio.run(work(settings))
    except DarkroomError as error:
        sys.stderr.write(f"gpu_worker: {error}\n")
        return 1
    finally:
        tracing.stop()
    return 0


async def work(settings: GpuWorkerSettings) -> None:
    """Get the weights, warm up, and only then take jobs."""
    queue = Queue(settings.broker, name=settings.worker.worker_name, role=Role.GPU_WORKER)
    warm = asyncio.Event()

    def missing() -> list[str]:
        if not warm.is_set():
            return ["models: not loaded yet"]
        return [] if queue.healthy else ["broker: not connected"]

    Vitals(missing=missing).serve(settings.telemetry)
    # Read when the first kernel is built. A restart, or another worker that shares the folder, finds it.
    os.environ.setdefault("TRITON_CACHE_DIR", str(settings.worker.worker_kernel_dir))
    placement = best_placement(settings.worker.worker_precision, fp8=settings.worker.worker_fp8)
    policy = Policy(
        capacity=settings.worker.worker_slots,
        fill=settings.worker.worker_premium_fill,
        patience=settings.worker.worker_patience,
    )
    engine = Engine(
        placement=placement,
        policy=policy,
        model_memory=settings.worker.worker_model_memory or None,
        buckets=settings.worker.buckets if settings.worker.worker_fusion else (),
    )
    await asyncio.get_running_loop().run_in_executor(engine.thread, _warm_up, engine, settings)
    warm.set()
    try:
        await queue.open()
        stop, hurry = _signalled()
        worker = Worker(
            settings=settings.worker,
            queue=queue,
            storage=Storage.open(settings.storage),
            engine=engine,
            device=placement.name,
        )
        async with telemetry.event_loop_measured():
            await worker.run(stop=stop, hurry=hurry)
    finally:
        await queue.close()


def _signalled() -> tuple[asyncio.Event, asyncio.Event]:
    """What the first SIGTERM or SIGINT from now on sets, and what another one sets."""
    stop, hurry = asyncio.Event(), asyncio.Event()

    def leave() -> None:
        (hurry if stop.is_set() else stop).set()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, leave)
    return stop, hurry


def _warm_up(engine: Engine, settings: GpuWorkerSettings) -> None:
    weights = WeightsStore(settings.worker.weights_dir)
    offered = offered_models(settings.catalogue)
    for entry in offered.choose(settings.worker.worker_models, named_by="DARKROOM_WORKER_MODELS").models:
        engine.offer(entry, weights.ensure(entry))
    engine.warm_up()


if __name__ == "__main__":
    sys.exit(main())
