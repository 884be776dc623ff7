"""Parts 4 and 8: how long premium customers wait; and the more of each step the batch tier may take."""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from benchmarks.arrivals import poisson_arrivals
from benchmarks.baselines import plain_loop
from benchmarks.customers import Ask, Served, Service, serve
from benchmarks.gpu.bench import Bench, Subject
from benchmarks.gpu.worker import open_model_rig
from benchmarks.premium import LOAD, one_by_one_rate, service
from benchmarks.rig import Rig, open_worker
from benchmarks.throughput import saturate
from core.lifecycle import Tier

_WAIT_SECONDS: Final = 150.0
"""For how long premium customers come, in each situation; with fewer of them a p95 is chance."""
_SHARE_SECONDS: Final = 45.0
"""The same for each share of the batch tier."""

_FEWEST: Final = 5
_ROUNDS: Final = 3
_LONE: Final = 7

_WIDTH, _HEIGHT, _MARGIN, _LINE = 640, 360, 60, 16


@dataclass(frozen=True, slots=True)
class _Filled:
    """What a worker came to whose premium steps are filled up to ``fill`` pictures with the batch tier's."""

    fill: int
    over_backlog: Served


class _Part:
    """One model's turn.

    Args:
        bench: where.
        subject: the model.
        seconds: for which customers come.
    """

    def __init__(self, bench: Bench, subject: Subject, *, seconds: float) -> None:
        self._bench = bench
        self._subject = subject
        self._orders = subject.orders()
        self._stock = subject.stock(bench.placement)
        rate = one_by_one_rate(self._stock, self._orders)
        self._stock_seconds = 1 / rate
        count = _FEWEST if bench.tiny else max(_FEWEST, round(LOAD * rate * seconds))
        self._arrivals = poisson_arrivals(rate=LOAD * rate, count=count, seed=1)

    async def waits(self) -> None:
        """Ours alone and over a backlog, then half of the customers at static batches."""
        async with self._worker(fill=0) as rig:
            await self._lone(rig.asking(Tier.PREMIUM))
            alone = await serve(service(rig, pressure=0), self._orders, self._arrivals)
            self._record(alone, served="alone")
            over_backlog = await self._over_backlog(rig, fill=0, alone=alone)
        slots = self._bench.slots
        async with plain_loop(self._stock, batch=slots) as ask:
            asked = Service(one_by_one=ask, backlog=ask, pressure=slots, at_once=slots)
            half = self._arrivals[: len(self._arrivals) // 2]
            static = await serve(asked, self._orders, half)
        self._record(
            static,
            served="static over a backlog",
            ours_against_it=over_backlog.latencies.p95 / static.latencies.p95,
        )

    async def shares(self) -> Sequence[_Filled]:
        """Ours over a backlog with each share of the batch tier."""
        found = []
        for fill in (0, self._bench.slots // 2, self._bench.slots):
            async with self._worker(fill=fill) as rig:
                found.append(_Filled(fill, await self._over_backlog(rig, fill=fill)))
        return found

    @asynccontextmanager
    async def _worker(self, *, fill: int) -> AsyncIterator[Rig]:
        async with open_model_rig(self._bench, self._subject) as rig:
            rig.env["DARKROOM_WORKER_PREMIUM_FILL"] = str(fill)
            async with open_worker(rig):
                await saturate(rig, self._orders.parameters(self._bench.slots))
                yield rig

    async def _over_backlog(self, rig: Rig, *, fill: int, alone: Served | None = None) -> Served:
        slots = self._bench.slots
        batch_only = await saturate(rig, self._orders.parameters(_ROUNDS * slots))
        served = await serve(service(rig, pressure=5 * slots), self._orders, self._arrivals)
        against = {} if alone is None else {"p95_against_alone": served.latencies.p95 / alone.latencies.p95}
        self._record(
            served,
            served="over a backlog",
            premium_fill=fill,
            batch_only=batch_only,
            rate_against_batch_only=served.images_per_second / batch_only,
            **against,
        )
        return served

    async def _lone(self, ask: Ask) -> None:
        """One picture at a time on a worker that has nothing else to do."""
        seconds = []
        for asked in self._orders.parameters(_LONE):
            began = time.monotonic()
            await ask(asked)
            seconds.append(time.monotonic() - began)
        ours = statistics.median(seconds)
        self._bench.record(
            "lone picture",
            self._subject.id,
            seconds=ours,
            stock_seconds=self._stock_seconds,
            against_stock=ours / self._stock_seconds,
        )

    def _record(self, one: Served, **figures: object) -> None:
        self._bench.record(
            "premium",
            self._subject.id,
            slots=self._bench.slots,
            arrivals=len(self._arrivals),
            p50_seconds=one.latencies.p50,
            p95_seconds=one.latencies.p95,
            worst_seconds=max(one.latencies.seconds),
            images_per_second=one.images_per_second,
            **figures,
        )


def premium(bench: Bench) -> None:
    """A lone picture, then premium customers without a backlog and over one, and over one at a plain loop."""
    for subject in bench.subjects():
        asyncio.run(_Part(bench, subject, seconds=_WAIT_SECONDS).waits())


def shares(bench: Bench) -> None:
    """What filling premium's steps with the batch tier's pictures gives and costs, with a drawing."""
    for subject in bench.subjects():
        found = asyncio.run(_Part(bench, subject, seconds=_SHARE_SECONDS).shares())
        bench.out.with_name(f"premium-{subject.id}.svg").write_text(_drawing(found))


def _drawing(found: Sequence[_Filled]) -> str:
    """A dot for each share of the batch tier: pictures a second to the right, premium's p95 upwards."""
    across = [one.over_backlog.images_per_second for one in found]
    upwards = [one.over_backlog.latencies.p95 for one in found]
    most, longest = 1.1 * max(across), 1.1 * max(upwards)
    places = [
        (
            _MARGIN + x / most * (_WIDTH - 2 * _MARGIN),
            _HEIGHT - _MARGIN - y / longest * (_HEIGHT - 2 * _MARGIN),
        )
        for x, y in zip(across, upwards, strict=True)
    ]
    dots, lowest = "", 0.0
    for one, (x, y) in sorted(zip(found, places, strict=True), key=lambda pair: pair[1][1]):
        # Below the one before, where dots are near one another.
        lowest = max(y + 4, lowest + _LINE)
        seconds, rate = one.over_backlog.latencies.p95, one.over_backlog.images_per_second
        dots += (
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="#00798c"/>'
            f'<text x="{x - 14:.1f}" y="{lowest:.1f}" text-anchor="end">filled {one.fill}: '
            f"{seconds:.2f} s, {rate:.2f} images/s</text>"
        )
    bottom, right = _HEIGHT - _MARGIN, _WIDTH - _MARGIN
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'font-family="sans-serif" font-size="12">'
        f'<path d="M{_MARGIN} {_MARGIN}V{bottom}H{right}" fill="none" stroke="#444"/>{dots}'
        f'<text x="{right}" y="{bottom + 30}" text-anchor="end">'
        f"images/s of both tiers, from 0 to {most:.1f}</text>"
        f'<text x="{_MARGIN}" y="{_MARGIN - 20}">'
        f"p95 of premium, from 0 to {longest:.2f} s, where its steps are filled up with the batch tier</text>"
        "</svg>\n"
    )
