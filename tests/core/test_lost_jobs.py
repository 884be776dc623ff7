"""Jobs that the broker has lost are brought back, and what only looks like it is left alone."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from core.clock import now
from core.lifecycle import GenerationState, Tier
from core.messages import Job, Outcome, Started
from core.models import Account, Erasure, Generation, Window, WindowState
from core.outbox import job_of
from core.queue import Lane, Queue, topology
from core.reconciler import LostJobs, Reconciler
from core.reconciler.dead_letters import DeadLetters
from core.reconciler.lost_jobs import BATCH, MOST_LOSSES
from core.recording import Recorder
from core.repository import jobs
from core.settings import ReconcilerSettings

NewAccount = Callable[..., Awaitable[Account]]
NewGeneration = Callable[..., Awaitable[Generation]]
NewWorker = Callable[..., Awaitable[Any]]

QUEUED, RUNNING, FAILED = GenerationState.QUEUED, GenerationState.RUNNING, GenerationState.FAILED


@pytest.fixture
def lost_jobs(queue: Queue) -> LostJobs:
    return replica(queue)


def replica(queue: Queue) -> LostJobs:
    settings = ReconcilerSettings(reconcile_seconds=0.05, reconcile_age_seconds=0)
    dead_letters = DeadLetters(queue=queue, recorder=Recorder(queue=queue))
    return LostJobs(queue=queue, dead_letters=dead_letters, settings=settings)


@pytest.fixture
def published(new_account: NewAccount, new_generation: NewGeneration) -> NewGeneration:
    """Makes a generation that the broker once took."""

    async def make(**fields: Any) -> Generation:
        return await new_generation(await new_account(), published_at=now(), **fields)

    return make


async def look_twice(lost_jobs: LostJobs) -> None:
    await lost_jobs.look()
    await lost_jobs.look()


async def released(new_account: NewAccount, new_generation: NewGeneration, **fields: Any) -> Generation:
    deadline = now() + timedelta(minutes=20)
    window = await Window.create(tick_at=now(), deadline=deadline, state=WindowState.RUNNING)
    fields = {"published_at": now(), "window": window, "released_at": now(), **fields}
    return await new_generation(await new_account(), **fields)


@pytest.mark.parametrize("state", [QUEUED, RUNNING])
async def test_a_premium_job_that_no_lane_holds_is_published_again(
    queue: Queue, lost_jobs: LostJobs, published: NewGeneration, state: GenerationState
) -> None:
    generation = await published(tier=Tier.PREMIUM, state=state)
    await lost_jobs.look()
    assert not await queue.position_of(Lane.PREMIUM, generation.id)
    await lost_jobs.look()
    [message] = await queue.consumer(topology.PREMIUM_JOBS).fetch(1)
    assert Job.decode(message.data) == job_of(generation)
    row = await Generation.get()
    assert (row.state, row.losses) == (state, 1)
    assert row.published_at is not None
    assert generation.published_at is not None
    assert row.published_at > generation.published_at


async def test_a_job_that_was_begun_comes_back_although_its_publisher_died_before_the_mark(
    queue: Queue, lost_jobs: LostJobs, new_account: NewAccount, new_generation: NewGeneration
) -> None:
    generation = await new_generation(await new_account(), tier=Tier.PREMIUM)
    await Recorder(queue=queue).start(generation.id, at=now(), worker="gone")
    await look_twice(lost_jobs)
    assert await queue.position_of(Lane.PREMIUM, generation.id)


async def test_a_waiting_normal_job_comes_back_to_its_own_lane(
    queue: Queue, lost_jobs: LostJobs, published: NewGeneration
) -> None:
    generation = await published()
    await look_twice(lost_jobs)
    assert await queue.position_of(Lane.NORMAL, generation.id)


async def test_a_released_job_comes_back_with_its_windows_deadline(
    queue: Queue, lost_jobs: LostJobs, new_account: NewAccount, new_generation: NewGeneration
) -> None:
    generation = await released(new_account, new_generation)
    await look_twice(lost_jobs)
    [message] = await queue.consumer(topology.BATCH_JOBS).fetch(1)
    window = await Window.get()
    assert Job.decode(message.data) == job_of(generation, deadline=window.deadline)
    assert not await queue.position_of(Lane.NORMAL, generation.id)


async def test_what_is_held_being_released_unpublished_or_over_is_left_alone(
    queue: Queue,
    lost_jobs: LostJobs,
    published: NewGeneration,
    new_account: NewAccount,
    new_generation: NewGeneration,
) -> None:
    held = await published(tier=Tier.PREMIUM)
    await queue.publish_job(Lane.PREMIUM, job_of(held))
    in_flight = await published(tier=Tier.PREMIUM)
    await queue.publish_job(Lane.PREMIUM, job_of(in_flight))
    assert len(await queue.consumer(topology.PREMIUM_JOBS).fetch(2)) == 2
    await published(state=GenerationState.SUCCEEDED)
    await new_generation(await new_account())
    await released(new_account, new_generation, released_at=None)
    await look_twice(lost_jobs)
    await lost_jobs.look()
    assert await Generation.filter(losses=0).count() == 5
    assert await queue.depth(Lane.PREMIUM) == 2
    assert await queue.depth(Lane.NORMAL) == await queue.depth(Lane.BATCH) == 0


async def test_a_job_that_a_worker_says_it_holds_is_not_lost(
    queue: Queue, lost_jobs: LostJobs, published: NewGeneration, new_worker: NewWorker
) -> None:
    # Its stream was deleted under the worker, which goes on and reports.
    generation = await published(tier=Tier.PREMIUM, state=RUNNING)
    await new_worker(jobs=(generation.id,))
    await look_twice(lost_jobs)
    assert not await queue.position_of(Lane.PREMIUM, generation.id)
    await queue.remove_heartbeat("w1")
    await look_twice(lost_jobs)
    assert await queue.position_of(Lane.PREMIUM, generation.id)


@pytest.mark.parametrize(
    ("tier", "spec"),
    [
        (Tier.PREMIUM, topology.PREMIUM_RESULTS),
        (Tier.NORMAL, topology.NORMAL_RESULTS),
    ],
)
async def test_a_job_whose_result_waits_to_be_recorded_is_not_lost(
    queue: Queue,
    lost_jobs: LostJobs,
    new_account: NewAccount,
    new_generation: NewGeneration,
    tier: Tier,
    spec: topology.ConsumerSpec,
) -> None:
    generation = (
        await new_generation(await new_account(), tier=tier, published_at=now(), state=RUNNING)
        if tier is Tier.PREMIUM
        else await released(new_account, new_generation, state=RUNNING)
    )
    done = Outcome(
        id=generation.id, worker="w", attempt=1, state=GenerationState.SUCCEEDED, finished_at=now()
    )
    await queue.publish_result(tier, done)
    lane = Lane.PREMIUM if tier is Tier.PREMIUM else Lane.BATCH
    for _ in range(3):
        await lost_jobs.look()
    [result] = await queue.consumer(spec).fetch(1)
    await lost_jobs.look()
    assert not await queue.position_of(lane, generation.id)
    # It is thrown away unrecorded: now the job is lost.
    await result.ack()
    await lost_jobs.look()
    assert await queue.position_of(lane, generation.id)


async def test_a_job_that_was_canceled_between_the_looks_stays_away(
    queue: Queue, lost_jobs: LostJobs, published: NewGeneration
) -> None:
    generation = await published(tier=Tier.PREMIUM)
    await lost_jobs.look()
    await Recorder(queue=queue).finish(generation.id, GenerationState.CANCELED, at=now())
    await lost_jobs.look()
    assert not await queue.position_of(Lane.PREMIUM, generation.id)


async def test_replicas_that_miss_a_job_at_the_same_time_count_its_loss_once(
    queue: Queue, lost_jobs: LostJobs, published: NewGeneration, monkeypatch: pytest.MonkeyPatch
) -> None:
    await published(tier=Tier.PREMIUM)
    other = replica(queue)
    await lost_jobs.look()
    await other.look()
    look_for = other._places

    async def and_the_first_is_faster(looked_for: Any) -> Any:
        places = await look_for(looked_for)
        await lost_jobs.look()
        return places

    monkeypatch.setattr(other, "_places", and_the_first_is_faster)
    await other.look()
    assert (await Generation.get()).losses == 1
    assert await queue.depth(Lane.PREMIUM) == 1


async def test_young_jobs_are_not_looked_for(queue: Queue, published: NewGeneration) -> None:
    await published()
    dead_letters = DeadLetters(queue=queue, recorder=Recorder(queue=queue))
    settings = ReconcilerSettings(reconcile_age_seconds=60)
    await look_twice(LostJobs(queue=queue, dead_letters=dead_letters, settings=settings))
    assert await queue.depth(Lane.NORMAL) == 0


async def test_a_job_that_is_lost_every_time_dies_of_it(
    queue: Queue, lost_jobs: LostJobs, published: NewGeneration
) -> None:
    await published(tier=Tier.PREMIUM, losses=MOST_LOSSES)
    await look_twice(lost_jobs)
    row = await Generation.get()
    assert (row.state, row.cause) == (FAILED, f"the broker's PREMIUM had lost the job {MOST_LOSSES} times")
    assert "our side is at fault" in (row.error or "")
    assert await queue.depth(Lane.PREMIUM) == 0


async def test_a_job_that_was_delivered_too_often_dies_although_no_advisory_came(
    queue: Queue, lost_jobs: LostJobs, published: NewGeneration
) -> None:
    poisoned = await published(tier=Tier.PREMIUM)
    consumer = queue.consumer(topology.PREMIUM_JOBS)
    await queue.publish_job(Lane.PREMIUM, job_of(poisoned))
    for _ in range(topology.MAX_DELIVER):
        [message] = await consumer.fetch(1, wait=5)
        await lost_jobs.look()
        assert (await Generation.get(id=poisoned.id)).state is QUEUED
        await message.nak(delay=0)
    # The broker gives it up when somebody asks once more.
    assert await consumer.fetch(1, wait=0.2) == []
    waiting = await published(tier=Tier.PREMIUM)
    await queue.publish_job(Lane.PREMIUM, job_of(waiting))
    await lost_jobs.look()
    row = await Generation.get(id=poisoned.id)
    assert (row.state, row.cause) == (FAILED, "delivered 5 times, and no worker reported an end")
    assert not await queue.position_of(Lane.PREMIUM, poisoned.id)
    assert await Generation.filter(id=waiting.id, state=QUEUED, losses=0).exists()


async def test_more_jobs_than_a_batch_are_all_looked_for(
    queue: Queue, lost_jobs: LostJobs, new_account: NewAccount, new_generation: NewGeneration
) -> None:
    pattern = await new_generation(await new_account(), published_at=now())
    same = {name: getattr(pattern, name) for name in jobs._PARAMETERS}
    await Generation.bulk_create([Generation(**same, published_at=now()) for _ in range(2 * BATCH)])
    assert await lost_jobs.look()
    assert await lost_jobs.look()
    assert not await lost_jobs.look()
    await lost_jobs.look()
    assert await queue.depth(Lane.NORMAL) == 2 * BATCH + 1


async def test_all_streams_deleted_at_once_come_back_with_schedule_and_jobs(
    queue: Queue, published: NewGeneration
) -> None:
    premium, normal = await published(tier=Tier.PREMIUM), await published()
    await queue.publish_job(Lane.PREMIUM, job_of(premium))
    await queue.publish_job(Lane.NORMAL, job_of(normal))
    await queue.schedule_window("@every 1h")
    recorder, stop = Recorder(queue=queue), asyncio.Event()
    settings = ReconcilerSettings(reconcile_seconds=0.1, reconcile_age_seconds=0)
    reconciler = Reconciler(queue=queue, recorder=recorder, settings=settings)
    running = asyncio.create_task(reconciler.run(stop=stop))
    for stream in [*Lane, "RESULTS", "CLOCK", "ADVISORIES", "PROGRESS", topology.WORKERS_STREAM]:
        await queue._js.delete_stream(stream)
    try:
        async with asyncio.timeout(15):
            while await Generation.filter(losses=0).exists():  # noqa: ASYNC110 - no event for it
                await asyncio.sleep(0.05)
    finally:
        stop.set()
        await running
    assert await queue.position_of(Lane.PREMIUM, premium.id)
    assert await queue.position_of(Lane.NORMAL, normal.id)
    schedule = await queue._js.get_last_msg("CLOCK", topology.SCHEDULE_SUBJECT)
    assert (schedule.headers or {})["Nats-Schedule"] == "@every 1h"
    assert await queue.workers() == []


async def test_what_another_attempt_may_have_left_is_noted_for_erasure(
    queue: Queue, published: NewGeneration
) -> None:
    recorder = Recorder(queue=queue)
    once, twice, failed, canceled, late = [await published(tier=Tier.PREMIUM) for _ in range(5)]
    for generation in (once, twice, twice, failed, late):
        started = Started(id=generation.id, worker="w7", attempt=1, started_at=now())
        await recorder._record(started)
    for generation in (once, twice, late):
        await recorder.finish(generation.id, GenerationState.SUCCEEDED, at=now())
    await recorder.finish(failed.id, FAILED, at=now())
    await recorder.finish(canceled.id, GenerationState.CANCELED, at=now())
    assert (await Generation.get(id=twice.id)).attempts == 2
    assert (await Generation.get(id=twice.id)).worker == "w7"
    await recorder.start(late.id, at=now(), worker="w8")
    assert (await Generation.get(id=late.id)).worker == "w7"

    noted = {erasure.prefix: erasure for erasure in await Erasure.all()}

    assert set(noted) == {f"generations/{one.id}/" for one in (twice, failed, late)}
    for erasure in noted.values():
        assert erasure.keeps_recorded
        assert timedelta(minutes=59) < erasure.due_at - now() <= timedelta(hours=1)
