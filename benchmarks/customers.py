"""Customers: some come one by one, others have a backlog and ask again as soon as they are answered."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.arrivals import Latencies
from benchmarks.orders import Orders
from core.messages import Parameters

Ask = Callable[[Parameters], Awaitable[None]]
"""Asks a server for one picture and returns when it is there."""

LONGEST_ANSWER: Final = 300.0
"""Seconds after which a server is taken for dead."""


@dataclass(frozen=True, slots=True)
class Service:
    """How a server is asked by the two kinds of customers.

    Attributes:
        one_by_one: for those who come at moments of their own.
        backlog: for those with a backlog.
        pressure: how many of the latter there are: none, or at least ``at_once``.
        at_once: pictures that the server makes at once.
    """

    one_by_one: Ask
    backlog: Ask
    pressure: int
    at_once: int


@dataclass(frozen=True, slots=True)
class Served:
    """What customers saw of a server.

    Attributes:
        latencies: of those who came one by one.
        images_per_second: of all together, from the start of the arrivals to the last one's answer.
    """

    latencies: Latencies
    images_per_second: float


async def serve(service: Service, orders: Orders, arrivals: Sequence[float]) -> Served:
    """Let customers come at ``arrivals``, in seconds from when the backlog's first batch is done.

    Raises:
        TimeoutError: the server does not answer.
    """
    done: list[float] = []
    warm, closing = asyncio.Event(), asyncio.Event()

    async def insist() -> None:
        while not closing.is_set():
            [asked] = orders.parameters(1)
            await service.backlog(asked)
            done.append(time.monotonic())
            if len(done) == service.at_once:
                warm.set()

    async def come(at: float) -> float:
        await asyncio.sleep(at)
        [asked] = orders.parameters(1)
        began = time.monotonic()
        await service.one_by_one(asked)
        done.append(time.monotonic())
        return done[-1] - began

    async with asyncio.timeout(arrivals[-1] + LONGEST_ANSWER), asyncio.TaskGroup() as everybody:
        for _ in range(service.pressure):
            everybody.create_task(insist())
        if service.pressure:
            await warm.wait()
        began = time.monotonic()
        comers = [everybody.create_task(come(at)) for at in arrivals]
        await asyncio.wait(comers)
        ended = time.monotonic()
        closing.set()
    made = sum(began < at <= ended for at in done)
    return Served(Latencies(tuple(comer.result() for comer in comers)), made / (ended - began))
