"""Batch windows, each customer's part of them, and the window clock."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from tortoise import connections

from core.lifecycle import GenerationState
from core.models import Generation, Window, WindowAccount, WindowClock, WindowState
from core.repository import generations
from core.repository.database import in_transaction

_CLOCK_ROW = 1
_AT_ONCE: Final = 2000
"""Generations in one statement, which has to end within a connection's patience on a busy server too."""

# Lists go as arrays: with a parameter for each value, each length would be a statement of its own, which
# every connection keeps prepared.
_ASSIGN: Final = """
    WITH assigned AS (
        UPDATE generation SET window_id = $1
         WHERE id = ANY($2::uuid[]) AND state = 'QUEUED' AND window_id IS NULL
        RETURNING account_id
    )
    INSERT INTO window_account (id, window_id, account_id, open_jobs)
    SELECT gen_random_uuid(), $1, account_id, count(*) FROM assigned GROUP BY account_id
    ON CONFLICT (window_id, account_id)
    DO UPDATE SET open_jobs = window_account.open_jobs + excluded.open_jobs
"""
_COUNT: Final = """
    SELECT count(*) AS customers, coalesce(sum(open_jobs), 0) AS jobs FROM window_account WHERE window_id = $1
"""
_AWAIT_END: Final = """
    UPDATE batch_window SET put_off = greatest(put_off, $1)
     WHERE id = (SELECT id FROM batch_window WHERE state IN ('RELEASING', 'RUNNING')
                  ORDER BY tick_at DESC LIMIT 1 FOR NO KEY UPDATE)
"""
_UNASSIGNED: Final = """
    SELECT id FROM generation WHERE id = ANY($1::uuid[]) AND state = 'QUEUED' AND window_id IS NULL
"""
_MARK_RELEASED: Final = "UPDATE generation SET released_at = $1 WHERE id = ANY($2::uuid[])"
_TALLY: Final = "SELECT state, error, count(*) AS jobs FROM generation WHERE window_id = $1 GROUP BY 1, 2"


@dataclass(frozen=True, slots=True)
class Tally:
    """How the jobs of a window stand, but for those that went with their account.

    Attributes:
        states: how many are in each state.
        failures: how many failed for each reason, the most frequent first.
    """

    states: Mapping[GenerationState, int]
    failures: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Closing:
    """What the end of a job brought to its end.

    Attributes:
        customer: its customer's part of the window.
        window: the window, as it is then, or none.
    """

    customer: bool
    window: Window | None


async def set_clock(expression: str, *, next_at: datetime) -> None:
    """Note the schedule and its next beat, for whoever tells customers the time."""
    await WindowClock.update_or_create(defaults={"expression": expression, "next_at": next_at}, id=_CLOCK_ROW)


async def clock() -> WindowClock | None:
    """The schedule as last noted, or none before a batcher ever ran."""
    return await WindowClock.get_or_none(id=_CLOCK_ROW)


async def open_window(*, tick_at: datetime, deadline: datetime) -> Window:
    """The window of a beat: a new one, or the one that an earlier delivery of the beat opened."""
    window, _ = await Window.get_or_create(tick_at=tick_at, defaults={"deadline": deadline})
    return window


async def discard(window: Window) -> None:
    """Forget a window that nothing was assigned to."""
    await window.delete()


async def await_end(*, put_off: int) -> bool:
    """Note that so many jobs wait for the end of the newest window, as no other could be opened for them.

    In a transaction.

    Returns:
        Whether there is one that has not finished.
    """
    updated, _ = await connections.get("default").execute_query(_AWAIT_END, [put_off])
    return bool(updated)


async def assign(window: Window, generation_ids: Sequence[UUID], *, put_off: int = 0) -> None:
    """Put waiting generations into a window and count them per customer. In a transaction.

    Generations that are no longer queued, or already in a window, are left alone.

    Args:
        window: which one, just opened.
        generation_ids: what to put there.
        put_off: how many others wait that are left to the next window, for the record.
    """
    connection = connections.get("default")
    for some in _in_parts(generation_ids):
        await connection.execute_query(_ASSIGN, [window.id, some])
    [found] = await connection.execute_query_dict(_COUNT, [window.id])
    window.jobs, window.customers, window.put_off = int(found["jobs"]), found["customers"], put_off
    window.state = WindowState.RELEASING
    await window.save(update_fields=["jobs", "customers", "put_off", "state"])


async def waiting(generation_ids: Sequence[UUID]) -> list[Generation]:
    """Those of the generations that still wait for a window."""
    return [
        row
        for some in _in_parts(generation_ids)
        for row in await generations.by_ids(some)
        if row.state is GenerationState.QUEUED and row.window_id is None
    ]


async def unassigned(generation_ids: Sequence[UUID]) -> set[UUID]:
    """The same, their ids alone."""
    rows = await connections.get("default").execute_query_dict(_UNASSIGNED, [list(generation_ids)])
    return {row["id"] for row in rows}


async def releasing() -> list[Window]:
    """The windows whose jobs are not all with the workers yet, the oldest first."""
    return await Window.filter(state=WindowState.RELEASING).order_by("tick_at")


async def oldest_unfinished() -> datetime | None:
    """When the oldest of the windows that have not finished opened, or none when all have."""
    window = await Window.exclude(state=WindowState.FINISHED).order_by("tick_at").first()
    return None if window is None else window.opened_at or window.tick_at


async def unreleased(window_id: UUID) -> list[Generation]:
    """The generations of a window that no worker has been offered yet."""
    return await Generation.filter(window_id=window_id, state=GenerationState.QUEUED, released_at=None)


async def mark_released(generation_ids: Sequence[UUID], *, at: datetime) -> None:
    """Note that workers have been offered these generations."""
    await connections.get("default").execute_query(_MARK_RELEASED, [at, list(generation_ids)])


async def canceled(generation_ids: Sequence[UUID]) -> list[Generation]:
    """Those of the generations that were canceled."""
    rows = await generations.by_ids(generation_ids)
    return [row for row in rows if row.state is GenerationState.CANCELED]


async def mark_running(window_id: UUID, *, at: datetime) -> Window | None:
    """Note that all of a window's jobs are with the workers.

    Returns:
        The window if it is finished by that, because all have ended already.
    """
    async with in_transaction():
        window = await Window.select_for_update(no_key=True).get(id=window_id)
        window.released_at = at
        window.state = WindowState.RUNNING
        await window.save(update_fields=["released_at", "state"])
        return await _finish_if_empty(window, at=at)


async def close_job(*, window_id: UUID, account_id: UUID, at: datetime) -> Closing:
    """Count one job of a customer as ended, under the lock of the (window, account) row. In a transaction."""
    part = await WindowAccount.select_for_update().get(window_id=window_id, account_id=account_id)
    part.open_jobs -= 1
    await part.save(update_fields=["open_jobs"])
    if part.open_jobs:
        return Closing(customer=False, window=None)
    # Under the window's lock, or two customers' last jobs would each see the other's as open.
    window = await Window.select_for_update(no_key=True).get(id=window_id)
    finished = await _finish_if_empty(window, at=at) if window.state is WindowState.RUNNING else None
    return Closing(customer=True, window=finished)


async def generations_of(*, window_id: UUID, account_id: UUID) -> list[Generation]:
    """A customer's generations of a window, in the order in which they were accepted."""
    return await Generation.filter(window_id=window_id, account_id=account_id).order_by("created_at")


async def has_news(*, window_id: UUID, account_id: UUID) -> bool:
    """Whether a customer has anything to be told of a window: it did not cancel all of its jobs."""
    return (
        await Generation.filter(window_id=window_id, account_id=account_id)
        .exclude(state=GenerationState.CANCELED)
        .exists()
    )


async def tally(window_id: UUID) -> Tally:
    """How the jobs of a window stand at this moment."""
    rows = await connections.get("default").execute_query_dict(_TALLY, [window_id])
    states = Counter(dict.fromkeys(GenerationState, 0))
    failures: Counter[str] = Counter()
    for row in rows:
        states[GenerationState(row["state"])] += row["jobs"]
        if row["state"] == GenerationState.FAILED:
            failures[row["error"] or ""] += row["jobs"]
    return Tally(states, dict(failures.most_common()))


async def find(window_id: UUID) -> Window | None:
    """One window."""
    return await Window.get_or_none(id=window_id)


async def recent(*, limit: int) -> list[Window]:
    """The newest windows."""
    return await Window.all().order_by("-tick_at").limit(limit)


def _in_parts(generation_ids: Sequence[UUID]) -> Iterator[list[UUID]]:
    for start in range(0, len(generation_ids), _AT_ONCE):
        yield list(generation_ids[start : start + _AT_ONCE])


async def _finish_if_empty(window: Window, *, at: datetime) -> Window | None:
    if await WindowAccount.filter(window_id=window.id, open_jobs__gt=0).exists():
        return None
    counts = await tally(window.id)
    window.state, window.finished_at = WindowState.FINISHED, at
    window.succeeded = counts.states[GenerationState.SUCCEEDED]
    window.failed = counts.states[GenerationState.FAILED]
    window.rejected = counts.states[GenerationState.REJECTED]
    window.canceled = counts.states[GenerationState.CANCELED]
    window.failures = dict(counts.failures)
    await window.save(
        update_fields=["state", "finished_at", "succeeded", "failed", "rejected", "canceled", "failures"]
    )
    return window
