"""Migrations beside processes that use the tables."""

import time

import asyncpg
import pytest
from tortoise import Tortoise
from tortoise.migrations.api import migrate as run_migrations

from core.errors import ServiceUnavailableError
from core.models import database_config
from core.repository.database import migrate
from core.settings import DatabaseSettings


async def columns_of(connection: asyncpg.Connection, table: str) -> set[str]:
    rows = await connection.fetch(
        "SELECT column_name FROM information_schema.columns WHERE table_name = $1", table
    )
    return {row["column_name"] for row in rows}


async def test_a_migration_gives_way_to_who_uses_its_table_and_is_done_the_next_time(
    database_settings: DatabaseSettings,
) -> None:
    await run_migrations(config=database_config(database_settings), target="darkroom.0006_reminders")
    await Tortoise.close_connections()
    url = database_settings.database_url.get_secret_value()
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
