"""What was spent of each allowance, and the places of live subscriptions."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final
from uuid import UUID

from tortoise import connections

from core.models import Subscription

_SPEND: Final = """
    INSERT INTO rate_limit AS held (key, restored_at) VALUES ($1, now() + $2)
    ON CONFLICT (key) DO UPDATE SET restored_at = greatest(held.restored_at, now()) + $2
     WHERE greatest(held.restored_at, now()) + $2 <= now() + $3
    RETURNING restored_at - now() AS restored_in
"""

_RESTORED_IN: Final = """
    SELECT key, restored_at - now() AS restored_in FROM rate_limit
     WHERE key = ANY($1::text[]) AND restored_at > now()
"""

# Not what is being spent from: whoever spends for several accounts would wait for this, and this for them.
_FORGET: Final = """
    DELETE FROM rate_limit WHERE key IN (
        SELECT key FROM rate_limit WHERE restored_at < now() FOR UPDATE SKIP LOCKED)
"""

# At random, so that those who come at the same moment do not all try for the same place.
_TAKE_PLACE: Final = """
    INSERT INTO subscription AS held (id, account_id, place, process, expires_at)
    SELECT gen_random_uuid(), $1, free.place, $2, now() + $4
      FROM generate_series(1, $3) AS free (place)
     WHERE NOT EXISTS (SELECT FROM subscription AS taken
                        WHERE taken.account_id = $1 AND taken.place = free.place
                          AND taken.expires_at > now())
     ORDER BY random() LIMIT 1
    ON CONFLICT (account_id, place) DO UPDATE
       SET id = excluded.id, process = excluded.process, expires_at = excluded.expires_at
     WHERE held.expires_at <= now()
    RETURNING id
"""


async def spend(key: str, *, cost: timedelta, window: timedelta) -> timedelta | None:
    """Take ``cost`` from an allowance of ``window``, which restores itself as time passes. One statement.

    Returns:
        In how long all of it is restored, or none when not so much was left, and nothing was taken.
    """
    rows = await connections.get("default").execute_query_dict(_SPEND, [key, cost, window])
    return rows[0]["restored_in"] if rows else None


async def restored_in(keys: Sequence[str]) -> dict[str, timedelta]:
    """In how long each allowance is restored; those of which nothing is missing are left out."""
    rows = await connections.get("default").execute_query_dict(_RESTORED_IN, [list(keys)])
    return {row["key"]: row["restored_in"] for row in rows}


async def take_place(account_id: UUID, *, process: UUID, places: int, lease: timedelta) -> UUID | None:
    """Take one of an account's places for subscriptions until ``lease`` ends; none where all are taken."""
    client = connections.get("default")
    while True:
        if rows := await client.execute_query_dict(_TAKE_PLACE, [account_id, process, places, lease]):
            return UUID(str(rows[0]["id"]))
        # Somebody else was faster, or there is none left.
        if await places_taken(account_id) >= places:
            return None


async def places_taken(account_id: UUID) -> int:
    """How many subscriptions of an account are live, at all api processes."""
    rows = await connections.get("default").execute_query_dict(
        "SELECT count(*) AS taken FROM subscription WHERE account_id = $1 AND expires_at > now()",
        [account_id],
    )
    return int(rows[0]["taken"])


async def renew_places(process: UUID, *, lease: timedelta) -> None:
    """Hold on to all places that an api process has taken."""
    await connections.get("default").execute_query(
        "UPDATE subscription SET expires_at = now() + $2 WHERE process = $1", [process, lease]
    )


async def leave_place(place_id: UUID) -> None:
    """Give a place back."""
    await Subscription.filter(id=place_id).delete()


async def leave_places(process: UUID) -> None:
    """Give all places of an api process back."""
    await Subscription.filter(process=process).delete()


async def forget_restored() -> int:
    """Delete what says nothing any more; returns how many rows those were."""
    deleted = await connections.get("default").execute_query(_FORGET)
    await connections.get("default").execute_query("DELETE FROM subscription WHERE expires_at < now()")
    return int(deleted[0])
