"""Opening PostgreSQL, its migrations, and what its errors mean."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import asyncpg
from tortoise import Tortoise, connections
from tortoise.exceptions import DBConnectionError, OperationalError
from tortoise.migrations.api import migrate as run_migrations
from tortoise.transactions import in_transaction

from core.errors import ServiceUnavailableError
from core.models import database_config
from core.settings import DatabaseSettings

__all__ = ["UNAVAILABLE", "database", "in_transaction", "migrate", "ping"]

UNAVAILABLE: Final = (
    DBConnectionError,
    OperationalError,
    OSError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
)
"""What Tortoise and asyncpg raise when the server, rather than the statement, is at fault."""

_MIGRATION_LOCK: Final = 0x6461726B
"""Key of the advisory lock under which one process at a time migrates."""


@asynccontextmanager
async def database(settings: DatabaseSettings) -> AsyncIterator[None]:
    """The database for as long as the block runs; the pool opens when it is first needed."""
    await Tortoise.init(config=database_config(settings))
    try:
        yield
    finally:
        await Tortoise.close_connections()


async def ping() -> None:
    """Ask the server for a sign of life.

    Raises:
        ServiceUnavailableError: none came.
    """
    try:
        await connections.get("default").execute_query("SELECT 1")
    except UNAVAILABLE as error:
        raise ServiceUnavailableError(f"database: {error!r}") from error


async def migrate(settings: DatabaseSettings) -> None:
    """Bring the schema up to date. Tortoise takes no lock of its own, so that is done here.

    Raises:
        ServiceUnavailableError: the server does not answer.
    """
    try:
        guard = await asyncpg.connect(settings.database_url.get_secret_value())
    except UNAVAILABLE as error:
        raise ServiceUnavailableError(f"database: {error!r}") from error
    try:
        await guard.execute("SELECT pg_advisory_lock($1)", _MIGRATION_LOCK)
        await run_migrations(config=database_config(settings))
    finally:
        await Tortoise.close_connections()
        await guard.close()
