"""What the graphql-ws client would never send, frame by frame."""

import asyncio
import json
import socket as sockets
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from core.clock import now
from core.lifecycle import GenerationState
from tests.audit.report import Report
from tests.audit.target import PROTOCOL, Target, receive, uuid_of

WATCH = "subscription ($id: ID!) { generationStatus(id: $id) { state } }"
SUBSCRIPTIONS = "darkroom_subscriptions"
QUERY = {"query": "{ __typename }"}


def subscribe(name: Any = "1", **payload: Any) -> str:
    return json.dumps({"type": "subscribe", "id": name, "payload": payload or QUERY})


async def close_code(connection: ClientConnection) -> int:
    """With which code the server closes; what it sends before is passed over."""
    with pytest.raises(ConnectionClosed) as closed:  # noqa: PT012 - whichever message is the last
        while True:
            async with asyncio.timeout(10):
                await connection.recv()
    assert closed.value.rcvd is not None
    return int(closed.value.rcvd.code)


BAD_MESSAGES: dict[str, str | bytes] = {
    "not JSON": "{",
    "empty": "",
    "a binary frame": b'{"type": "ping"}',
    "null": "null",
    "a number": "1",
    "a string": '"ping"',
    "a list": "[]",
    "a list of messages": json.dumps([{"type": "ping"}]),
    "without a type": "{}",
    "a type that is no string": '{"type": 1}',
    "a type that is a list": '{"type": []}',
    "an unknown type": '{"type": "start", "id": "1"}',
    "a type of the server": '{"type": "next", "id": "1", "payload": {}}',
    "an acknowledgement": '{"type": "connection_ack"}',
    "a subscription without an id": json.dumps({"type": "subscribe", "payload": QUERY}),
    "a subscription whose id is a number": json.dumps({"type": "subscribe", "id": 1, "payload": QUERY}),
    "a subscription whose id is a list": json.dumps({"type": "subscribe", "id": ["1"], "payload": QUERY}),
    "a subscription whose id is empty": json.dumps({"type": "subscribe", "id": "", "payload": QUERY}),
    "a subscription without a payload": '{"type": "subscribe", "id": "1"}',
    "a subscription of nothing": '{"type": "subscribe", "id": "1", "payload": {}}',
    "a batch": json.dumps({"type": "subscribe", "id": "1", "payload": [QUERY, QUERY]}),
    "a query that is a number": json.dumps({"type": "subscribe", "id": "1", "payload": {"query": 1}}),
    "variables that are a list": json.dumps(
        {"type": "subscribe", "id": "1", "payload": {**QUERY, "variables": [1]}}
    ),
    "a name that is a number": json.dumps(
        {"type": "subscribe", "id": "1", "payload": {**QUERY, "operationName": 1}}
    ),
    "extensions that are a string": json.dumps(
        {"type": "subscribe", "id": "1", "payload": {**QUERY, "extensions": "x"}}
    ),
    "a completion without an id": '{"type": "complete"}',
    "a completion whose id is a list": '{"type": "complete", "id": []}',
    "NaN": '{"type": "ping", "payload": {"a": NaN}}',
    "an integer of 20,000 digits": '{"type": "ping", "payload": {"a": ' + "9" * 20_000 + "}}",
    "deep nesting": '{"type": "ping", "payload": ' + '{"a":' * 5_000 + "1" + "}" * 5_001,
    "half a surrogate pair": '{"type": "subscribe", "id": "\\ud800", "payload": {"query": "{ __typename }"}}',
}


@pytest.mark.parametrize("name", BAD_MESSAGES)
async def test_a_bad_message_is_4400(target: Target, name: str, calm: None, report: Report) -> None:
    async with target.socket(target.normal) as connection:
        await connection.send(BAD_MESSAGES[name])
        assert await close_code(connection) == 4400
    report.add(f"message: {name}", "WebSocket", 4400, verdict="closed")


@pytest.mark.parametrize(
    "payload",
    [
        None,
        {},
        [],
        "x",
        1,
        {"authorization": 1},
        {"authorization": ["Bearer x"]},
        {"authorization": "Basic x"},
    ],
)
async def test_an_init_whose_payload_is_odd_is_refused(
    target: Target, payload: Any, calm: None, report: Report
) -> None:
    async with target.socket() as connection:
        await connection.send(json.dumps({"type": "connection_init", "payload": payload}))
        code = await close_code(connection)
    # Of another type than the protocol's, or of no use; the protocol leaves open which null is.
    assert code in ((4403, 4400) if payload is None else (4403,) if isinstance(payload, dict) else (4400,))
    report.add(f"init with {json.dumps(payload)}", "WebSocket", code, verdict="closed")


async def test_a_second_init_is_4429(target: Target, calm: None, report: Report) -> None:
    async with target.socket(target.normal) as connection:
        await connection.send(json.dumps(target.normal.init))
        assert await close_code(connection) == 4429
    async with target.socket() as connection:
        await connection.send(json.dumps(target.normal.init))
        await connection.send(json.dumps(target.normal.init))
        assert await close_code(connection) == 4429
    report.add("second init", "WebSocket", 4429, verdict="closed")


async def test_subscribing_before_the_acknowledgement_is_4401(
    target: Target, calm: None, report: Report
) -> None:
    async with target.socket() as connection:
        await connection.send(subscribe())
        assert await close_code(connection) == 4401
    report.add("subscribe before ack", "WebSocket", 4401, verdict="closed")


@pytest.mark.parametrize("message", [{"type": "ping"}, {"type": "pong"}, {"type": "complete", "id": "1"}])
async def test_other_messages_before_the_init_do_no_harm(
    target: Target, message: dict[str, Any], calm: None
) -> None:
    async with target.socket() as connection:
        await connection.send(json.dumps(message))
        if message["type"] == "ping":
            assert (await receive(connection))["type"] == "pong"
        await connection.send(json.dumps(target.normal.init))
        assert (await receive(connection))["type"] == "connection_ack"


async def test_an_id_in_use_is_4409(target: Target, calm: None, report: Report) -> None:
    generation_id = await target.generate(target.normal)
    async with target.socket(target.normal) as connection:
        for _ in range(2):
            await connection.send(subscribe(query=WATCH, variables={"id": generation_id}))
        assert await close_code(connection) == 4409
    await target.metric_becomes(SUBSCRIPTIONS, 0)
    report.add("id in use", "WebSocket", 4409, verdict="closed")


async def test_an_id_can_be_used_again_after_complete(target: Target, calm: None) -> None:
    generation_id = await target.generate(target.normal)
    async with target.socket(target.normal) as connection:
        for _ in range(5):
            await connection.send(subscribe(query=WATCH, variables={"id": generation_id}))
            assert (await receive(connection))["type"] == "next"
            await connection.send(json.dumps({"type": "complete", "id": "1"}))
            await connection.send(subscribe())
            assert (await receive(connection))["payload"]["data"] == {"__typename": "Query"}
            assert await receive(connection) == {"type": "complete", "id": "1"}
    await target.metric_becomes(SUBSCRIPTIONS, 0)


async def test_completing_before_the_first_result_stops_it(target: Target, calm: None) -> None:
    generation_id = await target.generate(target.normal)
    async with target.socket(target.normal) as connection:
        await connection.send(subscribe("s", query=WATCH, variables={"id": generation_id}))
        await connection.send(json.dumps({"type": "complete", "id": "s"}))
        await connection.send(subscribe("q"))
        told = [await receive(connection) for _ in range(2)]
        assert [(one["type"], one["id"]) for one in told] == [("next", "q"), ("complete", "q")]
    await target.metric_becomes(SUBSCRIPTIONS, 0)


async def test_completing_what_there_is_not_does_no_harm(target: Target, calm: None) -> None:
    async with target.socket(target.normal) as connection:
        await connection.send(json.dumps({"type": "complete", "id": "unknown"}))
        await connection.send(subscribe())
        assert (await receive(connection))["type"] == "next"


async def test_completing_what_has_completed_does_no_harm(target: Target, calm: None) -> None:
    generation_id = await target.generate(target.normal)
    async with target.recorder() as recorder:
        await recorder.finish(uuid_of(generation_id), GenerationState.FAILED, at=now(), error="no luck")
    async with target.socket(target.normal) as connection:
        await connection.send(subscribe(query=WATCH, variables={"id": generation_id}))
        assert (await receive(connection))["payload"]["data"]["generationStatus"] == {"state": "FAILED"}
        assert await receive(connection) == {"type": "complete", "id": "1"}
        await connection.send(json.dumps({"type": "complete", "id": "1"}))
        await connection.send(subscribe())
        assert (await receive(connection))["type"] == "next"


@pytest.mark.parametrize("payload", [None, {}, {"a": "ü😀\u0000"}, {"a": ["x"] * 1000}])
async def test_a_ping_is_answered_with_its_payload(target: Target, payload: Any, calm: None) -> None:
    async with target.socket(target.normal) as connection:
        await connection.send(
            json.dumps({"type": "ping", **({} if payload is None else {"payload": payload})})
        )
        pong = await receive(connection)
    assert pong == {"type": "pong", **({} if payload is None else {"payload": payload})}


@pytest.mark.parametrize("message", [{"type": "pong"}, {"type": "pong", "payload": {"a": 1}}])
async def test_a_pong_that_nobody_asked_for_is_passed_over(
    target: Target, message: dict[str, Any], calm: None
) -> None:
    async with target.socket(target.normal) as connection:
        await connection.send(json.dumps(message))
        await connection.send(subscribe())
        assert (await receive(connection))["type"] == "next"


async def test_pings_of_websockets_themselves_are_answered(target: Target, calm: None) -> None:
    async with target.socket(target.normal) as connection:
        assert await asyncio.wait_for(await connection.ping(b"x" * 125), 5) >= 0


@pytest.mark.parametrize("protocols", [None, ["graphql-ws"], ["mqtt"], ["graphql-ws", "wamp.2.json"]])
async def test_another_protocol_is_4406(
    target: Target, protocols: list[str] | None, calm: None, report: Report
) -> None:
    offered = protocols and [Subprotocol(one) for one in protocols]
    async with target.socket(subprotocols=offered) as connection:
        assert await close_code(connection) == 4406
    report.add(f"protocol {protocols and ', '.join(protocols)}", "WebSocket", 4406, verdict="closed")


async def test_ours_is_chosen_from_several(target: Target, calm: None) -> None:
    offered = [Subprotocol("graphql-ws"), PROTOCOL]
    async with target.socket(target.normal, subprotocols=offered) as connection:
        assert connection.subprotocol == PROTOCOL


async def test_a_message_that_is_too_long_is_1009(target: Target, calm: None, report: Report) -> None:
    async with target.socket(target.normal, max_size=None) as connection:
        await connection.send(subscribe(query="{ __typename } #" + "x" * 65_536))
        assert await close_code(connection) == 1009
    report.add("message beyond 64 KiB", "WebSocket", 1009, verdict="closed")


@pytest.mark.parametrize("text", ["ü", "😀", "مرحبا", "\u202e\u0000"])
async def test_ids_and_values_are_unicode(target: Target, text: str, calm: None) -> None:
    async with target.socket(target.normal) as connection:
        query = "query ($t: String) { generations(after: $t) { edges { cursor } } }"
        await connection.send(subscribe(text, query=query, variables={"t": text}))
        told = await receive(connection)
        assert (told["type"], told["id"]) == ("next", text)
        assert told["payload"]["errors"][0]["extensions"]["code"] == "BAD_USER_INPUT"


async def test_variables_of_a_wrong_type_are_an_error(target: Target, calm: None) -> None:
    async with target.socket(target.normal) as connection:
        query = "query ($n: Int!) { generations(first: $n) { edges { cursor } } }"
        wrong: list[Any] = ["1", 1.5, 2**31, None, {}, [1, 2], True]
        for number, value in enumerate(wrong):
            await connection.send(subscribe(str(number), query=query, variables={"n": value}))
            told = await receive(connection)
            assert told["id"] == str(number)
            if told["type"] == "next":
                # As the reference implementation does: execution begins with the variables.
                assert told["payload"]["data"] is None
                assert told["payload"]["errors"]
                told = await receive(connection)
                assert told == {"type": "complete", "id": str(number)}
            else:
                assert told["type"] == "error"
                assert isinstance(told["payload"], list)


async def test_another_customers_subscription_is_not_found(target: Target, calm: None) -> None:
    generation_id = await target.generate(target.premium)
    async with target.socket(target.normal) as connection:
        await connection.send(subscribe(query=WATCH, variables={"id": generation_id}))
        told = json.dumps(await receive(connection))
        assert "NOT_FOUND" in told
        assert "QUEUED" not in told
    await target.metric_becomes(SUBSCRIPTIONS, 0)


async def test_more_operations_than_a_socket_may_have_are_refused_and_the_others_live(
    target: Target, calm: None, report: Report
) -> None:
    generation_id = await target.generate(target.premium)
    async with target.socket(target.premium) as connection:
        for number in range(300):
            await connection.send(subscribe(str(number), query=WATCH, variables={"id": generation_id}))
        kinds = [(await receive(connection))["type"] for _ in range(300)]
        assert set(kinds) == {"next", "error"}
        started = kinds.count("next")
        assert target.metric(SUBSCRIPTIONS) == started <= 100
        await connection.send(json.dumps({"type": "complete", "id": "0"}))
        await target.metric_becomes(SUBSCRIPTIONS, started - 1)
        await connection.send(subscribe("again"))
        assert (await receive(connection))["type"] == "next"
    await target.metric_becomes(SUBSCRIPTIONS, 0)
    report.add("300 subscriptions on a socket", "WebSocket", "error", verdict=f"refused after {started}")


async def test_a_connection_that_is_cut_leaves_nothing_behind(target: Target, calm: None) -> None:
    generation_id = await target.generate(target.premium)
    async with target.socket(target.premium) as connection:
        for number in range(20):
            await connection.send(subscribe(str(number), query=WATCH, variables={"id": generation_id}))
            assert (await receive(connection))["type"] == "next"
        assert target.metric(SUBSCRIPTIONS) == 20
        raw = connection.transport.get_extra_info("socket")
        raw.setsockopt(sockets.SOL_SOCKET, sockets.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        connection.transport.abort()
    await target.metric_becomes(SUBSCRIPTIONS, 0)
