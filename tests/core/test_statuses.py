"""Who follows a generation, and what it costs the database and the broker."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from core.clock import now
from core.errors import NotFoundError, ServiceUnavailableError
from core.lifecycle import GenerationState, Tier
from core.messages import Progress
from core.models import Account, Generation
from core.outlook import Outlook, Outlooks
from core.queue import Queue, Workers
from core.recording import Recorder
from core.repository import generations
from core.statuses import Follower, Status, Statuses, statuses

NewAccount = Callable[..., Awaitable[Account]]
NewGeneration = Callable[..., Awaitable[Generation]]

RUNNING = GenerationState.RUNNING


@pytest.fixture
def watched(queue: Queue) -> Statuses:
    return Statuses(queue=queue, outlooks=Outlooks(workers=Workers(queue=queue)))


@pytest.fixture
def no_reread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statuses, "REREAD_SECONDS", 600)


@pytest.fixture
def statements(caplog: pytest.LogCaptureFixture) -> Callable[[], int]:
    """How many statements the database was sent since it was asked the last time."""
    caplog.set_level(logging.DEBUG, "tortoise.db_client")

    def count() -> int:
        found = sum(record.name == "tortoise.db_client" for record in caplog.records)
        caplog.clear()
        return found

    return count


async def step(queue: Queue, row: Generation, number: int, preview: str | None = None) -> None:
    await queue.publish_progress(
        Progress(id=row.id, state=RUNNING, step=number, total_steps=row.steps, preview=preview)
    )


async def read(follower: Follower) -> Status:
    return await asyncio.wait_for(follower.read(), 20)


def status(row: Generation, number: int, preview: str | None = None) -> Status:
    return Status(row, Outlook(), number, preview)


async def test_a_slow_reader_gets_the_newest_step_with_the_newest_preview_once(
    new_account: NewAccount, new_generation: NewGeneration
) -> None:
    row = await new_generation(await new_account(), state=RUNNING, started_at=now())
    slow = Follower(account_id=row.account_id, previews=True)
    plain = Follower(account_id=row.account_id, previews=False)
    for number, preview in ((1, "old"), (2, "new"), (3, None), (4, None)):
        for follower in (slow, plain):
            follower.offer(status(row, number, preview))
    assert await read(slow) == status(row, 4, "new")
    assert await read(plain) == status(row, 4)
    slow.offer(status(row, 5))
    assert await read(slow) == status(row, 5)


async def test_a_hundred_who_join_at_once_are_told_by_a_handful_of_statements(
    watched: Statuses,
    new_account: NewAccount,
    new_generation: NewGeneration,
    statements: Callable[[], int],
    no_reread: None,
) -> None:
    account = await new_account()
    rows = [await new_generation(account, tier=Tier.PREMIUM) for _ in range(100)]
    statements()
    async with AsyncExitStack() as stack:
        followers = await asyncio.gather(
            *(
                stack.enter_async_context(watched.follow(row.id, account_id=account.id))
                for row in (*rows, *rows)
            )
        )
        found = await asyncio.gather(*(read(follower) for follower in followers))
        # Rows and queue, and both once more for those who come a moment after the others.
        assert statements() <= 4
    assert [one.outlook.queue_position for one in found] == [*range(1, 101), *range(1, 101)]


async def test_a_step_reaches_every_follower_without_a_statement(
    watched: Statuses,
    queue: Queue,
    new_account: NewAccount,
    new_generation: NewGeneration,
    statements: Callable[[], int],
    no_reread: None,
) -> None:
    row = await new_generation(await new_account(), state=RUNNING, started_at=now())
    async with AsyncExitStack() as stack:
        followers = [
            await stack.enter_async_context(watched.follow(row.id, account_id=row.account_id))
            for _ in range(5)
        ]
        for follower in followers:
            assert (await read(follower)).step == 0
        statements()
        for number in (1, 2, 3):
            await step(queue, row, number)
            assert [(await read(follower)).step for follower in followers] == [number] * 5
        assert statements() == 0


async def test_a_generation_is_heard_of_once_however_many_follow_it_and_no_longer_than_they_do(
    watched: Statuses, queue: Queue, new_account: NewAccount, new_generation: NewGeneration
) -> None:
    row = await new_generation(await new_account())
    before = interests(queue)
    async with AsyncExitStack() as stack:
        for _ in range(5):
            follower = await stack.enter_async_context(watched.follow(row.id, account_id=row.account_id))
            await read(follower)
        assert interests(queue) == before + 1
    assert interests(queue) == before


def interests(queue: Queue) -> int:
    """Subjects that the connection listens to."""
    return len(queue._client._subs)


@pytest.mark.parametrize("first", ["owner", "stranger"])
async def test_who_follows_anothers_generation_is_told_that_there_is_none(
    watched: Statuses, new_account: NewAccount, new_generation: NewGeneration, first: str
) -> None:
    row = await new_generation(await new_account())
    owner, stranger = row.account_id, (await new_account()).id
    order = [owner, stranger] if first == "owner" else [stranger, owner]
    async with AsyncExitStack() as stack:
        followers = {
            account_id: await stack.enter_async_context(watched.follow(row.id, account_id=account_id))
            for account_id in order
        }
        assert (await read(followers[owner])).row.id == row.id
        with pytest.raises(NotFoundError):
            await read(followers[stranger])


async def test_what_was_missed_is_found_together_for_all(
    watched: Statuses,
    new_account: NewAccount,
    new_generation: NewGeneration,
    statements: Callable[[], int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(statuses, "REREAD_SECONDS", 0.5)
    account = await new_account()
    rows = [await new_generation(account, state=RUNNING, started_at=now()) for _ in range(20)]
    async with AsyncExitStack() as stack:
        followers = [
            await stack.enter_async_context(watched.follow(row.id, account_id=account.id)) for row in rows
        ]
        for follower in followers:
            await read(follower)
        statements()
        # Nobody says a word on the broker.
        await Generation.filter(id__in=[row.id for row in rows]).update(
            state=GenerationState.CANCELED, finished_at=now()
        )
        ended = await asyncio.gather(*(read(follower) for follower in followers))
    assert {one.row.state for one in ended} == {GenerationState.CANCELED}
    # The update; then a look and the rows, for the first who came, and for the others.
    assert statements() <= 5


async def test_a_row_that_is_gone_ends_with_an_error(
    watched: Statuses, new_account: NewAccount, new_generation: NewGeneration, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statuses, "REREAD_SECONDS", 0.2)
    row = await new_generation(await new_account())
    async with watched.follow(row.id, account_id=row.account_id) as follower:
        await read(follower)
        await row.delete()
        with pytest.raises(NotFoundError):
            await read(follower)


async def test_those_who_wait_are_told_when_their_place_changes(
    watched: Statuses,
    queue: Queue,
    new_account: NewAccount,
    new_generation: NewGeneration,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(statuses, "REREAD_SECONDS", 0.2)
    account = await new_account()
    ahead, row = [await new_generation(account, tier=Tier.PREMIUM) for _ in range(2)]
    async with watched.follow(row.id, account_id=account.id) as follower:
        assert (await read(follower)).outlook.queue_position == 2
        await Recorder(queue=queue).finish(ahead.id, GenerationState.CANCELED, at=now())
        assert (await read(follower)).outlook.queue_position == 1
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(follower.read(), 0.7)


async def test_while_the_database_is_away_steps_go_on_and_who_joins_is_told_so(
    watched: Statuses,
    queue: Queue,
    new_account: NewAccount,
    new_generation: NewGeneration,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(statuses, "REREAD_SECONDS", 0.2)
    monkeypatch.setattr(statuses, "_RETRY_SECONDS", 0.1)
    row, other = [
        await new_generation(await new_account(), state=RUNNING, started_at=now()) for _ in range(2)
    ]

    async def away(*_: Any) -> Any:
        raise ServiceUnavailableError("database: away")

    async with watched.follow(row.id, account_id=row.account_id) as follower:
        await read(follower)
        with monkeypatch.context() as patch:
            patch.setattr(generations, "by_ids", away)
            patch.setattr(generations, "changed", away)
            async with watched.follow(other.id, account_id=other.account_id) as joining:
                with pytest.raises(ServiceUnavailableError):
                    await read(joining)
            await step(queue, row, 3)
            assert (await read(follower)).step == 3
            await Recorder(queue=queue).finish(row.id, GenerationState.FAILED, at=now(), error="no luck")
            await asyncio.sleep(0.3)
        assert (await read(follower)).row.state is GenerationState.FAILED
