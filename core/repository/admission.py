"""Admitting a generation: who asks, what they may, and the new row, in one statement."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from operator import attrgetter
from typing import Any, Final
from uuid import UUID

from tortoise import connections
from tortoise.exceptions import IntegrityError

from core.lifecycle import Delivery, GenerationState, Tier
from core.models import Generation
from core.repository.coalescing import Coalescer

ASKED: Final = (
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
    "traceparent",
)
"""What a request decides of its row, in the order in which the statement takes it."""

# The account's row is locked first, so that its requests are admitted one after the other, and
# `open_generations`, being volatile, then sees those that were admitted while this one waited.
_ALONE: Final = """
    WITH request AS (
        SELECT * FROM unnest(
            $1::uuid[], $2::uuid[], $3::text[], $4::int[], $5::int[], $6::interval[], $7::interval[],
            $8::text[], $9::text[], $10::text[], $11::text[], $12::text[], $13::int[], $14::int[], $15::int[],
            $16::float8[], $17::int[], $18::int[], $19::text[], $20::text[], $21::text[], $22::text[],
            $23::text[]
        ) AS request (
            session_id, account_id, asked_delivery, most_premium, most_normal, cost_premium, cost_normal,
            pictures_key, idempotency_key, prompt, negative_prompt, model, width, height, steps,
            guidance_scale, seed, count, scheduler, format, request_fingerprint, request_id, traceparent
        )
    ), viewer AS (
        SELECT request.*, account.email_verified_at IS NOT NULL AS verified,
               CASE WHEN account.premium_until > now() THEN 'PREMIUM' ELSE 'NORMAL' END AS tier
          FROM request
          JOIN session_family AS session ON session.id = request.session_id AND session.ended_at IS NULL
          JOIN account ON account.id = request.account_id AND account.id = session.account_id
           FOR NO KEY UPDATE OF account
    ), asked AS MATERIALIZED (
        SELECT viewer.*, open_generations(account_id, tier) AS open,
               coalesce(asked_delivery, CASE tier WHEN 'PREMIUM' THEN 'DOWNLOAD' ELSE 'EMAIL' END)
                   AS delivery,
               CASE tier WHEN 'PREMIUM' THEN most_premium ELSE most_normal END AS most,
               CASE tier WHEN 'PREMIUM' THEN cost_premium ELSE cost_normal END AS cost,
               (SELECT id FROM generation
                 WHERE generation.account_id = viewer.account_id
                   AND generation.idempotency_key = viewer.idempotency_key) AS earlier
          FROM viewer
    ), spent AS (
        INSERT INTO rate_limit AS held (key, restored_at)
        SELECT pictures_key, now() + cost FROM asked
         WHERE verified AND earlier IS NULL AND open < most AND cost <= interval '1 day'
           AND (tier = 'PREMIUM' OR delivery = 'EMAIL')
        ON CONFLICT (key) DO UPDATE
           SET restored_at = greatest(held.restored_at, now()) + (excluded.restored_at - now())
         WHERE greatest(held.restored_at, now()) + (excluded.restored_at - now()) <= now() + interval '1 day'
        RETURNING key, restored_at - now() AS restored_in
    ), accepted AS (
        INSERT INTO generation (
            id, account_id, tier, delivery, state, idempotency_key, prompt, negative_prompt, model, width,
            height, steps, guidance_scale, seed, count, scheduler, format, request_fingerprint, request_id,
            traceparent, created_at
        )
        SELECT gen_random_uuid(), account_id, tier, delivery, 'QUEUED', idempotency_key, prompt,
               negative_prompt, model, width, height, steps, guidance_scale, seed, count, scheduler, format,
               request_fingerprint, request_id, traceparent, clock_timestamp()
          FROM asked JOIN spent ON spent.key = asked.pictures_key
        RETURNING id AS generation_id, account_id, created_at
    )
    SELECT account_id, verified, tier, delivery, open, earlier, restored_in, generation_id, created_at
      FROM asked LEFT JOIN spent ON spent.key = asked.pictures_key LEFT JOIN accepted USING (account_id)
"""
_TOGETHER: Final = _ALONE.replace("OF account", "OF account SKIP LOCKED")


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Who asks, what for, and what they may.

    Attributes:
        session_id: as an access token says.
        account_id: the same.
        delivery: as asked for.
        bounds: what the account may.
        columns: the row's other columns, from ``idempotency_key`` to ``request_id``.
    """

    session_id: UUID
    account_id: UUID
    delivery: Delivery | None
    bounds: Bounds
    columns: Mapping[str, Any]


class Admissions:
    """Admits requests, those of several customers in one statement."""

    def __init__(self) -> None:
        self._together = Coalescer(_admitted_together, apart=attrgetter("account_id"))

    async def admit(self, request: Request) -> Admission | None:
        """Accept a request, or say by what it was refused; none when the session has ended.

        Raises:
            IntegrityError: the idempotency key was used by another request at the same moment.
        """
        try:
            admission = await self._together.ask(request)
        except IntegrityError:
            # Somebody's key; nobody was admitted.
            admission = None
        if admission is None:
            # The session has ended, or the account is locked, for which the others did not wait.
            [admission] = await _admitted(_ALONE, [request])
        return admission


async def _admitted_together(requests: Sequence[Request]) -> list[Admission | None]:
    return await _admitted(_TOGETHER, requests)


async def _admitted(statement: str, requests: Sequence[Request]) -> list[Admission | None]:
    values = [list(column) for column in zip(*map(_values, requests), strict=True)]
    rows = await connections.get("default").execute_query_dict(statement, values)
    found = {row["account_id"]: row for row in rows}
    return [
        _admission(row, request) if (row := found.get(request.account_id)) else None for request in requests
    ]


def _values(request: Request) -> tuple[object, ...]:
    bounds = request.bounds
    return (
        request.session_id,
        request.account_id,
        request.delivery,
        bounds.most_open[Tier.PREMIUM],
        bounds.most_open[Tier.NORMAL],
        bounds.cost[Tier.PREMIUM],
        bounds.cost[Tier.NORMAL],
        bounds.pictures_key,
        *(request.columns[name] for name in ASKED),
    )


_UNTOUCHED: Final = {
    "state": GenerationState.QUEUED,
    "error": None,
    "published_at": None,
    "started_at": None,
    "finished_at": None,
    "window_id": None,
    "released_at": None,
    "worker": None,
    "attempts": 0,
    "losses": 0,
    "cause": None,
    "retry_of": None,
}
"""What nobody has done yet. Tortoise takes ten times as long to find that out for each column."""


def _admission(row: Mapping[str, Any], request: Request) -> Admission:
    tier, delivery = Tier(row["tier"]), Delivery(row["delivery"])
    accepted = row["generation_id"] and Generation.construct(
        _saved_in_db=True,
        id=row["generation_id"],
        account_id=request.account_id,
        tier=tier,
        delivery=delivery,
        created_at=row["created_at"],
        **_UNTOUCHED,
        **request.columns,
    )
    return Admission(
        generation=accepted,
        verified=row["verified"],
        tier=tier,
        delivery=delivery,
        open=row["open"],
        earlier=row["earlier"],
        restored_in=row["restored_in"],
    )
