"""Parts 3, 4 and 6: the whole worker, a process of its own that takes its jobs from JetStream."""

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from benchmarks.arrivals import poisson_arrivals
from benchmarks.baselines import plain_loop
from benchmarks.customers import Served, Service, serve
from benchmarks.gpu.bench import Bench, Subject
from benchmarks.gpu.blueprints import write_catalogue
from benchmarks.premium import LOAD, service
from benchmarks.rig import Rig, open_rig, open_worker
from benchmarks.start import forget_files, seconds_to_ready
from benchmarks.throughput import saturate, stock_rate

_ROUNDS: Final = 3
_FEWEST: Final = 5
_ARRIVAL_SECONDS: Final = 60.0
"""For how long premium customers come, in each of three situations."""


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


def premium(bench: Bench) -> None:
    """How long premium customers wait: without a backlog, over one, and over one at a plain loop."""
    for subject in bench.subjects():
        asyncio.run(_premium(bench, subject))


def starts(bench: Bench) -> None:
    """Seconds from a worker's birth to its first heartbeat, without what was compiled before and with it."""
    for subject in bench.subjects():
        bench.record("start", subject.id, **asyncio.run(_starts(bench, subject)))


async def _saturate(bench: Bench, subject: Subject) -> float:
    orders = subject.orders()
    async with _open_rig(bench, subject) as rig, open_worker(rig):
        await saturate(rig, orders.parameters(bench.slots))
        return await saturate(rig, orders.parameters(_ROUNDS * bench.slots))


async def _premium(bench: Bench, subject: Subject) -> None:
    orders, stock = subject.orders(), subject.stock(bench.placement)
    stock.make(orders.parameters(1))
    one_by_one = stock_rate(stock, orders.parameters(3), 1)
    rate = LOAD * one_by_one
    count = _FEWEST if bench.tiny else max(_FEWEST, round(rate * _ARRIVAL_SECONDS))
    arrivals = poisson_arrivals(rate=rate, count=count, seed=1)
    async with _open_rig(bench, subject) as rig, open_worker(rig):
        await saturate(rig, orders.parameters(bench.slots))
        batch_only = await saturate(rig, orders.parameters(_ROUNDS * bench.slots))
        alone = await serve(service(rig, pressure=0), orders, arrivals)
        over_backlog = await serve(service(rig, pressure=5 * bench.slots), orders, arrivals)
    async with plain_loop(stock, batch=bench.slots) as ask:
        asked = Service(one_by_one=ask, backlog=ask, pressure=bench.slots, at_once=bench.slots)
        static = await serve(asked, orders, arrivals)
    served = {"alone": alone, "over a backlog": over_backlog, "static over a backlog": static}
    for name, one in served.items():
        bench.record("premium", subject.id, slots=bench.slots, served=name, arrivals=count, **_waits(one))
    bench.record(
        "premium",
        subject.id,
        slots=bench.slots,
        one_by_one=one_by_one,
        batch_only=batch_only,
        p95_against_alone=over_backlog.latencies.p95 / alone.latencies.p95,
        p95_against_static=over_backlog.latencies.p95 / static.latencies.p95,
        rate_against_batch_only=over_backlog.images_per_second / batch_only,
    )


def _waits(served: Served) -> dict[str, float]:
    latencies = served.latencies
    return {
        "p50_seconds": latencies.p50,
        "p95_seconds": latencies.p95,
        "worst_seconds": max(latencies.seconds),
        "images_per_second": served.images_per_second,
    }


async def _starts(bench: Bench, subject: Subject) -> dict[str, float]:
    async with _open_rig(bench, subject) as rig:
        home = rig.folder / "home"
        home.mkdir()
        forget_files(subject.folder)
        return {
            "cold_seconds": await seconds_to_ready(rig, home),
            "warm_seconds": await seconds_to_ready(rig, home),
            "warm_again_seconds": await seconds_to_ready(rig, home),
        }


@asynccontextmanager
async def _open_rig(bench: Bench, subject: Subject) -> AsyncIterator[Rig]:
    with tempfile.TemporaryDirectory(prefix="darkroom-benchmark-") as name:
        folder = Path(name)
        write_catalogue(subject.entry, folder / "catalogue.toml")
        async with open_rig(folder, slots=bench.slots, catalogue=folder / "catalogue.toml") as rig:
            # Kept from part to part, as from restart to restart.
            rig.env["DARKROOM_WORKER_KERNEL_DIR"] = str(bench.store / "kernels")
            rig.env["DARKROOM_WORKER_FP8"] = json.dumps(bench.placement.fp8)
            yield rig
