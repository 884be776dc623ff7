"""``python -m gpu_worker``: the process that makes pictures."""

import asyncio
import os
import signal
import sys

import structlog

from core import failpoints, telemetry, tracing
from core.catalogue import offered_models
from core.errors import DarkroomError
from core.queue import Queue, Role
from core.storage import Storage
from core.vitals import Vitals
from gpu_worker.engine import Engine, Policy
from gpu_worker.pipeline import best_placement
from gpu_worker.settings import GpuWorkerSettings, WorkerSettings
from gpu_worker.watchdog import Watchdog
from gpu_worker.weights import WeightsStore
from gpu_worker.worker import Worker

log = structlog.get_logger("gpu_worker")


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
    """Get the weights, warm up, and only then take jobs; told to stop before that, end at once."""
    stop, hurry = _signalled()
    queue = Queue(settings.broker, name=settings.worker.worker_name, role=Role.GPU_WORKER)
    warm = asyncio.Event()
    needs = {"models: not loaded yet": warm.is_set, "broker: not connected": lambda: queue.healthy}
    Vitals(needs=needs).serve(settings.telemetry)
    engine, device = _engine(settings.worker)
    try:
        opening = asyncio.create_task(_open(engine, queue, settings, warm))
        if not await _done_before(stop, opening):
            log.info("gpu_worker_stopped", warm=warm.is_set())
            return
        worker = Worker(
            settings=settings.worker,
            queue=queue,
            storage=Storage.open(settings.storage),
            engine=engine,
            device=device,
        )
        watchdog = Watchdog(worker.parts, patience=settings.worker.worker_stall_seconds)
        async with telemetry.event_loop_measured():
            with watchdog.awake():
                await worker.run(stop=stop, hurry=hurry)
    finally:
        await queue.close()


def _engine(settings: WorkerSettings) -> tuple[Engine, str]:
    """The engine, without models, and the name of what it computes on."""
    # Read when the first kernel is built. A restart, or another worker that shares the folder, finds it.
    os.environ.setdefault("TRITON_CACHE_DIR", str(settings.worker_kernel_dir))
    placement = best_placement(settings.worker_precision, fp8=settings.worker_fp8)
    policy = Policy(
        capacity=settings.worker_slots,
        fill=settings.worker_premium_fill,
        patience=settings.worker_patience,
    )
    engine = Engine(
        placement=placement,
        policy=policy,
        model_memory=settings.worker_model_memory or None,
        buckets=settings.buckets if settings.worker_fusion else (),
    )
    return engine, placement.name


async def _open(engine: Engine, queue: Queue, settings: GpuWorkerSettings, warm: asyncio.Event) -> None:
    await asyncio.get_running_loop().run_in_executor(engine.thread, _warm_up, engine, settings)
    warm.set()
    await queue.open()


async def _done_before(stop: asyncio.Event, task: asyncio.Task[None]) -> bool:
    """Whether the task ended, by whatever error, before ``stop`` was set; otherwise it is given up."""
    told = asyncio.create_task(stop.wait())
    await asyncio.wait({task, told}, return_when=asyncio.FIRST_COMPLETED)
    told.cancel()
    if task.done():
        task.result()
        return True
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return False


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
    status = main()
    # The interpreter would wait for the engine's thread, which may be downloading: that goes on where it was.
    os._exit(status)
