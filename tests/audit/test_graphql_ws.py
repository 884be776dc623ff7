"""What the npm package graphql-ws, whose protocol we speak, does with our server."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import jwt
import pytest

from core.accounts.tokens import AccessTokens
from core.clock import now
from core.lifecycle import GenerationState
from tests.audit.node import graphql_ws
from tests.audit.report import Report
from tests.audit.target import Backing, Customer, Target, running, sign_in, uuid_of
from tests.conftest import free_port

WATCH = "subscription ($id: ID!) { generationStatus(id: $id) { state } }"
SUBSCRIPTIONS = "darkroom_subscriptions"


@pytest.fixture(autouse=True)
async def noted(request: pytest.FixtureRequest, report: Report, calm: None) -> None:
    name = request.node.name.removeprefix("test_").replace("_", " ")
    report.add(f"graphql-ws: {name}", "WebSocket", "", verdict="as the client expects")


async def finish(target: Target, generation_id: str) -> None:
    async with target.recorder() as recorder:
        await recorder.finish(uuid_of(generation_id), GenerationState.FAILED, at=now(), error="no luck")


async def test_a_query_answers_once_and_completes(target: Target) -> None:
    async with graphql_ws(target) as client:
        await client.create(target.normal)
        await client.subscribe("q", "{ me { email } }")
        told = await client.event(sink="next")
        assert told["value"]["data"] == {"me": {"email": "normal@example.org"}}
        await client.event(sink="complete", key="q")
        assert client.count(sink="next") == 1


async def test_a_mutation_answers_once_and_completes(target: Target) -> None:
    generate = 'mutation { generate(input: { prompt: "x" }) { __typename } }'
    async with graphql_ws(target) as client:
        await client.create(target.normal)
        await client.subscribe("m", generate)
        told = await client.event(sink="next")
        assert told["value"]["data"] == {"generate": {"__typename": "Generation"}}
        await client.event(sink="complete", key="m")


async def test_a_subscription_completes_after_its_terminal_event(target: Target) -> None:
    generation_id = await target.generate(target.normal)
    async with graphql_ws(target) as client:
        await client.create(target.normal)
        await client.subscribe("s", WATCH, variables={"id": generation_id})
        first = await client.event(sink="next")
        assert first["value"]["data"]["generationStatus"] == {"state": "QUEUED"}
        await finish(target, generation_id)
        last = await client.event(sink="next")
        assert last["value"]["data"]["generationStatus"] == {"state": "FAILED"}
        await client.event(sink="complete", key="s")
    await target.metric_becomes(SUBSCRIPTIONS, 0)


async def test_several_operations_share_a_socket(target: Target) -> None:
    generations = [await target.generate(target.normal) for _ in range(3)]
    async with graphql_ws(target) as client:
        await client.create(target.normal)
        for number, generation_id in enumerate(generations):
            await client.subscribe(str(number), WATCH, variables={"id": generation_id})
            await client.event(sink="next", key=str(number))
        await client.subscribe("q", "{ __typename }")
        await client.event(sink="complete", key="q")
        await target.metric_becomes(SUBSCRIPTIONS, 3)
        for number, generation_id in enumerate(generations):
            await finish(target, generation_id)
            await client.event(sink="complete", key=str(number))
        assert client.count(on="connected") == 1


async def test_unsubscribing_ends_one_operation_on_the_server(target: Target) -> None:
    kept, left = await target.generate(target.normal), await target.generate(target.normal)
    async with graphql_ws(target) as client:
        await client.create(target.normal)
        await client.subscribe("kept", WATCH, variables={"id": kept})
        await client.event(sink="next", key="kept")
        await client.subscribe("left", WATCH, variables={"id": left})
        await client.event(sink="next", key="left")
        await target.metric_becomes(SUBSCRIPTIONS, 2)
        await client.do("unsubscribe", key="left")
        await target.metric_becomes(SUBSCRIPTIONS, 1)
        await finish(target, left)
        await finish(target, kept)
        await client.event(sink="complete", key="kept")
        states = [
            one["value"]["data"]["generationStatus"]["state"]
            for one in client.told
            if (one.get("sink"), one.get("key")) == ("next", "left")
        ]
        assert set(states) == {"QUEUED"}


async def test_unsubscribing_before_the_first_result_leaves_nothing_behind(target: Target) -> None:
    generation_id = await target.generate(target.normal)
    async with graphql_ws(target) as client:
        await client.create(target.normal, lazy=False)
        await client.event(on="connected")
        for number in range(20):
            await client.subscribe(str(number), WATCH, variables={"id": generation_id})
            await client.do("unsubscribe", key=str(number))
        await client.subscribe("q", "{ __typename }")
        await client.event(sink="complete", key="q")
    await target.metric_becomes(SUBSCRIPTIONS, 0)


@pytest.mark.parametrize("how", ["terminate", "dispose", "kill"])
async def test_a_client_that_goes_away_leaves_nothing_behind(target: Target, how: str) -> None:
    generation_id = await target.generate(target.normal)
    async with graphql_ws(target) as client:
        await client.create(target.normal, retryAttempts=0)
        await client.subscribe("s", WATCH, variables={"id": generation_id})
        await client.event(sink="next")
        await target.metric_becomes(SUBSCRIPTIONS, 1)
        if how == "kill":
            client.process.send_signal(signal.SIGKILL)
        else:
            await client.do(how)
        await target.metric_becomes(SUBSCRIPTIONS, 0)


@pytest.mark.parametrize("query", ["{ there { is } }", "{"], ids=["validation", "syntax"])
async def test_errors_before_execution_reach_the_sink_and_the_socket_lives(
    target: Target, query: str
) -> None:
    async with graphql_ws(target) as client:
        await client.create(target.normal, retryAttempts=0, lazyCloseTimeout=10_000)
        await client.subscribe("bad", query)
        told = await client.event(sink="error", key="bad")
        assert told["errors"]
        assert all(error["message"] for error in told["errors"])
        await client.subscribe("good", "{ __typename }")
        await client.event(sink="complete", key="good")
        assert client.count(on="closed") == 0


async def test_errors_of_fields_come_with_the_result(target: Target) -> None:
    async with graphql_ws(target) as client:
        await client.create(target.normal)
        await client.subscribe("q", '{ __typename generations(after: "no cursor") { edges { cursor } } }')
        told = await client.event(sink="next")
        assert told["value"]["data"] is None
        assert told["value"]["errors"][0]["path"] == ["generations"]
        await client.event(sink="complete")


async def test_an_operation_is_chosen_by_its_name(target: Target) -> None:
    document = "query One { models { id } } query Two { __typename }"
    async with graphql_ws(target) as client:
        await client.create(target.normal, retryAttempts=0, lazyCloseTimeout=10_000)
        await client.subscribe("two", document, operationName="Two")
        assert (await client.event(sink="next"))["value"]["data"] == {"__typename": "Query"}
        await client.subscribe("three", document, operationName="Three")
        assert (await client.event(sink="error", key="three"))["errors"]
        assert client.count(on="closed") == 0


async def test_a_token_that_is_not_good_is_4403(target: Target) -> None:
    for customer in (None, Customer(email="", token="forged", refresh_token="")):
        async with graphql_ws(target) as client:
            await client.create(customer, retryAttempts=0)
            await client.subscribe("q", "{ __typename }")
            assert (await client.event(on="closed"))["code"] == 4403
            assert (await client.event(sink="error"))["code"] == 4403


async def test_pings_of_the_client_are_answered(target: Target) -> None:
    async with graphql_ws(target) as client:
        await client.create(target.normal, lazy=False, keepAlive=100)
        for _ in range(3):
            await client.event(on="pong")
        assert client.count(on="closed") == 0


async def test_a_token_that_expires_meanwhile_ends_the_socket_with_4403(target: Target) -> None:
    generation_id = await target.generate(target.normal)
    claims = jwt.decode(target.normal.token, options={"verify_signature": False})
    lifetime = timedelta(minutes=target.backing.tokens.access_token_minutes)
    token, _ = AccessTokens(target.backing.tokens).issue(
        account_id=UUID(claims["sub"]),
        session_id=UUID(claims["sid"]),
        now=now() - lifetime + timedelta(seconds=3),
    )
    async with graphql_ws(target) as client:
        await client.create(Customer(email="", token=token, refresh_token=""), retryAttempts=0)
        await client.subscribe("s", WATCH, variables={"id": generation_id})
        await client.event(sink="next")
        assert (await client.event(on="closed"))["code"] == 4403
    await target.metric_becomes(SUBSCRIPTIONS, 0)


async def test_signing_out_ends_the_socket_with_4403(target: Target) -> None:
    generation_id = await target.generate(target.normal)
    leaving = sign_in(target, "normal@example.org")
    async with graphql_ws(target) as client:
        await client.create(leaving, retryAttempts=0)
        await client.subscribe("s", WATCH, variables={"id": generation_id})
        await client.event(sink="next")
        async with target.http() as http:
            await http.post(
                "/graphql", json={"query": "mutation { signout { message } }"}, headers=leaving.headers
            )
        assert (await client.event(on="closed"))["code"] == 4403
    await target.metric_becomes(SUBSCRIPTIONS, 0)


async def test_a_client_comes_back_after_a_restart_and_misses_no_terminal_event(
    target: Target, backing: Backing, tmp_path: Path
) -> None:
    generation_id = await target.generate(target.normal)
    first = running(backing, port=free_port(), metrics_port=free_port(), log=tmp_path / "first.log")
    second = running(backing, port=free_port(), metrics_port=free_port(), log=tmp_path / "second.log")
    with first as leaving, second as staying:
        async with _balancer(leaving) as balancer, graphql_ws(replace(target, port=balancer.port)) as client:
            await client.create(target.normal)
            await client.subscribe("s", WATCH, variables={"id": generation_id})
            await client.event(sink="next")
            balancer.target = staying
            leaving.process.send_signal(signal.SIGTERM)
            assert (await client.event(on="closed"))["code"] == 1012
            await finish(target, generation_id)
            await client.event(sink="complete", key="s")
    last = [event for event in client.told if event.get("sink") == "next"][-1]
    assert last["value"]["data"]["generationStatus"] == {"state": "FAILED"}


@dataclass
class _Balancer:
    """Hands connections on to a process, as what stands in front of several does."""

    target: Target
    port: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self.target.port)
        await asyncio.gather(_pipe(reader, there_writer), _pipe(there_reader, writer))


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def _balancer(target: Target) -> AsyncIterator[_Balancer]:
    balancer = _Balancer(target=target)
    server = await asyncio.start_server(balancer.serve, "127.0.0.1", 0)
    balancer.port = server.sockets[0].getsockname()[1]
    yield balancer
    server.close()
