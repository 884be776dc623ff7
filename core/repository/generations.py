"""Generations and their pictures."""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from tortoise import connections
from tortoise.expressions import Q

from core.lifecycle import (
    OPEN_STATES,
    Delivery,
    GenerationState,
    ImageFormat,
    Scheduler,
    Tier,
    preceding,
)
from core.messages import StoredImage
from core.models import Generation, Image
from core.repository.coalescing import Coalescer


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the newest-first listing of an account."""

    created_at: datetime
    id: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """Open generations that are alike to whoever waits behind them.

    Attributes:
        tier: their tier.
        released: whether the workers may take them: premium at once, the others when they are in a window.
        running: whether a worker has begun with them.
        model: their model.
        after: how many of the moments asked about had come when they were accepted; 0 for what runs.
        jobs: how many they are.
        megapixel_steps: their work, width * height / 1e6 * steps summed over their pictures.
    """

    tier: Tier
    released: bool
    running: bool
    model: str
    after: int
    jobs: int
    megapixel_steps: float


_STRETCHES: Final = """
    SELECT tier,
           tier = 'PREMIUM' OR window_id IS NOT NULL AS released,
           state = 'RUNNING' AS running,
           model,
           CASE state WHEN 'RUNNING' THEN 0 ELSE width_bucket(created_at, $1::timestamptz[]) END AS after,
           count(*) AS jobs,
           sum(width::float8 * height / 1e6 * steps * count) AS megapixel_steps
      FROM generation
     WHERE tier = ANY($2::text[]) AND (state = 'RUNNING' OR state = 'QUEUED' AND created_at < $3)
     GROUP BY 1, 2, 3, 4, 5
"""


_BY_IDS: Final = "SELECT * FROM generation WHERE id = ANY($1::uuid[])"

_MARK_PUBLISHED: Final = "UPDATE generation SET published_at = $2 WHERE id = ANY($1::uuid[])"

_CHANGED: Final = """
    SELECT seen.id
      FROM unnest($1::uuid[], $2::text[], $3::uuid[]) AS seen (id, state, window_id)
      LEFT JOIN generation ON generation.id = seen.id
     WHERE generation.id IS NULL
        OR generation.state <> seen.state
        OR generation.window_id IS DISTINCT FROM seen.window_id
"""

_COUNT_OPEN: Final = """
    SELECT tier, state, count(*) AS jobs FROM generation WHERE state IN ('QUEUED', 'RUNNING') GROUP BY 1, 2
"""

_ASKED_FOR: Final = """
    SELECT asked.place, generation.*
      FROM unnest($1::uuid[], $2::uuid[], $3::uuid[]) WITH ORDINALITY
           AS asked (generation_id, session_id, account_id, place)
      JOIN session_family AS session
           ON session.id = asked.session_id AND session.account_id = asked.account_id
          AND session.ended_at IS NULL
      JOIN generation
           ON generation.id = asked.generation_id AND generation.account_id = asked.account_id
"""


class Lookups:
    """Looks generations up for those whose they are, several in one statement."""

    def __init__(self) -> None:
        self._together = Coalescer(_asked_for)

    async def find(self, generation_id: UUID, *, session_id: UUID, account_id: UUID) -> Generation | None:
        """The generation, if it belongs to the account and the session is one of it that lives."""
        return await self._together.ask((generation_id, session_id, account_id))


async def _asked_for(asked: Sequence[tuple[UUID, UUID, UUID]]) -> list[Generation | None]:
    values = [list(column) for column in zip(*asked, strict=True)]
    rows = await connections.get("default").execute_query_dict(_ASKED_FOR, values)
    found = {row.pop("place"): _of(row) for row in rows}
    return [found.get(place) for place in range(1, len(asked) + 1)]


def _of(row: dict[str, Any]) -> Generation:
    return Generation.construct(
        _saved_in_db=True, **{name: _ENUMS.get(name, _same)(value) for name, value in row.items()}
    )


def _same(value: object) -> object:
    return value


_ENUMS: Final[dict[str, Callable[[Any], object]]] = {
    "tier": Tier,
    "delivery": Delivery,
    "state": GenerationState,
    "scheduler": Scheduler,
    "format": ImageFormat,
}


async def owned(account_id: UUID, generation_id: UUID) -> Generation | None:
    """The generation, if it belongs to the account."""
    return await Generation.get_or_none(id=generation_id, account_id=account_id)


async def by_ids(generation_ids: Collection[UUID]) -> list[Generation]:
    """Those of these generations that there are, whosever they are, in any order."""
    rows = await connections.get("default").execute_query_dict(_BY_IDS, [list(generation_ids)])
    return [_of(row) for row in rows]


async def changed(known: Sequence[Generation]) -> list[UUID]:
    """Which of these are no longer in the state or window that is known, or are gone. One statement."""
    if not known:
        return []
    values = [
        [row.id for row in known],
        [row.state.value for row in known],
        [row.window_id for row in known],
    ]
    found = await connections.get("default").execute_query_dict(_CHANGED, values)
    return [row["id"] for row in found]


async def page(account_id: UUID, *, size: int, after: Position | None) -> list[Generation]:
    """Up to ``size`` generations of an account, newest first, from behind a position."""
    query = Generation.filter(account_id=account_id)
    if after is not None:
        query = query.filter(
            Q(created_at__lt=after.created_at) | Q(created_at=after.created_at, id__lt=after.id)
        )
    return await query.order_by("-created_at", "-id").limit(size)


async def count_open(account_id: UUID, *, tier: Tier) -> int:
    """How many generations of an account are waiting or running."""
    return await Generation.filter(account_id=account_id, tier=tier, state__in=OPEN_STATES).count()


async def stretches(moments: Sequence[datetime], *, tiers: Collection[Tier]) -> list[Stretch]:
    """The open generations of ``tiers`` that were accepted before the last of ``moments``, or that run.

    One pass over them, whatever the number of moments.

    Args:
        moments: at which others were accepted, rising; at least one.
        tiers: which tiers to look at.
    """
    rows = await connections.get("default").execute_query_dict(
        _STRETCHES, [list(moments), [tier.value for tier in tiers], moments[-1]]
    )
    return [Stretch(**{**row, "tier": Tier(row["tier"])}) for row in rows]


async def transition(
    generation_id: UUID,
    state: GenerationState,
    *,
    at: datetime,
    error: str | None = None,
    cause: str | None = None,
) -> Generation | None:
    """The one guarded UPDATE: enters the terminal ``state`` if that may follow, otherwise changes nothing.

    Returns:
        The generation as it is now, or none when it does not exist or the state may not follow.
    """
    changed = await Generation.filter(id=generation_id, state__in=preceding(state)).update(
        state=state, finished_at=at, error=error, cause=cause
    )
    return await Generation.get(id=generation_id) if changed else None


async def store_images(generation_id: UUID, images: Sequence[StoredImage]) -> None:
    """Write the pictures of a generation, in their order."""
    await Image.bulk_create(
        [
            Image(generation_id=generation_id, index=index, **image.model_dump())
            for index, image in enumerate(images)
        ]
    )


async def images_of(generation_ids: Sequence[UUID]) -> list[Image]:
    """The pictures of several generations, in their order."""
    return await Image.filter(generation_id__in=generation_ids).order_by("generation_id", "index")


async def image(image_id: UUID) -> Image | None:
    """One picture."""
    return await Image.get_or_none(id=image_id)


async def count_unfinished() -> Counter[tuple[Tier, GenerationState]]:
    """How many generations have not ended, by tier and state."""
    rows = await connections.get("default").execute_query_dict(_COUNT_OPEN)
    return Counter({(Tier(row["tier"]), GenerationState(row["state"])): row["jobs"] for row in rows})


async def count_unpublished() -> int:
    """How many generations wait for a relay to publish their job, or are just being published."""
    return await Generation.filter(published_at=None, state=GenerationState.QUEUED).count()


async def lock_unpublished(*, before: datetime, limit: int) -> list[Generation]:
    """Accepted generations whose job nobody published, locked and skipping what others hold."""
    return (
        await Generation.select_for_update(skip_locked=True)
        .filter(published_at=None, state=GenerationState.QUEUED, created_at__lt=before)
        .order_by("created_at")
        .limit(limit)
    )


async def mark_published(generation_ids: Sequence[UUID], *, at: datetime) -> None:
    """Note that the broker holds these jobs."""
    # Tortoise would write another statement for each number of them, to be prepared anew.
    await connections.get("default").execute_query(_MARK_PUBLISHED, [list(generation_ids), at])


async def overdue(*, now: datetime, limit: int) -> list[UUID]:
    """Open generations whose window's deadline has passed."""
    found = (
        await Generation.filter(state__in=OPEN_STATES, window__deadline__lt=now)
        .limit(limit)
        .values_list("id", flat=True)
    )
    return [UUID(str(generation_id)) for generation_id in found]


async def alive_since(account_id: UUID, moment: datetime) -> list[Generation]:
    """The generations of an account that have not ended, or have ended since a moment."""
    return await Generation.filter(
        Q(state__in=OPEN_STATES) | Q(finished_at__gte=moment), account_id=account_id
    )


async def any_of(account_id: UUID) -> bool:
    """Whether an account has any generation."""
    return await Generation.filter(account_id=account_id).exists()


async def waiting(generation_id: UUID) -> Generation | None:
    """A generation that has not ended."""
    return await Generation.get_or_none(id=generation_id, state__in=OPEN_STATES)


async def failed(generation_id: UUID) -> Generation | None:
    """A generation that has failed."""
    return await Generation.get_or_none(id=generation_id, state=GenerationState.FAILED)


async def recent(*, state: GenerationState | None, limit: int) -> list[Generation]:
    """The newest generations with their accounts, of one state or of all."""
    query = Generation.all() if state is None else Generation.filter(state=state)
    return await query.select_related("account").order_by("-created_at").limit(limit)
