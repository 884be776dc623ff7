"""A worker comes and goes while customers ask for pictures."""

import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest
from dotenv import dotenv_values
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.processes import running
from tests.conftest import free_port
from tests.graphql_client import NO_AUTHORITIES
from tests.stack import Customer, Stack

pytestmark = pytest.mark.acceptance


async def workers(stack: Stack) -> int:
    """How many give a sign of life."""
    async with httpx.AsyncClient(verify=NO_AUTHORITIES) as http:
        return int((await http.get(f"{stack.urls[0]}/health/ready")).json()["workers"])


async def pictures(port: int) -> tuple[float, float]:
    """How many a worker has made, and how many it has under way."""
    async with httpx.AsyncClient(verify=NO_AUTHORITIES) as http:
        page = (await http.get(f"http://127.0.0.1:{port}/metrics")).text
    samples = [sample for family in text_string_to_metric_families(page) for sample in family.samples]
    made, under_way = (
        sum(sample.value for sample in samples if sample.name == name)
        for name in ("darkroom_images_total", "darkroom_slots")
    )
    return made, under_way


async def until(check: Callable[[], Awaitable[bool]], *, seconds: float) -> None:
    async with asyncio.timeout(seconds):
        while not await check():  # noqa: ASYNC110 - another process has no event
            await asyncio.sleep(0.1)


def environment(stack: Stack, metrics_port: int) -> dict[str, str]:
    """What an operator tells one more worker of this stack."""
    told = dotenv_values(stack.home / "operator.env")
    names = ("DARKROOM_NATS_URL", "DARKROOM_NATS_CA_FILE", "DARKROOM_NATS_REPLICAS", "DARKROOM_STORAGE_URL")
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("DARKROOM_")},
        **{name: str(told[name]) for name in names},
        "DARKROOM_NATS_USER": "gpu_worker",
        "DARKROOM_NATS_PASSWORD": (stack.home / "broker" / "passwords" / "gpu_worker").read_text(),
        "DARKROOM_WORKER_NAME": "gpu_worker-more",
        "DARKROOM_METRICS_PORT": str(metrics_port),
        "DARKROOM_WORKER_DRAIN_SECONDS": "1",
        "DARKROOM_WEIGHTS_DIR": str(stack.home / "weights"),
        "DARKROOM_MODELS": '["darkroom-demo"]',
    }


@pytest.mark.timeout(240)
async def test_a_worker_joins_and_leaves_under_load_and_no_job_fails(
    stack: Stack, premium: Customer, tmp_path: Path
) -> None:
    before, port = await workers(stack), free_port()
    enough = asyncio.Event()
    ends: list[str] = []

    async def ask() -> None:
        number = 0
        while not enough.is_set():
            number += 1
            fields = {"width": 64, "height": 64, "steps": 10, "count": 2}
            generation_id = await premium.generate(prompt=f"a house, number {number}", **fields)
            ends.append((await premium.watch_to_end(generation_id))[-1]["state"])

    asking = [asyncio.create_task(ask()) for _ in range(6)]
    argv = (sys.executable, "-m", "gpu_worker")
    async with running(argv, env=environment(stack, port), log=tmp_path / "worker.log") as more:

        async def joined() -> bool:
            more.check()
            return await workers(stack) == before + 1

        async def in_the_middle() -> bool:
            made, under_way = await pictures(port)
            return made > 0 and under_way > 0

        async def gone() -> bool:
            return await workers(stack) == before

        await until(joined, seconds=120)
        await until(in_the_middle, seconds=60)
        more.process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(more.process.wait(), 30) == 0, more.tail()
        await until(gone, seconds=15)
    enough.set()
    await asyncio.wait_for(asyncio.gather(*asking), 60)
    assert Counter(ends) == {"SUCCEEDED": len(ends)}
    assert len(ends) > len(asking)
