"""``python -m api`` while what it stands on is not there, silent, or back again."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import httpx
import pytest

from core.accounts.passwords import PasswordHasher
from core.models import Generation
from core.settings import BrokerSettings, DatabaseSettings, TokenSettings
from tests.api.process import environment, serving
from tests.graphql_client import PASSWORD, SIGNIN, Client
from tests.link import Link, link_to

__all__ = ["environment"]

ME = "{ me { email } }"
GENERATE = 'mutation { generate(input: {prompt: "a boat"}) { __typename ... on Generation { state } } }'


@pytest.fixture
async def links(
    environment: dict[str, str], database_settings: DatabaseSettings, broker_settings: BrokerSettings
) -> AsyncIterator[tuple[Link, Link]]:
    """Ways to the database and the broker, which the environment's process takes."""
    database = urlsplit(database_settings.database_url.get_secret_value())
    broker = urlsplit(broker_settings.nats_url)
    assert database.port
    assert broker.port
    async with link_to(database.port) as to_database, link_to(broker.port) as to_broker:
        linked = database.netloc.replace(f":{database.port}", f":{to_database.port}")
        environment["DARKROOM_DATABASE_URL"] = database._replace(netloc=linked).geturl()
        environment["DARKROOM_NATS_URL"] = f"nats://127.0.0.1:{to_broker.port}"
        yield to_database, to_broker


async def until_ready(http: httpx.AsyncClient, missing: list[str]) -> None:
    """Wait until nothing else is missing for being ready."""
    async with asyncio.timeout(20):
        while (health := (await http.get("/health/ready")).json())["missing"] != missing:
            assert health["status"] == "unavailable"
            await asyncio.sleep(0.2)


@pytest.mark.timeout(120)
async def test_it_serves_all_the_while_says_what_is_missing_and_works_again_by_itself(
    environment: dict[str, str],
    links: tuple[Link, Link],
    token_settings: TokenSettings,
    new_account: Callable[..., Awaitable[Any]],
) -> None:
    hasher = PasswordHasher(token_settings)
    await new_account("a@example.org", password_hash=await hasher.hash(PASSWORD))
    to_database, to_broker = links
    await to_database.cut()
    await to_broker.cut()
    environment |= {"DARKROOM_DATABASE_TIMEOUT_SECONDS": "1", "DARKROOM_BCRYPT_ROUNDS": "4"}
    no_worker = "gpu_worker: no warm worker"
    async with (
        serving(environment, wait_for="/health/live") as (process, port),
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as http,
    ):
        client = Client(http=http, port=port)
        variables = {"input": {"email": "a@example.org", "password": PASSWORD}}

        # Started before anything else.
        health = await http.get("/health/ready")
        assert health.status_code == 503
        assert health.json()["missing"] == ["database: unavailable", "broker: not connected"]
        answer = await client.execute(SIGNIN, **variables)
        assert answer["errors"][0]["extensions"]["code"] == "SERVICE_UNAVAILABLE"

        for link in links:
            await link.open()
        await until_ready(http, [no_worker])
        client = await client.signed_in("a@example.org")

        # A black hole: nobody waits for longer than the time that is allowed.
        for link in links:
            link.fall_silent()
        async with asyncio.timeout(10):
            while (health := await http.get("/health/serving")).is_success:  # noqa: ASYNC110 - no event for it
                await asyncio.sleep(0.2)
        assert health.elapsed.total_seconds() < 4
        assert health.json()["missing"][0].startswith("database: ")
        assert health.json()["missing"][1] == "broker: no answer within 2 s"
        begun = time.monotonic()
        answer = await client.execute(ME)
        assert answer["errors"][0]["extensions"]["code"] == "SERVICE_UNAVAILABLE"
        assert time.monotonic() - begun < 4

        # What needs the broker least is accepted without it, and relayed later.
        await to_database.open()
        begun = time.monotonic()
        answer = await client.execute(GENERATE)
        assert answer["data"]["generate"] == {"__typename": "Generation", "state": "QUEUED"}
        assert time.monotonic() - begun < 6
        assert (await Generation.get()).published_at is None
        await to_broker.open()
        await until_ready(http, [no_worker])
        async with asyncio.timeout(20):
            while (await Generation.get()).published_at is None:  # noqa: ASYNC110 - no event for it
                await asyncio.sleep(0.1)

        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 20) == 0


async def test_it_can_be_stopped_while_it_waits(
    environment: dict[str, str], links: tuple[Link, Link]
) -> None:
    for link in links:
        await link.cut()
    async with serving(environment, wait_for="/health/live") as (process, _):
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 10) == 0


async def test_another_signal_ends_the_wait_for_requests_under_way(
    environment: dict[str, str], database_settings: DatabaseSettings
) -> None:
    patient = {
        "DARKROOM_SHUTDOWN_SECONDS": "600",
        "DARKROOM_DATABASE_TIMEOUT_SECONDS": "600",
        "DARKROOM_OPERATION_TIMEOUT_SECONDS": "600",
    }
    holder = await asyncpg.connect(database_settings.database_url.get_secret_value())
    async with (
        serving(environment, **patient) as (process, port),
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as http,
        holder.transaction(),
    ):
        await holder.execute("LOCK TABLE account")
        variables = {"input": {"email": "a@example.org", "password": PASSWORD}}
        asking = asyncio.create_task(http.post("/graphql", json={"query": SIGNIN, "variables": variables}))
        waiting = "SELECT count(*) FROM pg_locks WHERE relation = 'account'::regclass AND NOT granted"
        async with asyncio.timeout(20):
            while not await holder.fetchval(waiting):  # noqa: ASYNC110 - no event for it
                await asyncio.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(process.wait(), 1.5)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 8) == 0
        with suppress(httpx.TransportError):
            assert (await asking).is_server_error
    await holder.close()
