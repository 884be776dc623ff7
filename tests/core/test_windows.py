"""Batch windows in PostgreSQL: who is in which, and when it is over."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from core.clock import now
from core.lifecycle import GenerationState
from core.models import Account, Generation, Window, WindowAccount, WindowState
from core.repository import windows
from core.repository.database import in_transaction

NewAccount = Callable[..., Awaitable[Account]]
NewGeneration = Callable[..., Awaitable[Generation]]


async def opened(*generations: Generation) -> Window:
    async with in_transaction():
        window = await windows.open_window(tick_at=now(), deadline=now() + timedelta(minutes=30))
        await windows.assign(window, [generation.id for generation in generations])
    return window


async def close(
    generation: Generation,
    window: Window,
    *,
    state: GenerationState = GenerationState.SUCCEEDED,
    error: str | None = None,
) -> bool:
    async with in_transaction():
        await Generation.filter(id=generation.id).update(state=state, error=error)
        closing = await windows.close_job(window_id=window.id, account_id=generation.account_id, at=now())
    return closing.customer


async def test_a_window_that_is_filled_in_several_statements_counts_each_customer_once(
    new_account: NewAccount, new_generation: NewGeneration, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.repository.windows._AT_ONCE", 2)
    accounts = [await new_account(), await new_account()]
    rows = [await new_generation(accounts[number % 2]) for number in range(5)]
    assert {row.id for row in await windows.waiting([row.id for row in rows])} == {row.id for row in rows}
    window = await opened(*rows)
    assert (window.jobs, window.customers) == (5, 2)
    parts = await WindowAccount.filter(window_id=window.id).order_by("open_jobs")
    assert [part.open_jobs for part in parts] == [2, 3]


async def test_the_clock_has_one_row_that_is_replaced(database: object) -> None:
    assert database
    assert await windows.clock() is None
    for minutes in (1, 2):
        following = now() + timedelta(minutes=minutes)
        await windows.set_clock(f"@every {minutes}m", next_at=following)

    clock = await windows.clock()

    assert clock is not None
    assert (clock.expression, clock.next_at) == ("@every 2m", following)


async def test_a_beat_has_one_window_however_often_and_by_how_many_it_is_opened(database: object) -> None:
    assert database
    tick_at, deadline = now(), now() + timedelta(minutes=30)

    async def open_it() -> Window:
        async with in_transaction():
            return await windows.open_window(tick_at=tick_at, deadline=deadline)

    found = await asyncio.gather(*(open_it() for _ in range(4)))

    assert len({window.id for window in found}) == 1
    assert await Window.all().count() == 1


async def test_only_waiting_generations_are_put_into_a_window(
    new_account: NewAccount, new_generation: NewGeneration
) -> None:
    account = await new_account()
    waiting, taken, canceled = [await new_generation(account) for _ in range(3)]
    earlier = await opened(taken)
    await Generation.filter(id=canceled.id).update(state=GenerationState.CANCELED)
    ids = [waiting.id, taken.id, canceled.id]
    assert await windows.unassigned(ids) == {waiting.id}

    window = await opened(waiting, taken, canceled)

    assert window.jobs == 1
    assert {row.id: row.window_id for row in await Generation.filter(id__in=ids)} == {
        waiting.id: window.id,
        taken.id: earlier.id,
        canceled.id: None,
    }
    assert await windows.unassigned(ids) == set()


async def test_a_cancellation_at_the_same_moment_is_either_in_the_window_or_before_it(
    new_account: NewAccount, new_generation: NewGeneration
) -> None:
    account = await new_account()
    generations = [await new_generation(account) for _ in range(10)]

    async def cancel(generation: Generation) -> None:
        async with in_transaction():
            await Generation.filter(id=generation.id, state=GenerationState.QUEUED).update(
                state=GenerationState.CANCELED
            )
            row = await Generation.get(id=generation.id)
            if row.window_id is not None:
                await windows.close_job(window_id=row.window_id, account_id=account.id, at=now())

    await asyncio.gather(opened(*generations), *(cancel(each) for each in generations))

    # Whatever the order was, nothing is left to wait for.
    assert await WindowAccount.filter(open_jobs__gt=0).count() == 0


async def test_a_window_is_counted_per_customer(
    new_account: NewAccount, new_generation: NewGeneration
) -> None:
    one, other = await new_account(), await new_account()
    waiting = [await new_generation(other if number % 3 else one) for number in range(11)]
    ids = [row.id for row in waiting]
    assert {row.id for row in await windows.waiting(ids)} == await windows.unassigned(ids) == set(ids)

    window = await opened(*waiting)

    assert await windows.waiting(ids) == []
    parts = await WindowAccount.filter(window_id=window.id)
    assert {part.account_id: part.open_jobs for part in parts} == {one.id: 4, other.id: 7}
    assert window.jobs == 11
    assert {row.id for row in await windows.unreleased(window.id)} == {row.id for row in waiting}


async def test_what_was_released_or_has_ended_is_not_released_again(
    new_account: NewAccount, new_generation: NewGeneration
) -> None:
    account = await new_account()
    waiting, released, ended = [await new_generation(account) for _ in range(3)]
    window = await opened(waiting, released, ended)
    await windows.mark_released([released.id], at=now())
    await close(ended, window)

    assert [row.id for row in await windows.unreleased(window.id)] == [waiting.id]
    assert [row.id for row in await windows.releasing()] == [window.id]

    await windows.mark_running(window.id, at=now())
    assert await windows.releasing() == []


async def test_a_window_is_finished_when_the_last_job_of_its_last_customer_is(
    new_account: NewAccount, new_generation: NewGeneration
) -> None:
    one, other = await new_account(), await new_account()
    first, second, third = [await new_generation(account) for account in (one, one, other)]
    window = await opened(first, second, third)
    await windows.mark_running(window.id, at=now())

    assert [await close(first, window), await close(third, window)] == [False, True]
    assert (await Window.get()).state is WindowState.RUNNING
    assert await close(second, window) is True
    finished = await Window.get()
    assert finished.state is WindowState.FINISHED
    assert finished.finished_at is not None


async def test_a_finished_window_says_how_its_jobs_ended_and_why_some_failed(
    new_account: NewAccount, new_generation: NewGeneration
) -> None:
    ends = [
        (GenerationState.SUCCEEDED, None),
        (GenerationState.SUCCEEDED, None),
        (GenerationState.REJECTED, "Held back."),
        (GenerationState.CANCELED, None),
        (GenerationState.FAILED, "Out of paint."),
        (GenerationState.FAILED, "Too late."),
        (GenerationState.FAILED, "Out of paint."),
    ]
    accounts = [await new_account() for _ in range(2)]
    generations = [await new_generation(accounts[number % 2]) for number in range(len(ends))]
    await new_generation(accounts[0], state=GenerationState.FAILED, error="Of no window.")
    before = now()
    window = await opened(*generations)
    await windows.mark_running(window.id, at=now())

    for number, (generation, (state, error)) in enumerate(zip(generations, ends, strict=True)):
        tally = await windows.tally(window.id)
        assert sum(tally.states.values()) == len(ends)
        assert tally.states[GenerationState.QUEUED] == len(ends) - number
        await close(generation, window, state=state, error=error)

    record = await Window.get()
    assert (record.jobs, record.customers, record.put_off) == (7, 2, 0)
    assert (record.succeeded, record.failed, record.rejected, record.canceled) == (2, 3, 1, 1)
    assert record.failures == {"Out of paint.": 2, "Too late.": 1}
    assert record.opened_at is not None
    assert record.released_at is not None
    assert record.finished_at is not None
    assert before <= record.opened_at <= record.released_at <= record.finished_at <= record.deadline


async def test_a_window_whose_jobs_end_before_all_are_released_is_finished_too(
    new_account: NewAccount, new_generation: NewGeneration
) -> None:
    generation = await new_generation(await new_account())
    window = await opened(generation)

    await close(generation, window)
    await windows.mark_running(window.id, at=now())

    assert (await Window.get()).state is WindowState.FINISHED


async def test_customers_whose_last_jobs_end_at_the_same_moment_finish_the_window(
    new_account: NewAccount, new_generation: NewGeneration
) -> None:
    generations = [await new_generation(await new_account()) for _ in range(5)]
    window = await opened(*generations)
    await windows.mark_running(window.id, at=now())

    await asyncio.gather(*(close(each, window) for each in generations))

    assert (await Window.get()).state is WindowState.FINISHED


async def test_a_job_that_ends_while_its_window_is_marked_as_running_finishes_it(
    new_account: NewAccount, new_generation: NewGeneration
) -> None:
    for _ in range(5):
        generation = await new_generation(await new_account())
        window = await opened(generation)

        await asyncio.gather(windows.mark_running(window.id, at=now()), close(generation, window))

        assert (await Window.get(id=window.id)).state is WindowState.FINISHED


async def test_a_customer_who_canceled_everything_has_no_news(
    new_account: NewAccount, new_generation: NewGeneration
) -> None:
    account = await new_account()
    first, second = await new_generation(account), await new_generation(account)
    window = await opened(first, second)
    await Generation.filter(id=first.id).update(state=GenerationState.CANCELED)
    assert await windows.has_news(window_id=window.id, account_id=account.id)

    await Generation.filter(id=second.id).update(state=GenerationState.CANCELED)
    assert not await windows.has_news(window_id=window.id, account_id=account.id)
