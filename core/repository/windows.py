"""Batch windows, each customer's part of them, and the window clock."""

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from uuid import UUID

from tortoise.queryset import QuerySet

from core.lifecycle import GenerationState
from core.models import Generation, Window, WindowAccount, WindowClock, WindowState
from core.repository.database import in_transaction

_CLOCK_ROW = 1

_CHUNK = 10_000
"""Rows per statement: PostgreSQL takes 32,767 parameters."""


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


async def assign(window: Window, generation_ids: Sequence[UUID]) -> None:
    """Put waiting generations into a window and count them per customer. In a transaction.

    Generations that are no longer queued, or already in a window, are left alone.
    """
    per_account: Counter[UUID] = Counter()
    for ids in _chunks(generation_ids):
        # Not `values_list`, which would drop the lock without a word.
        waiting = await _unassigned(ids).select_for_update().only("id", "account_id")
        await Generation.filter(id__in=[generation.id for generation in waiting]).update(window_id=window.id)
        per_account.update(generation.account_id for generation in waiting)
    await WindowAccount.bulk_create(
        [
            WindowAccount(window_id=window.id, account_id=account_id, open_jobs=jobs)
            for account_id, jobs in per_account.items()
        ],
        batch_size=_CHUNK,
    )
    window.jobs = per_account.total()
    window.state = WindowState.RELEASING
    await window.save(update_fields=["jobs", "state"])


async def unassigned(generation_ids: Sequence[UUID]) -> set[UUID]:
    """Those of the generations that still wait for a window."""
    return {
        generation_id
        for ids in _chunks(generation_ids)
        for (generation_id,) in await _unassigned(ids).values_list("id")
    }


async def releasing() -> list[Window]:
    """The windows whose jobs are not all with the workers yet, the oldest first."""
    return await Window.filter(state=WindowState.RELEASING).order_by("tick_at")


async def unreleased(window_id: UUID) -> list[Generation]:
    """The generations of a window that no worker has been offered yet."""
    return await Generation.filter(window_id=window_id, state=GenerationState.QUEUED, released_at=None)


async def mark_released(generation_ids: Sequence[UUID], *, at: datetime) -> None:
    """Note that workers have been offered these generations."""
    await Generation.filter(id__in=generation_ids).update(released_at=at)


async def mark_running(window_id: UUID, *, at: datetime) -> None:
    """Note that all of a window's jobs are with the workers; it is finished if all have ended already."""
    async with in_transaction():
        window = await Window.select_for_update(no_key=True).get(id=window_id)
        window.released_at = at
        window.state = WindowState.RUNNING
        await window.save(update_fields=["released_at", "state"])
        await _finish_if_empty(window, at=at)


async def close_job(*, window_id: UUID, account_id: UUID, at: datetime) -> bool:
    """Count one job of a customer as ended, under the lock of the (window, account) row. In a transaction.

    Returns:
        Whether it was the customer's last one in this window.
    """
    part = await WindowAccount.select_for_update().get(window_id=window_id, account_id=account_id)
    part.open_jobs -= 1
    await part.save(update_fields=["open_jobs"])
    if part.open_jobs:
        return False
    # Under the window's lock, or two customers' last jobs would each see the other's as open.
    window = await Window.select_for_update(no_key=True).get(id=window_id)
    if window.state is WindowState.RUNNING:
        await _finish_if_empty(window, at=at)
    return True


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


def _unassigned(generation_ids: Sequence[UUID]) -> QuerySet[Generation]:
    return Generation.filter(id__in=generation_ids, state=GenerationState.QUEUED, window_id=None)


def _chunks(generation_ids: Sequence[UUID]) -> Iterator[Sequence[UUID]]:
    return (generation_ids[start : start + _CHUNK] for start in range(0, len(generation_ids), _CHUNK))


async def _finish_if_empty(window: Window, *, at: datetime) -> None:
    if not await WindowAccount.filter(window_id=window.id, open_jobs__gt=0).exists():
        window.state = WindowState.FINISHED
        window.finished_at = at
        await window.save(update_fields=["state", "finished_at"])
