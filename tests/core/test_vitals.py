import asyncio
import socket
import time

import httpx
import pytest

from core.settings import TelemetrySettings
from core.vitals import Vitals


@pytest.fixture
def settings() -> TelemetrySettings:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return TelemetrySettings(metrics_port=free.getsockname()[1])


async def ask(settings: TelemetrySettings, path: str) -> httpx.Response:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{settings.metrics_port}") as client:
        return await client.get(path)


async def test_a_process_is_ready_once_nothing_is_missing_and_alive_before(
    settings: TelemetrySettings,
) -> None:
    loaded = asyncio.Event()
    Vitals(needs={"models: not loaded yet": loaded.is_set}).serve(settings)
    assert (await ask(settings, "/health/live")).status_code == 200
    unready = await ask(settings, "/health/ready")
    assert (unready.status_code, unready.json()["missing"]) == (503, ["models: not loaded yet"])
    loaded.set()
    ready = await ask(settings, "/health/ready")
    assert (ready.status_code, ready.json()) == (200, {"status": "ok", "missing": []})


async def test_a_process_whose_event_loop_hangs_is_not_alive(settings: TelemetrySettings) -> None:
    Vitals(needs={}, patience=0.1).serve(settings)
    asked = asyncio.create_task(
        asyncio.to_thread(httpx.get, f"http://127.0.0.1:{settings.metrics_port}/health/live")
    )
    await asyncio.sleep(0)
    time.sleep(1.5)  # noqa: ASYNC251 - what must not happen
    hung = await asked
    assert (hung.status_code, hung.json()["missing"]) == (503, ["event loop: no answer within 0.1 s"])


async def test_metrics_are_served_beside(settings: TelemetrySettings) -> None:
    Vitals(needs={}).serve(settings)
    assert "darkroom_event_loop_lag_seconds" in (await ask(settings, "/metrics")).text
