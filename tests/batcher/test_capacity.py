"""A window takes what the workers can make before its deadline; the rest waits, and is told when."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batcher.capacity import fitting
from batcher.release import Releaser
from core.clock import now
from core.lifecycle import Delivery, GenerationState, ImageFormat, Scheduler, Tier
from core.messages import Heartbeat, Speed
from core.models import Account, Generation, Window, WindowState
from core.outbox import JobOutbox
from core.outlook import Outlooks
from core.queue import Lane, Queue, Workers
from core.recording import Recorder
from core.settings import WindowSettings

NewAccount = Callable[..., Awaitable[Account]]
NewGeneration = Callable[..., Awaitable[Generation]]
NewWorker = Callable[..., Awaitable[Heartbeat]]

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)


def job(*, model: str = "m", seconds: float = 10, steps: int = 20) -> Generation:
    """One that takes so long at a megapixel-step a second."""
    return Generation(
        id=uuid4(),
        account_id=uuid4(),
        tier=Tier.NORMAL,
        delivery=Delivery.EMAIL,
        prompt="a lighthouse",
        model=model,
        width=1000,
        height=int(1000 * seconds / steps),
        steps=steps,
        guidance_scale=4.0,
        seed=1,
        count=1,
        scheduler=Scheduler.DDIM,
        format=ImageFormat.PNG,
        request_fingerprint="-",
    )


def worker(name: str = "w1", *, models: tuple[str, ...] = ("m",), **rates: float) -> Heartbeat:
    speeds = tuple(
        Speed(model=model, megapixel_steps_per_second=rate, seconds_per_step=0.001)
        for model, rate in rates.items()
    )
    return Heartbeat(
        worker=name, models=models, device="cpu", slots=4, speeds=speeds, started_at=NOON, beat_at=NOON
    )


def taken(
    jobs: list[Generation], *workers: Heartbeat, seconds: float, released: dict[str, float] | None = None
) -> list[Generation]:
    return fitting(
        jobs, released=released or {}, workers=workers, deadline=NOON + timedelta(seconds=seconds), now=NOON
    )


def test_a_window_takes_the_first_jobs_that_should_be_finished_before_its_deadline() -> None:
    jobs = [job() for _ in range(10)]
    assert taken(jobs, worker(m=1), seconds=45) == jobs[:4]
    assert taken(jobs, worker(m=1), worker("w2", m=1), seconds=45) == jobs[:9]


def test_what_the_window_before_has_left_takes_from_its_time() -> None:
    jobs = [job() for _ in range(10)]
    assert taken(jobs, worker(m=1), seconds=45, released={"m": 25}) == jobs[:2]
    assert taken(jobs, worker(m=1), seconds=45, released={"m": 100}) == []


def test_without_a_measured_speed_a_window_takes_everything() -> None:
    jobs = [job() for _ in range(10)]
    assert taken(jobs, seconds=1) == jobs
    assert taken(jobs, worker(), seconds=1) == jobs


def test_a_smaller_job_takes_the_time_that_is_left() -> None:
    first, second, small = job(seconds=30), job(seconds=20), job(seconds=10)
    assert taken([first, second, small], worker(m=1), seconds=45) == [first, small]


def test_a_model_on_workers_of_its_own_is_put_off_for_no_other() -> None:
    slow, quick = [job(model="slow") for _ in range(3)], [job() for _ in range(3)]
    workers = worker(m=1), worker("w2", models=("slow",), slow=0.1)
    assert taken([*slow, *quick], *workers, seconds=105) == [slow[0], *quick]


def test_a_job_that_no_window_is_long_enough_for_is_not_put_off_for_ever() -> None:
    endless, usual = job(seconds=1000), job()
    assert taken([endless], worker(m=1), seconds=45) == [endless]
    assert taken([usual, endless], worker(m=1), seconds=45) == [usual, endless]


@given(sizes=st.lists(st.integers(1, 100), max_size=30), seconds=st.integers(1, 300), rate=st.floats(0.1, 10))
def test_what_is_taken_fits_and_what_is_put_off_does_not(sizes: list[int], seconds: int, rate: float) -> None:
    jobs = [job(seconds=size) for size in sizes]
    chosen = taken(jobs, worker(m=rate), seconds=seconds)
    assert [each for each in jobs if each in chosen] == chosen

    def work(some: list[Generation]) -> float:
        return sum(each.width * each.height / 1e6 * each.steps for each in some) / rate

    usual = [each for each in chosen if work([each]) <= seconds - 0.01]
    if len(usual) == len(chosen):
        assert work(chosen) <= seconds + 0.01
        assert all(work([*chosen, each]) > seconds - 0.01 for each in jobs if each not in chosen)


LARGE: dict[str, Any] = {"width": 1000, "height": 1000, "steps": 20}
"""20 megapixel-steps."""


async def test_what_a_window_cannot_make_waits_and_is_told_and_comes_as_soon_as_it_is_done(
    queue: Queue, new_account: NewAccount, new_generation: NewGeneration, new_worker: NewWorker
) -> None:
    speed = Speed(model="darkroom-demo", megapixel_steps_per_second=1, seconds_per_step=0.1)
    await new_worker(speeds=(speed,))
    many, one = await new_account(), await new_account()
    accepted = [await new_generation(many, **LARGE) for _ in range(5)]
    accepted.append(await new_generation(one, **LARGE))
    for generation in accepted:
        await JobOutbox(queue=queue).publish(generation)
    # Time for three jobs of 20 s.
    releaser = Releaser(
        queue=queue, settings=WindowSettings(window="@yearly", window_deadline_minutes=65 / 60)
    )
    stop = asyncio.Event()
    following = asyncio.create_task(releaser.run(stop=stop))
    try:
        await queue.beat()
        first = await _running_window(1)
        members = await Generation.filter(window_id=first.id)
        assert (first.jobs, first.customers, first.put_off) == (3, 2, 3)
        # The one with a single job is not put off for the one with five.
        assert accepted[-1].id in {row.id for row in members}

        outlooks = Outlooks(workers=Workers(queue=queue, remembered=600))
        [last] = await outlooks.of([await Generation.get(id=accepted[4].id)])
        assert last.queue_position is not None
        assert last.estimated_finish_at is not None
        assert last.estimated_finish_at > first.deadline

        recorder = Recorder(queue=queue)
        for row in members:
            await recorder.finish(row.id, GenerationState.FAILED, at=now(), error="Out of paint.")
            await queue.purge_job(Lane.BATCH, row.id)
        # Nobody waits for the next beat, which is in a year.
        second = await _running_window(2)
    finally:
        stop.set()
        await following

    assert (second.jobs, second.customers, second.put_off) == (3, 1, 0)
    assert (await Window.get(id=first.id)).state is WindowState.FINISHED


async def _running_window(count: int) -> Window:
    async with asyncio.timeout(20):
        while await Window.filter(released_at__isnull=False).count() < count:  # noqa: ASYNC110 - no event for it
            await asyncio.sleep(0.02)
    return (await Window.all().order_by("-tick_at"))[0]


@pytest.mark.parametrize("ended_meanwhile", [False, True])
async def test_a_window_for_which_there_is_no_time_at_all_is_not_opened_before_the_end_of_the_one_that_runs(
    queue: Queue,
    new_account: NewAccount,
    new_generation: NewGeneration,
    new_worker: NewWorker,
    ended_meanwhile: bool,
) -> None:
    speed = Speed(model="darkroom-demo", megapixel_steps_per_second=1, seconds_per_step=0.1)
    await new_worker(speeds=(speed,))
    account = await new_account()
    state = WindowState.FINISHED if ended_meanwhile else WindowState.RUNNING
    busy = await Window.create(tick_at=now(), deadline=now() + timedelta(hours=1), state=state)
    for _ in range(10):
        await new_generation(account, **LARGE, window=busy, released_at=now())
    waiting = await new_generation(account, **LARGE)
    await JobOutbox(queue=queue).publish(waiting)
    releaser = Releaser(queue=queue, settings=WindowSettings(window="@yearly", window_deadline_minutes=2))
    await queue.beat()
    [tick] = await releaser._ticks.fetch(1, wait=5)

    await releaser._settle(tick)

    # Its end brings the next beat; where it has ended, that comes at once.
    [window] = await Window.all()
    assert window.put_off == (0 if ended_meanwhile else 1)
    beaten_at = await queue.last_beat_at()
    assert beaten_at is not None
    assert (beaten_at - tick.stored_at > timedelta(milliseconds=1)) == ended_meanwhile
    assert (await Generation.get(id=waiting.id)).window_id is None
    assert await queue.position_of(Lane.NORMAL, waiting.id)
