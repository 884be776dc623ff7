"""Migrations beside processes that use the tables."""

import asyncio
import os
import sys
import time

import asyncpg
import pytest
from tortoise import Tortoise
from tortoise.migrations.api import migrate as run_migrations

from core.errors import ServiceUnavailableError
from core.models import database_config
from core.repository.database import _MIGRATION_LOCK, migrate
from core.settings import DatabaseSettings

_OTHERS = """
SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


async def database_at(settings: DatabaseSettings, migration: str) -> str:
    """The address of the database as ``migration`` leaves it."""
    await run_migrations(config=database_config(settings), target=f"darkroom.{migration}")
    await Tortoise.close_connections()
    return settings.database_url.get_secret_value()


async def columns_of(connection: asyncpg.Connection, table: str) -> set[str]:
    rows = await connection.fetch(
        "SELECT column_name FROM information_schema.columns WHERE table_name = $1", table
    )
    return {row["column_name"] for row in rows}


async def invalid_indexes(connection: asyncpg.Connection) -> list[str]:
    rows = await connection.fetch(
        "SELECT indexrelid::regclass::text AS name FROM pg_index WHERE NOT indisvalid"
    )
    return [row["name"] for row in rows]


async def test_a_migration_gives_way_to_who_uses_its_table_and_is_done_the_next_time(
    database_settings: DatabaseSettings,
) -> None:
    url = await database_at(database_settings, "0006_reminders")
    user, onlooker = await asyncpg.connect(url), await asyncpg.connect(url)
    async with user.transaction():
        await user.execute("SELECT count(*) FROM generation")
        begun = time.monotonic()
        with pytest.raises(ServiceUnavailableError, match="lock timeout"):
            await migrate(database_settings, lock_seconds=0.3)
        assert time.monotonic() - begun < 5
        # Nobody waits behind it, and nothing of it is left.
        await onlooker.fetchval("SELECT count(*) FROM generation", timeout=2)
        assert "attempts" not in await columns_of(onlooker, "generation")
        assert "keeps_recorded" not in await columns_of(onlooker, "erasure")
    await migrate(database_settings)
    assert "attempts" in await columns_of(onlooker, "generation")
    await user.close()
    await onlooker.close()


async def test_an_index_that_could_not_be_finished_is_made_the_next_time(
    database_settings: DatabaseSettings,
) -> None:
    url = await database_at(database_settings, "0008_traces")
    user, onlooker = await asyncpg.connect(url), await asyncpg.connect(url)
    async with user.transaction(isolation="repeatable_read"):
        await user.execute("SELECT count(*) FROM letter")
        with pytest.raises(ServiceUnavailableError, match="lock timeout"):
            await migrate(database_settings, lock_seconds=0.3)
        # It has waited for the reader of another table, and nobody for it.
        await onlooker.execute("DELETE FROM refresh_token", timeout=2)
        assert await invalid_indexes(onlooker) == ["refresh_token_expiry"]
    await migrate(database_settings)
    assert await invalid_indexes(onlooker) == []
    await user.close()
    await onlooker.close()


async def test_who_waits_to_migrate_does_not_keep_the_one_who_does(
    database_settings: DatabaseSettings,
) -> None:
    url = await database_at(database_settings, "0008_traces")
    first = await asyncpg.connect(url)
    await first.execute("SELECT pg_advisory_lock($1)", _MIGRATION_LOCK)
    command, environment = (
        (sys.executable, "-m", "console", "migrate"),
        {**os.environ, "DARKROOM_DATABASE_URL": url},
    )
    both = [
        await asyncio.create_subprocess_exec(*command, env=environment, stderr=asyncio.subprocess.PIPE)
        for _ in range(2)
    ]
    async with asyncio.timeout(60):
        while await first.fetchval(_OTHERS) < len(both):  # noqa: ASYNC110 - the database has no event
            await asyncio.sleep(0.1)
        await first.close()
        for process in both:
            _, told = await process.communicate()
            assert process.returncode == 0, told.decode()
