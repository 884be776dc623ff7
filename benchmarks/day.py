"""``python -m benchmarks.day``: a day of 48 batch windows, sped up.

PostgreSQL, nats-server, a mail server and two ``python -m batcher`` are started on the loopback interface, in
a folder that is removed afterwards; the beats are the broker's own. The workers hold no models: each picture
takes them the same time, so this measures the batch tier and not inference. It takes about ten minutes, with
--quick one. Nothing else should run meanwhile. The exit status is 1 when a figure misses its bar.
"""

import asyncio
import random
import sys
import time
from collections.abc import Sequence
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
from benchmarks.processes import BenchmarkError
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
    """

    windows: int
    window_seconds: int
    customers: int
    jobs: int
    rushes: Sequence[int]
    rush_customers: int
    rush_jobs: int
    pace: Pace

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
    """Takes the batch tier through a day."""

    def __init__(self, plan: Plan, *, queue: Queue, tier: BatchTier) -> None:
        self._plan = plan
        self._tier = tier
        self._outbox = JobOutbox(queue=queue)
        self._chance = random.Random(2)  # noqa: S311 - repeatable, not secret
        self._resident: list[list[int]] = []

    async def run(self) -> list[Figure]:
        """The whole of it, and what came of it."""
        accounts = await self._customers()
        begins_at = await self._first_beat()
        tell(f"{self._plan.windows} windows of {self._plan.window_seconds} s")
        watching = asyncio.create_task(self._watch(begins_at))
        await self._accept(accounts, begins_at)
        await watching
        tell("until the last letter has left")
        await self._finished()
        self._resident.append(self._tier.resident_bytes())
        rows = await Generation.all()
        return [
            *job_figures(rows, asked=len(requests(self._plan))),
            *window_figures(
                rows,
                await Window.all().order_by("tick_at"),
                due=self._plan.windows,
            ),
            *letter_figures(rows, await Letter.all(), await asyncio.to_thread(self._tier.letters)),
            *memory_figures(self._resident, quarter=max(1, self._plan.windows // 4)),
        ]

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
            self._tier.resident_bytes()
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
        """The batchers' memory at the end of each window."""
        for number in range(1, self._plan.windows + 2):
            ends_at = begins_at + timedelta(seconds=number * self._plan.window_seconds)
            await asyncio.sleep(max(0.0, (ends_at - now()).total_seconds()))
            self._resident.append(self._tier.resident_bytes())
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
    queue = await Queue.connect_when_there(backing.broker, name="customers")
    try:
        async with (
            open_workers(folder, backing, pace=plan.pace, model=_MODEL),
            open_batch_tier(
                folder,
                ports,
                backing,
                batchers=_BATCHERS,
                window=f"*/{plan.window_seconds} * * * * *",
                window_seconds=plan.window_seconds,
            ) as tier,
        ):
            return await Day(plan, queue=queue, tier=tier).run()
    finally:
        await queue.close()


def main() -> int:
    """Measure what the command line says; status 1 when a figure misses its bar."""
    return run(
        parser("day", __doc__, quick="an eighth of the day, for a first look"),
        planned("day", measure, full=FULL, quick=QUICK),
    )


if __name__ == "__main__":
    sys.exit(main())
