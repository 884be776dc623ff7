"""The short form, for every test run: one of each kind of fault at once, then quiet."""

import asyncio

import pytest

from tests.faults.conftest import NewTrial
from tests.faults.service import Service

pytestmark = [pytest.mark.acceptance, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]


async def test_nothing_is_lost_or_doubled_when_one_of_each_process_dies(
    service: Service, new_trial: NewTrial
) -> None:
    async with new_trial(service) as run:
        stop = asyncio.Event()
        asking = asyncio.create_task(run.clients.ask_until(stop))
        for name, point in (
            ("api", "job.before_publish"),
            ("gpu_worker", "outcome.after_publish"),
            ("batcher", "window.mid_release"),
            ("batcher-2", "outcome.after_record"),
        ):
            node = service.nodes[name]
            node.charges.append(f"{point}=kill")
            await node.restart()
            assert await run.until(lambda node=node, point=point: node.kills()[point] >= 1, seconds=60), point
        stop.set()
        await asking
