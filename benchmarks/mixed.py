"""Part ``mixed``: one stream of pictures that need different numbers of steps."""

import asyncio
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.orders import Orders
from benchmarks.report import Figure, at_least, tell
from benchmarks.rig import SLOTS, Rig, open_rig, open_worker
from benchmarks.stock import StockPipeline
from benchmarks.throughput import LONGEST_ROUND, saturate, stock_rate
from core.lifecycle import Tier
from core.messages import Parameters

STEPS: Final = (10, 50)
BATCH_SIZES: Final = (1, SLOTS // 2, SLOTS)
AGAINST_STATIC: Final = 1.25


async def measure(folder: Path, *, rounds: int, pictures: int) -> list[Figure]:
    """Take turns: the worker, then the pipeline in batches of each size, on the same stream.

    A call of the pipeline takes one number of steps, so a batch runs to those of its longest member.
    """
    orders, stock = Orders(3), await asyncio.to_thread(StockPipeline)
    ours: list[float] = []
    theirs: dict[int, list[float]] = {size: [] for size in BATCH_SIZES}
    async with open_rig(folder) as rig, open_worker(rig):
        await saturate(rig, orders.parameters(SLOTS))
        await asyncio.to_thread(stock.make, orders.parameters(1))
        for number in range(rounds):
            tell(f"mixed, round {number + 1} of {rounds}")
            stream = orders.parameters(pictures, steps=STEPS)
            ours.append(await _from_first_to_last(rig, stream))
            for size, rates in theirs.items():
                rates.append(await asyncio.to_thread(stock_rate, stock, stream, size))
    medians = {size: statistics.median(rates) for size, rates in theirs.items()}
    best = max(medians, key=medians.__getitem__)
    worker = statistics.median(ours)
    note = (
        f"{STEPS[0]} to {STEPS[1]} steps, {pictures} pictures from the first to the last, median of {rounds}"
    )
    return [
        Figure(name="ours", value=worker, unit="images/s", note=note),
        *(
            Figure(name=f"static batches of {size}", value=rate, unit="images/s")
            for size, rate in medians.items()
        ),
        Figure(
            name=f"ours ÷ static batches of {SLOTS}",
            value=worker / medians[SLOTS],
            bar=at_least(AGAINST_STATIC),
        ),
        Figure(name="ours ÷ static batches of their best size", value=worker / medians[best], note=f"{best}"),
    ]


async def _from_first_to_last(rig: Rig, stream: Sequence[Parameters]) -> float:
    """Pictures a second, with the slots that stay empty at the end."""
    began = time.monotonic()
    futures = await rig.publish(stream, tier=Tier.NORMAL)
    async with asyncio.timeout(LONGEST_ROUND):
        return len(stream) / (max(await asyncio.gather(*futures)) - began)
