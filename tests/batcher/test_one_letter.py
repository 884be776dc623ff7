"""Two batchers that record a customer's last two pictures at the same moment write one letter."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from core.clock import now
from core.models import Account, Generation, Letter, Window, WindowState
from core.repository import windows
from core.repository.database import in_transaction
from core.settings import BrokerSettings, DatabaseSettings

NewAccount = Callable[..., Awaitable[Account]]
NewGeneration = Callable[..., Awaitable[Generation]]

ROOT = Path(__file__).parents[2]
ROUNDS = 60


@asynccontextmanager
async def recorder(rows: DatabaseSettings, broker: BrokerSettings) -> AsyncIterator[Process]:
    """A process of its own: what only one event loop keeps apart would not be seen otherwise."""
    assert broker.nats_user
    assert broker.nats_password
    env = {
        **os.environ,
        "DARKROOM_DATABASE_URL": rows.database_url.get_secret_value(),
        "DARKROOM_NATS_URL": broker.nats_url,
        "DARKROOM_NATS_USER": broker.nats_user,
        "DARKROOM_NATS_PASSWORD": broker.nats_password.get_secret_value(),
    }
    argv = [sys.executable, "-m", "tests.recording_process"]
    process = await asyncio.create_subprocess_exec(*argv, cwd=ROOT, env=env, stdin=PIPE, stdout=PIPE)
    try:
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


async def answer(process: Process) -> tuple[float, float]:
    """When the process began to record what it was told last, and when it had done so."""
    assert process.stdout is not None
    async with asyncio.timeout(20):
        while line := (await process.stdout.readline()).decode():
            # Its log lines go the same way.
            if line[:1].isdigit() and len(words := line.split()) == 2:
                return float(words[0]), float(words[1])
    raise AssertionError("a recorder has ended")


@pytest.mark.usefixtures("queue")
async def test_two_processes_at_the_same_moment_write_one_letter_each_time(
    database: DatabaseSettings,
    broker_settings: BrokerSettings,
    new_account: NewAccount,
    new_generation: NewGeneration,
) -> None:
    together = 0
    async with AsyncExitStack() as stack:
        pair = [await stack.enter_async_context(recorder(database, broker_settings)) for _ in range(2)]
        for number in range(ROUNDS):
            account = await new_account()
            rows = [await new_generation(account) for _ in pair]
            async with in_transaction():
                window = await windows.open_window(tick_at=now(), deadline=now() + timedelta(minutes=30))
                await windows.assign(window, [row.id for row in rows])
            await windows.mark_running(window.id, at=now())
            for process, row in zip(pair, rows, strict=True):
                assert process.stdin is not None
                process.stdin.write(f"{row.id}\n".encode())
            spans = [await answer(process) for process in pair]

            together += max(began for began, _ in spans) < min(ended for _, ended in spans)
            assert await Letter.filter(account_id=account.id).count() == 1, number
            assert (await Window.get(id=window.id)).state is WindowState.FINISHED

    # Or it would have shown nothing.
    assert together >= ROUNDS / 2
