"""GraphQL over WebSocket, https://github.com/enisdenjo/graphql-ws/blob/master/PROTOCOL.md."""

import asyncio
import json
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from api.app import Parts
from api.settings import ApiSettings, WebSocketSettings
from core.accounts.tokens import AccessTokens
from core.clock import now
from core.models import Account, SessionFamily
from core.repository.accounts import ended_sessions
from core.settings import DatabaseSettings, DocumentSettings
from tests.graphql_client import Client

ME = "{ me { email } }"
WATCH = "subscription ($id: ID!) { generationStatus(id: $id) { state } }"
GENERATE = 'mutation { generate(input: { prompt: "a red house" }) { ... on Generation { id } } }'


@pytest.fixture
def websocket_settings() -> WebSocketSettings:
    return WebSocketSettings(websocket_init_seconds=0.5, websocket_operations=3, session_check_seconds=0.2)


@asynccontextmanager
async def opened(
    client: Client, *, protocols: tuple[str, ...] = ("graphql-transport-ws",), **headers: str
) -> AsyncIterator[ClientConnection]:
    url = f"ws://127.0.0.1:{client.port}/graphql"
    subprotocols = [Subprotocol(one) for one in protocols] or None
    async with (
        asyncio.timeout(30),
        connect(url, subprotocols=subprotocols, additional_headers=headers, max_size=None) as socket,
    ):
        yield socket


@asynccontextmanager
async def signed_in(client: Client) -> AsyncIterator[ClientConnection]:
    async with opened(client) as socket:
        await send(socket, type="connection_init", payload={"authorization": f"Bearer {client.token}"})
        assert await receive(socket) == {"type": "connection_ack"}
        yield socket


async def send(socket: ClientConnection, **message: Any) -> None:
    await socket.send(json.dumps(message))


async def subscribe(socket: ClientConnection, key: str, query: str = ME, **variables: Any) -> None:
    await send(socket, type="subscribe", id=key, payload={"query": query, "variables": variables})


async def receive(socket: ClientConnection) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(await socket.recv())
    return message


async def closed(socket: ClientConnection) -> tuple[int, str]:
    """Code and reason, once it is closed; what comes before is read away."""
    with suppress(ConnectionClosed):
        while True:
            await socket.recv()
    return socket.close_code or 0, socket.close_reason or ""


async def still_serves(client: Client) -> bool:
    async with signed_in(client) as socket:
        await subscribe(socket, "1")
        return bool((await receive(socket))["type"] == "next")


@pytest.mark.parametrize(
    "message",
    [
        "not JSON",
        "[" * 30_000,
        "1" * 5000,
        "[]",
        "null",
        '"connection_init"',
        "{}",
        '{"type": "hello"}',
        '{"type": ["ping"]}',
        '{"type": "' + "é" * 500 + '"}',
        '{"type": "connection_init", "payload": "Bearer"}',
        '{"type": "connection_init", "payload": []}',
        '{"type": "ping", "payload": 1}',
        '{"type": "pong", "payload": true}',
        '{"type": "subscribe", "payload": {"query": "{ me { id } }"}}',
        '{"type": "subscribe", "id": 1, "payload": {"query": "{ me { id } }"}}',
        '{"type": "subscribe", "id": ["1"], "payload": {"query": "{ me { id } }"}}',
        '{"type": "subscribe", "id": "", "payload": {"query": "{ me { id } }"}}',
        '{"type": "subscribe", "id": "1"}',
        '{"type": "subscribe", "id": "1", "payload": []}',
        '{"type": "subscribe", "id": "1", "payload": {}}',
        '{"type": "subscribe", "id": "1", "payload": {"query": 1}}',
        '{"type": "subscribe", "id": "1", "payload": {"query": "{ a }", "variables": []}}',
        '{"type": "subscribe", "id": "1", "payload": {"query": "{ a }", "operationName": 1}}',
        '{"type": "subscribe", "id": "1", "payload": {"query": "{ a }", "extensions": 1}}',
        '{"type": "complete"}',
        '{"type": "complete", "id": {}}',
        b"\x00\x01",
        b'{"type": "ping"}',
    ],
    ids=lambda message: str(message[:70]),
)
async def test_a_message_that_the_protocol_does_not_know_closes_with_4400(
    premium: Client, message: str | bytes
) -> None:
    async with signed_in(premium) as socket:
        await socket.send(message)
        code, reason = await closed(socket)
        assert code == 4400
        assert reason
    assert await still_serves(premium)


@pytest.mark.parametrize(
    "payload", [None, {}, {"authorization": 1}, {"authorization": "Bearer x"}, {"a": []}]
)
async def test_without_a_good_token_it_closes_with_4403(client: Client, payload: Any) -> None:
    async with opened(client) as socket:
        await send(socket, type="connection_init", payload=payload)
        code, reason = await closed(socket)
        assert code == 4403
        assert reason.startswith("Forbidden: ")


async def test_an_operation_before_the_acknowledgement_closes_with_4401(premium: Client) -> None:
    async with opened(premium) as socket:
        await subscribe(socket, "1")
        assert await closed(socket) == (4401, "Unauthorized")
    async with opened(premium) as socket:
        await send(socket, type="connection_init", payload={"authorization": f"Bearer {premium.token}"})
        await subscribe(socket, "1")
        assert await closed(socket) == (4401, "Unauthorized")


@pytest.mark.parametrize("protocols", [(), ("graphql-ws",), ("something", "else")])
async def test_another_protocol_closes_with_4406(client: Client, protocols: tuple[str, ...]) -> None:
    url = f"ws://127.0.0.1:{client.port}/graphql"
    # Offers are made by hand: the client's library would not go on without an answer to them.
    headers = {"Sec-WebSocket-Protocol": ", ".join(protocols)} if protocols else {}
    async with connect(url, additional_headers=headers) as socket:
        assert await closed(socket) == (4406, "Subprotocol not acceptable")


async def test_our_protocol_is_found_among_others(premium: Client) -> None:
    async with opened(premium, protocols=("graphql-ws", "graphql-transport-ws")) as socket:
        assert socket.subprotocol == "graphql-transport-ws"


async def test_who_does_not_sign_in_in_time_is_closed_with_4408(client: Client) -> None:
    async with opened(client) as socket:
        await send(socket, type="ping")
        assert await receive(socket) == {"type": "pong"}
        assert await closed(socket) == (4408, "Connection initialisation timeout")


async def test_the_same_id_twice_closes_with_4409_however_long_it_is(
    premium: Client, new_generation: Any
) -> None:
    generation = await new_generation(await Account.get(email="premium@example.org"))
    key = (await premium.data(GENERATE))["generate"]["id"]
    assert generation
    for identifier in ("1", "é" * 1000):
        async with signed_in(premium) as socket:
            await subscribe(socket, identifier, WATCH, id=key)
            assert (await receive(socket))["type"] == "next"
            await subscribe(socket, identifier, WATCH, id=key)
            code, reason = await closed(socket)
            assert code == 4409
            assert reason.startswith(f"Subscriber for {identifier}"[:60])


async def test_an_id_is_free_again_when_its_operation_has_ended(premium: Client) -> None:
    async with signed_in(premium) as socket:
        for _ in range(3):
            await subscribe(socket, "1")
            assert [(await receive(socket))["type"] for _ in range(2)] == ["next", "complete"]


@pytest.mark.parametrize("at_once", [True, False])
async def test_signing_in_twice_closes_with_4429(premium: Client, at_once: bool) -> None:
    payload = {"authorization": f"Bearer {premium.token}"}
    async with opened(premium) as socket:
        await send(socket, type="connection_init", payload=payload)
        if not at_once:
            await receive(socket)
        await send(socket, type="connection_init", payload=payload)
        assert await closed(socket) == (4429, "Too many initialisation requests")


@pytest.mark.parametrize(
    "document", ["{", "", "{ nothing }", "query A { me { id } } query B { me { id } }", "#", "{ a " * 600]
)
async def test_a_document_that_is_wrong_is_an_error_of_its_own(premium: Client, document: str) -> None:
    async with signed_in(premium) as socket:
        await subscribe(socket, "1", document)
        answer = await receive(socket)
        assert (answer["type"], answer["id"]) == ("error", "1")
        assert answer["payload"][0]["message"]
        await subscribe(socket, "1")
        assert (await receive(socket))["payload"]["data"] == {"me": {"email": "premium@example.org"}}


async def test_an_unknown_operation_name_is_an_error_of_its_own(premium: Client) -> None:
    async with signed_in(premium) as socket:
        payload = {"query": "query A { me { id } }", "operationName": "B"}
        await send(socket, type="subscribe", id="1", payload=payload)
        answer = await receive(socket)
        assert (answer["type"], answer["id"]) == ("error", "1")


async def test_a_pong_carries_what_its_ping_did(client: Client) -> None:
    async with opened(client) as socket:
        await send(socket, type="ping", payload={"sent": 1})
        assert await receive(socket) == {"type": "pong", "payload": {"sent": 1}}
        await send(socket, type="pong", payload={"unasked": True})
        await send(socket, type="ping", payload=None)
        assert await receive(socket) == {"type": "pong"}


async def test_an_operation_that_is_completed_before_its_result_sends_nothing_more(premium: Client) -> None:
    key = (await premium.data(GENERATE))["generate"]["id"]
    async with signed_in(premium) as socket:
        await subscribe(socket, "1", WATCH, id=key)
        await send(socket, type="complete", id="1")
        await send(socket, type="complete", id="never begun")
        await send(socket, type="ping")
        messages = []
        while (message := await receive(socket))["type"] != "pong":
            messages.append(message)
        assert len(messages) <= 1
        await subscribe(socket, "1")
        assert (await receive(socket))["type"] == "next"


async def test_more_operations_than_the_limit_are_refused_one_by_one(premium: Client) -> None:
    key = (await premium.data(GENERATE))["generate"]["id"]
    async with signed_in(premium) as socket:
        for number in range(3):
            await subscribe(socket, str(number), WATCH, id=key)
            assert (await receive(socket))["type"] == "next"
        await subscribe(socket, "3")
        answer = await receive(socket)
        assert (answer["type"], answer["id"]) == ("error", "3")
        assert answer["payload"][0]["extensions"] == {"code": "QUOTA_EXCEEDED", "max": 3}
        await send(socket, type="complete", id="0")
        await subscribe(socket, "4")
        assert (await receive(socket))["id"] == "4"


async def test_a_message_that_is_too_long_closes_with_1009(premium: Client) -> None:
    async with signed_in(premium) as socket:
        await subscribe(socket, "1", "{ me { id } } #" + "x" * 70_000)
        assert (await closed(socket))[0] == 1009
    assert await still_serves(premium)


async def test_a_flood_of_messages_is_answered_in_turn(premium: Client) -> None:
    async with signed_in(premium) as socket:
        for number in range(2000):
            await send(socket, type="ping", payload={"number": number})
        for number in range(2000):
            assert (await receive(socket))["payload"] == {"number": number}
    assert await still_serves(premium)


@pytest.mark.parametrize("mutation", ["signout", "signoutEverywhere"], ids=["this session", "all sessions"])
async def test_signing_out_closes_the_sockets_of_the_session_with_4403(
    premium: Client, mutation: str
) -> None:
    other = await premium.signed_in("premium@example.org")
    async with signed_in(premium) as socket, signed_in(other) as others:
        await premium.data(f"mutation {{ {mutation} {{ message }} }}")
        async with asyncio.timeout(5):
            assert await closed(socket) == (4403, "Forbidden: the session was ended")
            if mutation == "signoutEverywhere":
                assert (await closed(others))[0] == 4403
            else:
                await subscribe(others, "1")
                assert (await receive(others))["type"] == "next"


async def test_the_end_of_an_account_closes_its_sockets(premium: Client) -> None:
    async with signed_in(premium) as socket:
        await SessionFamily.all().delete()
        async with asyncio.timeout(5):
            assert await closed(socket) == (4403, "Forbidden: the session was ended")


async def test_a_token_that_expires_closes_the_socket_and_its_successor_opens_another(
    premium: Client, api_settings: ApiSettings
) -> None:
    """What graphql-ws does by itself: it connects again and asks for `connectionParams` anew."""
    family = await SessionFamily.first().select_related("account")
    assert family is not None
    tokens, lifetime = AccessTokens(api_settings.tokens), 60 * api_settings.tokens.access_token_minutes
    issued_at = now().timestamp() - lifetime + 2
    short, _ = tokens.issue(
        account_id=family.account.id,
        session_id=family.id,
        now=type(now()).fromtimestamp(issued_at, now().tzinfo),
    )
    key = (await premium.data(GENERATE))["generate"]["id"]
    async with signed_in(Client(http=premium.http, port=premium.port, token=short)) as socket:
        await subscribe(socket, "1", WATCH, id=key)
        assert (await receive(socket))["type"] == "next"
        async with asyncio.timeout(5):
            assert await closed(socket) == (4403, "Forbidden: the access token has expired")
    assert await still_serves(premium)


async def test_over_an_old_socket_an_ended_session_does_nothing_more(premium: Client, parts: Parts) -> None:
    async with signed_in(premium) as socket:
        # As if the check had not come by yet.
        parts.connections._open.clear()
        await SessionFamily.all().update(ended_at=now())
        await subscribe(socket, "1")
        assert (await receive(socket))["payload"]["data"] == {"me": None}
        await receive(socket)
        await subscribe(socket, "2", GENERATE)
        answer = await receive(socket)
        assert "UNAUTHENTICATED" in json.dumps(answer)


async def test_an_account_is_seen_as_it_is_now_and_not_as_it_was_when_the_socket_opened(
    normal: Client,
) -> None:
    async with signed_in(normal) as socket:
        await Account.all().update(email="renamed@example.org")
        await subscribe(socket, "1")
        assert (await receive(socket))["payload"]["data"] == {"me": {"email": "renamed@example.org"}}


class TestWithoutItsOwnRounds:
    """Sessions are looked at when the test says so, and at no other time."""

    @pytest.fixture
    def websocket_settings(self) -> WebSocketSettings:
        return WebSocketSettings(session_check_seconds=3600)

    async def test_one_statement_looks_at_the_sessions_of_all_sockets(
        self, premium: Client, parts: Parts, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[int] = []

        async def counted(family_ids: Collection[UUID]) -> set[UUID]:
            asked.append(len(family_ids))
            return await ended_sessions(family_ids)

        monkeypatch.setattr("core.repository.accounts.ended_sessions", counted)
        other = await premium.signed_in("premium@example.org")
        async with signed_in(premium), signed_in(premium), signed_in(other):
            asked.clear()
            await parts.connections.check()
            assert asked == [2]


async def test_the_sessions_of_thousands_are_looked_at_at_once(new_account: Any) -> None:
    account = await new_account()
    families = [await SessionFamily.create(account=account) for _ in range(4)]
    await SessionFamily.filter(id=families[0].id).update(ended_at=now())
    strangers = {uuid4() for _ in range(5000)}
    asked = {family.id for family in families} | strangers
    assert await ended_sessions(asked) == strangers | {families[0].id}


class TestSlowDatabase:
    """While the table of sessions is locked, nobody can be looked up."""

    @pytest.fixture
    def document_settings(self) -> DocumentSettings:
        return DocumentSettings(operation_timeout_seconds=1)

    @pytest.fixture
    async def lock(self, database: DatabaseSettings) -> AsyncIterator[asyncpg.Connection]:
        connection = await asyncpg.connect(database.database_url.get_secret_value())
        yield connection
        await connection.close()

    async def test_signing_in_is_given_up_with_try_again_later(
        self, premium: Client, lock: asyncpg.Connection
    ) -> None:
        async with opened(premium) as socket, lock.transaction():
            await lock.execute("LOCK TABLE session_family")
            await send(socket, type="connection_init", payload={"authorization": f"Bearer {premium.token}"})
            await send(socket, type="ping")
            assert await receive(socket) == {"type": "pong"}
            assert await closed(socket) == (1013, "Try again later")
        assert await still_serves(premium)

    @pytest.mark.parametrize("query", [ME, GENERATE, WATCH], ids=["query", "mutation", "first event"])
    async def test_what_takes_too_long_is_given_up(
        self, premium: Client, lock: asyncpg.Connection, query: str
    ) -> None:
        key = (await premium.data(GENERATE))["generate"]["id"]
        async with signed_in(premium) as socket:
            async with lock.transaction():
                await lock.execute("LOCK TABLE session_family")
                await subscribe(socket, "1", query, id=key)
                answer = await receive(socket)
            assert (answer["type"], answer["id"]) == ("error", "1")
            [error] = answer["payload"]
            assert error["extensions"] == {"code": "TIMEOUT"}
            assert error["message"] == "This took longer than 1 seconds and was given up. Try again."
            await subscribe(socket, "1")
            assert (await receive(socket))["type"] == "next"
