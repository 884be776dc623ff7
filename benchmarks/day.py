"""``python -m benchmarks.day``: a day of 48 batch windows, sped up.

PostgreSQL, nats-server, a mail server, two ``python -m batcher``, an api and a gpu_worker are started on the
loopback interface, in a folder that is removed afterwards; the beats are the broker's own. The batch tier's
workers hold no models: each picture takes them the same time, so this measures the tier and not inference.
Premium customers ask the api all the while, and the gpu_worker makes their pictures: so every process has a
day behind it when its memory is looked at. It takes about ten minutes, with --quick one. Nothing else should
run meanwhile. The exit status is 1 when a figure misses its bar.
"""

import asyncio
import random
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final
from uuid import uuid4

from benchmarks.arrivals import poisson_arrivals
from benchmarks.backing import Backing, open_backing
from benchmarks.batch_tier import SHAPES, STEPS, BatchTier, Pace, open_batch_tier, open_workers
from benchmarks.command import parser, planned, run
from benchmarks.day_figures import job_figures, letter_figures, memory_figures, window_figures
from benchmarks.premium_day import PremiumDay, open_premium_day
from benchmarks.processes import BenchmarkError, Child
from benchmarks.report import Figure, tell
from core.clock import now
from core.lifecycle import OPEN_STATES, Delivery, ImageFormat, Scheduler, Tier
from core.messages import MAX_SEED
from core.models import Account, Generation, Letter, LetterState, Window
from core.outbox import JobOutbox
from core.queue import Queue
from core.repository import windows
from core.repository.database import database
from infra.local.ports import Ports

_MODEL: Final = "darkroom-demo"
_BATCHERS: Final = 2
_READY_SECONDS: Final = 60
_LAST_SECONDS: Final = 60
_PAUSE: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much to measure.

    Attributes:
        windows: of the day.
        window_seconds: from one beat to the next, and from a window's opening to its deadline; divides 60.
        customers: who ask for pictures.
        jobs: that they ask for one by one, at random moments.
        rushes: windows, from 0, before which some customers ask for many at once.
        rush_customers: how many these are.
        rush_jobs: how many each of them asks for.
        pace: of the workers.
        premium_seconds: between one premium picture and the next; none leaves premium out.
    """

    windows: int
    window_seconds: int
    customers: int
    jobs: int
    rushes: Sequence[int]
    rush_customers: int
    rush_jobs: int
    pace: Pace
    premium_seconds: float | None

    @property
    def seconds(self) -> float:
        """Of the whole day."""
        return self.windows * self.window_seconds


FULL: Final = Plan(
    windows=48,
    window_seconds=12,
    customers=100,
    jobs=2600,
    rushes=(8, 20, 32, 44),
    rush_customers=4,
    rush_jobs=60,
    pace=Pace(workers=2, slots=4, seconds=0.08),
    premium_seconds=1,
)
QUICK: Final = Plan(
    windows=8,
    window_seconds=6,
    customers=100,
    jobs=400,
    rushes=(4,),
    rush_customers=4,
    rush_jobs=60,
    pace=Pace(workers=2, slots=4, seconds=0.08),
    premium_seconds=1,
)


@dataclass(frozen=True, slots=True, order=True)
class Request:
    """A customer asks for a picture so many seconds into the day."""

    second: float
    customer: int


def requests(plan: Plan) -> list[Request]:
    """All of the day, in order. The same for the same plan."""
    chance = random.Random(1)  # noqa: S311 - repeatable, not secret
    found = [
        Request(second, chance.randrange(plan.customers))
        for second in poisson_arrivals(rate=plan.jobs / plan.seconds, count=plan.jobs, seed=1)
        if second < plan.seconds
    ]
    for rush in plan.rushes:
        many = plan.rush_customers * plan.rush_jobs
        for number in range(many):
            # One after the other, as if by scripts that were started one after the other.
            second = (rush + 0.1 + 0.6 * number / many) * plan.window_seconds
            found.append(Request(second, number // plan.rush_jobs))
    return sorted(found)


class Day:
    """Takes the service through a day.

    Args:
        plan: how long a day.
        queue: the broker.
        tier: the batch tier.
        premium: the rest, if it takes part.
    """

    def __init__(self, plan: Plan, *, queue: Queue, tier: BatchTier, premium: PremiumDay | None) -> None:
        self._plan = plan
        self._tier = tier
        self._premium = premium
        batchers = {f"batcher {number}": child for number, child in enumerate(tier.batchers, 1)}
        self._processes: Mapping[str, Child] = {**(premium.processes if premium else {}), **batchers}
        self._outbox = JobOutbox(queue=queue)
        self._chance = random.Random(2)  # noqa: S311 - repeatable, not secret
        self._resident: list[dict[str, int]] = []

    async def run(self) -> list[Figure]:
        """The whole of it, and what came of it."""
        accounts = await self._customers()
        begins_at = await self._first_beat()
        tell(f"{self._plan.windows} windows of {self._plan.window_seconds} s")
        watching = asyncio.create_task(self._watch(begins_at))
        stop = asyncio.Event()
        premium = asyncio.create_task(self._serve_premium(stop))
        await self._accept(accounts, begins_at)
        await watching
        stop.set()
        served = await premium
        tell("until the last letter has left")
        await self._finished()
        self._resident.append(self._resident_bytes())
        rows = await Generation.filter(tier=Tier.NORMAL)
        return [
            *job_figures(rows, asked=len(requests(self._plan))),
            *window_figures(
                rows,
                await Window.all().order_by("tick_at"),
                due=self._plan.windows,
            ),
            *letter_figures(rows, await Letter.all(), await asyncio.to_thread(self._tier.letters)),
            *served,
            *memory_figures(self._resident, quarter=max(1, self._plan.windows // 4)),
        ]

    async def _serve_premium(self, stop: asyncio.Event) -> list[Figure]:
        if self._premium is None or self._plan.premium_seconds is None:
            return []
        waits = await self._premium.run(every=self._plan.premium_seconds, stop=stop)
        usual = f"waited for {statistics.median(waits):.2f} s each, {max(waits):.2f} s at most"
        return [Figure(name="premium pictures, beside all this", value=len(waits), note=usual)]

    def _resident_bytes(self) -> dict[str, int]:
        """Memory in use, of each process.

        Raises:
            BenchmarkError: one has ended.
        """
        for child in self._processes.values():
            child.check()
        return {name: child.resident_bytes for name, child in self._processes.items()}

    async def _customers(self) -> list[Account]:
        accounts = [
            Account(
                email=f"customer-{number}@example.org",
                email_key=f"customer-{number}@example.org",
                password_hash="-",  # noqa: S106 - nobody can sign in with it
                email_verified_at=now(),
            )
            for number in range(self._plan.customers)
        ]
        await Account.bulk_create(accounts)
        return accounts

    async def _first_beat(self) -> datetime:
        """When the next window opens, once a batcher has said so."""
        deadline = time.monotonic() + _READY_SECONDS
        while (clock := await windows.clock()) is None or clock.next_at < now():
            self._resident_bytes()
            if time.monotonic() > deadline:
                raise BenchmarkError("no batcher has started the clock")
            await asyncio.sleep(_PAUSE)
        return clock.next_at

    async def _accept(self, accounts: Sequence[Account], begins_at: datetime) -> None:
        coming = requests(self._plan)
        while coming:
            second = (now() - begins_at).total_seconds()
            due = [request for request in coming if request.second <= second]
            if due:
                coming = coming[len(due) :]
                rows = [self._row(accounts[request.customer]) for request in due]
                await Generation.bulk_create(rows)
                await asyncio.gather(*(self._outbox.publish(row) for row in rows))
            else:
                await asyncio.sleep(coming[0].second - second)

    def _row(self, account: Account) -> Generation:
        width, height = self._chance.choice(SHAPES)
        return Generation(
            id=uuid4(),
            account_id=account.id,
            tier=Tier.NORMAL,
            delivery=Delivery.EMAIL,
            prompt="a lighthouse in the fog",
            model=_MODEL,
            width=width,
            height=height,
            steps=STEPS,
            guidance_scale=4.0,
            seed=self._chance.randint(0, MAX_SEED),
            count=1,
            scheduler=Scheduler.DDIM,
            format=ImageFormat.PNG,
            request_fingerprint="-",
        )

    async def _watch(self, begins_at: datetime) -> None:
        """The processes' memory at the end of each window."""
        for number in range(1, self._plan.windows + 2):
            ends_at = begins_at + timedelta(seconds=number * self._plan.window_seconds)
            await asyncio.sleep(max(0.0, (ends_at - now()).total_seconds()))
            self._resident.append(self._resident_bytes())
            if not number % 12:
                tell(f"{number} windows")

    async def _finished(self) -> None:
        deadline = time.monotonic() + _LAST_SECONDS
        while time.monotonic() < deadline:
            unsent = await Letter.exclude(state=LetterState.SENT).exists()
            if not unsent and not await Generation.filter(state__in=OPEN_STATES).exists():
                break
            await asyncio.sleep(_PAUSE)


async def measure(folder: Path, plan: Plan) -> list[Figure]:
    """All of it, in ``folder``, which is empty."""
    ports = Ports(folder / "ports.json")
    async with open_backing(folder, ports) as backing, database(backing.rows):
        return await _lived_through(folder, ports, backing, plan)


async def _lived_through(folder: Path, ports: Ports, backing: Backing, plan: Plan) -> list[Figure]:
    async with AsyncExitStack() as stack:
        queue = await Queue.connect_when_there(backing.broker, name="customers")
        stack.push_async_callback(queue.close)
        premium = None
        if plan.premium_seconds is not None:
            premium = await stack.enter_async_context(open_premium_day(folder, ports, backing))
        await stack.enter_async_context(open_workers(folder, backing, pace=plan.pace, model=_MODEL))
        tier = await stack.enter_async_context(
            open_batch_tier(
                folder,
                ports,
                backing,
                batchers=_BATCHERS,
                window=f"*/{plan.window_seconds} * * * * *",
                window_seconds=plan.window_seconds,
            )
        )
        return await Day(plan, queue=queue, tier=tier, premium=premium).run()


def main() -> int:
    """Measure what the command line says; status 1 when a figure misses its bar."""
    return run(
        parser("day", __doc__, quick="an eighth of the day, for a first look"),
        planned("day", measure, full=FULL, quick=QUICK),
    )


if __name__ == "__main__":
    sys.exit(main())
