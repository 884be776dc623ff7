"""What strangers may try: the audits speak to an api process of their own, one per test process."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from core.queue import Queue
from core.settings import DatabaseSettings, LinkSettings, StorageSettings, TokenSettings
from tests.audit.report import Report, print_table
from tests.audit.target import ACCOUNTS, Backing, Target, open_accounts, running, sign_in
from tests.conftest import Server, free_port, new_broker_account, new_database
from tests.served_api import (
    api_settings,
    client,
    listener,
    normal,
    parts,
    password_hash,
    payment_settings,
    premium,
)

__all__ = [
    "api_settings",
    "client",
    "listener",
    "normal",
    "parts",
    "password_hash",
    "payment_settings",
    "premium",
]


@pytest.fixture(scope="session")
def backing(postgres_server: Server, nats_server: Server, server_folder: Path) -> Iterator[Backing]:
    """A database, a broker account and a folder of objects for the audited processes."""
    with asyncio.Runner() as runner:
        opened = new_database(postgres_server)
        database: DatabaseSettings = runner.run(opened.__aenter__())
        found = Backing(
            database=database,
            broker=new_broker_account(nats_server),
            storage=StorageSettings(storage_url=f"file://{server_folder}/audit-objects"),
            links=LinkSettings(download_secret=SecretStr("d" * 20)),
            tokens=TokenSettings(
                jwt_secret=SecretStr("j" * 40),
                password_pepper=SecretStr("p" * 20),
                bcrypt_rounds=4,
                # Customers sign in once for all audits.
                access_token_minutes=240,
            ),
        )
        runner.run(open_accounts(found))
        runner.run(_declare(found))
        yield found
        runner.run(opened.__aexit__(None, None, None))


async def _declare(backing: Backing) -> None:
    queue = await Queue.connect(backing.broker, name="audit")
    await queue.declare()
    await queue.close()


@pytest.fixture(scope="session")
def target(backing: Backing, server_folder: Path) -> Iterator[Target]:
    """The audited process, with the limits that it has unless an operator sets others."""
    log = server_folder / "audited-api.log"
    with running(backing, port=free_port(), metrics_port=free_port(), log=log) as started:
        for email in ACCOUNTS:
            started.customers[email] = sign_in(started, email)
        yield started
        started.assert_calm()


@pytest.fixture
async def calm(target: Target) -> AsyncIterator[None]:
    """Afterwards the process still serves and has logged no error."""
    since = target.log.stat().st_size
    yield
    async with target.http() as http:
        assert (await http.get("/health/live")).status_code == 200
        answer = await http.post("/graphql", json={"query": "{ __typename }"})
        assert answer.json()["data"] == {"__typename": "Query"}
    target.assert_calm(since=since)


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Report:
    """Where a test notes what became of an attack."""
    return Report(request.node)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    print_table(terminalreporter)
