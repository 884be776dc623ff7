"""Servers that die, streams that are deleted, a disk that is full, a clock that jumps."""

import asyncio
import signal
import sys
from pathlib import Path

import pytest
from nats.js.errors import NotFoundError

from infra.local.command import Command
from tests.faults.conftest import NewTrial
from tests.faults.nodes import program
from tests.faults.service import Service

pytestmark = [pytest.mark.faults, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(600)]

FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")
STREAMS = ["PREMIUM", "NORMAL", "BATCH", "RESULTS", "CLOCK", "ADVISORIES", "PROGRESS", "KV_WORKERS"]


@pytest.mark.parametrize(
    ("server", "number", "times"),
    [
        ("postgres", signal.SIGINT, 3),
        ("postgres", signal.SIGKILL, 3),
        ("nats", signal.SIGTERM, 2),
        ("nats", signal.SIGKILL, 5),
        ("mail", signal.SIGKILL, 5),
    ],
)
async def test_a_server_is_restarted_under_load(
    service: Service, new_trial: NewTrial, server: str, number: signal.Signals, times: int
) -> None:
    async with new_trial(service) as run:
        for _ in range(times):
            await service.nodes[server].restart(number)
            run.numbers["servers restarted"] += 1
            await asyncio.sleep(2)
        if server == "mail":
            # It may have kept a letter and died before it said so.
            run.repetitions = times * 2


async def test_every_stream_is_deleted_under_load(service: Service, new_trial: NewTrial) -> None:
    broker = await service.broker_client()
    js = broker.jetstream()
    async with new_trial(service) as run:
        for stream in STREAMS:
            try:
                await js.delete_stream(stream)
            except NotFoundError:
                continue
            run.numbers["streams deleted"] += 1
            await asyncio.sleep(4)
    await broker.close()


@pytest.mark.skipif(not FAKETIME.exists(), reason="libfaketime is not installed")
@pytest.mark.parametrize("process", ["batcher-2", "api-2", "gpu_worker-2"])
async def test_the_clock_of_one_process_jumps(
    service: Service, new_trial: NewTrial, tmp_path: Path, process: str
) -> None:
    node = service.nodes[process]
    clock = tmp_path / "clock"
    clock.write_text("+0")
    before = node.env, node.spawn
    node.env = node.env | {
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    node.spawn = program(Command((sys.executable, "-m", process.removesuffix("-2"))))
    try:
        async with new_trial(service) as run:
            await node.restart()
            for offset in ("+90", "-90", "+3", "+0"):
                clock.write_text(offset)
                await asyncio.sleep(6)
                run.numbers["jumps of a clock"] += 1
            # A clock ahead takes letters that others hold for abandoned.
            run.repetitions = 100
    finally:
        node.env, node.spawn = before
        await node.restart()
