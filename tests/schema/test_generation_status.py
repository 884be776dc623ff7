import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from gql import Client as GqlClient
from gql import gql
from gql.transport.websockets import WebsocketsTransport
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from api.app import Parts
from core.clock import now
from core.lifecycle import GenerationState
from core.messages import Progress, StoredImage
from schema.subscriptions import generation_status
from schema.types.node import key_of
from tests.graphql_client import Client

GENERATE = "mutation ($input: GenerateInput!) { generate(input: $input) { ... on Generation { id } } }"
WATCH = gql("""
subscription ($id: ID!) {
  generationStatus(id: $id) {
    state step totalSteps fraction queuePosition etaSeconds
    generation { state images { url seed } error { message } }
  }
}
""")


def image_of(key: str) -> StoredImage:
    return StoredImage(
        key=key, width=128, height=128, seed=7, content_type="image/png", byte_size=3, sha256="0" * 64
    )


async def accepted(client: Client) -> str:
    data = await client.data(GENERATE, input={"prompt": "a red house", "seed": 7})
    generation_id: str = data["generate"]["id"]
    return generation_id


async def watch(client: Client, generation_id: str) -> AsyncIterator[dict[str, Any]]:
    transport = WebsocketsTransport(
        url=f"ws://127.0.0.1:{client.port}/graphql",
        subprotocols=[WebsocketsTransport.GRAPHQLWS_SUBPROTOCOL],
        init_payload={"authorization": f"Bearer {client.token}"},
    )
    async with GqlClient(transport=transport) as session:
        async for event in session.subscribe(
            WATCH.__class__(WATCH.document, variable_values={"id": generation_id})
        ):
            yield event["generationStatus"]


async def collect(events: AsyncIterator[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event async for event in events]


async def test_a_subscriber_sees_the_present_state_then_rising_steps_then_the_pictures(
    premium: Client, parts: Parts
) -> None:
    generation_id = await accepted(premium)
    key = key_of(generation_id, "Generation")
    assert key is not None
    events = watch(premium, generation_id)
    first = await anext(events)
    assert (first["state"], first["step"], first["totalSteps"], first["queuePosition"]) == (
        "QUEUED",
        0,
        20,
        1,
    )

    await parts.recorder.start(key, at=now())
    running = await anext(events)
    assert (running["state"], running["queuePosition"]) == ("RUNNING", None)
    for step in (5, 12):
        await parts.queue.publish_progress(
            Progress(id=key, state=GenerationState.RUNNING, step=step, total_steps=20)
        )
        event = await anext(events)
        assert (event["state"], event["step"], event["fraction"]) == ("RUNNING", step, step / 20)

    await parts.recorder.finish(
        key, GenerationState.SUCCEEDED, at=now(), images=[image_of("generations/x/1/0.png")]
    )
    rest = await collect(events)
    assert [event["state"] for event in rest] == ["SUCCEEDED"]
    assert (rest[0]["step"], rest[0]["fraction"]) == (20, 1.0)
    assert rest[0]["generation"]["images"][0]["seed"] == 7


async def test_who_joins_after_the_end_gets_one_event_and_the_completion(
    premium: Client, parts: Parts
) -> None:
    generation_id = await accepted(premium)
    key = key_of(generation_id, "Generation")
    assert key is not None
    await parts.recorder.finish(key, GenerationState.FAILED, at=now(), error="no luck")
    events = await collect(watch(premium, generation_id))
    assert [event["state"] for event in events] == ["FAILED"]
    assert events[0]["generation"]["error"] == {"message": "no luck"}


async def test_steps_never_fall_when_a_job_starts_over(premium: Client, parts: Parts) -> None:
    generation_id = await accepted(premium)
    key = key_of(generation_id, "Generation")
    assert key is not None
    await parts.recorder.start(key, at=now())
    events = watch(premium, generation_id)
    await anext(events)
    steps = []
    for step in (9, 2, 11):
        await parts.queue.publish_progress(
            Progress(id=key, state=GenerationState.RUNNING, step=step, total_steps=20)
        )
        steps.append((await anext(events))["step"])
    assert steps == [9, 9, 11]


async def test_an_end_that_the_broker_lost_is_read_from_the_database(
    premium: Client, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generation_status, "REREAD_SECONDS", 0.2)
    generation_id = await accepted(premium)
    key = key_of(generation_id, "Generation")
    assert key is not None
    events = watch(premium, generation_id)
    await anext(events)

    async def lost(progress: Progress) -> None:
        """Nobody hears of it."""

    monkeypatch.setattr(parts.queue, "publish_progress", lost)
    await parts.recorder.finish(key, GenerationState.CANCELED, at=now())
    rest = await collect(events)
    assert rest[-1]["state"] == "CANCELED"


async def test_many_subscribers_of_one_generation_all_see_its_end(premium: Client, parts: Parts) -> None:
    generation_id = await accepted(premium)
    key = key_of(generation_id, "Generation")
    assert key is not None
    watchers = [asyncio.create_task(collect(watch(premium, generation_id))) for _ in range(5)]
    await asyncio.sleep(0.3)
    await parts.recorder.finish(key, GenerationState.CANCELED, at=now())
    for events in await asyncio.gather(*watchers):
        assert events[-1]["state"] == "CANCELED"


async def test_another_accounts_generation_cannot_be_watched(premium: Client, normal: Client) -> None:
    generation_id = await accepted(premium)
    for unknown in (generation_id, "nonsense"):
        with pytest.raises(Exception, match="There is no such generation"):
            await collect(watch(normal, unknown))


@pytest.mark.parametrize("payload", [None, {}, {"authorization": "Bearer x.y.z"}, {"authorization": 7}])
async def test_a_connection_without_a_good_token_is_closed_with_4403(
    client: Client, payload: dict[str, Any] | None
) -> None:
    async with connect(
        f"ws://127.0.0.1:{client.port}/graphql", subprotocols=[Subprotocol("graphql-transport-ws")]
    ) as socket:
        await socket.send(json.dumps({"type": "connection_init", "payload": payload or {}}))
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4403


async def test_a_subscribe_before_the_acknowledged_init_is_closed_with_4401(client: Client) -> None:
    async with connect(
        f"ws://127.0.0.1:{client.port}/graphql", subprotocols=[Subprotocol("graphql-transport-ws")]
    ) as socket:
        await socket.send('{"type":"subscribe","id":"1","payload":{"query":"{ me { email } }"}}')
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4401


async def test_the_legacy_websocket_protocol_is_not_offered(client: Client) -> None:
    url = f"ws://127.0.0.1:{client.port}/graphql"
    async with connect(url, subprotocols=[Subprotocol("graphql-ws")]) as socket:
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4406
