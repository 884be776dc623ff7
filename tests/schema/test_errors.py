"""What clients are told when something is wrong that they cannot put right."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from structlog.testing import capture_logs
from tortoise import connections

from tests.graphql_client import Client


async def test_a_wrong_statement_is_our_mistake_and_no_absence(normal: Client) -> None:
    connection = connections.get("default")
    await connection.execute_script("ALTER TABLE account RENAME COLUMN email_verified_at TO gone")
    with capture_logs() as logs:
        answer = await normal.execute("{ me { email } }")
    [error] = answer["errors"]
    assert error["extensions"]["code"] == "INTERNAL"
    assert "gone" not in error["message"]
    [logged] = [entry for entry in logs if entry["event"] == "unexpected_error"]
    assert logged["error_id"] in error["message"]


async def test_while_the_database_is_away_that_is_told_and_afterwards_all_is_well(
    normal: Client, database_away: Callable[[], AbstractAsyncContextManager[None]]
) -> None:
    async with database_away():
        answer = await normal.execute("{ me { email } }")
        assert answer["errors"][0]["extensions"]["code"] == "SERVICE_UNAVAILABLE"
        health = await normal.http.get("/health/serving")
        assert health.status_code == 503
        assert health.json()["missing"][0].startswith("database: ")
    assert (await normal.data("{ me { email } }"))["me"]["email"]
