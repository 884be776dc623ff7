"""What leaves after a commit, and what a crash or an absent broker leaves behind."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from core.clock import now
from core.errors import ServiceUnavailableError
from core.lifecycle import GenerationState, Tier
from core.messages import Job
from core.models import Account, Generation, Letter, LetterKind
from core.outbox import RELAY_AGE, JobOutbox, job_of, write_letter
from core.queue import Lane, Queue, topology
from core.repository.database import in_transaction
from core.settings import BrokerSettings

NewAccount = Callable[..., Awaitable[Account]]
NewGeneration = Callable[..., Awaitable[Generation]]


async def grow_old(*generations: Generation) -> None:
    await Generation.filter(id__in=[each.id for each in generations]).update(
        created_at=now() - RELAY_AGE - timedelta(seconds=1)
    )


@pytest.mark.parametrize(("tier", "lane"), [(Tier.NORMAL, Lane.NORMAL), (Tier.PREMIUM, Lane.PREMIUM)])
async def test_a_job_enters_the_lane_of_its_tier_and_is_noted(
    queue: Queue, new_account: NewAccount, new_generation: NewGeneration, tier: Tier, lane: Lane
) -> None:
    generation = await new_generation(await new_account(), tier=tier, prompt="a fox", request_id="r1")

    outbox = JobOutbox(queue=queue)
    await outbox.publish(generation)
    await outbox.mark()

    spec = topology.NORMAL_JOBS if tier is Tier.NORMAL else topology.PREMIUM_JOBS
    [message] = await queue.consumer(spec).fetch(1)
    assert message.subject == lane.subject(generation.id)
    assert Job.decode(message.data) == job_of(generation)
    assert (await Generation.get()).published_at is not None


async def test_a_job_that_its_window_released_goes_back_to_the_workers(
    queue: Queue, new_account: NewAccount, new_generation: NewGeneration
) -> None:
    generation = await new_generation(await new_account(), released_at=now())

    await JobOutbox(queue=queue).publish(generation)

    assert await queue.position_of(Lane.BATCH, generation.id)


async def test_without_a_broker_a_job_is_left_to_the_relay(
    queue: Queue,
    broker_settings: BrokerSettings,
    new_account: NewAccount,
    new_generation: NewGeneration,
) -> None:
    generation = await new_generation(await new_account())
    lost = await Queue.connect(broker_settings, name="lost")
    await lost.close()

    await JobOutbox(queue=lost).publish(generation)

    assert (await Generation.get()).published_at is None
    await grow_old(generation)
    with pytest.raises(ServiceUnavailableError):
        await JobOutbox(queue=lost).relay()
    assert (await Generation.get()).published_at is None
    assert await JobOutbox(queue=queue).relay() == 1
    assert await queue.position_of(Lane.NORMAL, generation.id)
    assert (await Generation.get()).published_at is not None
    assert await JobOutbox(queue=queue).relay() == 0


async def test_the_relay_leaves_alone_what_is_young_published_or_over(
    queue: Queue, new_account: NewAccount, new_generation: NewGeneration
) -> None:
    account = await new_account()
    await new_generation(account)
    published = await new_generation(account, published_at=now())
    canceled = await new_generation(account, state=GenerationState.CANCELED)
    await grow_old(published, canceled)

    assert await JobOutbox(queue=queue).relay() == 0
    assert await queue.depth(Lane.NORMAL) == 0


async def test_relays_at_the_same_moment_publish_every_job_once(
    queue: Queue, new_account: NewAccount, new_generation: NewGeneration
) -> None:
    account = await new_account()
    left = [await new_generation(account) for _ in range(20)]
    await grow_old(*left)

    published = await asyncio.gather(*(JobOutbox(queue=queue).relay() for _ in range(4)))

    assert sum(published) == 20
    assert await queue.depth(Lane.NORMAL) == 20


async def test_a_job_that_the_broker_already_holds_counts_as_published(
    queue: Queue, new_account: NewAccount, new_generation: NewGeneration
) -> None:
    # The process died between the broker's answer and the note.
    generation = await new_generation(await new_account())
    await queue.publish_job(Lane.NORMAL, job_of(generation))
    await grow_old(generation)

    assert await JobOutbox(queue=queue).relay() == 1
    assert await queue.depth(Lane.NORMAL) == 1
    assert (await Generation.get()).published_at is not None


async def test_a_running_relay_publishes_and_stops_when_told(
    queue: Queue, new_account: NewAccount, new_generation: NewGeneration
) -> None:
    generation = await new_generation(await new_account())
    await grow_old(generation)
    stop = asyncio.Event()
    relaying = asyncio.create_task(JobOutbox(queue=queue).run(stop=stop))

    async with asyncio.timeout(5):
        while not await queue.position_of(Lane.NORMAL, generation.id):  # noqa: ASYNC110 - the broker has no event
            await asyncio.sleep(0.02)

    stop.set()
    await asyncio.wait_for(relaying, 1)


async def test_a_letter_of_a_transaction_that_failed_is_not_sent(new_account: NewAccount) -> None:
    account = await new_account()

    async def fail() -> None:
        async with in_transaction():
            await write_letter(account.id, LetterKind.VERIFY_EMAIL)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail()

    assert await Letter.all().count() == 0
