"""What is deleted with the pictures it made: generations whose time is over, and objects that nobody owns."""

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from tortoise import connections

from core.lifecycle import OPEN_STATES, GenerationState, Tier
from core.messages import StoredImage
from core.models import Erasure, Image

LATE: Final = timedelta(days=1)
"""How long after a generation's end a worker may still store a picture of it; jobs are given up sooner."""

LEFTOVERS: Final = timedelta(hours=1)
"""How long after a generation's end what its other attempts have left is deleted, and ``LATE`` once more."""

# One statement, so that a generation never goes without a note of its objects. Their folder is looked at once
# more when no worker can have anything left to put there.
_DISCARD: Final = """
    WITH gone AS (
        SELECT id, finished_at FROM generation
         WHERE {condition}
         LIMIT $2 FOR UPDATE SKIP LOCKED),
    noted AS (
        INSERT INTO erasure (prefix, due_at, until)
        SELECT 'generations/' || id || '/', $1::timestamptz, GREATEST($1, finished_at + $3::interval)
          FROM gone
        ON CONFLICT (prefix) DO UPDATE
            SET due_at = EXCLUDED.due_at, until = EXCLUDED.until, keeps_recorded = false)
    DELETE FROM generation USING gone WHERE generation.id = gone.id RETURNING generation.id
"""

_EXPIRED: Final = _DISCARD.format(condition="tier = $6 AND finished_at < $5 AND state = ANY($4::text[])")
_OF_ACCOUNT: Final = _DISCARD.format(condition="account_id = $4 AND state = ANY($5::text[])")

_UNRECORDED: Final = """
    INSERT INTO erasure (prefix, due_at, until)
    SELECT $1::text, $2::timestamptz, $2
     WHERE NOT EXISTS (SELECT FROM image WHERE generation_id = $3 AND key = ANY($4::text[]))
    ON CONFLICT (prefix) DO NOTHING
"""

_LEFTOVERS: Final = """
    INSERT INTO erasure (prefix, due_at, until, keeps_recorded)
    VALUES ($1, $2, $3, true) ON CONFLICT (prefix) DO NOTHING
"""

_ENDED: Final = [state.value for state in GenerationState if state not in OPEN_STATES]


async def discard_expired(tier: Tier, *, ended_before: datetime, now: datetime, limit: int) -> int:
    """Delete up to ``limit`` generations of a tier that have ended before, and note their objects."""
    return await _discard(_EXPIRED, [now, limit, LATE, _ENDED, ended_before, tier.value])


async def discard_of(account_id: UUID, *, now: datetime, limit: int) -> int:
    """Delete up to ``limit`` generations of an account that have ended, and note their objects."""
    return await _discard(_OF_ACCOUNT, [now, limit, LATE, account_id, _ENDED])


async def note_unrecorded(generation_id: UUID, images: Collection[StoredImage], *, now: datetime) -> None:
    """Have the pictures of an attempt erased, unless they are those that were recorded."""
    keys = [image.key for image in images]
    for folder in {key.rpartition("/")[0] for key in keys}:
        # A worker speaks for the generation that it was given, and no other.
        if folder.startswith(f"generations/{generation_id}/"):
            await connections.get("default").execute_query(
                _UNRECORDED, [f"{folder}/", now, generation_id, keys]
            )


async def note_leftovers(generation_id: UUID, *, ended_at: datetime) -> None:
    """Have all but the recorded pictures of a generation that has ended erased, after a while."""
    await connections.get("default").execute_query(
        _LEFTOVERS, [f"generations/{generation_id}/", ended_at + LEFTOVERS, ended_at + LATE]
    )


async def kept(erasure: Erasure) -> frozenset[str]:
    """The keys that an erasure leaves alone."""
    if not erasure.keeps_recorded:
        return frozenset()
    _, generation_id, _ = erasure.prefix.split("/")
    keys = await Image.filter(generation_id=UUID(generation_id)).values_list("key", flat=True)
    return frozenset(str(key) for key in keys)


async def claim(*, now: datetime, lease: timedelta, limit: int) -> list[Erasure]:
    """Erasures that are due, for this process alone until the lease ends. In a transaction."""
    erasures = (
        await Erasure.select_for_update(skip_locked=True)
        .filter(due_at__lte=now)
        .order_by("due_at")
        .limit(limit)
    )
    prefixes = [erasure.prefix for erasure in erasures]
    await Erasure.filter(prefix__in=prefixes).update(due_at=now + lease)
    return erasures


async def settle(erasure: Erasure, *, now: datetime) -> None:
    """Forget an erasure that is done, or keep it until nothing can appear there any more.

    Not one that has meanwhile become that of the whole generation.
    """
    done = Erasure.filter(prefix=erasure.prefix, keeps_recorded=erasure.keeps_recorded)
    if erasure.until <= now:
        await done.delete()
    else:
        await done.update(due_at=erasure.until)


async def count_due(*, now: datetime) -> int:
    """How many erasures are due, those under way not counted."""
    return await Erasure.filter(due_at__lte=now).count()


async def _discard(statement: str, values: list[Any]) -> int:
    return len(await connections.get("default").execute_query_dict(statement, values))
