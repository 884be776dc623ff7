"""PostgreSQL and nats-server of a benchmark's own."""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import asyncpg
from pydantic import SecretStr

from benchmarks.processes import BenchmarkError, running
from core.repository.database import migrate
from core.settings import BrokerSettings, DatabaseSettings
from infra.local import nats, postgres
from infra.local.ports import Ports

_PASSWORD: Final = "on the loopback interface alone"  # noqa: S105 - of servers that live for minutes
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
            "DARKROOM_NATS_URL": self.broker.nats_url,
            "DARKROOM_NATS_USER": self.broker.nats_user or "",
            "DARKROOM_NATS_PASSWORD": _PASSWORD,
        }


@asynccontextmanager
async def open_backing(folder: Path, ports: Ports) -> AsyncIterator[Backing]:
    """Both servers, the database migrated, their data in ``folder``; the broker also answers over HTTP.

    Raises:
        BenchmarkError: the database does not take connections within a minute.
    """
    account = nats.NatsAccount(name="benchmark", user="benchmark", password=_PASSWORD)
    config = folder / "nats.json"
    nats.write_config(config, port=ports.of("nats"), store_dir=folder / "jetstream", accounts=[account])
    # What the broker says of its connections.
    config.write_text(
        json.dumps({**json.loads(config.read_text()), "http": f"127.0.0.1:{ports.of('nats http')}"})
    )
    postgres.prepare(folder / "postgres", password=_PASSWORD)
    server = postgres.command(folder / "postgres", port=ports.of("postgres"))
    url = postgres.url(port=ports.of("postgres"), password=_PASSWORD, name=postgres.DATABASE)
    backing = Backing(
        rows=DatabaseSettings(database_url=SecretStr(url)),
        broker=BrokerSettings(
            nats_url=nats.url(ports.of("nats")),
            nats_user=account.user,
            nats_password=SecretStr(account.password),
        ),
    )
    async with (
        running(server.argv, env=os.environ, log=folder / "postgres.log", user=server.user),
        running(nats.command(config).argv, env=os.environ, log=folder / "nats.log"),
    ):
        await _migrated(backing.rows)
        yield backing


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
