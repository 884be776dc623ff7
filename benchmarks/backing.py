"""PostgreSQL and nats-server of a benchmark's own."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import asyncpg
from pydantic import SecretStr

from benchmarks.broker import broker_environment, open_broker
from benchmarks.processes import BenchmarkError, running
from core.repository.database import migrate
from core.settings import BrokerSettings, DatabaseSettings
from infra.local import postgres
from infra.local.ports import Ports

_PASSWORD: Final = "on the loopback interface alone"  # noqa: S105 - of a server that lives for minutes
_READY_SECONDS: Final = 60
_PAUSE: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Backing:
    """How the processes of the service find both."""

    rows: DatabaseSettings
    broker: BrokerSettings

    @property
    def environment(self) -> dict[str, str]:
        """The same as variables."""
        return {
            "DARKROOM_DATABASE_URL": self.rows.database_url.get_secret_value(),
            **broker_environment(self.broker),
        }


@asynccontextmanager
async def open_backing(folder: Path, ports: Ports) -> AsyncIterator[Backing]:
    """Both servers, the database migrated, their data in ``folder``; the broker also answers over HTTP.

    Raises:
        BenchmarkError: one of them is not ready within a minute.
    """
    postgres.prepare(folder / "postgres", password=_PASSWORD)
    server = postgres.command(folder / "postgres", port=ports.of("postgres"))
    url = postgres.url(port=ports.of("postgres"), password=_PASSWORD, name=postgres.DATABASE)
    rows = DatabaseSettings(database_url=SecretStr(url))
    async with (
        running(server.argv, env=os.environ, log=folder / "postgres.log", user=server.user),
        open_broker(folder, ports) as broker,
    ):
        await _migrated(rows)
        yield Backing(rows=rows, broker=broker)


async def _migrated(rows: DatabaseSettings) -> None:
    url, deadline = rows.database_url.get_secret_value(), time.monotonic() + _READY_SECONDS
    while True:
        try:
            await (await asyncpg.connect(url)).close()
        except (OSError, asyncpg.CannotConnectNowError) as error:
            if time.monotonic() > deadline:
                raise BenchmarkError(f"the database is not ready: {error!r}") from error
            await asyncio.sleep(_PAUSE)
        else:
            break
    await migrate(rows)
