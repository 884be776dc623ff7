"""An api process on a database and a broker of its own, with customers in it."""

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final
from urllib.request import urlopen
from uuid import UUID, uuid4

from pydantic import SecretStr

from benchmarks.backing import Backing, open_backing
from benchmarks.processes import Child, running
from core.accounts.tokens import AccessTokens
from core.clock import now
from core.lifecycle import Delivery, GenerationState, ImageFormat, Scheduler, Tier
from core.models import Account, Generation, RefreshToken, SessionFamily
from core.queue import Queue
from core.repository.database import database
from core.settings import TokenSettings
from infra.local.ports import Ports

_SECRETS: Final = TokenSettings(
    jwt_secret=SecretStr("j" * 40), password_pepper=SecretStr("p" * 20), access_token_minutes=60
)
_READY_SECONDS: Final = 60


@dataclass(frozen=True, slots=True)
class Customer:
    """Somebody with an access token."""

    account: Account
    token: str


class Service:
    """What runs, as its customers and its operator see it.

    Args:
        port: the api's.
        metrics_url: where the api's metrics are read.
        broker_url: the broker's own account of its connections.
        queue: a connection to the broker, as a worker's.
        child: the api process.
        env: its settings.
    """

    def __init__(
        self,
        *,
        port: int,
        metrics_url: str,
        broker_url: str,
        queue: Queue,
        child: Child,
        env: Mapping[str, str],
    ) -> None:
        self.port = port
        self.env = env
        self.queue = queue
        self._metrics_url = metrics_url
        self._broker_url = broker_url
        self._child = child

    @property
    def child(self) -> Child:
        """The api process."""
        return self._child

    @property
    def resident_bytes(self) -> int:
        """Memory of the api process that is in use."""
        return self._child.resident_bytes

    @property
    def cpu_seconds(self) -> float:
        """Processor time that the api process has taken."""
        stat = Path(f"/proc/{self._child.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")

    async def metric(self, name: str) -> float:
        """The value of one metric of the api that has no labels, 0 where it has none yet."""
        found = re.search(rf"^{name} (\S+)$", await asyncio.to_thread(_get, self._metrics_url), re.MULTILINE)
        return float(found[1]) if found else 0.0

    async def progress_interests(self) -> int:
        """How many subjects of live status the api process listens to, as the broker has it."""
        answer = json.loads(await asyncio.to_thread(_get, f"{self._broker_url}/connz?subs=1&limit=100"))
        subjects = [
            subject
            for connection in answer["connections"]
            if connection.get("name") == "api"
            for subject in connection.get("subscriptions_list", [])
        ]
        return sum(subject.startswith("progress.") for subject in subjects)

    async def new_customers(self, count: int) -> list[Customer]:
        """Premium customers who are signed in."""
        until = now() + timedelta(days=1)
        accounts = [
            Account(
                email=f"customer-{uuid4().hex}@example.org",
                email_key=f"customer-{uuid4().hex}@example.org",
                password_hash="-",  # noqa: S106 - nobody can sign in with it
                email_verified_at=now(),
                premium_until=until,
            )
            for _ in range(count)
        ]
        await Account.bulk_create(accounts)
        families = [SessionFamily(account_id=account.id) for account in accounts]
        await SessionFamily.bulk_create(families)
        # A session that cannot be refreshed counts as over, and a batcher sweeps it away.
        await RefreshToken.bulk_create(
            RefreshToken(hash=family.id.hex, family_id=family.id, expires_at=until) for family in families
        )
        tokens = AccessTokens(_SECRETS)
        return [
            Customer(account, tokens.issue(account_id=account.id, session_id=family.id, now=now())[0])
            for account, family in zip(accounts, families, strict=True)
        ]

    async def new_generations(
        self, customers: Sequence[Customer], count: int, *, state: GenerationState, steps: int
    ) -> list[tuple[UUID, Customer]]:
        """Generations of theirs in turns, which no worker will touch."""
        owners = [customers[number % len(customers)] for number in range(count)]
        rows = [
            Generation(
                id=uuid4(),
                account_id=owner.account.id,
                tier=Tier.PREMIUM,
                delivery=Delivery.DOWNLOAD,
                state=state,
                prompt="a lighthouse in the fog",
                model="darkroom-demo",
                width=128,
                height=128,
                steps=steps,
                guidance_scale=4.0,
                seed=number,
                count=1,
                scheduler=Scheduler.DDIM,
                format=ImageFormat.PNG,
                request_fingerprint="-",
                published_at=now(),
                started_at=now() if state is GenerationState.RUNNING else None,
            )
            for number, owner in enumerate(owners)
        ]
        await Generation.bulk_create(rows, batch_size=1000)
        return [(row.id, owner) for row, owner in zip(rows, owners, strict=True)]


@asynccontextmanager
async def open_service(folder: Path) -> AsyncIterator[Service]:
    """PostgreSQL, nats-server and ``python -m api``, their data in ``folder``, an empty one."""
    ports = Ports(folder / "ports.json")
    async with (
        open_backing(folder, ports) as backing,
        database(backing.rows),
        open_api(folder, ports, backing) as service,
    ):
        yield service


@asynccontextmanager
async def open_api(folder: Path, ports: Ports, backing: Backing) -> AsyncIterator[Service]:
    """``python -m api`` on these servers, ready."""
    argv = (sys.executable, "-m", "api")
    env = _environment(folder, ports, backing)
    async with running(argv, env=env, log=folder / "api.log") as child:
        queue = await Queue.connect_when_there(backing.broker, name="benchmark")
        try:
            await child.until_healthy(ports.of("api"), "/health/serving", seconds=_READY_SECONDS)
            yield Service(
                port=ports.of("api"),
                metrics_url=f"http://127.0.0.1:{ports.of('metrics')}/metrics",
                broker_url=f"http://127.0.0.1:{ports.of('nats http')}",
                queue=queue,
                child=child,
                env=env,
            )
        finally:
            await queue.close()


def _environment(folder: Path, ports: Ports, backing: Backing) -> dict[str, str]:
    """What the api needs; what the shell says goes on top, so that settings can be tried."""
    needed = {
        **backing.environment,
        "DARKROOM_STORAGE_URL": f"file://{folder}/objects",
        "DARKROOM_DOWNLOAD_SECRET": "d" * 20,
        "DARKROOM_JWT_SECRET": _SECRETS.jwt_secret.get_secret_value(),
        "DARKROOM_PASSWORD_PEPPER": _SECRETS.password_pepper.get_secret_value(),
        "DARKROOM_MODELS": '["darkroom-demo"]',
        "DARKROOM_LOG_LEVEL": "WARNING",
        "DARKROOM_PORT": str(ports.of("api")),
        "DARKROOM_METRICS_PORT": str(ports.of("metrics")),
    }
    return {**needed, **os.environ}


def _get(url: str) -> str:
    """In a thread of its own, so that whoever takes times meanwhile is not kept waiting."""
    with urlopen(url, timeout=_READY_SECONDS) as answer:  # noqa: S310 - our own addresses
        content: bytes = answer.read()
    return content.decode()
