"""Generations as jobs: who works on them, which ones the broker ought to hold, and which are dead."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from tortoise import connections
from tortoise.expressions import F, Q
from tortoise.queryset import QuerySet

from core.lifecycle import OPEN_STATES, GenerationState
from core.models import AccountDeletion, Generation, Window
from core.repository.admission import ASKED
from core.repository.generations import Position

# Also where it has ended meanwhile: a late attempt may leave pictures behind. What a worker has begun was
# published, whether or not its publisher lived to mark it; unmarked nobody would look for it.
_BEGIN: Final = """
    WITH before AS (SELECT id, state FROM generation WHERE id = $1 FOR UPDATE)
    UPDATE generation
       SET attempts = attempts + 1,
           published_at = coalesce(published_at, $3),
           worker = CASE WHEN before.state IN ('QUEUED', 'RUNNING') THEN $2 ELSE worker END,
           state = CASE before.state WHEN 'QUEUED' THEN 'RUNNING' ELSE before.state END,
           started_at = CASE before.state WHEN 'QUEUED' THEN $3 ELSE started_at END
      FROM before
     WHERE generation.id = before.id
    RETURNING before.state
"""

_PARAMETERS: Final = ("account_id", "tier", "delivery", *(set(ASKED) - {"idempotency_key"}))


async def begin(generation_id: UUID, *, worker: str | None, at: datetime) -> GenerationState | None:
    """Note that a worker began: RUNNING, unless it is further.

    Returns:
        The state until now, or none when there is no such generation.
    """
    rows = await connections.get("default").execute_query_dict(_BEGIN, [generation_id, worker, at])
    return GenerationState(rows[0]["state"]) if rows else None


async def published(*, before: datetime, after: Position | None, limit: int) -> list[Generation]:
    """Open generations whose job a lane ought to hold, the oldest first, from behind a position.

    Those of a window that is still being released are the releaser's.

    Args:
        before: when they were published at the latest.
        after: of the last one that is known.
        limit: how many.
    """
    query = _published().filter(published_at__lt=before)
    if after is not None:
        query = query.filter(
            Q(created_at__gt=after.created_at) | Q(created_at=after.created_at, id__gt=after.id)
        )
    return await query.order_by("created_at", "id").limit(limit)


async def lock_published(generation_ids: Collection[UUID]) -> list[Generation]:
    """Those of them that are still so, locked and skipping what others hold. In a transaction."""
    return await _published().filter(id__in=generation_ids).select_for_update(skip_locked=True)


async def note_loss(generation_id: UUID, *, at: datetime) -> None:
    """Note that the broker had lost a job and holds it again."""
    await Generation.filter(id=generation_id).update(published_at=at, losses=F("losses") + 1)


async def deadlines(window_ids: Collection[UUID]) -> dict[UUID, datetime]:
    """When the results of windows stop being of use."""
    return dict(await Window.filter(id__in=window_ids).values_list("id", "deadline"))


async def dead(*, limit: int) -> list[tuple[Generation, UUID | None]]:
    """The newest generations that our side failed, with their accounts, and what each was retried as."""
    found = (
        await Generation.exclude(cause=None).select_related("account").order_by("-finished_at").limit(limit)
    )
    retries = {
        retry.retry_of: retry.id
        for retry in await Generation.filter(retry_of__in=[generation.id for generation in found])
    }
    return [(generation, retries.get(generation.id)) for generation in found]


async def retry(generation: Generation) -> Generation:
    """Accept a failed generation's request once more. In a transaction, under the account's lock."""
    parameters = {name: getattr(generation, name) for name in _PARAMETERS}
    made = await Generation.create(**parameters, retry_of=generation.id)
    # What the database itself filled in.
    return await Generation.get(id=made.id)


async def retry_of(generation_id: UUID) -> UUID | None:
    """What a generation was retried as."""
    found: Sequence[UUID] = await Generation.filter(retry_of=generation_id).values_list("id", flat=True)  # type: ignore[assignment] # flat
    return found[0] if found else None


async def is_closed(account_id: UUID) -> bool:
    """Whether an account is being deleted."""
    return await AccountDeletion.filter(account_id=account_id).exists()


def _published() -> QuerySet[Generation]:
    return Generation.filter(Q(window_id=None) | Q(released_at__isnull=False), state__in=OPEN_STATES)
