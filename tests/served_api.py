"""A served api of the test's own: real HTTP and WebSocket on a real port, over real services."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

import httpx
import pytest
import uvicorn

from api.app import Parts, build_app, build_parts
from api.server import server_config
from api.settings import ApiSettings, HttpSettings, WebSocketSettings
from core.accounts.passwords import PasswordHasher
from core.accounts.tokens import new_secret
from core.clock import now
from core.lifecycle import GenerationState
from core.messages import StoredImage
from core.models import Account, TokenPurpose
from core.queue import Queue
from core.repository import accounts
from core.settings import (
    BrokerSettings,
    CatalogueSettings,
    DatabaseSettings,
    DocumentSettings,
    FailpointSettings,
    LimitSettings,
    LinkSettings,
    PaymentSettings,
    RetentionSettings,
    StorageSettings,
    TelemetrySettings,
    TokenSettings,
)
from tests.graphql_client import NO_AUTHORITIES, PASSWORD, Client

BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8"}
"""What a browser takes that follows a link."""


@pytest.fixture
def payment_settings() -> PaymentSettings:
    """Nothing is sold by card, unless a test says so."""
    return PaymentSettings()


@pytest.fixture
def api_settings(  # noqa: PLR0913, PLR0917 - one argument per group
    database: DatabaseSettings,
    broker_settings: BrokerSettings,
    storage_settings: StorageSettings,
    link_settings: LinkSettings,
    token_settings: TokenSettings,
    limit_settings: LimitSettings,
    payment_settings: PaymentSettings,
    document_settings: DocumentSettings,
    http_settings: HttpSettings,
    websocket_settings: WebSocketSettings,
) -> ApiSettings:
    return ApiSettings(
        http=http_settings,
        websocket=websocket_settings,
        database=database,
        broker=broker_settings,
        storage=storage_settings,
        links=link_settings,
        tokens=token_settings,
        limits=limit_settings,
        payment=payment_settings,
        retention=RetentionSettings(),
        documents=document_settings,
        catalogue=CatalogueSettings(models=("darkroom-demo",)),
        failpoints=FailpointSettings(),
        telemetry=TelemetrySettings(),
    )


@pytest.fixture
async def parts(api_settings: ApiSettings, queue: Queue) -> AsyncIterator[Parts]:
    built = build_parts(api_settings, queue=queue)
    yield built
    await built.close()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Where the api is served."""
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        yield opened


@pytest.fixture
async def client(api_settings: ApiSettings, parts: Parts, listener: socket.socket) -> AsyncIterator[Client]:
    """A client of a served api; nobody is signed in."""
    port = listener.getsockname()[1]
    app = build_app(api_settings, parts)
    settings = api_settings.http.model_copy(update={"shutdown_seconds": 1})
    server = uvicorn.Server(server_config(app, settings))
    serving, stop = asyncio.create_task(server.serve(sockets=[listener])), asyncio.Event()
    checking = asyncio.create_task(parts.connections.run(stop=stop))
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", verify=NO_AUTHORITIES) as http:
        yield Client(http=http, port=port)
    server.should_exit = True
    await serving
    stop.set()
    await checking


@pytest.fixture
async def password_hash(token_settings: TokenSettings) -> str:
    """The stored form of ``PASSWORD``."""
    return await PasswordHasher(token_settings).hash(PASSWORD)


@pytest.fixture
async def premium(client: Client, new_account: Any, password_hash: str) -> Client:
    """A signed-in premium customer."""
    until = now() + timedelta(days=30)
    await new_account("premium@example.org", password_hash=password_hash, premium_until=until)
    return await client.signed_in("premium@example.org")


@pytest.fixture
async def normal(client: Client, new_account: Any, password_hash: str) -> Client:
    """A signed-in normal customer."""
    await new_account("normal@example.org", password_hash=password_hash)
    return await client.signed_in("normal@example.org")


async def mailed_token(account: Account, purpose: TokenPurpose, *, minutes: float = 60) -> str:
    """What the link of a letter to an account would hold."""
    token, token_hash = new_secret()
    await accounts.replace_email_token(
        account.id, purpose=purpose, token_hash=token_hash, expires_at=now() + timedelta(minutes=minutes)
    )
    return token


async def succeed(parts: Parts, key: UUID, content: bytes) -> None:
    """Store one picture of a generation and record its success, as a worker and a recorder would."""
    path = f"generations/{key}/1/0.png"
    await parts.storage.put(path, content, content_type="image/png")
    image = StoredImage(
        key=path,
        width=128,
        height=128,
        seed=1,
        content_type="image/png",
        byte_size=len(content),
        sha256=sha256(content).hexdigest(),
    )
    await parts.recorder.finish(key, GenerationState.SUCCEEDED, at=now(), images=[image])
