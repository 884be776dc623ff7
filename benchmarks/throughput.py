"""Part ``throughput``: pictures a second of the whole worker, against the bare pipeline at its best."""

import asyncio
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.orders import Orders
from benchmarks.report import Figure, at_least, tell
from benchmarks.rig import SLOTS, Rig, open_rig, open_worker
from benchmarks.stock import StockPipeline, batches
from core.lifecycle import Tier
from core.messages import Parameters

BATCH_SIZES: Final = (1, 2, 4, 8, 16)
SHARE: Final = 0.97
"""Of the bare pipeline's pictures a second, what the worker must keep."""

LONGEST_ROUND: Final = 600.0
"""Seconds after which a worker is taken for dead."""


async def measure(folder: Path, *, rounds: int, pictures: int) -> list[Figure]:
    """Take turns: the worker at saturation, then the pipeline at every batch size.

    Args:
        folder: an empty one.
        rounds: how often.
        pictures: that count for the worker in one round; the pipeline makes 16 of the same at each size.
    """
    orders, stock = Orders(1), await asyncio.to_thread(StockPipeline)
    ours: list[float] = []
    theirs: dict[int, list[float]] = {size: [] for size in BATCH_SIZES}
    async with open_rig(folder) as rig, open_worker(rig):
        await saturate(rig, orders.parameters(SLOTS))
        await asyncio.to_thread(stock.make, orders.parameters(1))
        for number in range(rounds):
            tell(f"throughput, round {number + 1} of {rounds}")
            asked = orders.parameters(pictures)
            ours.append(await saturate(rig, asked))
            for size, rates in theirs.items():
                rates.append(await asyncio.to_thread(stock_rate, stock, asked[: max(BATCH_SIZES)], size))
    medians = {size: statistics.median(rates) for size, rates in theirs.items()}
    best = max(medians, key=medians.__getitem__)
    worker = statistics.median(ours)
    return [
        Figure(name="whole worker, saturated", value=worker, unit="images/s", note=f"median of {rounds}"),
        *(
            Figure(name=f"bare pipeline, batch {size}", value=rate, unit="images/s")
            for size, rate in medians.items()
        ),
        Figure(
            name="worker ÷ bare pipeline at its best batch size",
            value=worker / medians[best],
            bar=at_least(SHARE),
            note=f"best is {best}",
        ),
        Figure(
            name="the same, median of the rounds' own ratios",
            value=statistics.median(mine / its for mine, its in zip(ours, theirs[best], strict=True)),
        ),
    ]


async def saturate(rig: Rig, asked: Sequence[Parameters]) -> float:
    """Pictures a second that a worker with enough to do makes of ``asked``.

    All of it is published beforehand, and more, so that no slot is empty while time counts: from the first
    full batch of pictures on.
    """
    slots = rig.slots
    filling = [*asked[:slots], *asked, *asked[:slots]]
    futures = await rig.publish(filling, tier=Tier.NORMAL)
    async with asyncio.timeout(LONGEST_ROUND):
        moments = sorted(await asyncio.gather(*futures))
    return len(asked) / (moments[slots + len(asked) - 1] - moments[slots - 1])


def stock_rate(stock: StockPipeline, asked: Sequence[Parameters], size: int) -> float:
    """Pictures a second of the pipeline at one batch size."""
    began = time.monotonic()
    for batch in batches(asked, size):
        stock.make(batch)
    return len(asked) / (time.monotonic() - began)
