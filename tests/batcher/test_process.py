"""``python -m batcher`` as a supervisor sees it: how it starts, waits, drains and fails."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path

import asyncpg
import pytest

from core.models import Account, Letter, LetterKind, LetterState
from core.outbox import write_letter
from core.queue import Queue
from core.repository import windows
from core.repository.database import migrate
from core.settings import DatabaseSettings, MailSettings, StorageSettings
from tests.link import link_to

ROOT = Path(__file__).parents[2]


@dataclass
class Running:
    """A batcher under way, and what it has logged."""

    process: asyncio.subprocess.Process
    log: Path

    async def says(self, word: str, *, seconds: float = 15) -> None:
        async with asyncio.timeout(seconds):
            while word not in self.log.read_text():
                assert self.process.returncode is None, self.log.read_text()
                await asyncio.sleep(0.05)

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return await asyncio.wait_for(self.process.wait(), 8)


@pytest.fixture
def environment(
    database_settings: DatabaseSettings,
    broker_environment: dict[str, str],
    storage_settings: StorageSettings,
    mail_settings: MailSettings,
) -> dict[str, str]:
    """What a batcher is told, by its variables."""
    return {
        "DARKROOM_DATABASE_URL": database_settings.database_url.get_secret_value(),
        **broker_environment,
        "DARKROOM_STORAGE_URL": storage_settings.storage_url,
        "DARKROOM_SMTP_HOST": mail_settings.smtp_host,
        "DARKROOM_SMTP_PORT": str(mail_settings.smtp_port),
        "DARKROOM_DOWNLOAD_SECRET": "d" * 20,
        "DARKROOM_WINDOW": "@hourly",
    }


@asynccontextmanager
async def batcher(environment: dict[str, str], folder: Path) -> AsyncIterator[Running]:
    log = folder / "batcher.log"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "batcher", cwd=ROOT, env=environment, stdout=output, stderr=output
        )
    try:
        yield Running(process=process, log=log)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_it_starts_the_clock_sends_letters_and_ends_in_order(
    environment: dict[str, str],
    tmp_path: Path,
    new_account: Callable[..., Awaitable[Account]],
    delivered: Callable[[], list[EmailMessage]],
) -> None:
    async with batcher(environment, tmp_path) as running:
        await running.says("clock_started")
        clock = await windows.clock()
        assert clock is not None
        assert (clock.expression, clock.next_at.minute) == ("@hourly", 0)
        await write_letter((await new_account()).id, LetterKind.ADDRESS_TAKEN)
        await running.says("letter_noted")
        assert await running.stop() == 0

    assert "batcher_stopped" in running.log.read_text()
    assert (await Letter.get()).state is LetterState.SENT
    assert len(delivered()) == 1


async def test_it_waits_for_a_schema_and_then_works(
    environment: dict[str, str], database_settings: DatabaseSettings, tmp_path: Path
) -> None:
    admin = await asyncpg.connect(database_settings.database_url.get_secret_value())
    await admin.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    await admin.close()

    async with batcher(environment, tmp_path) as running:
        await running.says("waiting_for_database")
        await migrate(database_settings)
        await running.says("clock_started")
        assert await running.stop(signal.SIGINT) == 0


@pytest.mark.parametrize("missing", ["database", "broker"])
async def test_it_can_be_stopped_while_it_waits(
    environment: dict[str, str], tmp_path: Path, missing: str
) -> None:
    nobody = {
        "database": {"DARKROOM_DATABASE_URL": "postgres://darkroom:x@127.0.0.1:1/darkroom"},
        "broker": {"DARKROOM_NATS_URL": "nats://127.0.0.1:1"},
    }[missing]

    async with batcher(environment | nobody, tmp_path) as running:
        await running.says("waiting_for_database" if missing == "database" else "broker_error")
        assert await running.stop() == 0


async def test_a_broker_with_other_streams_ends_it_with_the_reason(
    environment: dict[str, str], tmp_path: Path, queue: Queue
) -> None:
    stream = (await queue._js.stream_info("RESULTS")).config
    stream.subjects = ["results.*", "more.*"]
    await queue._js.update_stream(stream)
    async with batcher(environment, tmp_path) as running:
        assert await asyncio.wait_for(running.process.wait(), 30) == 1
        assert "batcher: stream RESULTS: subjects is" in running.log.read_text()
        assert "Traceback" not in running.log.read_text()


@pytest.mark.parametrize("how", ["another signal", "its grace is over"])
async def test_what_takes_too_long_does_not_keep_it(
    environment: dict[str, str],
    tmp_path: Path,
    new_account: Callable[..., Awaitable[Account]],
    how: str,
) -> None:
    environment |= {
        "DARKROOM_SMTP_TIMEOUT_SECONDS": "600",
        "DARKROOM_BATCHER_DRAIN_SECONDS": "600" if how == "another signal" else "1",
    }
    await write_letter((await new_account()).id, LetterKind.ADDRESS_TAKEN)
    async with link_to(int(environment["DARKROOM_SMTP_PORT"])) as to_mail:
        # A mail server that takes connections and never says a word.
        to_mail.fall_silent()
        environment["DARKROOM_SMTP_PORT"] = str(to_mail.port)
        await be_hurried(environment, tmp_path, how)


async def be_hurried(environment: dict[str, str], tmp_path: Path, how: str) -> None:
    async with batcher(environment, tmp_path) as running:
        await running.says("batcher_started")
        async with asyncio.timeout(10):
            while not await Letter.filter(attempts=1).exists():  # noqa: ASYNC110 - no event for it
                await asyncio.sleep(0.05)
        running.process.send_signal(signal.SIGTERM)
        if how == "another signal":
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(running.process.wait(), 1.5)
            running.process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(running.process.wait(), 8) == 0
    assert "batcher_hurries" in running.log.read_text()


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"DARKROOM_WINDOW": "every now and then"}, "window 'every now and then'"),
        ({"DARKROOM_SMTP_PORT": "mail"}, "DARKROOM_SMTP_PORT"),
    ],
)
async def test_a_wrong_setting_ends_it_with_the_reason(
    environment: dict[str, str], tmp_path: Path, wrong: dict[str, str], told: str
) -> None:
    async with batcher(environment | wrong, tmp_path) as running:
        status = await asyncio.wait_for(running.process.wait(), 15)

    assert status == 1
    assert told in running.log.read_text()
    assert "Traceback" not in running.log.read_text()


async def test_an_unforeseen_error_ends_it_with_status_one_and_where_it_happened(
    environment: dict[str, str], tmp_path: Path
) -> None:
    async with batcher(environment | {"DARKROOM_STORAGE_URL": "nowhere://at/all"}, tmp_path) as running:
        status = await asyncio.wait_for(running.process.wait(), 15)

    assert status == 1
    assert "batcher_crashed" in running.log.read_text()
    assert "Traceback" in running.log.read_text()
