"""Opening PostgreSQL, its migrations, and whether it is there."""

import asyncio
import pkgutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import asyncpg
import structlog
from tortoise import Tortoise, connections
from tortoise.exceptions import OperationalError
from tortoise.migrations.api import migrate as run_migrations
from tortoise.transactions import in_transaction

from core import migrations
from core.errors import ServiceUnavailableError
from core.models import database_config
from core.repository.postgres import translated
from core.settings import DatabaseSettings

__all__ = ["database", "in_transaction", "migrate", "require_schema", "schema_there"]

_MIGRATION_LOCK: Final = 0x6461726B
"""Key of the advisory lock under which one process at a time migrates."""

_MIGRATIONS: Final = frozenset(module.name for module in pkgutil.iter_modules(migrations.__path__))

LOCK_SECONDS: Final = 5
"""How long a migration waits for a table that is in use: behind it everybody else would wait too."""

_PAUSE: Final = 1.0

log = structlog.get_logger(__name__)


@asynccontextmanager
async def database(settings: DatabaseSettings) -> AsyncIterator[None]:
    """The database for as long as the block runs; the pool opens when it is first needed."""
    await Tortoise.init(config=database_config(settings, patience=settings.database_timeout_seconds))
    try:
        yield
    finally:
        await Tortoise.close_connections()


async def require_schema() -> None:
    """Check that every migration that this code knows was applied; more do no harm.

    Raises:
        ServiceUnavailableError: the server does not answer, or the schema is older than the code.
    """
    try:
        rows = await connections.get("default").execute_query_dict(
            "SELECT name FROM tortoise_migrations WHERE app = 'darkroom'"
        )
    except OperationalError as error:
        raise ServiceUnavailableError("database: there is no schema (`darkroom migrate`)") from error
    if missing := _MIGRATIONS - {row["name"] for row in rows}:
        raise ServiceUnavailableError(
            f"database: the schema lacks {', '.join(sorted(missing))} (`darkroom migrate`)"
        )


async def schema_there() -> None:
    """Wait for the server and its schema: processes start in any order."""
    while True:
        try:
            await require_schema()
        except ServiceUnavailableError as error:
            log.warning("waiting_for_database", error=str(error))
            await asyncio.sleep(_PAUSE)
        else:
            return


async def migrate(settings: DatabaseSettings, *, lock_seconds: float = LOCK_SECONDS) -> None:
    """Bring the schema up to date. Tortoise takes no lock of its own, so that is done here.

    Args:
        settings: which database.
        lock_seconds: how long to wait for a table that is in use.

    Raises:
        ServiceUnavailableError: the server does not answer, or a table was in use for too long; what is not
            done then is done the next time.
    """
    config = database_config(settings)
    credentials = config["connections"]["default"]["credentials"]
    credentials["server_settings"] = {"lock_timeout": f"{round(lock_seconds * 1000)}ms"}
    with translated():
        guard = await asyncpg.connect(
            settings.database_url.get_secret_value(),
            timeout=settings.database_timeout_seconds,
            ssl=settings.tls,
        )
        try:
            # Asked again and again: an index that is made beside its table's use would wait for a statement
            # that waits here.
            while not await guard.fetchval("SELECT pg_try_advisory_lock($1)", _MIGRATION_LOCK):  # noqa: ASYNC110 - another process has no event
                await asyncio.sleep(_PAUSE)
            await run_migrations(config=config)
        finally:
            await Tortoise.close_connections()
            await guard.close()
