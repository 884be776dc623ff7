"""Latency, resets, refused connections and black holes between every process and every server."""

import asyncio
from collections.abc import Callable

import pytest

from tests.faults.conftest import NewTrial
from tests.faults.links import Link, Way
from tests.faults.service import Service

pytestmark = [pytest.mark.faults, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(600)]

SECONDS = 7
FAULTS: dict[str, Callable[[Link], object]] = {
    "slow": lambda link: link.slow_down(0.1),
    "down": Link.take_down,
    "black hole": Link.swallow,
    "nothing arrives": lambda link: link.swallow(Way.TO_SERVER),
    "nothing comes back": lambda link: link.swallow(Way.TO_CLIENT),
}


@pytest.mark.parametrize("server", ["postgres", "nats", "mail"])
async def test_faults_of_the_network_lose_nothing(service: Service, new_trial: NewTrial, server: str) -> None:
    links = service.links_to(server)
    assert len(links) == {"postgres": 4, "nats": 6, "mail": 2}[server]
    async with new_trial(service) as run:
        for fault in FAULTS.values():
            # All at once, as when the server's machine is cut off, then some of them.
            for chosen in (links, run.rng.sample(links, len(links) // 2)):
                for link in chosen:
                    fault(link)
                await asyncio.sleep(SECONDS)
                for link in links:
                    link.heal()
                await asyncio.sleep(1)
                run.numbers["faults of links"] += len(chosen)
        for _ in range(10):
            run.numbers["connections reset"] += sum(link.reset() for link in links)
            await asyncio.sleep(0.5)
        if server == "mail":
            # A 250 that is lost on its way is the same to the sender as none.
            run.repetitions = 1000
