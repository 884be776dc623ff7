"""How much waits, runs and has failed, for whoever looks after the service."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from tortoise import connections

from core.lifecycle import Tier

# Both go by the index on state and created_at: what has ended well is not looked at, however much is kept.
_OPEN: Final = """
    SELECT tier,
           count(*) FILTER (WHERE state = 'QUEUED') AS waiting,
           count(*) FILTER (WHERE state = 'RUNNING') AS running,
           min(created_at) FILTER (WHERE state = 'QUEUED') AS oldest
      FROM generation WHERE state IN ('QUEUED', 'RUNNING') GROUP BY tier
"""
_DEAD: Final = """
    SELECT count(*) AS jobs FROM generation
     WHERE state = 'FAILED' AND cause IS NOT NULL AND created_at > $1
"""
_WAITS: Final = """
    SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY wait) AS median, max(wait) AS longest
      FROM (SELECT extract(epoch FROM started_at - created_at)::float8 AS wait FROM generation
             WHERE state IN ('RUNNING', 'SUCCEEDED') AND created_at > $1 AND tier = 'PREMIUM'
               AND started_at IS NOT NULL) AS started
"""
_LETTERS: Final = """
    SELECT count(*) FILTER (WHERE state <> 'FAILED') AS waiting,
           count(*) FILTER (WHERE state = 'FAILED') AS failed,
           min(created_at) FILTER (WHERE state <> 'FAILED') AS oldest
      FROM letter WHERE state IN ('PENDING', 'CLAIMED', 'FAILED')
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """The generations of a tier that have not ended.

    Attributes:
        waiting: how many wait.
        running: how many are being made.
        oldest: when the oldest of the waiting ones was accepted.
    """

    waiting: int = 0
    running: int = 0
    oldest: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Letters:
    """The letters that have not left.

    Attributes:
        waiting: how many are to be sent.
        failed: how many were given up and are still kept.
        oldest: when the oldest of the waiting ones was written.
    """

    waiting: int
    failed: int
    oldest: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """From acceptance to a worker, in seconds; none where nothing was accepted."""

    median: float | None
    longest: float | None


async def open_generations() -> Mapping[Tier, Open]:
    """What has not ended, of each tier."""
    found = {
        Tier(row["tier"]): Open(waiting=row["waiting"], running=row["running"], oldest=row["oldest"])
        for row in await _rows(_OPEN)
    }
    return {tier: found.get(tier, Open()) for tier in Tier}


async def dead_jobs(*, since: datetime) -> int:
    """How many generations accepted since then our side has failed."""
    [row] = await _rows(_DEAD, since)
    return int(row["jobs"])


async def premium_waits(*, since: datetime) -> Waits:
    """How long premium generations accepted since then have waited."""
    [row] = await _rows(_WAITS, since)
    return Waits(median=row["median"], longest=row["longest"])


async def letters() -> Letters:
    """The letters that have not left."""
    [row] = await _rows(_LETTERS)
    return Letters(waiting=row["waiting"], failed=row["failed"], oldest=row["oldest"])


async def _rows(statement: str, *values: object) -> list[dict[str, Any]]:
    return list(await connections.get("default").execute_query_dict(statement, list(values)))
