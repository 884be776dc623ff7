"""``python -m benchmarks.ceilings``: what a generation takes of PostgreSQL and of the broker.

Premium generations are lived through by one process as the service does it, admission, publish, pull,
report, record and all, without an api and without pictures. What the servers' processes take meanwhile says
how many generations a second a server of so many cores could carry at the most. Two or three minutes.
"""

import asyncio
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final
from uuid import UUID, uuid4

import psutil
from tortoise import connections

from benchmarks.backing import open_backing
from benchmarks.command import parser, planned, run
from benchmarks.orders import Orders
from benchmarks.report import Figure, tell
from core.clock import now
from core.lifecycle import Delivery, GenerationState, Tier
from core.messages import Job, Outcome, Started, StoredImage
from core.models import Account, Generation, SessionFamily
from core.outbox import JobOutbox
from core.queue import Consumer, Lane, Queue
from core.queue.topology import PREMIUM_JOBS, PREMIUM_RESULTS
from core.recording import Recorder
from core.repository.admission import Admissions, Bounds, Request
from core.repository.database import database
from infra.local.ports import Ports

_AT_ONCE: Final = 64
_IN_FLIGHT: Final = 256
_CUSTOMERS: Final = 500
_PAUSE: Final = 0.2
_WORKER: Final = "ceilings"
_PLENTY: Final = {Tier.PREMIUM: 1_000_000, Tier.NORMAL: 1_000_000}
_NOTHING: Final = {Tier.PREMIUM: timedelta(0), Tier.NORMAL: timedelta(0)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much to measure.

    Attributes:
        generations: that are lived through.
        publishes: to one stream, without anything else.
    """

    generations: int
    publishes: int


FULL: Final = Plan(generations=6_000, publishes=20_000)
QUICK: Final = Plan(generations=600, publishes=2_000)


@dataclass(frozen=True, slots=True)
class Usage:
    """What the servers had taken up to a moment: seconds of processors, bytes written."""

    postgres: float
    nats: float
    nats_bytes: int
    wal: int

    @classmethod
    async def now(cls) -> "Usage":
        """As of this moment, of the servers that this process has started."""
        seconds = {"postgres": 0.0, "nats-server": 0.0}
        written = 0
        for process in psutil.Process().children(recursive=True):
            name = next((name for name in seconds if process.name().startswith(name)), None)
            if name is not None:
                times = process.cpu_times()
                seconds[name] += times.user + times.system
                written += process.io_counters().write_bytes if name == "nats-server" else 0
        [row] = await connections.get("default").execute_query_dict(
            "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint AS wal"
        )
        return cls(seconds["postgres"], seconds["nats-server"], written, row["wal"])


class Life:
    """Generations from their admission to their recorded end."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._admissions = Admissions()
        self._outbox = JobOutbox(queue=queue)
        self._orders = Orders(7)

    async def customers(self) -> list[SessionFamily]:
        """Premium customers with a session each."""
        accounts = [
            Account(
                email=f"customer-{number}@example.org",
                email_key=f"customer-{number}@example.org",
                password_hash="-",  # noqa: S106 - nobody can sign in with it
                email_verified_at=now(),
                premium_until=now() + timedelta(days=1),
            )
            for number in range(_CUSTOMERS)
        ]
        await Account.bulk_create(accounts)
        families = [SessionFamily(account_id=account.id) for account in accounts]
        await SessionFamily.bulk_create(families)
        return families

    async def accept(self, families: Sequence[SessionFamily], count: int) -> None:
        """Ask for so many pictures, some at a time, and publish their jobs."""
        places = asyncio.Semaphore(_AT_ONCE)

        async def one(family: SessionFamily) -> None:
            async with places:
                admission = await self._admissions.admit(self._request(family))
                assert admission is not None  # noqa: S101 - the sessions are alive
                assert admission.generation is not None  # noqa: S101 - nothing limits them
                await self._outbox.publish(admission.generation)

        await asyncio.gather(*(one(families[number % len(families)]) for number in range(count)))

    async def work(self, consumer: Consumer, *, stop: asyncio.Event) -> None:
        """Report a picture for every job, as a worker does."""
        while not stop.is_set():
            deliveries = await consumer.fetch(_AT_ONCE, wait=0.5)
            jobs = [Job.decode(delivery.data) for delivery in deliveries]
            await asyncio.gather(*(self._report(job) for job in jobs))
            await asyncio.gather(*(delivery.ack() for delivery in deliveries))

    async def _report(self, job: Job) -> None:
        started = Started(id=job.id, worker=_WORKER, attempt=1, started_at=now())
        await self._queue.publish_result(job.tier, started)
        image = StoredImage(
            key=f"generations/{job.id}/1/0.png",
            width=128,
            height=128,
            seed=1,
            content_type="image/png",
            byte_size=30_000,
            sha256="0" * 64,
        )
        outcome = Outcome(
            id=job.id,
            worker=_WORKER,
            attempt=1,
            state=GenerationState.SUCCEEDED,
            images=(image,),
            finished_at=now(),
        )
        await self._queue.publish_result(job.tier, outcome)

    def _request(self, family: SessionFamily) -> Request:
        [asked] = self._orders.parameters(1)
        return Request(
            session_id=family.id,
            account_id=family.account_id,
            delivery=Delivery.DOWNLOAD,
            bounds=Bounds(most_open=_PLENTY, cost=_NOTHING, pictures_key=str(family.account_id)),
            columns={
                **asked.model_dump(),
                "idempotency_key": None,
                "request_fingerprint": "-",
                "request_id": uuid4().hex,
                "traceparent": None,
            },
        )


async def measure(folder: Path, plan: Plan) -> list[Figure]:
    """All of it, in ``folder``, which is empty."""
    ports = Ports(folder / "ports.json")
    async with open_backing(folder, ports) as backing, database(backing.rows):
        queue = await Queue.connect_when_there(backing.broker, name="ceilings")
        try:
            tell(f"{plan.generations} generations")
            figures = await _lived(queue, plan.generations)
            tell(f"{plan.publishes} publishes")
            return [*figures, *await _published(queue, plan.publishes)]
        finally:
            await queue.close()


async def _lived(queue: Queue, count: int) -> list[Figure]:
    life, stop = Life(queue), asyncio.Event()
    families = await life.customers()
    before, began = await Usage.now(), time.monotonic()
    beside = [
        asyncio.create_task(life.work(queue.consumer(PREMIUM_JOBS), stop=stop)),
        asyncio.create_task(Recorder(queue=queue).run(queue.consumer(PREMIUM_RESULTS), stop=stop)),
    ]
    await life.accept(families, count)
    await _succeeded(count)
    seconds = time.monotonic() - began
    after = await Usage.now()
    stop.set()
    await asyncio.gather(*beside)
    postgres, nats = (after.postgres - before.postgres) / count, (after.nats - before.nats) / count
    return [
        Figure(name="generations lived through", value=count / seconds, unit="/s", note="by one process"),
        Figure(name="PostgreSQL, of each", value=1000 * postgres, unit="ms CPU"),
        Figure(name="its log, of each", value=(after.wal - before.wal) / count / 1024, unit="KiB"),
        Figure(
            name="nats-server, of each",
            value=1000 * nats,
            unit="ms CPU",
            note="3 messages stored, 2 in memory",
        ),
        Figure(
            name="its disk, of each", value=(after.nats_bytes - before.nats_bytes) / count / 1024, unit="KiB"
        ),
        Figure(name="a core of PostgreSQL", value=1 / postgres, unit="/s"),
        Figure(name="a core of nats-server", value=1 / nats, unit="/s"),
    ]


async def _succeeded(count: int) -> None:
    while True:
        if await Generation.filter(state=GenerationState.SUCCEEDED).count() >= count:
            return
        await asyncio.sleep(_PAUSE)


async def _published(queue: Queue, count: int) -> list[Figure]:
    """Into one stream, which its leader writes one after the other."""
    [asked] = Orders(8).parameters(1)
    places = asyncio.Semaphore(_IN_FLIGHT)

    async def one(job_id: UUID) -> None:
        job = Job(id=job_id, tier=Tier.NORMAL, delivery=Delivery.EMAIL, parameters=asked, accepted_at=now())
        async with places:
            await queue.publish_job(Lane.NORMAL, job)

    alone = []
    for _ in range(count // 20):
        began = time.perf_counter()
        await one(uuid4())
        alone.append(time.perf_counter() - began)
    before, began = await Usage.now(), time.monotonic()
    await asyncio.gather(*(one(uuid4()) for _ in range(count)))
    seconds = time.monotonic() - began
    after = await Usage.now()
    return [
        Figure(name="one publish at a time", value=1000 * sum(alone) / len(alone), unit="ms", note="mean"),
        Figure(name=f"publishes, {_IN_FLIGHT} in flight", value=count / seconds, unit="/s"),
        Figure(name="nats-server meanwhile", value=(after.nats - before.nats) / seconds, unit="cores"),
    ]


def main() -> int:
    """Measure what the command line says."""
    return run(
        parser("ceilings", __doc__, quick="a tenth of everything, for a first look"),
        planned("ceilings", measure, full=FULL, quick=QUICK),
    )


if __name__ == "__main__":
    sys.exit(main())
