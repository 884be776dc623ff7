import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from gql import Client as GqlClient
from gql import gql
from gql.transport.websockets import WebsocketsTransport
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from api.app import Parts
from core.clock import now
from core.errors import ServiceUnavailableError
from core.lifecycle import GenerationState
from core.messages import Control, Heartbeat, Progress, Speed, StoredImage
from core.repository import windows
from core.statuses import statuses
from schema.types.node import key_of
from tests.graphql_client import Client

GENERATE = "mutation ($input: GenerateInput!) { generate(input: $input) { ... on Generation { id } } }"
WATCH = gql("""
subscription ($id: ID!, $previews: Boolean!) {
  generationStatus(id: $id, previews: $previews) {
    state step totalSteps fraction queuePosition etaSeconds preview
    generation { state estimatedFinishAt images { url seed } error { message } }
  }
}
""")

NewWorker = Callable[..., Awaitable[Heartbeat]]

SPEED = Speed(model="darkroom-demo", megapixel_steps_per_second=0.001, seconds_per_step=1)
"""A picture of the default size is 0.32768 megapixel-steps."""


def image_of(key: str) -> StoredImage:
    return StoredImage(
        key=key, width=128, height=128, seed=7, content_type="image/png", byte_size=3, sha256="0" * 64
    )


async def accepted(client: Client) -> str:
    data = await client.data(GENERATE, input={"prompt": "a red house", "seed": 7})
    generation_id: str = data["generate"]["id"]
    return generation_id


async def watch(
    client: Client, generation_id: str, *, previews: bool = False
) -> AsyncIterator[dict[str, Any]]:
    transport = WebsocketsTransport(
        url=f"ws://127.0.0.1:{client.port}/graphql",
        subprotocols=[WebsocketsTransport.GRAPHQLWS_SUBPROTOCOL],
        init_payload={"authorization": f"Bearer {client.token}"},
    )
    async with GqlClient(transport=transport) as session:
        async for event in session.subscribe(
            WATCH.__class__(WATCH.document, variable_values={"id": generation_id, "previews": previews})
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


def finish_of(event: dict[str, Any], *, since: datetime) -> datetime:
    """When an event that was made after ``since`` says that all will be done; its seconds say the same."""
    finish_at = datetime.fromisoformat(event["generation"]["estimatedFinishAt"])
    said_at = finish_at - timedelta(seconds=event["etaSeconds"])
    slack = timedelta(milliseconds=1)
    assert since - slack <= said_at <= now() + slack
    return finish_at


async def test_premium_is_told_the_time_that_is_left_while_it_waits_and_while_it_runs(
    premium: Client, parts: Parts, new_worker: NewWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statuses, "REREAD_SECONDS", 600)
    await new_worker(speeds=(SPEED,))
    generation_id, begun = await accepted(premium), now()
    key = key_of(generation_id, "Generation")
    assert key is not None
    events = watch(premium, generation_id)
    finish_at = finish_of(await anext(events), since=begun)
    assert begun <= finish_at - timedelta(seconds=327.68) <= now()

    await new_worker(speeds=(SPEED,))
    started_at = now() - timedelta(seconds=100)
    await parts.recorder.start(key, at=started_at)
    finish_at = finish_of(await anext(events), since=begun)
    assert abs(finish_at - started_at - timedelta(seconds=327.68)) < timedelta(milliseconds=1)

    published_at = now()
    await parts.queue.publish_progress(
        Progress(id=key, state=GenerationState.RUNNING, step=5, total_steps=20)
    )
    finish_at = finish_of(await anext(events), since=published_at)
    # Four times what five steps of twenty have taken.
    assert published_at - started_at <= (finish_at - started_at) / 4 <= now() - started_at

    await parts.recorder.finish(key, GenerationState.FAILED, at=now(), error="no luck")
    [last] = await collect(events)
    assert (last["etaSeconds"], last["generation"]["estimatedFinishAt"]) == (None, None)


async def test_normal_is_told_the_time_that_is_left_before_its_window_and_in_it(
    normal: Client, parts: Parts, new_worker: NewWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statuses, "REREAD_SECONDS", 600)
    await new_worker(speeds=(SPEED,))
    begun = now()
    opens_at = begun + timedelta(minutes=20)
    await windows.set_clock("0 */30 * * * *", next_at=opens_at)
    await accepted(normal)
    generation_id = await accepted(normal)
    key = key_of(generation_id, "Generation")
    assert key is not None
    events = watch(normal, generation_id)
    waiting = await anext(events)
    assert waiting["queuePosition"] == 2
    finish_at = finish_of(waiting, since=begun)
    assert abs(finish_at - opens_at - timedelta(seconds=2 * 327.68)) < timedelta(milliseconds=1)

    await new_worker(speeds=(SPEED,))
    started_at = now()
    await parts.recorder.start(key, at=started_at)
    finish_at = finish_of(await anext(events), since=begun)
    assert abs(finish_at - started_at - timedelta(seconds=327.68)) < timedelta(milliseconds=1)


async def test_without_a_worker_that_has_measured_anything_no_time_is_told(premium: Client) -> None:
    event = await anext(watch(premium, await accepted(premium)))
    assert (event["queuePosition"], event["etaSeconds"]) == (1, None)
    assert event["generation"]["estimatedFinishAt"] is None


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
    monkeypatch.setattr(statuses, "REREAD_SECONDS", 0.2)
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


async def running(client: Client, parts: Parts) -> tuple[str, UUID]:
    """A generation that has begun: its id for a client and its key."""
    generation_id = await accepted(client)
    key = key_of(generation_id, "Generation")
    assert key is not None
    await parts.recorder.start(key, at=now())
    return generation_id, key


def shown(key: UUID, step: int, preview: str | None = None) -> Progress:
    return Progress(id=key, state=GenerationState.RUNNING, step=step, total_steps=20, preview=preview)


async def orders(parts: Parts) -> asyncio.Queue[Control]:
    """What workers are told from now on, until the test's broker account is gone."""
    heard: asyncio.Queue[Control] = asyncio.Queue()
    await parts.queue.subscribe_control(heard.put_nowait)
    return heard


async def orders_until_now(heard: asyncio.Queue[Control], parts: Parts) -> list[Control]:
    """Those that were published before: a connection keeps their order."""
    mark = Control(id=uuid4(), action="cancel")
    await parts.queue.publish_control(mark)
    found = []
    while (order := await asyncio.wait_for(heard.get(), 20)) != mark:
        found.append(order)
    return found


@pytest.fixture
def no_reread(monkeypatch: pytest.MonkeyPatch) -> None:
    """No event comes for the time that has passed, however slow the machine is."""
    monkeypatch.setattr(statuses, "REREAD_SECONDS", 100)


async def test_previews_reach_those_who_asked_and_nobody_else(
    premium: Client, parts: Parts, no_reread: None
) -> None:
    generation_id, key = await running(premium, parts)
    plain, previewed = watch(premium, generation_id), watch(premium, generation_id, previews=True)
    assert [(await anext(events))["preview"] for events in (plain, previewed)] == [None, None]
    for step, preview in ((3, "data:image/jpeg;base64,AAAA"), (4, None), (5, "data:image/jpeg;base64,BBBB")):
        await parts.queue.publish_progress(shown(key, step, preview))
        event, other = await anext(previewed), await anext(plain)
        assert (event["step"], event["preview"]) == (step, preview)
        assert (other["step"], other["preview"]) == (step, None)
    await parts.recorder.finish(key, GenerationState.CANCELED, at=now())
    assert [event["preview"] for event in await collect(previewed)] == [None]
    assert [event["preview"] for event in await collect(plain)] == [None]


async def test_who_joins_late_gets_the_last_preview_at_once_if_it_asked(
    premium: Client, parts: Parts
) -> None:
    generation_id, key = await running(premium, parts)
    await parts.queue.publish_progress(shown(key, 3, "data:image/jpeg;base64,AAAA"))
    # The broker keeps a live status a moment after it has taken it: nobody acknowledges one.
    for _ in range(1000):
        if await parts.queue.last_progress(key) is not None:
            break
        await asyncio.sleep(0.01)
    for previews, expected in ((True, "data:image/jpeg;base64,AAAA"), (False, None)):
        events = watch(premium, generation_id, previews=previews)
        assert (await anext(events))["preview"] == expected


async def test_workers_are_asked_for_previews_at_once_and_again_until_the_end(
    premium: Client, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statuses, "RENEW_SECONDS", 0.05)
    heard = await orders(parts)
    generation_id = await accepted(premium)
    key = key_of(generation_id, "Generation")
    assert key is not None
    events = watch(premium, generation_id, previews=True)
    assert (await anext(events))["state"] == "QUEUED"
    for _ in range(3):
        assert await asyncio.wait_for(heard.get(), 20) == Control(id=key, action="preview")
    await parts.recorder.finish(key, GenerationState.CANCELED, at=now())
    await collect(events)
    await orders_until_now(heard, parts)
    await asyncio.sleep(0.2)
    assert await orders_until_now(heard, parts) == []


async def test_workers_are_not_asked_for_previews_that_nobody_wants_or_may_see(
    premium: Client, normal: Client, parts: Parts
) -> None:
    heard = await orders(parts)
    generation_id, key = await running(premium, parts)
    await anext(watch(premium, generation_id))
    with pytest.raises(Exception, match="There is no such generation"):
        await collect(watch(normal, generation_id, previews=True))
    await parts.recorder.finish(key, GenerationState.CANCELED, at=now())
    assert [event["state"] for event in await collect(watch(premium, generation_id))] == ["CANCELED"]
    assert await orders_until_now(heard, parts) == []


async def test_a_broker_that_does_not_answer_ends_no_subscription_and_is_asked_again(
    premium: Client, parts: Parts, no_reread: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statuses, "RENEW_SECONDS", 0.05)
    publish, refused = parts.queue.publish_control, asyncio.Event()

    async def refuse_once(control: Control) -> None:
        if not refused.is_set():
            refused.set()
            raise ServiceUnavailableError("broker: away")
        await publish(control)

    monkeypatch.setattr(parts.queue, "publish_control", refuse_once)
    heard = await orders(parts)
    generation_id, key = await running(premium, parts)
    events = watch(premium, generation_id, previews=True)
    await anext(events)
    assert await asyncio.wait_for(heard.get(), 20) == Control(id=key, action="preview")
    assert refused.is_set()
    await parts.queue.publish_progress(shown(key, 7))
    assert (await anext(events))["step"] == 7


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
