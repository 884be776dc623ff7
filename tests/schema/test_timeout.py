"""What takes too long is given up, and leaves everything whole."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from api.app import Parts
from core.generations import Generations
from core.models import Account, Generation, SessionFamily
from core.settings import DatabaseSettings, DocumentSettings
from core.telemetry import OPERATIONS_TIMED_OUT
from schema.types.node import to_global_id
from tests.graphql_client import PASSWORD, SIGNIN, Client

GENERATE = """
mutation ($key: String) { generate(input: { prompt: "a red house", idempotencyKey: $key }) {
  __typename ... on Generation { id } } }
"""
TIMEOUT = {"code": "TIMEOUT"}


@pytest.fixture
def document_settings() -> DocumentSettings:
    return DocumentSettings(operation_timeout_seconds=0.5)


@asynccontextmanager
async def locked(database: DatabaseSettings, table: str) -> AsyncIterator[None]:
    """Nobody else reads or writes a table while the block runs."""
    connection = await asyncpg.connect(database.database_url.get_secret_value())
    try:
        async with connection.transaction():
            await connection.execute(f"LOCK TABLE {table}")
            yield
    finally:
        await connection.close()


def given_up(kind: str) -> float:
    return float(OPERATIONS_TIMED_OUT.labels(operation=kind)._value.get())


@pytest.mark.parametrize(
    ("kind", "document"),
    [("query", "{ me { email } }"), ("mutation", "mutation { signout { message } }")],
)
async def test_what_takes_too_long_ends_with_a_reason_and_is_counted(
    premium: Client, database: DatabaseSettings, kind: str, document: str
) -> None:
    before = given_up(kind)
    async with locked(database, "session_family"):
        begun = time.monotonic()
        answer = await premium.execute(document)
        assert 0.5 <= time.monotonic() - begun < 5
    [error] = answer["errors"]
    assert error["extensions"] == TIMEOUT
    assert error["message"] == "This took longer than 0.5 seconds and was given up. Try again."
    assert answer.get("data") is None
    assert given_up(kind) == before + 1


@pytest.mark.parametrize(
    ("accept", "status"), [("application/graphql-response+json", 503), ("application/json", 200)]
)
async def test_what_is_given_up_is_no_fault_of_the_request(
    premium: Client, database: DatabaseSettings, accept: str, status: int
) -> None:
    headers = {"accept": accept, "authorization": f"Bearer {premium.token}"}
    async with locked(database, "session_family"):
        answer = await premium.http.post("/graphql", json={"query": "{ me { email } }"}, headers=headers)
    assert answer.status_code == status
    assert answer.json()["errors"][0]["extensions"] == TIMEOUT
    assert "data" not in answer.json()


async def test_more_of_it_than_there_are_connections_leaves_all_of_them_usable(
    premium: Client, database: DatabaseSettings
) -> None:
    """The pool has five: a connection that was lost or left in a transaction each time would show."""
    for _ in range(2):
        async with locked(database, "session_family"):
            answers = await asyncio.gather(*(premium.execute("{ me { email } }") for _ in range(12)))
        assert {answer["errors"][0]["extensions"]["code"] for answer in answers} == {"TIMEOUT"}
    answers = await asyncio.gather(*(premium.data("{ me { email } }") for _ in range(12)))
    assert [answer["me"]["email"] for answer in answers] == ["premium@example.org"] * 12
    connection = await asyncpg.connect(database.database_url.get_secret_value())
    idle = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'"
    )
    assert await connection.fetchval(idle) == 0
    await connection.close()


async def test_a_transaction_that_is_given_up_is_rolled_back(
    normal: Client, database: DatabaseSettings
) -> None:
    """Signing in writes a session and then its refresh token, which waits here."""
    sessions = await SessionFamily.all().count()
    async with locked(database, "refresh_token"):
        answer = await normal.execute(SIGNIN, input={"email": "normal@example.org", "password": PASSWORD})
        assert answer["errors"][0]["extensions"] == TIMEOUT
    assert await SessionFamily.all().count() == sessions
    assert await normal.signed_in("normal@example.org")


async def test_a_generation_that_is_given_up_before_it_is_written_is_not_there(
    premium: Client, database: DatabaseSettings
) -> None:
    async with locked(database, "generation"):
        answer = await premium.execute(GENERATE)
        assert answer["errors"][0]["extensions"] == TIMEOUT
    assert await Generation.all().count() == 0


async def test_a_generation_that_was_written_stays_accepted_and_is_published_later(
    premium: Client, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish = parts.queue.publish_job

    async def too_slow(*_: Any) -> None:
        await asyncio.sleep(60)

    monkeypatch.setattr(parts.queue, "publish_job", too_slow)
    answer = await premium.execute(GENERATE, key="k")
    assert answer["errors"][0]["extensions"] == TIMEOUT
    accepted = await Generation.get()
    assert accepted.published_at is None

    monkeypatch.setattr(parts.queue, "publish_job", publish)
    again = await premium.data(GENERATE, key="k")
    assert again["generate"]["__typename"] == "Generation"
    assert await Generation.all().count() == 1
    monkeypatch.setattr("core.outbox.RELAY_AGE", accepted.created_at - accepted.created_at)
    assert await parts.outbox.relay() == 1
    await Generation.get(published_at__isnull=False)


async def test_what_a_mutation_had_done_stays_when_its_next_field_is_given_up(
    premium: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def too_slow(*_: Any, **__: Any) -> None:
        await asyncio.sleep(60)

    monkeypatch.setattr(Generations, "cancel", too_slow)
    document = """mutation ($id: ID!) { generate(input: { prompt: "a red house" }) { __typename }
        cancelGeneration(id: $id) { __typename } }"""
    answer = await premium.execute(document, id=to_global_id("Generation", uuid4()))
    assert answer["errors"][0]["extensions"] == TIMEOUT
    assert answer.get("data") is None
    assert await Generation.all().count() == 1
    assert await Account.all().count() == 1
