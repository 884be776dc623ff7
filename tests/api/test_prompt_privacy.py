"""What customers write is theirs: no log line holds it, at whatever level."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from core.clock import now
from core.queue import Queue
from core.settings import BrokerSettings, DatabaseSettings, LinkSettings, StorageSettings, TokenSettings
from tests.conftest import free_port
from tests.graphql_client import PASSWORD, SIGNIN, Client

ROOT = Path(__file__).parents[2]
SECRET = "zanzibar-velvet-1d7e"
GENERATE = """
mutation ($input: GenerateInput!) { generate(input: $input) {
  __typename ... on Generation { id prompt } ... on InvalidInput { fields { field } } } }
"""
DOCUMENTS = (
    f'mutation {{ generate(input: {{ prompt: "{SECRET}" }}) {{ __typename }} }}',
    f'mutation {{ generate(input: {{ prompt: "{SECRET}", width: 3 }}) {{ __typename }} }}',
    f'mutation {{ generate(input: {{ prompt: "{SECRET}" ',
    f'mutation {{ generate(input: {{ prompt: "{SECRET}", nothing: 1 }}) {{ __typename }} }}',
    f'mutation {{ generate(input: {{ prompt: {{ a: "{SECRET}" }} }}) {{ __typename }} }}',
)


@dataclass
class Process:
    """``python -m api``, which logs as much as it can."""

    client: Client
    log: Path

    def lines_with(self, text: str) -> list[str]:
        """The log lines that hold a text."""
        return [line for line in self.log.read_text().splitlines() if text in line]


@pytest.fixture
async def process(
    database: DatabaseSettings,
    queue: Queue,
    broker_settings: BrokerSettings,
    storage_settings: StorageSettings,
    link_settings: LinkSettings,
    token_settings: TokenSettings,
    tmp_path: Path,
) -> AsyncIterator[Process]:
    port, log = free_port(), tmp_path / "api.log"
    secrets = {
        "DARKROOM_DATABASE_URL": database.database_url,
        "DARKROOM_NATS_PASSWORD": broker_settings.nats_password,
        "DARKROOM_DOWNLOAD_SECRET": link_settings.download_secret,
        "DARKROOM_JWT_SECRET": token_settings.jwt_secret,
        "DARKROOM_PASSWORD_PEPPER": token_settings.password_pepper,
    }
    with log.open("wb") as output:
        running = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "api",
            cwd=ROOT,
            env={
                **{name: secret.get_secret_value() for name, secret in secrets.items() if secret},
                "DARKROOM_NATS_URL": broker_settings.nats_url,
                "DARKROOM_NATS_USER": broker_settings.nats_user or "",
                "DARKROOM_STORAGE_URL": storage_settings.storage_url,
                "DARKROOM_BCRYPT_ROUNDS": "4",
                "DARKROOM_MODELS": '["darkroom-demo"]',
                "DARKROOM_LOG_LEVEL": "DEBUG",
                "DARKROOM_PORT": str(port),
            },
            stderr=output,
        )
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        async with asyncio.timeout(30):
            while not await _answers(http):  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.1)
        yield Process(client=Client(http=http, port=port), log=log)
    running.terminate()
    await running.wait()


async def _answers(http: httpx.AsyncClient) -> bool:
    with suppress(httpx.ConnectError):
        return (await http.get("/health/live")).status_code == httpx.codes.OK
    return False


@pytest.fixture
async def customer(process: Process, new_account: Any, password_hash: str) -> Client:
    until = now() + timedelta(days=30)
    await new_account("premium@example.org", password_hash=password_hash, premium_until=until)
    return await process.client.signed_in("premium@example.org")


async def test_no_log_line_holds_a_prompt_a_password_or_a_token(process: Process, customer: Client) -> None:
    for document in DOCUMENTS:
        await customer.execute(document)
    for fields in ({"prompt": SECRET}, {"prompt": SECRET, "width": 1}, {"prompt": [SECRET]}, {"x": SECRET}):
        await customer.execute(GENERATE, input=fields)
    await customer.execute("{ generations { edges { node { prompt } } } }")
    await customer.execute(SIGNIN, input={"email": "premium@example.org", "password": f"not {PASSWORD}"})
    async with connect(
        f"ws://127.0.0.1:{customer.port}/graphql?{SECRET}",
        subprotocols=[Subprotocol("graphql-transport-ws")],
    ) as socket:
        payload = {"authorization": f"Bearer {customer.token}"}
        await socket.send(json.dumps({"type": "connection_init", "payload": payload}))
        await socket.recv()
        for document in DOCUMENTS:
            message = {"type": "subscribe", "id": document, "payload": {"query": document}}
            await socket.send(json.dumps(message))
            await socket.recv()
        await socket.send(json.dumps({"type": SECRET, "id": SECRET}))
        with suppress(ConnectionClosed):
            while await socket.recv():
                pass
    headers = {"content-type": "application/json"}
    await customer.http.post("/graphql", content=f'{{"{SECRET}', headers=headers)
    assert process.lines_with('"path":"/graphql"')
    assert process.lines_with("[accepted]")
    for secret in (SECRET, PASSWORD, customer.token or "-"):
        assert process.lines_with(secret) == []


async def test_a_row_that_the_database_refuses_is_not_shown_in_the_log(
    process: Process, customer: Client, database: DatabaseSettings
) -> None:
    connection = await asyncpg.connect(database.database_url.get_secret_value())
    await connection.execute("ALTER TABLE generation ADD CONSTRAINT impossible CHECK (width < 0)")
    await connection.close()
    answer = await customer.execute(GENERATE, input={"prompt": SECRET})
    assert "errors" in answer
    assert process.lines_with("impossible")
    assert process.lines_with(SECRET) == []
