"""What looks every minute for rows that are over reads few of those that are not."""

import re
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, Final

import pytest
from tortoise import connections

from core.clock import now
from core.lifecycle import Tier
from core.models import Account, Generation
from core.repository import erasures, sweeps

_FILL: Final = """
    INSERT INTO account (id, email, email_key, password_hash, email_verified_at, created_at)
    SELECT gen_random_uuid(), n, n, '-', now(), now() - interval '1 year' FROM generate_series(1, 3000) AS n;
    INSERT INTO session_family (id, account_id, created_at) SELECT gen_random_uuid(), id, now() FROM account;
    INSERT INTO refresh_token (hash, family_id, expires_at)
    SELECT id, id, now() + interval '1 day' FROM session_family;
    ANALYZE account, session_family, refresh_token
"""


async def rows_read(statement: str, values: list[Any]) -> float:
    """How many rows the busiest part of a statement's plan looks at."""
    plan = await connections.get("default").execute_query_dict(f"EXPLAIN ANALYZE {statement}", values)
    found = (re.search(r"actual .*rows=([\d.]+)|Removed by .*: (\d+)", row["QUERY PLAN"]) for row in plan)
    return max(float(one[1] or one[2]) for one in found if one)


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("table", ["account", "session_family", "refresh_token"])
async def test_a_sweep_reads_few_rows_however_many_stay(table: str) -> None:
    await connections.get("default").execute_script(_FILL)
    values = [now() - timedelta(days=7), 500]

    assert await rows_read(sweeps._STATEMENTS[table], values) < 10


async def test_what_has_expired_of_a_tier_is_found_among_what_the_other_keeps(
    new_account: Callable[..., Awaitable[Account]], new_generation: Callable[..., Awaitable[Generation]]
) -> None:
    ended = {"tier": Tier.PREMIUM, "state": "SUCCEEDED", "finished_at": now() - timedelta(days=90)}
    one = await new_generation(await new_account(), **ended)
    fields = {name: getattr(one, name) for name in Generation._meta.db_fields if name != "id"}
    await Generation.bulk_create([Generation(**fields) for _ in range(3000)])
    await Generation.all().update(created_at=one.finished_at)
    await connections.get("default").execute_script("ANALYZE generation")
    month_ago = now() - timedelta(days=30)
    values = [now(), 500, erasures.LATE, erasures._ENDED, month_ago, Tier.NORMAL.value]

    assert await rows_read(erasures._EXPIRED, values) < 10
