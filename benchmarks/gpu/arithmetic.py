"""How much arithmetic a picture takes, and how fast the device does arithmetic at its best."""

import statistics
import time

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.stock import StockPipeline
from core.messages import Parameters
from gpu_worker.pipeline import Placement

_PRODUCTS = 10
_RUNS = 5


def picture_flops(stock: StockPipeline, asked: Parameters) -> int:
    """Floating-point operations of a whole call for one picture; a multiplication and an addition are two."""
    # The counter does not know every fused attention; written out as matrix products it counts the same.
    counter = FlopCounterMode(display=False)
    with sdpa_kernel(SDPBackend.MATH), counter:
        stock.make([asked])
    return int(counter.get_total_flops())


def product_flops_per_second(placement: Placement, size: int) -> float:
    """The median rate of products of two square matrices of ``size`` rows of random numbers."""
    first, second = (torch.randn(size, size, device=placement.device, dtype=placement.dtype) for _ in "ab")
    rates = []
    for _ in range(_RUNS):
        finish(placement)
        began = time.monotonic()
        for _ in range(_PRODUCTS):
            first @ second
        finish(placement)
        rates.append(2 * size**3 * _PRODUCTS / (time.monotonic() - began))
    # The first run also chooses its kernels.
    return statistics.median(rates[1:])


def finish(placement: Placement) -> None:
    """Wait until the device has done what it was given."""
    if placement.device.type == "cuda":
        torch.cuda.synchronize(placement.device)
