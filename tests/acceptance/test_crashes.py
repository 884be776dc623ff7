"""Processes that die, and the stack that brings them back."""

import asyncio
import os
import signal
import time

import pytest

from tests.stack import SMALL, Customer, Stack

pytestmark = pytest.mark.acceptance


@pytest.mark.timeout(240)
async def test_a_job_outlives_the_worker_that_died_while_denoising(stack: Stack, premium: Customer) -> None:
    ids = [
        await premium.generate(prompt=f"house {number}", steps=50, count=2, **SMALL) for number in range(2)
    ]
    worker = stack.pid("gpu_worker")
    async for event in premium.watch(ids[0]):
        if event["state"] == "RUNNING" and event["step"] > 0:
            os.kill(worker, signal.SIGKILL)
            break
    ends = await asyncio.wait_for(
        asyncio.gather(*(premium.watch_to_end(generation_id) for generation_id in ids)), 200
    )
    for events in ends:
        assert events[-1]["state"] == "SUCCEEDED", events[-1]
        assert len(events[-1]["generation"]["images"]) == 2
    assert stack.pid("gpu_worker") != worker


@pytest.mark.parametrize("name", ["batcher", "api-2", "nats", "mail"])
async def test_a_killed_process_is_started_again_and_the_service_goes_on(
    stack: Stack, premium: Customer, name: str
) -> None:
    before = stack.pid(name)
    os.kill(before, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        await asyncio.sleep(0.2)
        if (stack.home / "run" / f"{name}.pid").exists() and stack.pid(name) != before:
            break
    else:
        pytest.fail(f"{name} was not started again")
    events = await asyncio.wait_for(_generate_and_watch(premium), 60)
    assert events[-1] == "SUCCEEDED"


async def _generate_and_watch(customer: Customer) -> list[str]:
    while True:
        try:
            generation_id = await customer.generate(prompt="still here", delivery="EMAIL", **SMALL)
            return [event["state"] for event in await customer.watch_to_end(generation_id)]
        except Exception:  # noqa: BLE001 - whatever a broker that is just coming back makes of it, a customer tries again
            await asyncio.sleep(0.5)
