"""Cancelling before a window, in it, and at the very moment in which its jobs are released."""

import asyncio
from collections.abc import Awaitable, Callable
from uuid import UUID

import pytest

from batcher.release import Releaser
from core.accounts.limits import RateLimiter
from core.catalogue import load_catalogue
from core.generations import Generations
from core.lifecycle import GenerationState
from core.messages import Control, Job
from core.models import Account, Generation, Letter, Window, WindowAccount, WindowState
from core.outbox import JobOutbox
from core.queue import Lane, Queue, topology
from core.recording import Recorder
from core.settings import LimitSettings, WindowSettings

NewAccount = Callable[..., Awaitable[Account]]
NewGeneration = Callable[..., Awaitable[Generation]]
Succeed = Callable[[Generation], Awaitable[None]]

NEVER = WindowSettings(window="@yearly")


@pytest.fixture
def customers(queue: Queue) -> Generations:
    """What customers do, as the api has it."""
    limits = LimitSettings()
    return Generations(
        outbox=JobOutbox(queue=queue),
        recorder=Recorder(queue=queue),
        catalogue=load_catalogue(),
        limiter=RateLimiter(limits),
        limits=limits,
    )


@pytest.fixture
async def account(new_account: NewAccount) -> Account:
    return await new_account()


@pytest.fixture
def accept(
    queue: Queue, account: Account, new_generation: NewGeneration
) -> Callable[[int], Awaitable[list[Generation]]]:
    """Accepts so many generations of the customer and publishes their jobs."""

    async def make(count: int) -> list[Generation]:
        made = [await new_generation(account) for _ in range(count)]
        for generation in made:
            await JobOutbox(queue=queue).publish(generation)
        return made

    return make


Accept = Callable[[int], Awaitable[list[Generation]]]


async def run_window(queue: Queue) -> None:
    """One beat, followed to its end as the batcher does."""
    releaser = Releaser(queue=queue, settings=NEVER)
    await queue.beat()
    [tick] = await queue.consumer(topology.TICKS).fetch(1, wait=5)
    await releaser._settle(tick)


async def on_batch_lane(queue: Queue) -> set[UUID]:
    """What the workers are offered, taken as one does."""
    consumer, found = queue.consumer(topology.BATCH_JOBS), set[UUID]()
    for _ in range(await queue.depth(Lane.BATCH)):
        [message] = await consumer.fetch(1, wait=2)
        found.add(Job.decode(message.data).id)
        await message.ack()
    return found


async def test_what_is_canceled_before_its_window_is_in_none(
    queue: Queue, customers: Generations, account: Account, accept: Accept
) -> None:
    canceled, kept = await accept(2)

    await customers.cancel(account, canceled.id)
    await run_window(queue)

    assert await on_batch_lane(queue) == {kept.id}
    assert (await Generation.get(id=canceled.id)).window_id is None
    assert (await Window.get()).jobs == 1
    assert await queue.depth(Lane.NORMAL) == 0


async def test_what_is_canceled_after_its_release_is_taken_from_the_workers_and_the_letter_leaves(
    queue: Queue, customers: Generations, account: Account, accept: Accept, succeed: Succeed
) -> None:
    canceled, kept = await accept(2)
    heard: asyncio.Queue[Control] = asyncio.Queue()
    await run_window(queue)
    stop = await queue.subscribe_control(heard.put_nowait)

    await customers.cancel(account, canceled.id)

    assert await on_batch_lane(queue) == {kept.id}
    async with asyncio.timeout(5):
        assert (await heard.get()).id == canceled.id
    await stop()
    assert await Letter.all().count() == 0
    await succeed(kept)
    window = await Window.get()
    assert window.state is WindowState.FINISHED
    assert (window.jobs, window.succeeded, window.canceled) == (2, 1, 1)
    assert await Letter.all().count() == 1


async def test_what_is_canceled_between_its_reading_and_its_publishing_is_taken_back(
    queue: Queue,
    customers: Generations,
    account: Account,
    accept: Accept,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    canceled, kept = await accept(2)
    heard: list[str] = []
    stop = await queue.subscribe_control(lambda control: heard.append(f"{control.action} {control.id}"))
    publish = queue.publish_job

    async def cancel_first(lane: Lane, job: Job) -> bool:
        if job.id == canceled.id:
            await customers.cancel(account, canceled.id)
            heard.append("published")
        return await publish(lane, job)

    monkeypatch.setattr(queue, "publish_job", cancel_first)

    await run_window(queue)

    assert await on_batch_lane(queue) == {kept.id}
    order = f"cancel {canceled.id}"
    async with asyncio.timeout(5):
        # Again after it was published: a worker may have taken it at once.
        while heard[-1:] != [order] or "published" not in heard:  # noqa: ASYNC110 - filled by a callback
            await asyncio.sleep(0.01)
    await stop()
    assert (await WindowAccount.get()).open_jobs == 1


async def test_cancellations_in_the_midst_of_a_window_leave_nothing_behind_and_nothing_out(
    queue: Queue, customers: Generations, account: Account, accept: Accept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batcher.release._IN_FLIGHT", 8)
    accepted = await accept(60)
    unlucky = accepted[::2]

    async def cancel_one_by_one() -> None:
        for generation in unlucky:
            await customers.cancel(account, generation.id)

    await asyncio.gather(run_window(queue), cancel_one_by_one())

    kept = {generation.id for generation in accepted} - {generation.id for generation in unlucky}
    assert await on_batch_lane(queue) == kept
    assert await queue.depth(Lane.NORMAL) == 0
    assert (await WindowAccount.get()).open_jobs == len(kept)
    assert await Generation.filter(state=GenerationState.CANCELED).count() == len(unlucky)
    recorder = Recorder(queue=queue)
    for generation_id in kept:
        await recorder.finish(
            generation_id, GenerationState.FAILED, at=accepted[0].created_at, error="Out of paint."
        )
    window = await Window.get()
    assert window.state is WindowState.FINISHED
    assert window.failures == {"Out of paint.": len(kept)}
    assert window.jobs == window.failed + window.canceled
    assert await Letter.all().count() == 1


async def test_a_customer_who_cancels_all_of_a_window_is_told_nothing_and_the_window_ends(
    queue: Queue, customers: Generations, account: Account, accept: Accept
) -> None:
    accepted = await accept(3)
    await run_window(queue)

    for generation in accepted:
        await customers.cancel(account, generation.id)

    assert await Letter.all().count() == 0
    window = await Window.get()
    assert (window.state, window.canceled) == (WindowState.FINISHED, 3)
    assert await on_batch_lane(queue) == set()
