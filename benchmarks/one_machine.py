"""The real one-machine stack, with customers who ask it for pictures, and what its database says of them."""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import asyncpg
import httpx

from benchmarks.graphql import execute
from benchmarks.metrics import Metrics
from benchmarks.orders import Orders
from benchmarks.processes import BenchmarkError, running
from infra.local.ports import Ports
from infra.local.processes import NORMAL_EMAIL, PREMIUM_EMAIL

WINDOW_SECONDS: Final = 30
"""Between two windows of this stack."""

_PASSWORD: Final = "for this benchmark only"  # noqa: S105 - of a stack that lives for minutes
_READY_SECONDS: Final = 180
_LAST_SECONDS: Final = 300
_PAUSE: Final = 0.2
_TICKS: Final = "darkroom_tick_seconds"
_SIGNIN: Final = """
mutation ($email: String!, $password: String!) {
  signin(input: { email: $email, password: $password }) { ... on Session { accessToken } }
}
"""
_GENERATE: Final = """
mutation ($input: GenerateInput!) { generate(input: $input) { __typename } }
"""
_ENDED: Final = """
    SELECT tier, created_at, finished_at, state FROM generation WHERE created_at > $1 ORDER BY created_at
"""
_WINDOW: Final = """
    SELECT opened_at, finished_at, jobs FROM batch_window WHERE opened_at > $1 ORDER BY opened_at
"""


@dataclass(frozen=True, slots=True)
class Served:
    """What became of one phase; times are Unix times.

    Attributes:
        premium: when each premium picture was accepted, and when its worker had stored it.
        normal: the same of the normal tier.
        windows: when each window opened and ended, and how many jobs it had.
        busy: seconds for which the worker was at work, as it has it.
    """

    premium: Sequence[tuple[float, float]]
    normal: Sequence[tuple[float, float]]
    windows: Sequence[tuple[float, float, int]]
    busy: float


class OneMachine:
    """A running stack.

    Args:
        client: that reaches its api.
        rows: a connection to its database.
        worker: what its worker counts.
        side: of the pictures that are asked for, in pixels.
        steps: of these, unless something else is said.
    """

    def __init__(
        self, client: httpx.AsyncClient, rows: asyncpg.Connection, worker: Metrics, *, side: int, steps: int
    ) -> None:
        self._side, self._steps = side, steps
        self._client = client
        self._rows = rows
        self._worker = worker
        self._busy = 0.0
        self._orders = Orders(5)
        self._tokens: dict[str, str] = {}
        self._begun: Any = None

    async def sign_in(self) -> None:
        """As both of the ready-made accounts."""
        for email in (PREMIUM_EMAIL, NORMAL_EMAIL):
            answer = await execute(self._client, _SIGNIN, {"email": email, "password": _PASSWORD})
            self._tokens[email] = answer["signin"]["accessToken"]

    async def begin(self) -> None:
        """Begin a phase."""
        self._begun = await self._rows.fetchval("SELECT clock_timestamp()")
        self._busy = (await self._worker.histogram(_TICKS)).total

    async def ask(self, *, premium: bool, steps: int | None = None) -> None:
        """Ask for one picture, and return once it is accepted.

        Raises:
            BenchmarkError: it is not.
        """
        [one] = self._orders.parameters(1)
        asked = {
            "prompt": one.prompt,
            "seed": one.seed,
            "steps": steps or self._steps,
            "width": self._side,
            "height": self._side,
        }
        email = PREMIUM_EMAIL if premium else NORMAL_EMAIL
        answer = await execute(self._client, _GENERATE, {"input": asked}, token=self._tokens[email])
        if answer["generate"]["__typename"] != "Generation":
            raise BenchmarkError(f"a picture was refused: {answer}")

    async def ask_at(self, moments: Sequence[float], *, premium: bool) -> None:
        """Ask for a picture at each of these seconds from now."""
        began = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            for moment in moments:
                await asyncio.sleep(max(0.0, began + moment - time.monotonic()))
                tasks.create_task(self.ask(premium=premium))

    async def window_opened(self) -> None:
        """Wait until a window of this phase has opened."""
        opened = "SELECT count(*) FROM batch_window WHERE opened_at > $1"
        while True:
            if await self._rows.fetchval(opened, self._begun):
                return
            await asyncio.sleep(_PAUSE)

    async def next_beat(self) -> float:
        """Seconds until the next window opens."""
        return float(
            await self._rows.fetchval("SELECT extract(epoch FROM next_at - now()) FROM window_clock")
        )

    async def served(self) -> Served:
        """What became of this phase, once everything in it has ended.

        Raises:
            BenchmarkError: something was not made, or not in time.
        """
        deadline = time.monotonic() + _LAST_SECONDS
        while True:
            rows = await self._rows.fetch(_ENDED, self._begun)
            windows = await self._rows.fetch(_WINDOW, self._begun)
            if all(row["finished_at"] for row in (*rows, *windows)):
                break
            if time.monotonic() > deadline:
                raise BenchmarkError("not everything was made in time")
            await asyncio.sleep(_PAUSE)
        if any(row["state"] != "SUCCEEDED" for row in rows):
            raise BenchmarkError("not everything was made")

        def of(tier: str) -> list[tuple[float, float]]:
            return [
                (row["created_at"].timestamp(), row["finished_at"].timestamp())
                for row in rows
                if row["tier"] == tier
            ]

        return Served(
            of("PREMIUM"),
            of("NORMAL"),
            [(row["opened_at"].timestamp(), row["finished_at"].timestamp(), row["jobs"]) for row in windows],
            (await self._worker.histogram(_TICKS)).total - self._busy,
        )


@asynccontextmanager
async def open_one_machine(folder: Path, *, slots: int, side: int, steps: int) -> AsyncIterator[OneMachine]:
    """``python -m infra.local`` in an empty folder, with limits that nobody meets, until the block ends.

    Args:
        folder: an empty one.
        slots: of its worker.
        side: of the pictures, in pixels.
        steps: of the pictures.
    """
    home, port = folder / "home", Ports(folder / "ports.json").of("api")
    env = {
        **os.environ,
        "DARKROOM_HOME": str(home),
        "DARKROOM_PORT": str(port),
        "DARKROOM_DEMO_PASSWORD": _PASSWORD,
        "DARKROOM_WINDOW": f"*/{WINDOW_SECONDS} * * * * *",
        "DARKROOM_WORKER_SLOTS": str(slots),
        "DARKROOM_LOG_LEVEL": "WARNING",
        "DARKROOM_MAX_OPEN_NORMAL": "10000",
        "DARKROOM_MAX_OPEN_PREMIUM": "10000",
        "DARKROOM_PICTURES_PER_DAY_NORMAL": "100000",
        "DARKROOM_PICTURES_PER_DAY_PREMIUM": "100000",
        "DARKROOM_ACCESS_TOKEN_MINUTES": "120",
        "DARKROOM_BCRYPT_ROUNDS": "4",
    }
    url = f"http://127.0.0.1:{port}"
    argv = (sys.executable, "-m", "infra.local")
    async with (
        running(argv, env=env, log=folder / "stack.log") as child,
        httpx.AsyncClient(base_url=url, timeout=30) as client,
    ):
        await child.until_healthy(port, "/health/ready", seconds=_READY_SECONDS)
        rows = await asyncpg.connect(_database_url(home))
        try:
            stack = OneMachine(client, rows, Metrics(_metrics_url(home)), side=side, steps=steps)
            await stack.sign_in()
            yield stack
        finally:
            await rows.close()


def _metrics_url(home: Path) -> str:
    port = json.loads((home / "ports.json").read_text())["gpu_worker metrics"]
    return f"http://127.0.0.1:{port}/metrics"


def _database_url(home: Path) -> str:
    for line in (home / "operator.env").read_text().splitlines():
        name, _, value = line.partition("=")
        if name == "DARKROOM_DATABASE_URL":
            return value.strip("'\"")
    raise BenchmarkError("the stack does not tell its database's address")
