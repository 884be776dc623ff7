"""Part ``premium``: how long premium customers wait, with and without a backlog, here and elsewhere."""

import asyncio
import statistics
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.arrivals import Latencies, poisson_arrivals
from benchmarks.baselines import BATCH_TIMEOUT, litserve, plain_loop
from benchmarks.customers import Ask, Served, Service, serve
from benchmarks.metrics import Histogram, Metrics
from benchmarks.orders import Orders
from benchmarks.report import Figure, at_least, at_most, tell
from benchmarks.rig import SLOTS, Rig, open_rig, open_worker
from benchmarks.stock import StockPipeline
from benchmarks.throughput import saturate, stock_rate
from core.lifecycle import Tier

LOAD: Final = 0.3
"""Premium customers a second, as a share of the pictures a second that the pipeline makes one by one."""

BACKLOG: Final = 4 * SLOTS
"""Batch jobs that always wait on the broker, besides those that the worker holds."""

AGAINST_ALONE: Final = 1.25
AGAINST_STATIC: Final = 0.5
SHARE_OF_BATCH_ONLY: Final = 0.9

_FIRST_STEP: Final = "darkroom_first_step_seconds"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much to measure.

    Attributes:
        rounds: how often everything takes its turn.
        arrivals: premium jobs of one round, each for ours alone and ours over a backlog.
        static_arrivals: the first of these that LitServe gets too.
        other_arrivals: the first of these that the baselines told for information get, in the first round.
        batch_only: pictures that count for the batch tier alone, each of two times in a round.
    """

    rounds: int
    arrivals: int
    static_arrivals: int
    other_arrivals: int
    batch_only: int


@dataclass(slots=True)
class Found:
    """What one way of serving came to, over all rounds."""

    seconds: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)

    def add(self, served: Served) -> None:
        """Take in one round."""
        self.seconds += served.latencies.seconds
        self.rates.append(served.images_per_second)

    @property
    def latencies(self) -> Latencies:
        """Of every round's customers."""
        return Latencies(tuple(self.seconds))

    @property
    def rate(self) -> float:
        """Pictures a second, the median round's."""
        return statistics.median(self.rates)

    def figures(self, name: str) -> list[Figure]:
        """The figures of this way, which is called ``name``."""
        return [
            Figure(name=f"{name}: p95", value=self.latencies.p95, unit="s", note=str(self.latencies)),
            Figure(name=f"{name}: all pictures", value=self.rate, unit="images/s"),
        ]


class Totals:
    """Pictures of both tiers a second while premium comes over a backlog, and of the batch tier alone.

    Args:
        batch_only: pictures that count for the batch tier alone, each time.
    """

    def __init__(self, batch_only: int) -> None:
        self._pictures = batch_only
        self._batch_only: list[float] = []
        self._shares: list[float] = []

    async def round(self, rig: Rig, orders: Orders, arrivals: Sequence[float]) -> Served:
        """Customers who come over a backlog, with the batch tier alone just before and just after."""
        before = await self._batch_tier_only(rig, orders)
        served = await serve(service(rig, pressure=SLOTS + BACKLOG), orders, arrivals)
        # A machine's speed drifts by more than what is looked for.
        around = statistics.mean((before, await self._batch_tier_only(rig, orders)))
        self._shares.append(served.images_per_second / around)
        return served

    async def _batch_tier_only(self, rig: Rig, orders: Orders) -> float:
        self._batch_only.append(await saturate(rig, orders.parameters(self._pictures)))
        return self._batch_only[-1]

    def figures(self) -> list[Figure]:
        """What the rounds came to."""
        rounds = ", ".join(f"{one:.3f}" for one in self._shares)
        return [
            Figure(name="ours, batch tier only", value=statistics.median(self._batch_only), unit="images/s"),
            Figure(
                name="all pictures over a backlog ÷ batch tier only",
                value=statistics.median(self._shares),
                bar=at_least(SHARE_OF_BATCH_ONLY),
                note=f"before and after; rounds {rounds}",
            ),
        ]


class Comparison:
    """Takes turns: ours without and with a backlog, then the baselines, all with the same arrivals.

    Args:
        folder: an empty one.
        plan: how much.
        stock: the reference.
    """

    def __init__(self, folder: Path, plan: Plan, stock: StockPipeline) -> None:
        self._folder = folder
        self._plan = plan
        self._stock = stock
        self._orders = Orders(2)
        self._totals = Totals(plan.batch_only)
        self._first_steps: dict[str, list[Histogram]] = {"alone": [], "over a backlog": []}
        self._alone, self._over_backlog, self._static = Found(), Found(), Found()
        self._others: dict[str, Found] = {}

    async def run(self) -> list[Figure]:
        """Every round, and what came of them."""
        one_by_one = await asyncio.to_thread(one_by_one_rate, self._stock, self._orders)
        rate = LOAD * one_by_one
        for number in range(self._plan.rounds):
            arrivals = poisson_arrivals(rate=rate, count=self._plan.arrivals, seed=number)
            folder = self._folder / str(number)
            folder.mkdir()
            turn = f"round {number + 1} of {self._plan.rounds}"
            tell(f"premium, {turn}: twice {arrivals[-1]:.0f} s, then the baselines")
            await self._ours(folder, arrivals)
            async with litserve(folder, batch=SLOTS) as ask:
                few = arrivals[: self._plan.static_arrivals]
                self._static.add(await self._baseline(ask, few, batch=SLOTS))
            if number == 0:
                await self._for_information(folder, arrivals[: self._plan.other_arrivals])
        return [
            Figure(name="stock pipeline, one by one", value=one_by_one, unit="images/s"),
            Figure(name="premium arrivals (Poisson)", value=rate, unit="jobs/s", note=f"{LOAD:.0%} of that"),
            *self._alone.figures("1 ours, no backlog"),
            *self._over_backlog.figures(f"2 ours, {BACKLOG} more batch jobs always wait"),
            *self._static.figures(f"3 LitServe, batch {SLOTS}, {SLOTS} others insist"),
            *(figure for name, found in self._others.items() for figure in found.figures(name)),
            *(figure for name, found in self._first_steps.items() for figure in _first_step(name, found)),
            *self._verdicts(),
        ]

    async def _ours(self, folder: Path, arrivals: Sequence[float]) -> None:
        async with open_rig(folder) as rig, open_worker(rig) as metrics:
            await saturate(rig, self._orders.parameters(SLOTS))
            async with self._watched(metrics, "alone"):
                self._alone.add(await serve(service(rig, pressure=0), self._orders, arrivals))
            async with self._watched(metrics, "over a backlog"):
                served = await self._totals.round(rig, self._orders, arrivals)
            self._over_backlog.add(served)

    @asynccontextmanager
    async def _watched(self, metrics: Metrics, name: str) -> AsyncIterator[None]:
        before = await metrics.histogram(_FIRST_STEP, tier=Tier.PREMIUM.value)
        yield
        after = await metrics.histogram(_FIRST_STEP, tier=Tier.PREMIUM.value)
        self._first_steps[name].append(after.since(before))

    async def _baseline(self, ask: Ask, arrivals: Sequence[float], *, batch: int) -> Served:
        # As many insist as fill a batch: the queue never runs dry, and whoever comes during a batch is in the
        # very next one. Any more would let premium customers wait longer for nothing.
        service = Service(one_by_one=ask, backlog=ask, pressure=batch, at_once=batch)
        return await serve(service, self._orders, arrivals)

    async def _for_information(self, folder: Path, arrivals: Sequence[float]) -> None:
        async with plain_loop(self._stock, batch=SLOTS) as ask:
            loop = self._others[f"4 plain loop, batch {SLOTS}, {SLOTS} others insist"] = Found()
            loop.add(await self._baseline(ask, arrivals, batch=SLOTS))
        async with litserve(folder, batch=1) as ask:
            single = self._others["5 LitServe, no batching, 1 other insists"] = Found()
            single.add(await self._baseline(ask, arrivals, batch=1))

    def _verdicts(self) -> list[Figure]:
        backlog = self._over_backlog
        return [
            Figure(
                name="p95 over a backlog ÷ p95 without",
                value=backlog.latencies.p95 / self._alone.latencies.p95,
                bar=at_most(AGAINST_ALONE),
            ),
            Figure(
                name="p95 over a backlog ÷ LitServe's in batches",
                value=backlog.latencies.p95 / self._static.latencies.p95,
                bar=at_most(AGAINST_STATIC),
                note=f"a batch fills for {BATCH_TIMEOUT:g} s at the most",
            ),
            *self._totals.figures(),
        ]


async def measure(folder: Path, plan: Plan) -> list[Figure]:
    """The whole part, in ``folder``, which is empty."""
    return await Comparison(folder, plan, await asyncio.to_thread(StockPipeline)).run()


async def measure_total(folder: Path, *, rounds: int, arrivals: int, batch_only: int) -> list[Figure]:
    """Only what premium customers over a backlog cost in pictures: without the baselines, in less time."""
    orders, totals, found = Orders(2), Totals(batch_only), Found()
    stock = await asyncio.to_thread(StockPipeline)
    rate = LOAD * await asyncio.to_thread(one_by_one_rate, stock, orders)
    async with open_rig(folder) as rig, open_worker(rig):
        await saturate(rig, orders.parameters(SLOTS))
        for number in range(rounds):
            tell(f"total, round {number + 1} of {rounds}")
            moments = poisson_arrivals(rate=rate, count=arrivals, seed=number)
            found.add(await totals.round(rig, orders, moments))
    return [
        Figure(
            name="premium arrivals (Poisson)", value=rate, unit="jobs/s", note=f"{LOAD:.0%} of one by one"
        ),
        *found.figures(f"ours, {BACKLOG} more batch jobs always wait"),
        *totals.figures(),
    ]


def one_by_one_rate(stock: StockPipeline, orders: Orders) -> float:
    """Pictures a second that the pipeline makes one by one."""
    stock.make(orders.parameters(1))
    return statistics.median(stock_rate(stock, orders.parameters(2), 1) for _ in range(5))


def service(rig: Rig, *, pressure: int) -> Service:
    """How the worker of ``rig`` is asked by premium customers, and by ``pressure`` of the batch tier."""
    return Service(
        one_by_one=rig.asking(Tier.PREMIUM),
        backlog=rig.asking(Tier.NORMAL),
        pressure=pressure,
        at_once=rig.slots,
    )


def _first_step(name: str, found: Sequence[Histogram]) -> list[Figure]:
    """From acceptance to the first step, as the worker has it; nothing where it does not say."""
    count = sum(one.count for one in found)
    if not count:
        return []
    mean = sum(one.total for one in found) / count
    bound = max(one.percentile_bound(0.95) for one in found)
    note = f"mean; 95 of 100 within {bound:g} s"
    return [Figure(name=f"ours, {name}: to the first step", value=mean, unit="s", note=note)]
