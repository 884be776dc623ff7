"""The api as a process of its own, as it runs in production, and those who speak to it."""

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import httpx
import psutil
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from core.accounts.passwords import PasswordHasher
from core.clock import now
from core.models import Account
from core.queue import Queue
from core.recording import Recorder
from core.repository.database import database
from core.settings import BrokerSettings, DatabaseSettings, LinkSettings, StorageSettings, TokenSettings
from schema.types.node import key_of
from tests.graphql_client import NO_AUTHORITIES, PASSWORD, SIGNIN

ROOT: Final = Path(__file__).parents[2]
PROTOCOL: Final = Subprotocol("graphql-transport-ws")
GRAPHQL_JSON: Final = "application/graphql-response+json"
START_SECONDS: Final = 30
GENERATE = """
mutation ($input: GenerateInput!) { generate(input: $input) { __typename ... on Generation { id } } }
"""


@dataclass(frozen=True, kw_only=True)
class Backing:
    """What the api stands on, for tests that play a worker or an operator."""

    database: DatabaseSettings
    broker: BrokerSettings
    storage: StorageSettings
    links: LinkSettings
    tokens: TokenSettings

    def environment(self) -> dict[str, str]:
        """The variables of an api process over it."""
        assert self.broker.nats_user
        assert self.broker.nats_password
        return {
            "PATH": os.environ["PATH"],
            "DARKROOM_DATABASE_URL": self.database.database_url.get_secret_value(),
            "DARKROOM_NATS_URL": self.broker.nats_url,
            "DARKROOM_NATS_USER": self.broker.nats_user,
            "DARKROOM_NATS_PASSWORD": self.broker.nats_password.get_secret_value(),
            "DARKROOM_STORAGE_URL": self.storage.storage_url,
            "DARKROOM_DOWNLOAD_SECRET": self.links.download_secret.get_secret_value(),
            "DARKROOM_JWT_SECRET": self.tokens.jwt_secret.get_secret_value(),
            "DARKROOM_PASSWORD_PEPPER": self.tokens.password_pepper.get_secret_value(),
            "DARKROOM_ACCESS_TOKEN_MINUTES": str(self.tokens.access_token_minutes),
            "DARKROOM_BCRYPT_ROUNDS": str(self.tokens.bcrypt_rounds),
            "DARKROOM_MODELS": '["darkroom-demo"]',
        }


@dataclass(frozen=True, kw_only=True)
class Customer:
    """Somebody with an account who is signed in, since a moment of the monotonic clock."""

    email: str
    token: str
    refresh_token: str
    signed_in: float = 0.0

    @property
    def headers(self) -> dict[str, str]:
        """Of an HTTP request."""
        return {"Authorization": f"Bearer {self.token}"}

    @property
    def init(self) -> dict[str, Any]:
        """The ``connection_init`` message."""
        return {"type": "connection_init", "payload": {"authorization": f"Bearer {self.token}"}}


ACCOUNTS: Final = {"premium@example.org": 30, "normal@example.org": None, "guessed@example.org": 30}
"""Addresses of the customers, and for how many days each is premium."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """A running api process."""

    process: subprocess.Popen[bytes]
    port: int
    metrics_port: int
    log: Path
    backing: Backing
    customers: dict[str, Customer] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Of its HTTP server."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def graphql(self) -> str:
        """The address of GraphQL over HTTP."""
        return f"{self.url}/graphql"

    @property
    def socket_url(self) -> str:
        """The address of GraphQL over WebSocket."""
        return f"ws://127.0.0.1:{self.port}/graphql"

    @property
    def premium(self) -> Customer:
        """A customer whom others try to rob."""
        return self.customers["premium@example.org"]

    @property
    def normal(self) -> Customer:
        """Another one, who is up to no good."""
        return self.customers["normal@example.org"]

    @property
    def guessed(self) -> Customer:
        """One whose attempts no other test spends, as those do that send whatever the schema allows."""
        return self.customers["guessed@example.org"]

    def memory(self) -> int:
        """The process's resident bytes."""
        return int(psutil.Process(self.process.pid).memory_info().rss)

    def metric(self, name: str) -> float:
        """The present value of a metric without labels."""
        text = httpx.get(f"http://127.0.0.1:{self.metrics_port}/metrics", verify=NO_AUTHORITIES).text
        match = re.search(rf"^{name} (\S+)$", text, re.MULTILINE)
        assert match is not None, name
        return float(match[1])

    async def metric_becomes(self, name: str, value: float, *, seconds: float = 10) -> None:
        """Wait until a metric has a value."""
        deadline = time.monotonic() + seconds
        while (found := await asyncio.to_thread(self.metric, name)) != value:
            assert time.monotonic() < deadline, f"{name} is {found}, not {value}"
            await asyncio.sleep(0.05)

    def logged(self, *, since: int = 0) -> str:
        """What the process has logged since its log had so many bytes."""
        return self.log.read_bytes()[since:].decode()

    def assert_calm(self, *, since: int = 0) -> None:
        """The process runs, and since its log had so many bytes it has logged no traceback and no error."""
        assert self.process.poll() is None
        text = self.logged(since=since)
        assert "Traceback" not in text, text[max(0, text.index("Traceback") - 500) :][:6000]
        lines = [json.loads(line) for line in text.splitlines()]
        assert [line for line in lines if line["level"] in ("error", "critical")] == []

    async def generate(self, customer: Customer, **fields: Any) -> str:
        """The id of a generation that a customer has asked for."""
        async with self.http() as http:
            answer = await http.post(
                "/graphql",
                json={"query": GENERATE, "variables": {"input": {"prompt": "a red house", **fields}}},
                headers=customer.headers,
            )
        result = answer.json()["data"]["generate"]
        assert result["__typename"] == "Generation", result
        generation_id: str = result["id"]
        return generation_id

    def http(self, *, source: str = "127.0.0.1") -> httpx.AsyncClient:
        """A client whose requests come from a network address of this machine, 127.0.0.0/8."""
        return httpx.AsyncClient(
            base_url=self.url,
            transport=httpx.AsyncHTTPTransport(local_address=source, verify=NO_AUTHORITIES),
            timeout=30,
        )

    @asynccontextmanager
    async def socket(
        self, customer: Customer | None = None, *, source: str = "127.0.0.1", **options: Any
    ) -> AsyncIterator[ClientConnection]:
        """A websocket; with a customer it is initialised."""
        options.setdefault("subprotocols", [PROTOCOL])
        async with connect(self.socket_url, local_addr=(source, 0), **options) as connection:
            if customer is not None:
                await connection.send(json.dumps(customer.init))
                assert (await receive(connection))["type"] == "connection_ack"
            yield connection

    @asynccontextmanager
    async def recorder(self) -> AsyncIterator[Recorder]:
        """What records results, as the process's own would at a worker's word."""
        async with database(self.backing.database):
            queue = await Queue.connect(self.backing.broker, name="audit")
            try:
                yield Recorder(queue=queue)
            finally:
                await queue.close()


async def receive(connection: ClientConnection) -> dict[str, Any]:
    """The next message, in time; pings of the protocol are passed over."""
    while True:
        async with asyncio.timeout(10):
            message: dict[str, Any] = json.loads(await connection.recv())
        if message["type"] != "ping":
            return message


def uuid_of(generation_id: str) -> UUID:
    """The key in a generation's global id."""
    key = key_of(generation_id, "Generation")
    assert key is not None
    return key


@contextmanager
def running(
    backing: Backing, *, port: int, metrics_port: int, log: Path, **settings: str
) -> Iterator[Target]:
    """An api process, ended with SIGTERM.

    Args:
        settings: more variables, without ``DARKROOM_`` and in lower case.
    """
    environment = {
        **backing.environment(),
        "DARKROOM_PORT": str(port),
        "DARKROOM_METRICS_PORT": str(metrics_port),
        "DARKROOM_SHUTDOWN_SECONDS": "2",
        **{f"DARKROOM_{name.upper()}": value for name, value in settings.items()},
    }
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "api"], cwd=ROOT, env=environment, stdout=output, stderr=output
        )
    target = Target(process=process, port=port, metrics_port=metrics_port, log=log, backing=backing)
    try:
        _wait_until_serving(target)
        yield target
    finally:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
        process.wait()


def _wait_until_serving(target: Target) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        assert target.process.poll() is None, target.log.read_text()
        assert time.monotonic() < deadline, target.log.read_text()
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{target.url}/health/serving", verify=NO_AUTHORITIES).status_code == httpx.codes.OK:
                return
        time.sleep(0.1)


async def open_accounts(backing: Backing) -> None:
    """The customers' accounts."""
    password_hash = await PasswordHasher(backing.tokens).hash(PASSWORD)
    async with database(backing.database):
        for email, days in ACCOUNTS.items():
            await Account.create(
                email=email,
                email_key=email,
                password_hash=password_hash,
                email_verified_at=now(),
                premium_until=days and now() + timedelta(days=days),
            )


def sign_in(target: Target, email: str) -> Customer:
    """A new session of an account; from an address of its own, so that no test's attempts count for it."""
    transport = httpx.HTTPTransport(local_address="127.9.9.9", verify=NO_AUTHORITIES)
    with httpx.Client(transport=transport) as http:
        answer = http.post(
            target.graphql,
            json={"query": SIGNIN, "variables": {"input": {"email": email, "password": PASSWORD}}},
        )
    assert answer.status_code == httpx.codes.OK, target.logged()[-3000:]
    session = answer.json()["data"]["signin"]
    assert session["__typename"] == "Session", session
    return Customer(
        email=email,
        token=session["accessToken"],
        refresh_token=session["refreshToken"],
        signed_in=time.monotonic(),
    )
