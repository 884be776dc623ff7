"""One scenario: customers ask, faults happen, everything is healed, and the promises are checked."""

import asyncio
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from core.failpoints import Failpoint
from core.lifecycle import Delivery, GenerationState
from core.messages import Parameters
from tests.faults.clients import Clients
from tests.faults.evidence import Observer, gather
from tests.faults.invariants import History, Pixels, repeated, violations
from tests.faults.nodes import Node
from tests.faults.service import Service

QUIET_SECONDS: Final = 200
"""Longest time from the last fault until everything has ended and every letter has left."""

_DOWNLOADS: Final = 20


Note = Callable[[str, Mapping[str, int]], None]
"""Takes a line of the report: what was done, and what that came to."""


@dataclass
class Trial:
    """What a scenario has in its hands.

    Attributes:
        rng: of the scenario's seed.
        repetitions: how many letters may arrive once more; a scenario adds what its faults make possible.
        numbers: for the report.
    """

    service: Service
    clients: Clients
    rng: random.Random
    repetitions: int = 0
    numbers: Counter[str] = field(default_factory=Counter)

    async def until(self, holds: Callable[[], bool], *, seconds: float) -> bool:
        """Whether something came to hold in that time."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while not holds():
            if loop.time() > deadline:
                return False
            await asyncio.sleep(0.1)
        return True

    async def spend(self, charges: Mapping[Node, Sequence[str]], *, seconds: float) -> Counter[str]:
        """Have processes kill themselves, life after life, at the points that they are armed with.

        Returns:
            How often each point has killed.

        Raises:
            AssertionError: not every charge was spent in time.
        """
        before = _kills(charges)
        for node, armed in charges.items():
            node.charges.extend(armed)
            node.send(signal.SIGKILL)
        due = Counter(charge.partition("=")[0] for armed in charges.values() for charge in armed)
        spent = await self.until(lambda: _kills(charges) - before >= due, seconds=seconds)
        kills = _kills(charges) - before
        assert spent, f"not reached in {seconds:g} s: {due - kills}"
        self.numbers["kills at failpoints"] += kills.total()
        return kills


def charges_of(points: Iterable[Failpoint], *, times: int, rng: random.Random) -> list[str]:
    """Each of these points so often, in any order, at its first pass or one of the next."""
    charges = [f"{point}=kill:{rng.choice((1, 1, 2, 3))}" for point in points for _ in range(times)]
    rng.shuffle(charges)
    return charges


def _kills(nodes: Iterable[Node]) -> Counter[str]:
    return sum((node.kills() for node in nodes), Counter())


@asynccontextmanager
async def trial(
    name: str,
    service: Service,
    *,
    seed: int,
    alone: Callable[[Parameters], Pixels],
    note: Note,
    normal: int = 4,
    premium: int = 4,
    mailed: float = 0.3,
) -> AsyncIterator[Trial]:
    """Have customers ask while the block runs; then all is healed, and what they were promised is checked.

    Raises:
        AssertionError: a promise was broken; names each and the seed.
    """
    rng = random.Random(seed)  # noqa: S311 - repeats itself on purpose
    customers = await service.new_customers(normal=normal, premium=premium, prefix=name)
    clients = Clients(service=service, customers=customers, rng=rng, mailed=mailed)
    observer = Observer(service, customers)
    stop, enough = asyncio.Event(), asyncio.Event()
    looking = asyncio.create_task(observer.look_on(stop))
    asking = asyncio.create_task(clients.ask_until(enough))
    run = Trial(service=service, clients=clients, rng=rng)
    try:
        yield run
        enough.set()
        await service.heal()
        await asking
        begun = asyncio.get_running_loop().time()
        left = await observer.until_settled(seconds=QUIET_SECONDS)
        run.numbers["seconds of quiet"] = round(asyncio.get_running_loop().time() - begun)
        await clients.hear(seconds=120)
        stop.set()
        await looking
        history = await gather(service, clients, observer, alone=alone)
        found = await asyncio.to_thread(violations, history, repetitions=run.repetitions)
        run.numbers.update(_numbers(history, clients))
        note(f"{name} (seed {seed})", run.numbers)
        listed = "\n".join(str(violation) for violation in found[:40])
        assert not found, f"{name}, seed {seed}: {len(found)} violations, {left} left open\n{listed}"
        await _download_some(clients, history, rng)
    finally:
        for task in (looking, asking):
            task.cancel()
        await asyncio.gather(looking, asking, return_exceptions=True)
        await clients.close()


async def _download_some(clients: Clients, history: History, rng: random.Random) -> None:
    """What a customer downloads is what was stored."""
    stored = {(picture.generation, picture.index): picture.data for picture in history.pictures}
    loaded = [
        asked
        for asked in clients.accepted
        if asked.delivery is Delivery.DOWNLOAD and asked.told is GenerationState.SUCCEEDED
    ]
    for asked in rng.sample(loaded, min(len(loaded), _DOWNLOADS)):
        for index, data in enumerate(await clients.download(asked)):
            assert stored[str(asked.generation), index] == data


def _numbers(history: History, clients: Clients) -> Counter[str]:
    states = Counter(row.state for row in history.rows)
    return Counter(
        {
            "accepted": len(clients.accepted),
            "never answered": len(clients.journal) - len(clients.accepted),
            "answers refused": clients.refusals,
            "succeeded": states[GenerationState.SUCCEEDED],
            "failed": states[GenerationState.FAILED],
            "letters": len({letter.message_id for letter in history.received}),
            "letters repeated": sum(repeated(history).values()),
            "pictures": len(history.pictures),
        }
    )
