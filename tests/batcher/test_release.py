"""Windows on a real broker and a real database."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime, timedelta
from uuid import UUID

import pytest

from batcher.order import release_order
from batcher.release import Releaser, _settle_jobs
from batcher.window import next_tick
from core.clock import now
from core.errors import ConfigurationError, ServiceUnavailableError
from core.lifecycle import GenerationState
from core.messages import Job
from core.models import Account, Generation, Letter, Window, WindowAccount, WindowState
from core.outbox import JobOutbox
from core.queue import Delivery, Lane, Queue, topology
from core.repository import windows
from core.settings import BrokerSettings, WindowSettings
from tests.batcher.releasing import running

NewAccount = Callable[..., Awaitable[Account]]
NewGeneration = Callable[..., Awaitable[Generation]]

# The beats of these tests are made by hand, but for one.
NEVER = WindowSettings(window="@yearly", window_deadline_minutes=30)


@pytest.fixture
async def second_queue(broker_settings: BrokerSettings, queue: Queue) -> AsyncIterator[Queue]:
    """The connection of another replica."""
    assert queue.healthy
    connected = await Queue.connect(broker_settings, name="second replica")
    yield connected
    await connected.close()


@pytest.fixture
def accept(
    queue: Queue, new_account: NewAccount, new_generation: NewGeneration
) -> Callable[..., Awaitable[list[Generation]]]:
    """Accepts so many generations of a customer and publishes their jobs."""

    async def make(count: int, *, account: Account | None = None, **fields: object) -> list[Generation]:
        account = account or await new_account()
        made = [await new_generation(account, **fields) for _ in range(count)]
        for generation in made:
            await JobOutbox(queue=queue).publish(generation)
        return made

    return make


Accept = Callable[..., Awaitable[list[Generation]]]


async def beat(queue: Queue) -> None:
    await queue._publish(topology.TICK_SUBJECT, b"", {})


async def taken_beat(queue: Queue) -> Delivery:
    await beat(queue)
    [tick] = await queue.consumer(topology.TICKS).fetch(1, wait=5)
    return tick


async def released_jobs(queue: Queue) -> list[Job]:
    """Everything on the batch lane, taken off it as a worker would."""
    consumer, jobs = queue.consumer(topology.BATCH_JOBS), []
    for _ in range(await queue.depth(Lane.BATCH)):
        [message] = await consumer.fetch(1, wait=2)
        jobs.append(Job.decode(message.data))
        await message.ack()
    return jobs


async def eventually(condition: Callable[[], Awaitable[bool]], *, seconds: float = 45) -> None:
    """Wait for a condition, longer than a beat that got lost on its way takes to come again."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110 - the database has no event
            await asyncio.sleep(0.02)


async def until_settled(queue: Queue, *, left: int = 0) -> None:
    """Until only so many jobs are left waiting."""

    async def settled() -> bool:
        return await queue.depth(Lane.NORMAL) == left

    await eventually(settled)


async def all_windows_run() -> bool:
    found = await Window.all()
    return bool(found) and all(window.state is WindowState.RUNNING for window in found)


async def test_a_beat_releases_everything_that_waits_in_fair_rounds_with_equal_shapes_together(
    queue: Queue, accept: Accept, new_account: NewAccount
) -> None:
    one, other = await new_account(), await new_account()
    waiting: list[Generation] = []
    for number in range(6):
        waiting += await accept(
            1,
            account=one if number < 4 else other,
            width=64 if number % 2 else 128,
            prompt=f"picture {number}",
        )

    async with running(Releaser(queue=queue, settings=NEVER)):
        before = now()
        await beat(queue)
        await eventually(all_windows_run)
        await until_settled(queue)

    [window] = await Window.all()
    assert window.jobs == 6
    assert before + timedelta(minutes=30) <= window.deadline <= now() + timedelta(minutes=30)
    jobs = await released_jobs(queue)
    assert [job.id for job in jobs] == [row.id for row in release_order(waiting)]
    assert [job.parameters.width for job in jobs] == [128, 128, 64, 64, 128, 64]
    assert {job.deadline for job in jobs} == {window.deadline}
    parts = await WindowAccount.filter(window_id=window.id)
    assert {part.account_id: part.open_jobs for part in parts} == {one.id: 4, other.id: 2}
    assert await Generation.filter(window_id=window.id, released_at__isnull=False).count() == 6


async def test_the_brokers_own_schedule_opens_windows_and_tells_the_next(
    queue: Queue, accept: Accept
) -> None:
    await accept(2)
    settings = WindowSettings(window="@every 1s")

    async with running(Releaser(queue=queue, settings=settings)):
        await eventually(all_windows_run)
        clock = await windows.clock()

    assert clock is not None
    assert clock.expression == "@every 1s"
    assert clock.next_at > now() - timedelta(seconds=1)
    [window] = await Window.all()
    assert window.jobs == 2
    assert clock.next_at.microsecond == 0


@pytest.mark.parametrize("expression", ["*/2 * * * * *", "@every 1500ms"])
async def test_the_beats_that_the_broker_announces_are_the_ones_that_are_told(
    queue: Queue, expression: str
) -> None:
    since = (await queue.schedule_window(expression)).since
    first = next_tick(expression, since=since, now=since)

    [tick] = await queue.consumer(topology.TICKS).fetch(1, wait=5)

    assert abs(tick.stored_at - first) < timedelta(seconds=0.6)
    announced = datetime.fromisoformat(tick.headers["Nats-Schedule-Next"])
    assert next_tick(expression, since=since, now=first) == announced


async def test_expressions_that_the_broker_refuses_end_the_process_with_the_reason(queue: Queue) -> None:
    for expression in ("0 0 0 * * 7", "0 0 22-2 * * *"):
        with pytest.raises(ServiceUnavailableError, match="10189"):
            await queue.schedule_window(expression)
        with pytest.raises(ConfigurationError, match="window"):
            Releaser(queue=queue, settings=WindowSettings(window=expression))


async def test_beats_without_jobs_leave_no_windows(queue: Queue, database: object) -> None:
    assert database
    told: set[datetime] = set()

    async def two_beats() -> bool:
        clock = await windows.clock()
        told.update({clock.next_at} if clock else ())
        return len(told) == 2

    async with running(Releaser(queue=queue, settings=WindowSettings(window="@every 1s"))):
        await eventually(two_beats)

    assert await Window.all().count() == 0


async def test_a_beat_from_before_an_outage_tells_a_next_one_that_is_still_to_come(
    queue: Queue, accept: Accept
) -> None:
    await accept(1)
    await queue.schedule_window("@every 1s")
    ticks = queue.consumer(topology.TICKS)
    [old] = await ticks.fetch(1, wait=5)
    await old.nak(delay=1.1)
    await queue.schedule_window(NEVER.window)

    async with running(Releaser(queue=queue, settings=NEVER)):
        await eventually(all_windows_run)

    assert datetime.fromisoformat(old.headers["Nats-Schedule-Next"]) < now()
    clock = await windows.clock()
    assert clock is not None
    assert clock.next_at > now()


async def test_a_beat_that_comes_again_releases_nothing_twice(queue: Queue, accept: Accept) -> None:
    await accept(5)
    first = Releaser(queue=queue, settings=NEVER)
    tick = await taken_beat(queue)
    # Everything but the acknowledgements: the process dies here.
    held: dict[UUID, Delivery] = {}
    await first._follow(tick, held)
    assert len(await released_jobs(queue)) == 5
    for job in held.values():
        await job.nak(delay=0)
    await tick.nak(delay=0)
    late = await accept(1)

    async with running(Releaser(queue=queue, settings=NEVER)):
        await until_settled(queue, left=1)

    assert await released_jobs(queue) == []
    [window] = await Window.all()
    assert window.jobs == 5
    # The job that came after the window was closed waits for the next.
    assert await windows.unassigned([generation.id for generation in late]) == {late[0].id}
    assert await queue.position_of(Lane.NORMAL, late[0].id)


async def test_a_crash_after_the_window_was_decided_goes_on_from_the_database(
    queue: Queue, second_queue: Queue, accept: Accept
) -> None:
    waiting = await accept(5)
    doomed = Releaser(queue=second_queue, settings=NEVER)
    tick = await taken_beat(second_queue)
    held: dict[UUID, Delivery] = {}
    await doomed._collect(held)
    await doomed._open(tick, list(held))
    await second_queue.close()

    async with running(Releaser(queue=queue, settings=NEVER)):
        # Beat and jobs are still held by the dead process; the next beat takes the place of its one.
        await beat(queue)
        await eventually(all_windows_run)

    assert {job.id for job in await released_jobs(queue)} == {generation.id for generation in waiting}
    [window] = await Window.all()
    assert (window.tick_at, window.jobs) == (tick.stored_at, 5)


async def test_a_crash_between_commit_and_acks_does_not_put_a_job_into_a_second_window(
    queue: Queue, accept: Accept
) -> None:
    await accept(3)
    releaser = Releaser(queue=queue, settings=NEVER)
    tick = await taken_beat(queue)
    held: dict[UUID, Delivery] = {}
    await releaser._follow(tick, held)
    for job in held.values():
        await job.nak(delay=0)
    await tick.ack()
    [fresh] = await accept(1)

    async with running(releaser):
        await beat(queue)

        async def second_window() -> bool:
            return (
                await Window.filter(state=WindowState.RUNNING).count() == 2
                and await queue.depth(Lane.NORMAL) == 0
            )

        await eventually(second_window)

    later = await Window.exclude(tick_at=tick.stored_at).get()
    assert [row.id for row in await Generation.filter(window_id=later.id)] == [fresh.id]


async def test_a_window_goes_on_once_a_lane_that_was_deleted_is_declared_again(
    queue: Queue, accept: Accept
) -> None:
    waiting = await accept(3)
    await queue._js.delete_stream("BATCH")

    async with running(Releaser(queue=queue, settings=NEVER)):
        await beat(queue)

        async def decided() -> bool:
            return await Window.filter(state=WindowState.RELEASING).exists()

        await eventually(decided)
        await eventually(all_windows_run)
        await until_settled(queue)

    assert {job.id for job in await released_jobs(queue)} == {generation.id for generation in waiting}


async def test_replicas_share_the_beats_and_release_every_job_once(
    queue: Queue, second_queue: Queue, accept: Accept
) -> None:
    first, second = (Releaser(queue=each, settings=NEVER) for each in (queue, second_queue))
    accepted = await accept(20)

    async with running(first, second):
        await beat(queue)
        await eventually(all_windows_run)
        accepted += await accept(20)
        await beat(queue)

        async def both() -> bool:
            return await Window.filter(state=WindowState.RUNNING).count() == 2

        await eventually(both)

    released = [job.id for job in await released_jobs(queue)]
    assert sorted(released) == sorted(generation.id for generation in accepted)
    assert await WindowAccount.all().count() == 2


async def test_two_replicas_on_the_same_beat_at_once_make_one_window(
    queue: Queue, second_queue: Queue, accept: Accept
) -> None:
    # As when one of them was stopped for longer than the broker waits for a sign of life.
    accepted = await accept(40)
    tick = await taken_beat(queue)
    held: list[dict[UUID, Delivery]] = [{}, {}]

    await asyncio.gather(
        Releaser(queue=queue, settings=NEVER)._follow(tick, held[0]),
        Releaser(queue=second_queue, settings=NEVER)._follow(tick, held[1]),
    )

    [window] = await Window.all()
    released = {job.id for job in await released_jobs(queue)}
    assert len(released) == window.jobs
    for jobs in held:
        await _settle_jobs(jobs)
    # What did not get into the window is still there for the next.
    assert await queue.depth(Lane.NORMAL) == len(accepted) - window.jobs
    assert released | await windows.unassigned([row.id for row in accepted]) == {row.id for row in accepted}


async def test_a_window_opens_while_the_one_before_it_still_runs_and_each_ends_with_a_letter_of_its_own(
    queue: Queue, accept: Accept, new_account: NewAccount, succeed: Callable[[Generation], Awaitable[None]]
) -> None:
    account = await new_account()
    async with running(Releaser(queue=queue, settings=NEVER)):
        earlier = await accept(2, account=account)
        await beat(queue)
        await eventually(all_windows_run)
        await succeed(earlier[0])
        later = await accept(2, account=account)
        await beat(queue)

        async def both() -> bool:
            return await Window.filter(state=WindowState.RUNNING).count() == 2

        await eventually(both)

    # The workers come to the earlier window's first.
    offered = [job.id for job in await released_jobs(queue)]
    assert offered == [row.id for row in (*earlier, *later)]
    for generation in later:
        await succeed(generation)
    first, second = await Window.all().order_by("tick_at")
    assert (first.state, second.state) == (WindowState.RUNNING, WindowState.FINISHED)
    assert [letter.parameters["window_id"] for letter in await Letter.all()] == [str(second.id)]
    await succeed(earlier[1])
    assert (await Window.get(id=first.id)).state is WindowState.FINISHED
    assert {letter.parameters["window_id"] for letter in await Letter.all()} == {
        str(first.id),
        str(second.id),
    }


async def test_a_job_that_was_canceled_before_the_window_is_dropped(queue: Queue, accept: Accept) -> None:
    canceled, kept = await accept(2)
    await Generation.filter(id=canceled.id).update(state=GenerationState.CANCELED)

    async with running(Releaser(queue=queue, settings=NEVER)):
        await beat(queue)
        await eventually(all_windows_run)
        await until_settled(queue)

    assert [job.id for job in await released_jobs(queue)] == [kept.id]


async def test_a_window_of_canceled_jobs_alone_is_not_kept(queue: Queue, accept: Accept) -> None:
    [canceled] = await accept(1)
    await Generation.filter(id=canceled.id).update(state=GenerationState.CANCELED)

    async with running(Releaser(queue=queue, settings=NEVER)):
        await beat(queue)
        await until_settled(queue)

    assert await Window.all().count() == 0


async def test_a_message_that_is_no_job_is_refused_and_holds_nothing_up(queue: Queue, accept: Accept) -> None:
    await queue._publish("jobs.normal.nonsense", b"{}", {})
    [good] = await accept(1)

    async with running(Releaser(queue=queue, settings=NEVER)):
        await beat(queue)
        await eventually(all_windows_run)
        await until_settled(queue)

    assert [job.id for job in await released_jobs(queue)] == [good.id]
    [advisory] = await queue.consumer(topology.EXHAUSTED).fetch(1, wait=5)
    assert "MSG_TERMINATED" in advisory.subject


async def test_a_batcher_that_is_told_to_stop_does_so_between_beats(queue: Queue, database: object) -> None:
    assert database
    stop = asyncio.Event()
    following = asyncio.create_task(Releaser(queue=queue, settings=NEVER).run(stop=stop))

    async def started() -> bool:
        return await windows.clock() is not None

    await eventually(started)
    stop.set()
    await asyncio.wait_for(following, 3)
