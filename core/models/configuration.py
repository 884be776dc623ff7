"""How the ORM finds the tables, the migrations and the server."""

from typing import Any

from tortoise.backends.base.config_generator import expand_db_url

from core.settings import DatabaseSettings


def database_config(settings: DatabaseSettings, *, patience: float | None = None) -> dict[str, Any]:
    """Tortoise's configuration for a database; timestamps are aware and in UTC.

    Args:
        settings: where it is.
        patience: seconds that a statement, or the wait for a connection, may take; none for as long as it
            takes.
    """
    connection = expand_db_url(settings.database_url.get_secret_value())
    connection["engine"] = "core.repository.postgres"
    connection["credentials"] |= {
        "minsize": 1,
        "maxsize": settings.database_pool_size,
        "patience": patience,
    }
    if (tls := settings.tls) is not None:
        connection["credentials"]["ssl"] = tls
    return {
        "connections": {"default": connection},
        "apps": {"darkroom": {"models": ["core.models"], "migrations": "core.migrations"}},
        "use_tz": True,
        "timezone": "UTC",
    }
