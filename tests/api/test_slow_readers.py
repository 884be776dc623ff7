"""Clients that stop reading."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from api.app import Parts
from api.settings import ApiSettings, HttpSettings
from core.clock import now
from core.lifecycle import GenerationState
from core.messages import Progress
from core.telemetry import SLOW_READERS, SUBSCRIPTIONS
from schema.types.node import key_of
from tests.graphql_client import Client

PATIENCE = 1.0
PREVIEW = "data:image/jpeg;base64," + 100_000 * "A"
WATCH = "subscription ($id: ID!) { generationStatus(id: $id, previews: true) { state step preview } }"
GENERATE = "mutation ($input: GenerateInput!) { generate(input: $input) { ... on Generation { id } } }"


@pytest.fixture
def api_settings(api_settings: ApiSettings) -> ApiSettings:
    return replace(api_settings, http=HttpSettings(websocket_patience_seconds=PATIENCE))


class Watching:
    """A customer's websocket with one subscription; its window at the kernel is as small as can be."""

    def __init__(self, client: Client, generation_id: str) -> None:
        self._client = client
        self._generation_id = generation_id

    async def __aenter__(self) -> ClientConnection:
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.connect(("127.0.0.1", self._client.port))
        raw.setblocking(False)  # noqa: FBT003 - positional alone
        self._connecting = connect(
            f"ws://127.0.0.1:{self._client.port}/graphql",
            sock=raw,
            subprotocols=[Subprotocol("graphql-transport-ws")],
            max_queue=1,
            max_size=None,
            ping_interval=None,
            compression=None,
        )
        opened = await self._connecting.__aenter__()
        await opened.send(
            json.dumps(
                {"type": "connection_init", "payload": {"authorization": f"Bearer {self._client.token}"}}
            )
        )
        await opened.recv()
        query = {"query": WATCH, "variables": {"id": self._generation_id}}
        await opened.send(json.dumps({"type": "subscribe", "id": "1", "payload": query}))
        first = json.loads(await opened.recv())
        assert first["payload"]["data"]["generationStatus"]["state"] == "RUNNING"
        return opened

    async def __aexit__(self, *_: object) -> None:
        self._connecting.connection.transport.abort()


async def running(client: Client, parts: Parts) -> str:
    data = await client.data(GENERATE, input={"prompt": "a red house"})
    generation_id: str = data["generate"]["id"]
    key = key_of(generation_id, "Generation")
    assert key is not None
    await parts.recorder.start(key, at=now())
    return generation_id


async def steps(parts: Parts, generation_id: str) -> AsyncIterator[int]:
    """Publishes a step with a large preview every 50 ms."""
    key = key_of(generation_id, "Generation")
    assert key is not None
    for number in range(1, 400):
        progress = Progress(
            id=key, state=GenerationState.RUNNING, step=number, total_steps=400, preview=PREVIEW
        )
        await parts.queue.publish_progress(progress)
        yield number
        await asyncio.sleep(0.05)


async def test_who_does_not_read_is_cut_off_and_counted_while_another_is_told_every_step(
    premium: Client, parts: Parts
) -> None:
    cut_off, live = SLOW_READERS._value.get(), SUBSCRIPTIONS._value.get()
    stalled, followed = await running(premium, parts), await running(premium, parts)
    async with Watching(premium, stalled), Watching(premium, followed) as reader:
        assert SUBSCRIPTIONS._value.get() == live + 2
        begun = asyncio.get_running_loop().time()
        async for number in steps(parts, stalled):
            key = key_of(followed, "Generation")
            assert key is not None
            await parts.queue.publish_progress(
                Progress(id=key, state=GenerationState.RUNNING, step=min(number, 20), total_steps=20)
            )
            if number <= 20:
                event = json.loads(await asyncio.wait_for(reader.recv(), 20))
                assert event["payload"]["data"]["generationStatus"]["step"] == number
            if SLOW_READERS._value.get() > cut_off:
                break
        assert SLOW_READERS._value.get() == cut_off + 1
        assert asyncio.get_running_loop().time() - begun >= PATIENCE
        for _ in range(200):
            if SUBSCRIPTIONS._value.get() == live + 1:
                break
            await asyncio.sleep(0.05)
        assert SUBSCRIPTIONS._value.get() == live + 1


async def test_who_reads_again_in_time_goes_on_with_the_newest(premium: Client, parts: Parts) -> None:
    cut_off = SLOW_READERS._value.get()
    generation_id = await running(premium, parts)
    async with Watching(premium, generation_id) as reader:
        async for number in steps(parts, generation_id):
            # The buffers hold three of these; the pause is half of the patience.
            if number == 10:
                break
        seen: list[int] = []
        while not seen or seen[-1] < 10:
            event = json.loads(await asyncio.wait_for(reader.recv(), 20))
            seen.append(event["payload"]["data"]["generationStatus"]["step"])
        assert seen == sorted(set(seen))
        assert len(seen) < 10
    assert SLOW_READERS._value.get() == cut_off
