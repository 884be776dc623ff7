"""What would stay open for ever is failed, and the customer is told."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from core.clock import now
from core.lifecycle import GenerationState, Tier
from core.messages import Control
from core.models import Account, Generation, Letter, LetterKind, Window, WindowState
from core.outbox import job_of
from core.queue import Lane, Queue, topology
from core.queue.topology import ConsumerSpec
from core.reconciler import OVERDUE, Reconciler
from core.recording import Recorder
from core.repository import windows
from core.repository.database import in_transaction
from core.settings import ReconcilerSettings

NewAccount = Callable[..., Awaitable[Account]]
NewGeneration = Callable[..., Awaitable[Generation]]

FAILED, SUCCEEDED = GenerationState.FAILED, GenerationState.SUCCEEDED


@pytest.fixture
def reconciler(queue: Queue) -> Reconciler:
    return Reconciler(
        queue=queue, recorder=Recorder(queue=queue), settings=ReconcilerSettings(reconcile_seconds=60)
    )


@asynccontextmanager
async def running(reconciler: Reconciler) -> AsyncIterator[None]:
    stop = asyncio.Event()
    task = asyncio.create_task(reconciler.run(stop=stop))
    try:
        yield
    finally:
        # Never cancelled: a fetch that is cancelled may swallow it, and go on for ever.
        stop.set()
        await task


async def released_window(*generations: Generation, minutes_left: float) -> Window:
    async with in_transaction():
        deadline = now() + timedelta(minutes=minutes_left)
        window = await windows.open_window(tick_at=now(), deadline=deadline)
        await windows.assign(window, [generation.id for generation in generations])
    await windows.mark_running(window.id, at=now())
    return window


async def exhaust(queue: Queue, spec: ConsumerSpec) -> None:
    """Take the one waiting job again and again, and never finish it, as a worker that it kills would."""
    consumer = queue.consumer(spec)
    for attempt in range(1, topology.MAX_DELIVER + 1):
        [message] = await consumer.fetch(1, wait=5)
        assert message.attempt == attempt
        await message.nak(delay=0)
    # The broker gives a message up when somebody asks for it once more.
    assert await consumer.fetch(1, wait=0.2) == []


async def until_failed(generation_id: UUID) -> Generation:
    async with asyncio.timeout(8):
        while not await Generation.filter(id=generation_id, state=FAILED).exists():  # noqa: ASYNC110 - no event for it
            await asyncio.sleep(0.02)
    return await Generation.get(id=generation_id)


async def test_what_is_open_after_its_windows_deadline_is_failed_and_the_letter_leaves(
    queue: Queue, reconciler: Reconciler, new_account: NewAccount, new_generation: NewGeneration
) -> None:
    account = await new_account()
    queued, running_, done, canceled = [await new_generation(account) for _ in range(4)]
    window = await released_window(queued, running_, done, canceled, minutes_left=-1)
    recorder = Recorder(queue=queue)
    await queue.publish_job(Lane.BATCH, job_of(queued))
    await recorder.start(running_.id, at=now())
    await recorder.finish(done.id, SUCCEEDED, at=now())
    await recorder.finish(canceled.id, GenerationState.CANCELED, at=now())
    assert await Letter.all().count() == 0
    orders: list[Control] = []
    stop_listening = await queue.subscribe_control(orders.append)

    assert await reconciler.fail_overdue() == 2

    async with asyncio.timeout(5):
        while len(orders) < 2:  # noqa: ASYNC110 - no event for it
            await asyncio.sleep(0.02)
    await stop_listening()
    assert {(order.id, order.action) for order in orders} == {
        (queued.id, "cancel"),
        (running_.id, "cancel"),
    }
    for generation in (queued, running_):
        row = await Generation.get(id=generation.id)
        assert (row.state, row.error) == (FAILED, OVERDUE)
    assert (await Generation.get(id=done.id)).state is SUCCEEDED
    assert (await Generation.get(id=canceled.id)).state is GenerationState.CANCELED
    assert not await queue.position_of(Lane.BATCH, queued.id)
    [letter] = await Letter.all()
    assert (letter.kind, letter.parameters) == (LetterKind.WINDOW_FINISHED, {"window_id": str(window.id)})
    assert (await Window.get()).state is WindowState.FINISHED
    assert await reconciler.fail_overdue() == 0


async def test_what_has_time_left_or_no_window_is_left_alone(
    reconciler: Reconciler, new_account: NewAccount, new_generation: NewGeneration
) -> None:
    account = await new_account()
    in_time, waiting, premium = [
        await new_generation(account, tier=tier) for tier in (Tier.NORMAL, Tier.NORMAL, Tier.PREMIUM)
    ]
    await released_window(in_time, minutes_left=1)

    assert await reconciler.fail_overdue() == 0

    rows = await Generation.filter(id__in=[in_time.id, waiting.id, premium.id])
    assert {row.state for row in rows} == {GenerationState.QUEUED}


async def test_a_premium_job_that_was_delivered_too_often_is_failed(
    queue: Queue, reconciler: Reconciler, new_account: NewAccount, new_generation: NewGeneration
) -> None:
    generation = await new_generation(await new_account(), tier=Tier.PREMIUM)
    await queue.publish_job(Lane.PREMIUM, job_of(generation))

    async with running(reconciler):
        await exhaust(queue, topology.PREMIUM_JOBS)
        failed = await until_failed(generation.id)

    assert failed.error == "The pictures could not be made after 5 attempts. Please ask for them again."
    assert not await queue.position_of(Lane.PREMIUM, generation.id)
    assert [letter.kind for letter in await Letter.all()] == [LetterKind.GENERATION_FINISHED]


async def test_a_batch_job_that_was_delivered_too_often_is_failed_and_closes_its_window(
    queue: Queue, reconciler: Reconciler, new_account: NewAccount, new_generation: NewGeneration
) -> None:
    generation = await new_generation(await new_account())
    await released_window(generation, minutes_left=30)
    await queue.publish_job(Lane.BATCH, job_of(generation))

    async with running(reconciler):
        await exhaust(queue, topology.BATCH_JOBS)
        await until_failed(generation.id)

    assert await queue.depth(Lane.BATCH) == 0
    assert [letter.kind for letter in await Letter.all()] == [LetterKind.WINDOW_FINISHED]
    assert (await Window.get()).state is WindowState.FINISHED


async def test_a_recorded_success_stands_although_its_message_was_delivered_too_often(
    queue: Queue, reconciler: Reconciler, new_account: NewAccount, new_generation: NewGeneration
) -> None:
    # The worker reported, and its acknowledgements were lost.
    generation = await new_generation(await new_account(), tier=Tier.PREMIUM)
    await queue.publish_job(Lane.PREMIUM, job_of(generation))
    await Recorder(queue=queue).finish(generation.id, SUCCEEDED, at=now())

    async with running(reconciler):
        await exhaust(queue, topology.PREMIUM_JOBS)
        async with asyncio.timeout(8):
            while await queue.position_of(Lane.PREMIUM, generation.id):  # noqa: ASYNC110 - no event for it
                await asyncio.sleep(0.02)

    row = await Generation.get()
    assert row.state is SUCCEEDED
    assert not row.error


async def test_advisories_about_other_things_are_logged_and_settled(
    queue: Queue, reconciler: Reconciler, new_account: NewAccount, new_generation: NewGeneration
) -> None:
    generation = await new_generation(await new_account())
    # A result and a waiting job that nobody could read, a job that its worker refused, and no advisory.
    await queue._publish("results.normal", b"?", {})
    await queue._publish("jobs.normal.x", b"?", {})
    await queue._publish("jobs.premium.x", b"?", {})
    for spec in (topology.NORMAL_RESULTS, topology.NORMAL_JOBS, topology.PREMIUM_JOBS):
        [message] = await queue.consumer(spec).fetch(1)
        await message.reject()
    await queue._publish("$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.X.y", b"?", {})
    advisories = queue.consumer(topology.EXHAUSTED)

    with capture_logs() as logs:
        for _ in range(4):
            [message] = await advisories.fetch(1, wait=5)
            await reconciler.settle(message)

    assert sorted(entry["event"] for entry in logs) == [
        "advisory_unreadable",
        "job_gone",
        "message_given_up",
        "message_given_up",
    ]
    assert await advisories.fetch(1, wait=0.3) == []
    assert (await Generation.get(id=generation.id)).state is GenerationState.QUEUED
