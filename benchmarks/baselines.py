"""What ours is compared with: servers that batch whole requests in the order of their arrival."""

import asyncio
import io
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import httpx

from benchmarks.customers import LONGEST_ANSWER, Ask
from benchmarks.processes import running
from benchmarks.stock import StockPipeline
from core.messages import Parameters
from infra.local.ports import Ports

BATCH_TIMEOUT: Final = 0.02
"""Seconds that a static server waits for a batch to fill; enough for answered customers to ask again."""

_START_SECONDS: Final = 120


@asynccontextmanager
async def litserve(folder: Path, *, batch: int) -> AsyncIterator[Ask]:
    """LitServe with the stock pipeline, up to ``batch`` requests a call, warm."""
    port = Ports(folder / "ports.json").of("litserve")
    argv = (sys.executable, "-m", "benchmarks.litserve_app")
    options = ("--port", str(port), "--batch", str(batch), "--timeout", str(BATCH_TIMEOUT))
    log = folder / "litserve.log"
    async with (
        running((*argv, *options), env=os.environ, log=log, stop_signal=signal.SIGINT) as child,
        httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", timeout=LONGEST_ANSWER, limits=httpx.Limits()
        ) as client,
    ):
        await child.until_healthy(port, "/health", seconds=_START_SECONDS)

        async def ask(asked: Parameters) -> None:
            (await client.post("/predict", json=asked.model_dump(mode="json"))).raise_for_status()

        yield ask


@asynccontextmanager
async def plain_loop(stock: StockPipeline, *, batch: int) -> AsyncIterator[Ask]:
    """The stock pipeline in a loop in this process: as many as wait, up to ``batch``, in one call."""
    waiting: asyncio.Queue[tuple[Parameters, asyncio.Future[None]]] = asyncio.Queue()

    async def serve() -> None:
        while True:
            taken = [await waiting.get()]
            while not waiting.empty() and len(taken) < batch:
                taken.append(waiting.get_nowait())
            await asyncio.to_thread(_files, stock, [asked for asked, _ in taken])
            for _, answered in taken:
                answered.set_result(None)
            # Whoever was answered may ask again before the next batch is made up.
            await asyncio.sleep(BATCH_TIMEOUT)

    async def ask(asked: Parameters) -> None:
        answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting.put_nowait((asked, answered))
        await answered

    serving = asyncio.create_task(serve())
    try:
        yield ask
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


def _files(stock: StockPipeline, asked: Sequence[Parameters]) -> None:
    for picture in stock.make(asked):
        picture.save(io.BytesIO(), "PNG")
