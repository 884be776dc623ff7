"""Part 4: how long premium customers wait, the more of each step the batch tier may take; with a drawing."""

import asyncio
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.arrivals import poisson_arrivals
from benchmarks.baselines import plain_loop
from benchmarks.customers import Ask, Served, Service, serve
from benchmarks.gpu.bench import Bench, Subject
from benchmarks.gpu.worker import open_model_rig
from benchmarks.premium import LOAD, service
from benchmarks.rig import open_worker
from benchmarks.throughput import saturate, stock_rate
from core.lifecycle import Tier

_ARRIVAL_SECONDS: Final = 60.0
"""For how long premium customers come, in each situation."""

_FEWEST: Final = 5
_ROUNDS: Final = 3
_LONE: Final = 7

_WIDTH, _HEIGHT, _MARGIN = 640, 360, 60


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
    """

    def __init__(self, bench: Bench, subject: Subject) -> None:
        self._bench = bench
        self._subject = subject
        self._orders = subject.orders()
        self._stock = subject.stock(bench.placement)
        self._stock_seconds = self._lone_stock()
        rate = LOAD / self._stock_seconds
        count = _FEWEST if bench.tiny else max(_FEWEST, round(rate * _ARRIVAL_SECONDS))
        self._arrivals = poisson_arrivals(rate=rate, count=count, seed=1)

    async def run(self) -> Sequence[_Filled]:
        """Ours with each share of the batch tier, then static batches; recorded as they come."""
        slots = self._bench.slots
        found, alone = [], None
        for fill in (0, slots // 2, slots):
            async with open_model_rig(self._bench, self._subject) as rig:
                rig.env["DARKROOM_WORKER_PREMIUM_FILL"] = str(fill)
                async with open_worker(rig):
                    await saturate(rig, self._orders.parameters(slots))
                    if alone is None:
                        await self._lone(rig.asking(Tier.PREMIUM))
                        alone = await serve(service(rig, pressure=0), self._orders, self._arrivals)
                        self._record(alone, served="alone")
                    batch_only = await saturate(rig, self._orders.parameters(_ROUNDS * slots))
                    served = await serve(service(rig, pressure=5 * slots), self._orders, self._arrivals)
            found.append(_Filled(fill, served))
            self._record(
                served,
                served="over a backlog",
                premium_fill=fill,
                batch_only=batch_only,
                p95_against_alone=served.latencies.p95 / alone.latencies.p95,
                rate_against_batch_only=served.images_per_second / batch_only,
            )
        async with plain_loop(self._stock, batch=slots) as ask:
            asked = Service(one_by_one=ask, backlog=ask, pressure=slots, at_once=slots)
            static = await serve(asked, self._orders, self._arrivals)
        self._record(
            static,
            served="static over a backlog",
            ours_against_it=found[0].over_backlog.latencies.p95 / static.latencies.p95,
        )
        return found

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

    def _lone_stock(self) -> float:
        self._stock.make(self._orders.parameters(1))
        return statistics.median(
            1 / stock_rate(self._stock, self._orders.parameters(1), 1) for _ in range(_LONE)
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
        found = asyncio.run(_Part(bench, subject).run())
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
    dots = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="#00798c"/>'
        f'<text x="{x - 8:.1f}" y="{y - 10:.1f}" text-anchor="end">filled {one.fill}: '
        f"{one.over_backlog.latencies.p95:.2f} s, {one.over_backlog.images_per_second:.2f} images/s</text>"
        for one, (x, y) in zip(found, places, strict=True)
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
