"""What becomes of statements when the database is away, slow to answer, or asked for nonsense."""

import asyncio
import time
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import asyncpg
import pytest
from pydantic import SecretStr
from tortoise import connections
from tortoise.exceptions import IntegrityError, OperationalError

from core.errors import ServiceUnavailableError
from core.models import Account
from core.repository.database import database as open_database
from core.repository.database import in_transaction, require_schema
from core.settings import DatabaseSettings
from tests.link import Link, link_to

PATIENCE = 0.5


@pytest.fixture
async def link(database_settings: DatabaseSettings) -> AsyncIterator[Link]:
    port = urlsplit(database_settings.database_url.get_secret_value()).port
    assert port
    async with link_to(port) as link:
        yield link


@pytest.fixture
async def over_link(database_settings: DatabaseSettings, link: Link) -> AsyncIterator[DatabaseSettings]:
    """The test's database, opened over the link."""
    url = urlsplit(database_settings.database_url.get_secret_value())
    linked = url._replace(netloc=url.netloc.replace(f":{url.port}", f":{link.port}")).geturl()
    settings = DatabaseSettings(
        database_url=SecretStr(linked), database_pool_size=2, database_timeout_seconds=PATIENCE
    )
    async with open_database(settings):
        yield settings
        await link.open()


async def ask(statement: str = "SELECT 1 AS one") -> None:
    await connections.get("default").execute_query_dict(statement)


async def ask_in_transaction() -> None:
    async with in_transaction() as transaction:
        await transaction.execute_query("SELECT 1")


@pytest.mark.parametrize("opened", [True, False], ids=["with a pool", "before there is a pool"])
@pytest.mark.parametrize("asking", [ask, ask_in_transaction])
async def test_a_database_that_refuses_is_unavailable_and_is_used_again_by_itself(
    over_link: DatabaseSettings, link: Link, asking: object, opened: bool
) -> None:
    assert callable(asking)
    if opened:
        await asking()
    await link.cut()
    for _ in range(4):
        with pytest.raises(ServiceUnavailableError, match="database"):
            await asking()
    await link.open()
    await asking()


@pytest.mark.parametrize("opened", [True, False], ids=["with a pool", "before there is a pool"])
@pytest.mark.parametrize("asking", [ask, ask_in_transaction])
async def test_a_silent_database_is_waited_for_no_longer_than_the_timeout_and_used_again(
    over_link: DatabaseSettings, link: Link, asking: object, opened: bool
) -> None:
    assert callable(asking)
    if opened:
        await asyncio.gather(asking(), asking())
    link.fall_silent()
    begun = time.monotonic()
    # More than the pool has connections, and twice, so that one kept by mistake would be missed.
    for _ in range(2):
        ends = await asyncio.gather(*(asking() for _ in range(3)), return_exceptions=True)
        assert [type(end) for end in ends] == [ServiceUnavailableError] * 3
    assert time.monotonic() - begun < 2 * (2 * PATIENCE) + 2
    await link.open()
    await asyncio.gather(*(asking() for _ in range(3)))


async def test_who_gives_up_on_a_silent_database_is_not_kept_by_it(
    over_link: DatabaseSettings, link: Link
) -> None:
    await ask()
    link.fall_silent()
    begun = time.monotonic()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await ask()
    assert time.monotonic() - begun < 0.1 + 1 + 0.5


async def test_a_connection_that_the_server_ends_inside_a_transaction_is_unavailable(
    over_link: DatabaseSettings, database_settings: DatabaseSettings
) -> None:
    async def be_ended() -> None:
        async with in_transaction() as transaction:
            [row] = await transaction.execute_query_dict("SELECT pg_backend_pid() AS pid")
            admin = await asyncpg.connect(database_settings.database_url.get_secret_value())
            await admin.execute("SELECT pg_terminate_backend($1)", row["pid"])
            await admin.close()
            await transaction.execute_query("SELECT 1")

    with pytest.raises(ServiceUnavailableError):
        await asyncio.wait_for(be_ended(), 10)
    await ask()


async def test_a_wrong_statement_is_no_absence(database: DatabaseSettings) -> None:
    for wrong in ("SELECT nothing FROM account", "SELECT * FROM nowhere", "SELECT 1/0", "SELEC 1"):
        with pytest.raises(OperationalError):
            await ask(wrong)
    with pytest.raises(asyncpg.InterfaceError):
        await connections.get("default").execute_query("SELECT $1::int", [1, 2])
    await Account.create(email="a@example.org", email_key="a@example.org", password_hash="-")
    with pytest.raises(IntegrityError):
        await Account.create(email="b@example.org", email_key="a@example.org", password_hash="-")


async def test_a_schema_that_is_missing_or_older_than_the_code_is_told(database: DatabaseSettings) -> None:
    await require_schema()
    await ask("DELETE FROM tortoise_migrations WHERE name = '0004_deletion'")
    with pytest.raises(ServiceUnavailableError, match="lacks 0004_deletion"):
        await require_schema()
    await connections.get("default").execute_script("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    with pytest.raises(ServiceUnavailableError, match="darkroom migrate"):
        await require_schema()
