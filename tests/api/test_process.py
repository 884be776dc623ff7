"""``python -m api`` as a supervisor and a load balancer see it."""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from core.accounts.passwords import PasswordHasher
from core.settings import TokenSettings
from tests.api.process import ROOT, SLOW_ROUNDS, answers, environment, serving, start
from tests.graphql_client import PASSWORD, SIGNIN

__all__ = ["environment"]


async def test_it_does_not_start_with_a_model_that_is_not_pinned(
    environment: dict[str, str], tmp_path: Path
) -> None:
    catalogue = tmp_path / "models.toml"
    catalogue.write_text((ROOT / "core" / "catalogue.toml").read_text())
    process = await start(
        environment,
        DARKROOM_CATALOGUE=str(catalogue),
        DARKROOM_MODELS='["darkroom-demo", "sd-turbo"]',
    )
    _, stderr = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 1
    told = stderr.decode()
    assert "api: not pinned: sd-turbo." in told
    assert "`python -m gpu_worker.pin sd-turbo`" in told
    assert "DARKROOM_MODELS='[\"darkroom-demo\"]'" in told
    assert "Traceback" not in told


async def test_told_to_stop_it_says_so_serves_on_and_then_closes_websockets_with_1012(
    environment: dict[str, str],
) -> None:
    drain = 2.0
    async with (
        serving(environment, DARKROOM_DRAIN_SECONDS=str(drain)) as (process, port),
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http,
        connect(
            f"ws://127.0.0.1:{port}/graphql", subprotocols=[Subprotocol("graphql-transport-ws")]
        ) as socket,
    ):
        begun = asyncio.get_running_loop().time()
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(drain):
            while (health := await http.get("/health/serving")).is_success:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.02)
        assert (health.status_code, health.json()["missing"]) == (503, ["api: about to stop"])
        # Whoever has not heard of it yet is served, on old and on new connections.
        async with httpx.AsyncClient(base_url=http.base_url) as newcomer:
            for client in (http, newcomer):
                answer = await client.post("/graphql", json={"query": "{ __typename }"})
                assert answer.json()["data"] == {"__typename": "Query"}
        with pytest.raises(ConnectionClosed) as closed:
            await asyncio.wait_for(socket.recv(), 20)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012
        assert asyncio.get_running_loop().time() - begun >= drain
        assert await asyncio.wait_for(process.wait(), 20) == 0


async def test_a_second_signal_ends_the_waiting(environment: dict[str, str]) -> None:
    async with serving(environment, DARKROOM_DRAIN_SECONDS="600") as (process, port):
        async with httpx.AsyncClient() as http:
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(20):
                while await answers(http, port):  # noqa: ASYNC110 - as above
                    await asyncio.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 20) == 0


async def test_a_request_that_has_begun_is_answered_before_it_ends(
    environment: dict[str, str],
    token_settings: TokenSettings,
    new_account: Callable[..., Awaitable[Any]],
) -> None:
    hasher = PasswordHasher(token_settings.model_copy(update={"bcrypt_rounds": SLOW_ROUNDS}))
    await new_account("slow@example.org", password_hash=await hasher.hash(PASSWORD))
    async with (
        serving(environment, DARKROOM_SHUTDOWN_SECONDS="60") as (process, port),
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as http,
    ):
        variables = {"input": {"email": "slow@example.org", "password": PASSWORD}}
        asking = asyncio.create_task(http.post("/graphql", json={"query": SIGNIN, "variables": variables}))
        await asyncio.sleep(0.2)
        assert not asking.done()
        process.send_signal(signal.SIGTERM)
        answer = await asking
        assert answer.json()["data"]["signin"]["__typename"] == "Session"
        assert await asyncio.wait_for(process.wait(), 20) == 0
