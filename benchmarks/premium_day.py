"""What a day has beside its windows: premium customers, an api that serves them, and a gpu_worker."""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import httpx

from benchmarks.backing import Backing
from benchmarks.graphql import execute
from benchmarks.processes import BenchmarkError, Child, running
from benchmarks.service import Customer, open_api
from core.clock import pause
from infra.local.ports import Ports

_CUSTOMERS: Final = 10
_POLL_SECONDS: Final = 0.2
_LONGEST: Final = 60.0
_READY_SECONDS: Final = 120.0
_GENERATE: Final = """
mutation Generate($input: GenerateInput!) {
  generate(input: $input) { __typename ... on Generation { id } ... on UserError { message } }
}
"""
_LOOK: Final = """
query Look($id: ID!) { generation(id: $id) { state images { url } } }
"""


class PremiumDay:
    """Premium customers who ask by turns, look until their picture is there, and download it.

    Args:
        http: at the api's address.
        customers: who they are.
        processes: what serves them, by name.
    """

    def __init__(
        self, *, http: httpx.AsyncClient, customers: list[Customer], processes: Mapping[str, Child]
    ) -> None:
        self.processes = processes
        self._http = http
        self._customers = customers

    async def run(self, *, every: float, stop: asyncio.Event) -> list[float]:
        """Ask for a picture, and so many seconds later for the next, until ``stop`` is set.

        Returns:
            For how many seconds each was waited for.

        Raises:
            BenchmarkError: one did not come.
        """
        waits: list[float] = []
        while not stop.is_set():
            began = time.monotonic()
            await self._serve(self._customers[len(waits) % len(self._customers)], seed=len(waits))
            waits.append(time.monotonic() - began)
            await pause(stop, seconds=every)
        return waits

    async def _serve(self, customer: Customer, *, seed: int) -> None:
        asked = {"prompt": "a red house", "width": 64, "height": 64, "steps": 4, "seed": seed}
        answer = (await execute(self._http, _GENERATE, {"input": asked}, token=customer.token))["generate"]
        if answer["__typename"] != "Generation":
            raise BenchmarkError(f"the api refused a premium picture: {answer['message']}")
        look = {"id": answer["id"]}
        try:
            async with asyncio.timeout(_LONGEST):
                while True:
                    found = (await execute(self._http, _LOOK, look, token=customer.token))["generation"]
                    if found["state"] not in {"QUEUED", "RUNNING"}:
                        break
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError as error:
            raise BenchmarkError(f"a premium picture did not come within {_LONGEST:g} s") from error
        if found["state"] != "SUCCEEDED":
            raise BenchmarkError(f"a premium picture ended {found['state']}")
        for image in found["images"]:
            (await self._http.get(httpx.URL(image["url"]).raw_path.decode())).raise_for_status()


@asynccontextmanager
async def open_premium_day(folder: Path, ports: Ports, backing: Backing) -> AsyncIterator[PremiumDay]:
    """An api and a gpu_worker for premium alone, warm, with customers.

    Raises:
        BenchmarkError: the worker is not warm within two minutes.
    """
    port = ports.of("gpu_worker metrics")
    env = {
        **os.environ,
        **backing.environment,
        "DARKROOM_STORAGE_URL": f"file://{folder}/objects",
        "DARKROOM_MODELS": '["darkroom-demo"]',
        "DARKROOM_WORKER_NAME": "premium-1",
        "DARKROOM_WORKER_TIERS": '["PREMIUM"]',
        "DARKROOM_WEIGHTS_DIR": str(folder / "weights"),
        "DARKROOM_METRICS_PORT": str(port),
        # The cores belong to the batch tier.
        "OMP_NUM_THREADS": "1",
    }
    argv = (sys.executable, "-m", "gpu_worker")
    async with (
        open_api(folder, ports, backing) as service,
        running(argv, env=env, log=folder / "gpu_worker.log") as worker,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{service.port}", timeout=_LONGEST) as http,
    ):
        await worker.until_healthy(port, "/health/ready", seconds=_READY_SECONDS)
        yield PremiumDay(
            http=http,
            customers=await service.new_customers(_CUSTOMERS),
            processes={"api": service.child, "gpu_worker": worker},
        )
