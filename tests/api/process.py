"""An api process of a test's own."""

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from core.queue import Queue
from core.settings import DatabaseSettings, LinkSettings, StorageSettings, TokenSettings
from tests.conftest import free_port
from tests.graphql_client import NO_AUTHORITIES

ROOT = Path(__file__).parents[2]
SLOW_ROUNDS = 13
"""A sign-in takes half a second, or more."""


@pytest.fixture
def environment(
    queue: Queue,
    database_settings: DatabaseSettings,
    broker_environment: dict[str, str],
    storage_settings: StorageSettings,
    link_settings: LinkSettings,
    token_settings: TokenSettings,
) -> dict[str, str]:
    """The least that the api needs; the streams are there, as a batcher or an operator declares them."""
    return {
        "DARKROOM_DATABASE_URL": database_settings.database_url.get_secret_value(),
        **broker_environment,
        "DARKROOM_STORAGE_URL": storage_settings.storage_url,
        "DARKROOM_DOWNLOAD_SECRET": link_settings.download_secret.get_secret_value(),
        "DARKROOM_JWT_SECRET": token_settings.jwt_secret.get_secret_value(),
        "DARKROOM_PASSWORD_PEPPER": token_settings.password_pepper.get_secret_value(),
        "DARKROOM_BCRYPT_ROUNDS": str(SLOW_ROUNDS),
        "DARKROOM_MODELS": '["darkroom-demo"]',
    }


async def start(environment: Mapping[str, str], **more: str) -> Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "api", cwd=ROOT, env={**environment, **more}, stderr=PIPE
    )


@asynccontextmanager
async def serving(
    environment: Mapping[str, str], *, wait_for: str | None = "/health/serving", **more: str
) -> AsyncIterator[tuple[Process, int]]:
    """A process that serves, and its port."""
    port = free_port()
    process = await start(environment, DARKROOM_PORT=str(port), **more)
    try:
        async with httpx.AsyncClient(verify=NO_AUTHORITIES) as http, asyncio.timeout(30):
            while wait_for is not None and not await answers(http, port, wait_for):
                assert process.returncode is None, await process.communicate()
                await asyncio.sleep(0.1)
        yield process, port
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def answers(http: httpx.AsyncClient, port: int, path: str = "/health/serving") -> bool:
    try:
        return (await http.get(f"http://127.0.0.1:{port}{path}")).is_success
    except httpx.TransportError:
        return False
