"""The model of :mod:`benchmarks.fleet` against the real one-machine stack, at several loads."""

import asyncio
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.arrivals import percentile, poisson_arrivals
from benchmarks.fleet import Fleet, Pool
from benchmarks.jobs import Lane, Outcome
from benchmarks.one_machine import OneMachine, Served, open_one_machine
from benchmarks.pace import Pace
from benchmarks.report import Figure, at_most, tell

SLOTS: Final = 8
CLOSE: Final = 0.15
"""By which share the model may be wrong."""

_TOGETHER: Final = (1, 2, 4, 8)
_ROUNDS: Final = 5
"""After which a speed is found: slower workers have fuller ticks, and so less to do."""

_QUIET: Final = 0.5
"""Seconds between two measurements, in which what the last one left behind is done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much to measure.

    Attributes:
        side: of the pictures, in pixels.
        steps: of the pictures.
        few: steps of the shorter pictures by which the time of a step and that around all are told apart.
        many: steps of the longer ones.
        rounds: of measuring service times, each before and after the loads.
        light: premium pictures at a fifth of what the worker can do.
        busy: premium pictures at three fifths of it.
        burst: pictures of a window.
        mixed: premium pictures that come, at three tenths, while a window of as many as ``burst`` is made.
    """

    side: int
    steps: int
    few: int
    many: int
    rounds: int
    light: int
    busy: int
    burst: int
    mixed: int


FULL: Final = Plan(side=128, steps=20, few=10, many=30, rounds=4, light=50, busy=120, burst=96, mixed=24)
QUICK: Final = Plan(side=64, steps=8, few=4, many=12, rounds=3, light=10, busy=24, burst=24, mixed=6)

Sample = tuple[int, int, float]
"""How many pictures together, of how many steps, took how many seconds."""


def pace_of(samples: Sequence[Sample], *, steps: int, slots: int = SLOTS) -> Pace:
    """The service times behind measured ones.

    Of several measurements the shortest counts: what else a machine does makes work longer, never shorter.
    Of so many pictures together those with more steps take longer by these alone. What is left is the same
    for every job, and something for each picture: a straight line by least squares.
    """
    shortest = {
        (together, length): min(
            seconds for one, other, seconds in samples if (one, other) == (together, length)
        )
        for together, length, _ in samples
    }
    sizes = sorted({together for together, _ in shortest})
    few, many = min(length for _, length in shortest), max(length for _, length in shortest)
    ticks = {size: (shortest[size, many] - shortest[size, few]) / (many - few) for size in sizes}
    around = [shortest[size, few] - few * ticks[size] for size in sizes]
    each, fixed = statistics.linear_regression(sizes, around)
    each = max(0.0, each)
    # How the rest is shared between before and after the steps changes no latency of an idle worker.
    rest = max(0.0, fixed)
    return Pace(ticks=ticks, steps=steps, slots=slots, aside=each, before=rest / 2, after=rest / 2)


async def measured_pace(stack: OneMachine, plan: Plan) -> list[Sample]:
    """How long pictures take that come together to an idle worker."""
    samples = []
    for _ in range(plan.rounds):
        for together in _TOGETHER:
            for steps in (plan.few, plan.many):
                await asyncio.sleep(_QUIET)
                await stack.begin()
                await asyncio.gather(*(stack.ask(premium=True, steps=steps) for _ in range(together)))
                made = (await stack.served()).premium
                seconds = max(ended for _, ended in made) - min(accepted for accepted, _ in made)
                samples.append((together, steps, seconds))
    return samples


def at_own_speed(pace: Pace, served: Served) -> tuple[Outcome, float]:
    """The same customers in the model, on a worker that was at work for as long as the real one.

    A machine's speed drifts by more than what is looked for: how long the work took is measured with each
    load, and only who waits for whom is left to the model.

    Returns:
        What came of it, and how much slower than measured beforehand the worker then was.
    """
    factor = 1.0
    for _ in range(_ROUNDS):
        outcome = modelled(pace.times(factor), served)
        factor *= served.busy / outcome.busy
    return modelled(pace.times(factor), served), factor


def modelled(pace: Pace, served: Served) -> Outcome:
    """The same customers at the same moments, in the model: one worker for everything."""
    fleet = Fleet(pace, {Lane.PREMIUM: Pool(least=1, most=1, jobs_per_worker=1)})
    moments = [accepted for accepted, _ in served.premium]
    if not served.windows:
        return fleet.run([moment - moments[0] for moment in moments], [])
    [(opened, _, jobs)] = served.windows
    # The window opens at second 1; premium customers who come are seen from there.
    return fleet.run([moment - opened + 1 for moment in moments], [0.0] * jobs, window=1.0)


async def measure(folder: Path, plan: Plan) -> list[Figure]:
    """The whole comparison, in ``folder``, which is empty."""
    async with open_one_machine(folder, slots=SLOTS, side=plan.side, steps=plan.steps) as stack:
        tell("service times")
        await stack.begin()
        await asyncio.gather(*(stack.ask(premium=True) for _ in range(SLOTS)))
        await stack.served()
        samples = await measured_pace(stack, plan)
        capacity = pace_of(samples, steps=plan.steps).pictures_per_second
        found = {}
        for name, share, count in (("light", 0.2, plan.light), ("busy", 0.6, plan.busy)):
            tell(f"premium at {share:.0%} of {capacity:.2f} pictures a second")
            found[f"premium, {name}: {share:.0%}"] = await _premium(stack, share * capacity, count)
        tell("a window's burst")
        found[f"a window of {plan.burst}"] = await _window(stack, plan.burst, [])
        tell("premium over a window")
        arrivals = poisson_arrivals(rate=0.3 * capacity, count=plan.mixed, seed=3)
        found[f"a window of {plan.burst}, premium at 30%"] = await _window(stack, plan.burst, arrivals)
        tell("service times again")
        samples += await measured_pace(stack, plan)
    pace = pace_of(samples, steps=plan.steps)
    figures = [
        Figure(name=f"a step of {size} together", value=1000 * tick, unit="ms")
        for size, tick in pace.ticks.items()
    ]
    figures += [
        Figure(name="embedding and decoding, each", value=1000 * pace.aside, unit="ms"),
        Figure(name="around a job", value=1000 * (pace.before + pace.after), unit="ms"),
        Figure(name="a full worker", value=pace.pictures_per_second, unit="images/s"),
    ]
    for name, served in found.items():
        figures += _compared(f"{name}, as measured apart", served, modelled(pace, served), held=False)
        outcome, factor = at_own_speed(pace, served)
        figures.append(Figure(name=f"{name}: slower than apart", value=factor))
        figures += _compared(name, served, outcome, held=True)
    return figures


async def _premium(stack: OneMachine, rate: float, count: int) -> Served:
    await stack.begin()
    await stack.ask_at(poisson_arrivals(rate=rate, count=count, seed=count), premium=True)
    return await stack.served()


async def _window(stack: OneMachine, jobs: int, premium: Sequence[float]) -> Served:
    """A window with so many pictures, all asked for before it opens, and premium customers behind that."""
    # Right behind a beat there is time to ask for all of them before the next one.
    await asyncio.sleep(await stack.next_beat() + 1)
    await stack.begin()
    await asyncio.gather(*(stack.ask(premium=False) for _ in range(jobs)))
    await stack.window_opened()
    await stack.ask_at(premium, premium=True)
    return await stack.served()


def _compared(name: str, served: Served, outcome: Outcome, *, held: bool) -> list[Figure]:
    figures = []
    if served.premium:
        real = [ended - accepted for accepted, ended in served.premium]
        model = outcome.latencies(Lane.PREMIUM)
        pairs = (
            ("mean", statistics.mean(real), statistics.mean(model)),
            ("p95", percentile(real, 0.95), percentile(model, 0.95)),
        )
        for which, reality, simulated in pairs:
            figures.append(_error(f"{name}: {which}", reality, simulated, held=held and which == "mean"))
    for (opened, ended, _), simulated in zip(served.windows, outcome.windows, strict=True):
        figures.append(_error(f"{name}: window", ended - opened, simulated, held=held))
    return figures


def _error(name: str, reality: float, simulated: float, *, held: bool) -> Figure:
    error = abs(simulated - reality) / reality
    note = f"reality {reality:.3f} s, simulated {simulated:.3f} s"
    return Figure(name=name, value=error, bar=at_most(CLOSE) if held else None, note=note)
