"""``python -m benchmarks.simulate``: how many GPUs the service takes, what pictures cost, how long they take.

A day in a model that is fed with measured service times, for 1,000, 100,000 and 10,000,000 customers; the
last one takes some minutes. With --validate the model is held against the real one-machine stack instead,
whose service times are measured in the same run: that takes two quiet cores and some eight minutes, and the
exit status is 1 when the model is wrong by more than 15 %.
"""

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.arrivals import DAY, daily_arrivals, percentile
from benchmarks.command import parser, planned, run
from benchmarks.fleet import HOUR, Fleet, Pool
from benchmarks.jobs import Lane, Outcome
from benchmarks.pace import Pace
from benchmarks.report import Figure, Report, tell
from benchmarks.validation import FULL, QUICK, measure

# One H100, half precision, DDIM, 20 guided steps. A step of n pictures is 2n rows of decision 15's table;
# what the whole worker (docs/benchmarks.md, "On a GPU") takes beyond its steps is embedding and decoding;
# premium's median there (0.24 s) beyond both is around the job. An H200 makes 1 to 2 % more.
PACES: Final = {
    "sd15": Pace(
        ticks={1: 0.00656, 8: 0.0344, 16: 0.0682}, steps=20, slots=16, aside=0.0081, before=0.02, after=0.08
    ),
    # 8 slots; the time around a job was measured for Stable Diffusion 1.5 alone.
    "sdxl": Pace(ticks={1: 0.0314, 8: 0.232}, steps=20, slots=8, aside=0.045, before=0.02, after=0.08),
}

START_SECONDS: Final = 2.0
"""Within which 99 of 100 premium pictures are to have begun."""

_CUSTOMERS: Final = (1_000, 100_000, 10_000_000)
_SWING: Final = 0.8
_WINDOW: Final = 1800.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Market:
    """Assumptions about customers; none of them is measured.

    Attributes:
        customers: all of them.
        premium_share: of them are premium.
        premium_per_day: pictures that one of these asks for.
        normal_per_day: pictures that one of the others asks for.
    """

    customers: int
    premium_share: float = 0.05
    premium_per_day: float = 4.0
    normal_per_day: float = 0.2

    @property
    def premium(self) -> float:
        """Premium pictures a day."""
        return self.customers * self.premium_share * self.premium_per_day

    @property
    def normal(self) -> float:
        """Normal pictures a day."""
        return self.customers * (1 - self.premium_share) * self.normal_per_day


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """Assumptions about the operator.

    Attributes:
        price: of a GPU for an hour, in dollars.
        cold_start: seconds from the autoscaler's decision to a worker's first tick: 30 s of it were measured,
            from a worker's birth to its first heartbeat; the rest is a node, an image and weights.
        losses_per_hour: how often a batch worker's spot node is taken away.
        window_target: seconds that a window's pictures should take once the workers are there.
        spare: premium workers kept warm beyond those that the busiest hour takes.
        most_batch: workers of the batch tier at the most.
        batch_jobs: for which the batch tier gets another worker; none for what one makes in that time.
    """

    price: float
    cold_start: float = 180.0
    losses_per_hour: float = 0.05
    window_target: float = 600.0
    spare: int = 1
    batch_jobs: float | None = None
    most_batch: int = 60


def warm_minimum(pace: Pace, per_second: float, *, seed: int) -> int:
    """The fewest workers with which 99 of 100 premium pictures begin within two seconds, at this rate.

    Nothing is scaled meanwhile: a worker that has to be started comes too late for everybody who waits now.
    """
    seconds = min(HOUR, max(600.0, 20_000 / per_second)) if per_second else HOUR
    least = max(1, int(per_second / pace.pictures_per_second))
    for workers in itertools.count(least):
        pool = Pool(least=workers, most=workers, jobs_per_worker=1)
        moments = daily_arrivals(per_day=per_second * DAY, swing=0, days=seconds / DAY, seed=seed)
        starts = Fleet(pace, {Lane.PREMIUM: pool}).run(moments, []).starts(Lane.PREMIUM)
        if not starts or percentile(starts, 0.99) <= START_SECONDS:
            return workers
    raise AssertionError


def day(pace: Pace, market: Market, operation: Operation, *, warm: int, seed: int) -> Outcome:
    """A day of a fleet: premium never below ``warm`` workers, the batch tier to none between windows."""
    pools = {
        Lane.PREMIUM: Pool(
            least=warm,
            most=10 * warm,
            # As in infra/kubernetes/production/scaling.yaml: fewer than a worker's slots.
            jobs_per_worker=6,
            cooldown=600,
            cold_start=operation.cold_start,
        ),
        Lane.BATCH: Pool(
            least=0,
            most=operation.most_batch,
            jobs_per_worker=operation.batch_jobs or operation.window_target * pace.pictures_per_second,
            cooldown=180,
            cold_start=operation.cold_start,
            losses_per_hour=operation.losses_per_hour,
        ),
    }
    return Fleet(pace, pools, seed=seed).run(
        daily_arrivals(per_day=market.premium, swing=_SWING, days=1, seed=seed),
        daily_arrivals(per_day=market.normal, swing=_SWING, days=1, seed=seed + 1),
        window=_WINDOW,
    )


def figures(pace: Pace, market: Market, operation: Operation, *, seed: int) -> list[Figure]:
    """What a day takes and gives."""
    busiest = market.premium / DAY * (1 + _SWING)
    needed = warm_minimum(pace, busiest, seed=seed)
    warm = needed + operation.spare
    outcome = day(pace, market, operation, warm=warm, seed=seed)
    return list(_told(outcome, market, operation, needed=needed, warm=warm))


def _told(
    outcome: Outcome, market: Market, operation: Operation, *, needed: int, warm: int
) -> Iterator[Figure]:
    starts, latencies = outcome.starts(Lane.PREMIUM), outcome.latencies(Lane.PREMIUM)
    hours = {lane: seconds / HOUR for lane, seconds in outcome.worker_seconds.items()}
    cost = sum(hours.values()) * operation.price / len(outcome.jobs) * 1000
    yield Figure(name="premium pictures a day", value=market.premium)
    yield Figure(name="normal pictures a day", value=market.normal)
    yield Figure(name="premium GPUs, warm", value=warm, note=f"{needed} for the busiest hour")
    yield Figure(name="premium GPUs, most", value=outcome.most_workers[Lane.PREMIUM])
    yield Figure(name="batch GPUs, most", value=outcome.most_workers[Lane.BATCH])
    for lane in Lane:
        yield Figure(name=f"GPU hours of the {lane} pool", value=hours[lane], unit="h")
    yield Figure(name="cost of 1,000 pictures", value=cost, unit="$", note=f"{operation.price:g} $ an hour")
    yield Figure(name="premium start, p99", value=percentile(starts, 0.99), unit="s")
    yield Figure(name="premium latency, p50", value=percentile(latencies, 0.5), unit="s")
    yield Figure(name="premium latency, p99", value=percentile(latencies, 0.99), unit="s")
    yield Figure(name="window, median", value=statistics.median(outcome.windows), unit="s")
    yield Figure(name="window, longest", value=max(outcome.windows), unit="s")
    yield Figure(name="batch workers lost", value=outcome.losses)


async def simulate(_: Path, options: argparse.Namespace, report: Report) -> None:
    """Every size of market."""
    operation = Operation(price=options.price, cold_start=options.cold_start, batch_jobs=options.batch_jobs)
    for customers in options.customers:
        tell(f"{customers:,} customers")
        began = time.monotonic()
        found = figures(PACES[options.model], Market(customers=customers), operation, seed=options.seed)
        report.add(f"{customers:,} customers", found, seconds=time.monotonic() - began)


def main() -> int:
    """Simulate, or validate; the status is 1 when the model is too far off."""
    line = parser("simulate", __doc__, quick="with --validate: fewer of everything, for a first look")
    line.add_argument("--validate", action="store_true", help="hold the model against the real stack")
    line.add_argument("--model", choices=sorted(PACES), default="sd15", help="whose service times; sd15")
    line.add_argument("--customers", type=int, nargs="+", default=_CUSTOMERS, help="sizes of the market")
    line.add_argument("--price", type=float, default=3.0, help="of a GPU for an hour, in dollars; 3")
    line.add_argument("--cold-start", type=float, default=180.0, help="of a worker, in seconds; 180")
    line.add_argument("--batch-jobs", type=float, help="for another batch worker; what one makes in 10 min")
    line.add_argument("--seed", type=int, default=1, help="of everything that is left to chance; 1")
    validating = line.parse_args().validate
    return run(line, planned("validation", measure, full=FULL, quick=QUICK) if validating else simulate)


if __name__ == "__main__":
    sys.exit(main())
