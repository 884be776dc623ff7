"""``python -m benchmarks.subscriptions``: thousands of live subscriptions on one api process.

PostgreSQL, nats-server and ``python -m api`` are started on the loopback interface, in a folder that is
removed afterwards; the customers are another process. It takes two to three minutes, with --quick under one.
Nothing else should run meanwhile. The exit status is 1 when a figure misses its bar.
"""

import asyncio
import multiprocessing
import sys
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from benchmarks import subscribers
from benchmarks.arrivals import percentile
from benchmarks.command import parser, planned, run
from benchmarks.report import Figure, at_least, at_most, tell
from benchmarks.service import Service, open_service
from benchmarks.subscribers import Heard, Watching
from core.clock import now
from core.lifecycle import GenerationState
from core.messages import Heartbeat, Progress, Speed
from schema.types.node import to_global_id

FAN_OUT_SECONDS: Final = 0.25
BYTES_EACH: Final = 60 * 1024
GROWTH: Final = 1.05

_STEPS: Final = 100_000
_PREVIEW: Final = "data:image/jpeg;base64," + 40_000 * "A"
_BEAT_SECONDS: Final = 3
_CUT_OFF_SECONDS: Final = 30
_GONE_SECONDS: Final = 30
_PER_CUSTOMER: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much to measure.

    Attributes:
        subscriptions: live at the same time, each of another generation.
        busy: how many of them hear of steps.
        rate: of steps, for each of these in a second.
        seconds: for which their steps are measured.
        stalled: clients that stop reading.
    """

    subscriptions: int
    busy: int
    rate: float = 2.0
    seconds: float
    stalled: int


FULL: Final = Plan(subscriptions=5000, busy=500, seconds=30, stalled=20)
QUICK: Final = Plan(subscriptions=1000, busy=100, seconds=10, stalled=5)


class Told:
    """When which step of which subscriber's generation was published."""

    def __init__(self) -> None:
        self._moments: dict[int, list[tuple[int, float]]] = defaultdict(list)

    def note(self, number: int, step: int) -> None:
        """Just before it is published."""
        self._moments[number].append((step, time.monotonic()))

    def delays(self, heard: Heard) -> tuple[list[float], int]:
        """Seconds from each publication to the first event with that step or a later; how many never came."""
        arrived: dict[int, list[tuple[int, float]]] = defaultdict(list)
        for number, step, moment in zip(heard.numbers, heard.steps, heard.moments, strict=True):
            arrived[number].append((step, moment))
        delays, lost = [], 0
        for number, published in self._moments.items():
            steps = arrived[number]
            for step, moment in published:
                place = bisect_left(steps, step, key=lambda one: one[0])
                if place == len(steps):
                    lost += 1
                else:
                    delays.append(steps[place][1] - moment)
        return delays, lost


class Crowd:
    """The other process with the customers in it."""

    def __init__(self, orders: Connection) -> None:
        self._orders = orders

    async def ask(self, name: str, argument: object = None) -> Any:  # noqa: ANN401 - each answers otherwise
        """Have something done, and wait for the answer."""
        self._orders.send((name, argument))
        answer = await asyncio.to_thread(self._orders.recv)
        if isinstance(answer, Exception):
            raise answer
        return answer


@asynccontextmanager
async def open_crowd(port: int) -> AsyncIterator[Crowd]:
    """A process with customers of the api at ``port``."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=subscribers.run, args=(theirs, port), daemon=True)
    process.start()
    theirs.close()
    try:
        yield Crowd(ours)
    finally:
        process.terminate()
        await asyncio.to_thread(process.join)


class Measurement:
    """Takes a service through crowds that come, listen and leave."""

    def __init__(self, plan: Plan, service: Service, crowd: Crowd) -> None:
        self._plan = plan
        self._service = service
        self._crowd = crowd
        self._busy: list[tuple[int, UUID]] = []
        self._last_step = 0

    async def run(self) -> list[Figure]:
        """Everything, in order."""
        watching, stalled = await self._prepare()
        await self._crowd.ask("open", watching[-50:])
        await self._everybody_leaves()
        figures = [*await self._come(watching), *await self._hear_of_steps(), *await self._stall(stalled)]
        await self._everybody_leaves()
        return [*figures, *await self._look_for_remains(watching)]

    async def _come(self, watching: Sequence[Watching]) -> list[Figure]:
        plan, service = self._plan, self._service
        bare = service.resident_bytes
        tell(f"{plan.subscriptions} customers come")
        began = time.monotonic()
        await self._crowd.ask("open", watching)
        came = time.monotonic() - began
        each = (service.resident_bytes - bare) / plan.subscriptions
        return [
            Figure(
                name="subscriptions",
                value=await service.metric("darkroom_subscriptions"),
                bar=at_least(plan.subscriptions),
                note=f"came within {came:.0f} s",
            ),
            Figure(
                name="resident memory of each",
                value=each / 1024,
                unit="KiB",
                bar=at_most(BYTES_EACH / 1024),
                note=f"{bare / 2**20:.0f} MiB before",
            ),
        ]

    async def _hear_of_steps(self) -> list[Figure]:
        tell(f"steps for {self._plan.seconds:g} s")
        quiet, lost, busy_share = await self._listen(self._busy)
        return [
            _fan_out("fan-out p99", quiet),
            Figure(
                name="steps that never arrived", value=lost, bar=at_most(0), note=f"of {len(quiet) + lost}"
            ),
            Figure(name="the api's processor time", value=busy_share, unit="cores", note="while steps come"),
        ]

    async def _stall(self, stalled: Sequence[Watching]) -> list[Figure]:
        tell(f"{self._plan.stalled} stop reading")
        await self._crowd.ask("open", stalled)
        beside, cut_off_after = await self._cut_off()
        return [
            Figure(
                name="until who does not read is cut off",
                value=cut_off_after,
                unit="s",
                bar=at_most(_CUT_OFF_SECONDS),
            ),
            _fan_out("fan-out p99 of the others meanwhile", beside),
        ]

    async def _look_for_remains(self, watching: Sequence[Watching]) -> list[Figure]:
        """What is left behind once all have left, and once more."""
        service = self._service
        after_first = service.resident_bytes
        tell("once more, to see what stays behind")
        await self._crowd.ask("open", watching)
        await self._everybody_leaves()
        grown = service.resident_bytes / after_first
        return [
            Figure(
                name="subscriptions after all left",
                value=await service.metric("darkroom_subscriptions"),
                bar=at_most(0),
            ),
            Figure(
                name="interests at the broker after all left",
                value=await service.progress_interests(),
                bar=at_most(0),
            ),
            Figure(name="memory after a second crowd ÷ after the first", value=grown, bar=at_most(GROWTH)),
        ]

    async def _prepare(self) -> tuple[list[Watching], list[Watching]]:
        plan, service = self._plan, self._service
        customers = await service.new_customers(-(-plan.subscriptions // _PER_CUSTOMER))
        running = await service.new_generations(
            customers, plan.busy + plan.stalled, state=GenerationState.RUNNING, steps=_STEPS
        )
        waiting = await service.new_generations(
            customers, plan.subscriptions - plan.busy, state=GenerationState.QUEUED, steps=20
        )
        stalling, everyone = running[plan.busy :], [*running[: plan.busy], *waiting]
        self._busy = [(number, key) for number, (key, _) in enumerate(running)]
        watching = [
            Watching(number, to_global_id("Generation", key), customer.token)
            for number, (key, customer) in enumerate(everyone)
        ]
        stalled = [
            Watching(-1 - number, to_global_id("Generation", key), customer.token, reads=False)
            for number, (key, customer) in enumerate(stalling)
        ]
        return watching, stalled

    async def _listen(self, busy: Sequence[tuple[int, UUID]]) -> tuple[list[float], int, float]:
        """What those who read heard of the steps, and the share of a core that telling them took."""
        await self._crowd.ask("heard")
        readers, began, before = busy[: self._plan.busy], time.monotonic(), self._service.cpu_seconds
        told = await self._publish(readers, seconds=self._plan.seconds)
        share = (self._service.cpu_seconds - before) / (time.monotonic() - began)
        await asyncio.sleep(1)
        delays, lost = told.delays(await self._crowd.ask("heard"))
        return delays, lost, share

    async def _publish(self, readers: Sequence[tuple[int, UUID]], *, seconds: float) -> Told:
        """Tell steps at the plan's rate, evenly spread over time."""
        told, pause, began = Told(), 1 / (self._plan.rate * len(readers)), time.monotonic()
        for place in range(int(seconds / pause)):
            if (wait := began + place * pause - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            number, key = readers[place % len(readers)]
            self._last_step += place % len(readers) == 0
            told.note(number, self._last_step)
            await self._service.queue.publish_progress(
                Progress(id=key, state=GenerationState.RUNNING, step=self._last_step, total_steps=_STEPS)
            )
        return told

    async def _cut_off(self) -> tuple[list[float], float]:
        """What the others heard until all who do not read were cut off, and how long that took."""
        plan, service, closed, began = self._plan, self._service, asyncio.Event(), time.monotonic()

        async def feed() -> float:
            step = 0
            while not closed.is_set():
                step += 1
                for _, key in self._busy[plan.busy :]:
                    progress = Progress(
                        id=key, state=GenerationState.RUNNING, step=step, total_steps=_STEPS, preview=_PREVIEW
                    )
                    await service.queue.publish_progress(progress)
                live = await service.metric("darkroom_subscriptions")
                if live <= plan.subscriptions or time.monotonic() - began > _CUT_OFF_SECONDS:
                    closed.set()
                await asyncio.sleep(0.5)
            return time.monotonic() - began

        await self._crowd.ask("heard")
        feeding, told = asyncio.create_task(feed()), []
        while not closed.is_set():
            told.append(await self._publish(self._busy[: plan.busy], seconds=2))
        took = await feeding
        await asyncio.sleep(1)
        heard = await self._crowd.ask("heard")
        return [delay for each in told for delay in each.delays(heard)[0]], took

    async def _everybody_leaves(self) -> None:
        await self._crowd.ask("leave")
        for _ in range(_GONE_SECONDS):
            await asyncio.sleep(1)
            live = await self._service.metric("darkroom_subscriptions")
            if not live and not await self._service.progress_interests():
                break


async def _beat(service: Service) -> None:
    """A worker that has measured its speed, so that everybody is given an estimate."""
    speed = Speed(model="darkroom-demo", megapixel_steps_per_second=1, seconds_per_step=0.1)
    while True:
        beat = Heartbeat(
            worker="w1",
            models=(speed.model,),
            device="none",
            slots=8,
            speeds=(speed,),
            started_at=now(),
            beat_at=now(),
        )
        await service.queue.put_heartbeat(beat)
        await asyncio.sleep(_BEAT_SECONDS)


def _fan_out(name: str, delays: Sequence[float]) -> Figure:
    return Figure(
        name=name,
        value=1000 * percentile(delays, 0.99),
        unit="ms",
        bar=at_most(1000 * FAN_OUT_SECONDS),
        note=f"p50 {1000 * percentile(delays, 0.5):.1f}, max {1000 * max(delays):.0f}, {len(delays)} events",
    )


async def measure(folder: Path, plan: Plan) -> list[Figure]:
    """All of it, in ``folder``, which is empty."""
    async with open_service(folder) as service, open_crowd(service.port) as crowd:
        beating = asyncio.create_task(_beat(service))
        try:
            return await Measurement(plan, service, crowd).run()
        finally:
            beating.cancel()


def main() -> int:
    """Measure what the command line says; status 1 when a figure misses its bar."""
    return run(
        parser("subscriptions", __doc__, quick="fewer of everything, for a first look"),
        planned("subscriptions", measure, full=FULL, quick=QUICK),
    )


if __name__ == "__main__":
    sys.exit(main())
