"""``python -m gpu_worker``: the process that makes pictures."""

import asyncio
import os
import signal
import sys

from core import telemetry
from core.catalogue import offered_models
from core.errors import DarkroomError
from core.queue import Queue
from core.storage import Storage
from gpu_worker.engine import Compilation, Engine, Policy, with_cuda_graphs
from gpu_worker.pipeline import Placement, best_placement
from gpu_worker.settings import GpuWorkerSettings, WorkerSettings
from gpu_worker.weights import WeightsStore
from gpu_worker.worker import Worker


def main() -> int:
    """Work until told to stop; a setting or weights that are wrong end the process with status 1."""
    try:
        settings = GpuWorkerSettings.from_environment()
        telemetry.configure(settings.telemetry, process="gpu_worker")
        asyncio.run(work(settings))
    except DarkroomError as error:
        sys.stderr.write(f"gpu_worker: {error}\n")
        return 1
    return 0


async def work(settings: GpuWorkerSettings) -> None:
    """Get the weights, warm up, and only then take jobs."""
    telemetry.serve_metrics(settings.telemetry)
    placement = best_placement(settings.worker.worker_precision)
    policy = Policy(
        capacity=settings.worker.worker_slots,
        batch_share=settings.worker.worker_batch_share,
        patience=settings.worker.worker_patience,
    )
    engine = Engine(
        placement=placement,
        policy=policy,
        model_memory=settings.worker.worker_model_memory or None,
        compilation=_compilation(settings.worker, placement),
    )
    await asyncio.get_running_loop().run_in_executor(engine.thread, _warm_up, engine, settings)
    queue = await Queue.connect_when_there(settings.broker, name=settings.worker.worker_name)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    worker = Worker(
        settings=settings.worker,
        queue=queue,
        storage=Storage.open(settings.storage),
        engine=engine,
        device=placement.name,
    )
    try:
        await worker.run(stop=stop)
    finally:
        await queue.close()


def _warm_up(engine: Engine, settings: GpuWorkerSettings) -> None:
    weights = WeightsStore(settings.worker.weights_dir)
    offered = offered_models(settings.catalogue)
    for entry in offered.choose(settings.worker.worker_models, named_by="DARKROOM_WORKER_MODELS").models:
        engine.offer(entry, weights.ensure(entry))
    engine.warm_up()


def _compilation(settings: WorkerSettings, placement: Placement) -> Compilation | None:
    """How U-Nets are compiled: on CUDA, where it is wanted. On a CPU it takes a compiler and gains little."""
    if placement.device.type != "cuda" or not settings.worker_compile:
        return None
    # Read when something is first compiled. A restart, or another worker that shares the folder, finds it.
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(settings.worker_compile_dir / "inductor"))
    os.environ.setdefault("TRITON_CACHE_DIR", str(settings.worker_compile_dir / "triton"))
    return Compilation(buckets=settings.buckets, compiler=with_cuda_graphs)


if __name__ == "__main__":
    sys.exit(main())
