"""Admitting a generation: who asks, what they may, and the new row, in one statement."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from tortoise import connections

from core.lifecycle import Delivery, GenerationState, Tier
from core.models import Generation

# The account's row is locked first, so that its requests are admitted one after the other, and
# `open_generations`, being volatile, then sees those that were admitted while this one waited.
_ADMIT: Final = """
    WITH viewer AS (
        SELECT account.id, account.email_verified_at IS NOT NULL AS verified,
               CASE WHEN account.premium_until > now() THEN 'PREMIUM' ELSE 'NORMAL' END AS tier
          FROM session_family AS session JOIN account ON account.id = session.account_id
         WHERE session.id = $1 AND account.id = $2 AND session.ended_at IS NULL
           FOR NO KEY UPDATE OF account
    ), asked AS MATERIALIZED (
        SELECT viewer.*, open_generations(viewer.id, viewer.tier) AS open,
               coalesce($3::text, CASE viewer.tier WHEN 'PREMIUM' THEN 'DOWNLOAD' ELSE 'EMAIL' END)
                   AS delivery,
               CASE viewer.tier WHEN 'PREMIUM' THEN $4::int ELSE $5::int END AS most,
               CASE viewer.tier WHEN 'PREMIUM' THEN $6::interval ELSE $7::interval END AS cost,
               (SELECT id FROM generation WHERE account_id = $2 AND idempotency_key = $9) AS earlier
          FROM viewer
    ), spent AS (
        INSERT INTO rate_limit AS held (key, restored_at)
        SELECT $8::text, now() + cost FROM asked
         WHERE verified AND earlier IS NULL AND open < most AND cost <= interval '1 day'
           AND (tier = 'PREMIUM' OR delivery = 'EMAIL')
        ON CONFLICT (key) DO UPDATE
           SET restored_at = greatest(held.restored_at, now()) + (SELECT cost FROM asked)
         WHERE greatest(held.restored_at, now()) + (SELECT cost FROM asked) <= now() + interval '1 day'
        RETURNING restored_at - now() AS restored_in
    ), accepted AS (
        INSERT INTO generation (
            id, account_id, tier, delivery, state, idempotency_key, prompt, negative_prompt, model, width,
            height, steps, guidance_scale, seed, count, scheduler, format, request_fingerprint, request_id,
            created_at
        )
        SELECT gen_random_uuid(), asked.id, tier, delivery, 'QUEUED', $9::text, $10, $11, $12, $13, $14,
               $15, $16, $17, $18, $19, $20, $21, $22, clock_timestamp()
          FROM asked, spent
        RETURNING id AS generation_id, created_at
    )
    SELECT verified, tier, delivery, open, earlier, restored_in, generation_id, created_at
      FROM asked LEFT JOIN spent ON true LEFT JOIN accepted ON true
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What an account may ask for, by tier.

    Attributes:
        most_open: generations that wait or run.
        cost: what the pictures of this request take from the day's allowance.
        pictures_key: under which the account's pictures are counted.
    """

    most_open: dict[Tier, int]
    cost: dict[Tier, timedelta]
    pictures_key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """What became of a request, and what it was judged by.

    Attributes:
        generation: the new row, or none when it was refused.
        verified: whether the account's address is.
        tier: the account's now.
        delivery: as asked for, or the tier's default.
        open: how many generations of the tier waited or ran before this one.
        earlier: the generation that this idempotency key made before.
        restored_in: when the day's pictures are all there again, where some were spent.
    """

    generation: Generation | None
    verified: bool
    tier: Tier
    delivery: Delivery
    open: int
    earlier: UUID | None
    restored_in: timedelta | None


async def admit(
    parameters: dict[str, Any],
    *,
    session_id: UUID,
    account_id: UUID,
    delivery: Delivery | None,
    bounds: Bounds,
) -> Admission | None:
    """Accept a request, or say by what it was refused; none when the session has ended.

    Args:
        parameters: the row's other columns, from ``prompt`` to ``request_id``.
        session_id: who asks, as an access token says.
        account_id: the same.
        delivery: as asked for.
        bounds: what the account may.

    Raises:
        IntegrityError: the idempotency key was used by another request at the same moment.
    """
    values = [
        session_id,
        account_id,
        delivery,
        bounds.most_open[Tier.PREMIUM],
        bounds.most_open[Tier.NORMAL],
        bounds.cost[Tier.PREMIUM],
        bounds.cost[Tier.NORMAL],
        bounds.pictures_key,
        *(parameters[name] for name in _PARAMETERS),
    ]
    rows = await connections.get("default").execute_query_dict(_ADMIT, values)
    if not rows:
        return None
    [row] = rows
    tier, decided = Tier(row["tier"]), Delivery(row["delivery"])
    return Admission(
        generation=_row(row, parameters, account_id, tier, decided),
        verified=row["verified"],
        tier=tier,
        delivery=decided,
        open=row["open"],
        earlier=row["earlier"],
        restored_in=row["restored_in"],
    )


_PARAMETERS: Final = (
    "idempotency_key",
    "prompt",
    "negative_prompt",
    "model",
    "width",
    "height",
    "steps",
    "guidance_scale",
    "seed",
    "count",
    "scheduler",
    "format",
    "request_fingerprint",
    "request_id",
)
"""In the order in which the statement takes them."""

_UNTOUCHED: Final = {
    "state": GenerationState.QUEUED,
    "error": None,
    "published_at": None,
    "started_at": None,
    "finished_at": None,
    "window_id": None,
    "released_at": None,
}
"""What nobody has done yet. Tortoise takes ten times as long to find that out for each column."""


def _row(
    row: dict[str, Any], parameters: dict[str, Any], account_id: UUID, tier: Tier, delivery: Delivery
) -> Generation | None:
    if row["generation_id"] is None:
        return None
    return Generation.construct(
        _saved_in_db=True,
        id=row["generation_id"],
        account_id=account_id,
        tier=tier,
        delivery=delivery,
        created_at=row["created_at"],
        **_UNTOUCHED,
        **parameters,
    )
