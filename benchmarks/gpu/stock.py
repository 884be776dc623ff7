"""Parts 1 and 2: diffusers' own pipeline, as it comes and compiled."""

import time
from collections.abc import Sequence

import torch

from benchmarks.gpu.arithmetic import finish
from benchmarks.gpu.bench import Bench, Subject
from benchmarks.stock import StockPipeline
from gpu_worker.pipeline import Placement

_RUNS = 2
_WORTH = 1.03
"""By how much a larger batch has to be faster for a still larger one to be tried."""


def plain(bench: Bench) -> None:
    """Pictures a second at batch sizes from 1 to 32, up to the best one."""
    for subject in bench.subjects():
        stock = subject.stock(bench.placement)
        flops = bench.flops(subject, stock)
        best = 0.0
        for batch in (1, 2) if bench.tiny else (1, 4, 8, 16, 32):
            rate = _measure(bench, subject, stock, part="stock", batch=batch, flops=flops)
            if rate < _WORTH * best:
                break
            best = rate


def compiled(bench: Bench) -> None:
    """The same at the sizes asked for, the U-Net compiled and replayed as a CUDA graph."""
    for subject in bench.subjects():
        stock = subject.stock(bench.placement)
        flops = bench.flops(subject, stock)
        unet = stock.pipeline.unet
        for batch in bench.compiled_batches:
            torch.compiler.reset()
            stock.pipeline.unet = torch.compile(unet, mode="reduce-overhead", dynamic=False)
            _measure(bench, subject, stock, part="stock compiled", batch=batch, flops=flops)


def _measure(
    bench: Bench, subject: Subject, stock: StockPipeline, *, part: str, batch: int, flops: int
) -> float:
    """Record one batch size, and give its rate: 0 where the device's memory is too small for it."""
    try:
        first, *times = _times(bench.placement, subject, stock, batch)
    except torch.OutOfMemoryError:
        bench.clear()
        bench.record(part, subject.id, batch=batch, out_of_memory=True)
        return 0
    rate = batch / min(times)
    bench.record(
        part,
        subject.id,
        batch=batch,
        first_seconds=first,
        seconds=min(times),
        images_per_second=rate,
        **bench.arithmetic(rate, flops),
    )
    return rate


def _times(placement: Placement, subject: Subject, stock: StockPipeline, batch: int) -> Sequence[float]:
    """Seconds of each call; the first also compiles or chooses kernels."""
    orders, times = subject.orders(), []
    for _ in range(1 + _RUNS):
        began = time.monotonic()
        stock.make(orders.parameters(batch))
        finish(placement)
        times.append(time.monotonic() - began)
    return times
