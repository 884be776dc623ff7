"""An object store over a network: faults on the way, a server that dies, and one that is full."""

import asyncio
import resource
import signal

import pytest

from tests.faults.conftest import NewTrial
from tests.faults.networks import every_fault
from tests.faults.nodes import Node
from tests.faults.service import Service

pytestmark = [pytest.mark.faults, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(600)]


async def test_faults_on_the_way_to_the_object_store_lose_nothing(
    stored_service: Service, new_trial: NewTrial
) -> None:
    links = stored_service.links_to("store")
    assert len(links) == 6
    async with new_trial(stored_service) as run:
        await every_fault(run, links)


async def test_an_object_store_that_is_restarted_under_load_loses_nothing(
    stored_service: Service, new_trial: NewTrial
) -> None:
    async with new_trial(stored_service) as run:
        for _ in range(5):
            await stored_service.nodes["store"].restart(signal.SIGKILL)
            run.numbers["servers restarted"] += 1
            await asyncio.sleep(2)


async def test_the_object_store_is_full_for_a_while(stored_service: Service, new_trial: NewTrial) -> None:
    """It may write no file of more than a few bytes: no picture can be stored."""
    workers = stored_service.replicas("gpu_worker")
    store = stored_service.nodes["store"]

    def limit(size: int) -> None:
        assert store.pid is not None
        resource.prlimit(store.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    async with new_trial(stored_service) as run:
        before = _later_attempts(workers)
        await asyncio.sleep(2)
        limit(64)
        await asyncio.sleep(4)
        limit(resource.RLIM_INFINITY)
        assert await run.until(lambda: _later_attempts(workers) > before, seconds=30)
        await asyncio.sleep(3)
        run.numbers["stored at a later attempt"] = _later_attempts(workers) - before


def _later_attempts(workers: list[Node]) -> int:
    return sum(int(line["attempt"]) > 1 for node in workers for line in node.lines("job_done"))
