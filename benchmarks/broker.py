"""A nats-server of a benchmark's own."""

import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from benchmarks.processes import running
from core.settings import BrokerSettings
from infra.local import nats
from infra.local.ports import Ports

_PASSWORD: Final = "on the loopback interface alone"  # noqa: S105 - of a server that lives for minutes
_READY_SECONDS: Final = 60


@asynccontextmanager
async def open_broker(folder: Path, ports: Ports) -> AsyncIterator[BrokerSettings]:
    """A server with JetStream, ready, its data in ``folder``; it also answers over HTTP.

    Raises:
        BenchmarkError: it has ended, or is not ready within a minute.
    """
    account, config = nats.NatsAccount("benchmark", "benchmark", _PASSWORD), folder / "nats.json"
    nats.write_config(config, port=ports.of("nats"), store_dir=folder / "jetstream", accounts=[account])
    # What it says of itself and of its connections.
    config.write_text(
        json.dumps({**json.loads(config.read_text()), "http": f"127.0.0.1:{ports.of('nats http')}"})
    )
    async with running(nats.command(config).argv, env=os.environ, log=folder / "nats.log") as server:
        await server.until_healthy(ports.of("nats http"), "/healthz", seconds=_READY_SECONDS)
        yield BrokerSettings(
            nats_url=nats.url(ports.of("nats")),
            nats_user=account.user,
            nats_password=SecretStr(account.password),
        )


def broker_environment(broker: BrokerSettings) -> Mapping[str, str]:
    """How processes of the service find that server."""
    return {
        "DARKROOM_NATS_URL": broker.nats_url,
        "DARKROOM_NATS_USER": broker.nats_user or "",
        "DARKROOM_NATS_PASSWORD": _PASSWORD,
    }
