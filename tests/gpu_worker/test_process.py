"""``python -m gpu_worker`` as a supervisor sees it: it waits for the broker, drains and hurries."""

import asyncio
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import pytest

from core.clock import now
from core.lifecycle import Delivery, Scheduler, Tier
from core.messages import Job, Parameters, Progress
from core.queue import Lane, Queue
from core.queue.topology import PREMIUM_JOBS
from core.settings import StorageSettings
from tests.conftest import free_port
from tests.graphql_client import NO_AUTHORITIES
from tests.link import link_to

ROOT = Path(__file__).parents[2]


@asynccontextmanager
async def started(environment: dict[str, str], log: Path) -> AsyncIterator[Process]:
    """A worker, killed if it still runs when the block ends."""
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gpu_worker", cwd=ROOT, env=environment, stdout=output, stderr=output
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.fixture
def environment(
    broker_environment: dict[str, str], storage_settings: StorageSettings, tmp_path: Path
) -> dict[str, str]:
    return {
        **broker_environment,
        "DARKROOM_STORAGE_URL": storage_settings.storage_url,
        "DARKROOM_WEIGHTS_DIR": str(tmp_path / "weights"),
        "DARKROOM_MODELS": '["darkroom-demo"]',
        "DARKROOM_WORKER_DRAIN_SECONDS": "600",
        "DARKROOM_METRICS_PORT": str(free_port()),
    }


async def missing(environment: dict[str, str]) -> list[str] | None:
    """What a worker says that it lacks, none while it does not answer."""
    url = f"http://127.0.0.1:{environment['DARKROOM_METRICS_PORT']}/health/ready"
    try:
        answer = await asyncio.to_thread(httpx.get, url, timeout=30, verify=NO_AUTHORITIES)
    except httpx.TransportError:
        return None
    told = answer.json()["missing"]
    assert answer.status_code == (503 if told else 200)
    return list(told)


@pytest.mark.timeout(180)
async def test_told_to_stop_while_it_waits_for_weights_and_broker_it_ends_at_once_and_in_order(
    environment: dict[str, str], tmp_path: Path
) -> None:
    environment["DARKROOM_NATS_URL"] = "nats://127.0.0.1:1"
    log = tmp_path / "worker.log"
    async with started(environment, log) as process:
        async with asyncio.timeout(90):
            while await missing(environment) != ["models: not loaded yet", "broker: not connected"]:
                assert process.returncode is None, log.read_text()
                await asyncio.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 10) == 0, log.read_text()
    assert "gpu_worker_stopped" in log.read_text()


@pytest.mark.timeout(180)
async def test_it_waits_for_the_broker_and_told_twice_to_stop_hands_its_job_back_at_once(
    queue: Queue, environment: dict[str, str], tmp_path: Path
) -> None:
    port = urlsplit(environment["DARKROOM_NATS_URL"]).port
    assert port
    log = tmp_path / "worker.log"
    async with link_to(port) as link:
        await link.cut()
        environment["DARKROOM_NATS_URL"] = f"nats://127.0.0.1:{link.port}"
        async with started(environment, log) as process:
            # Warm, and of no use to anybody yet.
            async with asyncio.timeout(90):
                while await missing(environment) != ["broker: not connected"]:
                    assert process.returncode is None, log.read_text()
                    await asyncio.sleep(0.1)
            await link.open()
            sent = a_long_job()
            steps: asyncio.Queue[Progress] = asyncio.Queue()
            await queue.subscribe_progress(sent.id, steps.put_nowait)
            await queue.publish_job(Lane.PREMIUM, sent)
            await asyncio.wait_for(steps.get(), 60)
            assert await missing(environment) == []
            process.send_signal(signal.SIGTERM)
            told = steps.qsize()
            async with asyncio.timeout(30):
                # The first of these may have been on its way.
                for _ in range(told + 3):
                    await steps.get()
            assert process.returncode is None, log.read_text()
            process.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(process.wait(), 60) == 0, log.read_text()
    [again] = await queue.consumer(PREMIUM_JOBS).fetch(1, wait=5)
    assert (Job.decode(again.data).id, again.attempt) == (sent.id, 2)
    assert await queue.workers() == []


def a_long_job() -> Job:
    parameters = Parameters(
        prompt="a red house",
        model="darkroom-demo",
        width=64,
        height=64,
        steps=900,
        guidance_scale=4.0,
        seed=1,
        scheduler=Scheduler.DDIM,
    )
    return Job(
        id=uuid4(), tier=Tier.PREMIUM, delivery=Delivery.EMAIL, parameters=parameters, accepted_at=now()
    )
