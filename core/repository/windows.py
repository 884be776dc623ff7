"""Batch windows, each customer's part of them, and the window clock."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from core.lifecycle import GenerationState
from core.models import Generation, Window, WindowAccount, WindowClock, WindowState

_CLOCK_ROW = 1


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


async def assign(window: Window, generation_ids: Sequence[UUID]) -> None:
    """Put waiting generations into a window and count them per customer. In a transaction.

    Generations that are no longer queued, or already in a window, are left alone.
    """
    waiting = (
        await Generation.select_for_update()
        .filter(id__in=generation_ids, state=GenerationState.QUEUED, window_id=None)
        .values_list("id", "account_id")
    )
    await Generation.filter(id__in=[generation_id for generation_id, _ in waiting]).update(
        window_id=window.id
    )
    per_account = Counter(account_id for _, account_id in waiting)
    await WindowAccount.bulk_create(
        [
            WindowAccount(window_id=window.id, account_id=account_id, open_jobs=jobs)
            for account_id, jobs in per_account.items()
        ]
    )
    window.jobs = len(waiting)
    window.state = WindowState.RELEASING
    await window.save(update_fields=["jobs", "state"])


async def unreleased(window_id: UUID) -> list[Generation]:
    """The generations of a window that no worker has been offered yet."""
    return await Generation.filter(window_id=window_id, state=GenerationState.QUEUED, released_at=None)


async def mark_released(generation_ids: Sequence[UUID], *, at: datetime) -> None:
    """Note that workers have been offered these generations."""
    await Generation.filter(id__in=generation_ids).update(released_at=at)


async def mark_running(window: Window, *, at: datetime) -> None:
    """Note that all of a window's jobs are with the workers; a window without jobs is finished."""
    window.released_at = at
    window.state = WindowState.RUNNING if window.jobs else WindowState.FINISHED
    window.finished_at = None if window.jobs else at
    await window.save(update_fields=["released_at", "state", "finished_at"])


async def close_job(*, window_id: UUID, account_id: UUID, at: datetime) -> bool:
    """Count one job of a customer as ended, under the lock of the (window, account) row.

    Returns:
        Whether it was the customer's last one in this window.
    """
    part = await WindowAccount.select_for_update().get(window_id=window_id, account_id=account_id)
    part.open_jobs -= 1
    await part.save(update_fields=["open_jobs"])
    if part.open_jobs:
        return False
    if not await WindowAccount.filter(window_id=window_id, open_jobs__gt=0).exists():
        await Window.filter(id=window_id, released_at__not_isnull=True).update(
            state=WindowState.FINISHED, finished_at=at
        )
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
