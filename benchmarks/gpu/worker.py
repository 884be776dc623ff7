"""Parts 3 and 6: the whole worker, a process of its own that takes its jobs from JetStream."""

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from benchmarks.gpu.bench import Bench, Subject
from benchmarks.gpu.blueprints import write_catalogue
from benchmarks.rig import Rig, open_rig, open_worker
from benchmarks.start import forget_files, seconds_to_ready
from benchmarks.throughput import saturate

_STEPS: Final = 60
"""That each slot takes: three pictures of the usual steps, more of pictures of few."""


def saturated(bench: Bench) -> None:
    """Pictures a second when the worker never lacks work."""
    for subject in bench.subjects():
        stock = subject.stock(bench.placement)
        flops = bench.flops(subject, stock)
        del stock
        bench.clear()
        rate = asyncio.run(_saturate(bench, subject))
        bench.record(
            "worker", subject.id, slots=bench.slots, images_per_second=rate, **bench.arithmetic(rate, flops)
        )


def starts(bench: Bench) -> None:
    """Seconds from a worker's birth to its first heartbeat, without what was compiled before and with it."""
    for subject in bench.subjects():
        bench.record("start", subject.id, **asyncio.run(_starts(bench, subject)))


async def _saturate(bench: Bench, subject: Subject) -> float:
    orders = subject.orders()
    async with open_model_rig(bench, subject) as rig, open_worker(rig):
        await saturate(rig, orders.parameters(bench.slots))
        rounds = _STEPS // subject.entry.defaults.steps
        return await saturate(rig, orders.parameters(rounds * bench.slots))


async def _starts(bench: Bench, subject: Subject) -> dict[str, float]:
    async with open_model_rig(bench, subject) as rig:
        home = rig.folder / "home"
        home.mkdir()
        forget_files(subject.folder)
        return {
            "cold_seconds": await seconds_to_ready(rig, home),
            "warm_seconds": await seconds_to_ready(rig, home),
            "warm_again_seconds": await seconds_to_ready(rig, home),
        }


@asynccontextmanager
async def open_model_rig(bench: Bench, subject: Subject) -> AsyncIterator[Rig]:
    """As :func:`benchmarks.rig.open_rig`, its worker offering one model and placed as ``bench`` says."""
    with tempfile.TemporaryDirectory(prefix="darkroom-benchmark-") as name:
        folder = Path(name)
        write_catalogue(subject.entry, folder / "catalogue.toml")
        async with open_rig(folder, slots=bench.slots, catalogue=folder / "catalogue.toml") as rig:
            # Kept from part to part, as from restart to restart.
            rig.env["DARKROOM_WORKER_KERNEL_DIR"] = str(bench.store / "kernels")
            rig.env["DARKROOM_WORKER_FP8"] = json.dumps(bench.placement.fp8)
            yield rig
