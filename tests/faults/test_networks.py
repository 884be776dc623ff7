"""Latency, resets, refused connections and black holes between every process and every server."""

import pytest

from tests.faults.conftest import NewTrial
from tests.faults.networks import every_fault
from tests.faults.service import Service

pytestmark = [pytest.mark.faults, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(600)]


@pytest.mark.parametrize("server", ["postgres", "nats", "mail"])
async def test_faults_of_the_network_lose_nothing(service: Service, new_trial: NewTrial, server: str) -> None:
    links = service.links_to(server)
    assert len(links) == {"postgres": 4, "nats": 6, "mail": 2}[server]
    async with new_trial(service) as run:
        await every_fault(run, links)
        if server == "mail":
            # A 250 that is lost on its way is the same to the sender as none.
            run.repetitions = 1000
