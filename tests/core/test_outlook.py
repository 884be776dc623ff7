"""Where a generation stands and when it should be finished."""

import logging
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.clock import now
from core.lifecycle import OPEN_STATES, GenerationState, Tier
from core.messages import Heartbeat, Speed
from core.models import Account, Generation, Window
from core.outlook import Outlook, Outlooks
from core.outlook.estimate import (
    RUNNING_SHARE,
    Ahead,
    Task,
    finish_of_running,
    finish_of_waiting,
    megapixel_steps,
)
from core.queue import Queue, Workers
from core.repository import generations, windows

NewAccount = Callable[..., Awaitable[Account]]
NewGeneration = Callable[..., Awaitable[Generation]]
NewWorker = Callable[..., Awaitable[Heartbeat]]

QUEUED, RUNNING = GenerationState.QUEUED, GenerationState.RUNNING
NOON = datetime(2025, 6, 1, 12, tzinfo=UTC)
TASK = Task(tier=Tier.PREMIUM, model="m", steps=20, megapixel_steps=10.0)


def worker(
    name: str = "w1", *, tiers: Sequence[Tier] = tuple(Tier), models: Sequence[str] = ("m",), **rates: float
) -> Heartbeat:
    """A worker that does so many megapixel-steps a second with a model, and a step in 0.1 s."""
    speeds = tuple(
        Speed(model=model, megapixel_steps_per_second=rate, seconds_per_step=0.1)
        for model, rate in rates.items()
    )
    return Heartbeat(
        worker=name,
        models=tuple(models),
        device="cpu",
        slots=4,
        tiers=tuple(tiers),
        speeds=speeds,
        started_at=NOON,
        beat_at=NOON,
    )


def seconds_of_waiting(
    ahead: Ahead, *workers: Heartbeat, task: Task = TASK, opens_in: float = 0
) -> float | None:
    opens_at = NOON + timedelta(seconds=opens_in)
    finish_at = finish_of_waiting(task, ahead, opens_at=opens_at, workers=workers, now=NOON)
    return (finish_at - NOON).total_seconds() if finish_at else None


def seconds_of_running(*workers: Heartbeat, step: int, since: float) -> float | None:
    started_at = NOON - timedelta(seconds=since)
    finish_at = finish_of_running(TASK, step=step, started_at=started_at, workers=workers, now=NOON)
    return (finish_at - NOON).total_seconds() if finish_at else None


def test_work_counts_every_step_of_every_picture_by_its_size() -> None:
    assert megapixel_steps(width=1000, height=500, steps=20, count=3) == 30


def test_the_rates_of_the_workers_add_up() -> None:
    assert seconds_of_waiting(Ahead(released={"m": 30}), worker(m=2.5), worker("w2", m=1.5)) == 10


def test_no_picture_is_quicker_than_its_own_steps_on_the_fastest_worker() -> None:
    slow = worker("w2", m=1000).model_copy(
        update={"speeds": (Speed(model="m", megapixel_steps_per_second=1000, seconds_per_step=9),)}
    )
    assert seconds_of_waiting(Ahead(), slow, worker(m=1000)) == pytest.approx(20 * 0.1)


@pytest.mark.parametrize(
    "workers",
    [
        [],
        [worker()],
        [worker(models=["other"], other=5)],
        [worker(tiers=[Tier.NORMAL], m=5)],
        [worker(), worker("w2", models=["other"], other=5)],
    ],
    ids=["nobody", "nothing measured", "another model", "another tier", "another worker's other model"],
)
def test_without_a_measured_rate_there_is_no_estimate(workers: list[Heartbeat]) -> None:
    assert seconds_of_waiting(Ahead(), *workers) is None
    assert seconds_of_running(*workers, step=0, since=1) is None


def test_another_models_work_takes_its_own_time_where_a_worker_serves_both() -> None:
    both = worker(models=["m", "other"], m=10, other=2)
    assert seconds_of_waiting(Ahead(released={"m": 10, "other": 8}), both) == 1 + 4 + 1
    unmeasured = worker(models=["m", "other"], m=10)
    assert seconds_of_waiting(Ahead(released={"m": 10}), unmeasured) == 2
    assert seconds_of_waiting(Ahead(released={"other": 8}), unmeasured) is None
    assert seconds_of_waiting(Ahead(waiting={"other": 8}), unmeasured) is None


def test_another_models_work_is_in_nobodys_way_on_a_worker_of_its_own() -> None:
    alone, other = worker(m=5), worker("w2", models=["other"], other=1)
    assert seconds_of_waiting(Ahead(released={"other": 1000}), alone, other) == 2


def test_a_window_begins_when_it_opens_or_when_the_one_before_it_is_done() -> None:
    ahead = Ahead(released={"m": 100}, waiting={"m": 20})
    assert seconds_of_waiting(ahead, worker(m=10), opens_in=60) == 60 + 2 + 1
    assert seconds_of_waiting(ahead, worker(m=10), opens_in=4) == 10 + 2 + 1
    assert seconds_of_waiting(Ahead(), worker(m=1000), opens_in=60) == pytest.approx(60 + 20 * 0.1)


def test_a_running_generation_goes_on_at_its_own_pace_whatever_the_workers_say() -> None:
    for workers in ([], [worker(m=1000)]):
        assert seconds_of_running(*workers, step=5, since=10) == 30
        assert seconds_of_running(*workers, step=20, since=10) == 0


def test_before_its_first_step_a_running_generation_is_estimated_by_the_workers_speeds() -> None:
    assert seconds_of_running(worker(m=2), step=0, since=1) == 4
    assert seconds_of_running(worker(m=1000), step=0, since=1) == pytest.approx(1)
    assert seconds_of_running(worker(m=2), step=0, since=3600) == 0


amounts = st.dictionaries(st.sampled_from(["m", "other"]), st.floats(0, 1e6))
rates = st.floats(1e-3, 1e6)
some_seconds = st.floats(-86_400, 86_400)


@given(
    step=st.integers(0, 20),
    since=some_seconds,
    opens_in=st.floats(0, 86_400),
    released=amounts,
    waiting=amounts,
    rate=rates,
)
def test_no_estimate_lies_in_the_past(
    step: int,
    since: float,
    opens_in: float,
    released: dict[str, float],
    waiting: dict[str, float],
    rate: float,
) -> None:
    both = worker(models=["m", "other"], m=rate, other=rate)
    ahead = Ahead(released=released, waiting=waiting)
    waits, runs = (
        seconds_of_waiting(ahead, both, opens_in=opens_in),
        seconds_of_running(both, step=step, since=since),
    )
    assert waits is not None
    assert waits >= opens_in - 1e-6
    assert runs is not None
    assert runs >= 0


@given(released=amounts, waiting=amounts, more=st.floats(0, 1e6), rate=rates, opens_in=st.floats(0, 86_400))
def test_more_work_ahead_never_means_sooner_and_another_worker_never_later(
    released: dict[str, float], waiting: dict[str, float], more: float, rate: float, opens_in: float
) -> None:
    one, two = (worker(name, models=["m", "other"], m=rate, other=rate) for name in ("w1", "w2"))
    ahead = Ahead(released=released, waiting=waiting)
    usual = seconds_of_waiting(ahead, one, opens_in=opens_in)
    assert usual is not None
    for fuller in (
        Ahead(released={**released, "m": released.get("m", 0) + more}, waiting=waiting),
        Ahead(released=released, waiting={**waiting, "m": waiting.get("m", 0) + more}),
    ):
        later = seconds_of_waiting(fuller, one, opens_in=opens_in)
        assert later is not None
        assert later >= usual - 1e-6
    sooner = seconds_of_waiting(ahead, one, two, opens_in=opens_in)
    assert sooner is not None
    assert sooner <= usual + 1e-6


def work_of(row: Generation) -> float:
    return megapixel_steps(width=row.width, height=row.height, steps=row.steps, count=row.count)


def ahead_one_by_one(row: Generation, rows: Sequence[Generation]) -> Ahead:
    """What is ahead of ``row``, straight from the words."""
    jobs = 0
    released: dict[str, float] = defaultdict(float)
    waiting: dict[str, float] = defaultdict(float)
    for other in (other for other in rows if other.tier is row.tier):
        handed_out = other.tier is Tier.PREMIUM or other.window_id is not None
        if other.state is RUNNING:
            released[other.model] += RUNNING_SHARE * work_of(other)
        elif other.state is QUEUED and other.created_at < row.created_at:
            if handed_out:
                released[other.model] += work_of(other)
            elif row.window_id is None and row.tier is Tier.NORMAL:
                waiting[other.model] += work_of(other)
            else:
                continue
            jobs += 1
    return Ahead(jobs=jobs, released=released, waiting=waiting)


async def test_one_query_finds_what_is_ahead_of_each_of_many(
    new_account: NewAccount, new_generation: NewGeneration
) -> None:
    account, chance = await new_account(), random.Random(7)  # noqa: S311 - a scenario, not a secret
    window = await Window.create(tick_at=NOON, deadline=NOON)
    rows = []
    for _ in range(120):
        tier, state = chance.choice(list(Tier)), chance.choice([QUEUED, QUEUED, *GenerationState])
        in_window = tier is Tier.NORMAL and (state is not QUEUED or chance.random() < 0.5)
        rows.append(
            await new_generation(
                account,
                tier=tier,
                state=state,
                model=chance.choice(["m", "other"]),
                width=chance.choice([64, 2048]),
                steps=chance.randint(1, 50),
                count=chance.randint(1, 4),
                window=window if in_window else None,
                # Some of the same moment.
                created_at=NOON + timedelta(microseconds=chance.randint(0, 80)),
            )
        )
    asked = [row for row in rows if row.state is QUEUED][::2]
    moments = sorted({row.created_at for row in asked})

    found = await generations.stretches(moments, tiers=list(Tier))

    assert all(stretch.megapixel_steps > 0 for stretch in found)
    for row in asked:
        expected = ahead_one_by_one(row, rows)
        released = row.tier is Tier.PREMIUM or row.window_id is not None
        each = Ahead.of_each(found, tier=row.tier, released=released, places=len(moments))
        ahead = each[moments.index(row.created_at)]
        assert ahead.jobs == expected.jobs
        assert ahead.released == pytest.approx(expected.released)
        assert ahead.waiting == pytest.approx(expected.waiting)


@pytest.fixture
async def outlooks(queue: Queue, new_worker: NewWorker) -> Outlooks:
    """With one worker that does 2 megapixel-steps a second, whose sign of life is good for a whole test."""
    speed = Speed(model="darkroom-demo", megapixel_steps_per_second=2, seconds_per_step=0.1)
    await new_worker(speeds=(speed,))
    workers = Workers(queue=queue, remembered=600)
    assert len(await workers.recent()) == 1
    return Outlooks(workers=workers)


LARGE: dict[str, Any] = {"width": 1000, "height": 1000, "steps": 20}
"""20 megapixel-steps: 10 seconds for that worker."""


def assert_in(outlook: Outlook, seconds: float, *, since: datetime) -> None:
    """``outlook`` was made after ``since`` and before this moment, so many seconds ahead."""
    assert outlook.estimated_finish_at is not None
    said_at = outlook.estimated_finish_at - timedelta(seconds=seconds)
    slack = timedelta(milliseconds=1)
    assert since - slack <= said_at <= now() + slack


async def test_premium_waits_for_the_premium_work_ahead_of_it(
    outlooks: Outlooks, new_account: NewAccount, new_generation: NewGeneration
) -> None:
    account = await new_account()
    premium: dict[str, Any] = {**LARGE, "tier": Tier.PREMIUM}
    await new_generation(account, **premium, state=RUNNING, started_at=now())
    await new_generation(account, **LARGE)
    first = await new_generation(account, **premium)
    second = await new_generation(account, **premium, count=2)
    begun = now()

    [ahead, behind] = await outlooks.of([first, second])

    assert (ahead.queue_position, behind.queue_position) == (1, 2)
    assert_in(ahead, 5 + 10, since=begun)
    assert_in(behind, 5 + 10 + 20, since=begun)


async def test_normal_waits_for_its_window_and_for_the_work_that_waits_with_it(
    outlooks: Outlooks, new_account: NewAccount, new_generation: NewGeneration
) -> None:
    account, opens_at = await new_account(), now() + timedelta(minutes=20)
    await windows.set_clock("0 */30 * * * *", next_at=opens_at)
    await new_generation(account, **LARGE, tier=Tier.PREMIUM)
    first, second = [await new_generation(account, **LARGE) for _ in range(2)]

    assert await outlooks.of([second, first]) == [
        Outlook(2, opens_at + timedelta(seconds=20)),
        Outlook(1, opens_at + timedelta(seconds=10)),
    ]


async def test_normal_in_an_open_window_waits_for_the_work_released_before_it(
    outlooks: Outlooks, new_account: NewAccount, new_generation: NewGeneration
) -> None:
    account = await new_account()
    left_behind = await new_generation(account, **LARGE)
    window = await Window.create(tick_at=now(), deadline=now() + timedelta(hours=1))
    await new_generation(account, **LARGE, window=window, state=RUNNING, started_at=now())
    row = await new_generation(account, **LARGE, window=window)
    begun = now()

    [waiting, released] = await outlooks.of([left_behind, row])

    assert released.queue_position == 1
    assert_in(released, 5 + 10, since=begun)
    # Nobody has said yet when the next window opens.
    assert waiting == Outlook(1, None)


async def test_a_running_generation_is_estimated_by_its_pace_once_that_is_known(
    outlooks: Outlooks, new_account: NewAccount, new_generation: NewGeneration
) -> None:
    elapsed = timedelta(seconds=4)
    row = await new_generation(
        await new_account(), **LARGE, count=100, state=RUNNING, started_at=now() - elapsed
    )
    begun = now()

    [by_speed] = await outlooks.of([row])
    by_pace = outlooks.at_step(row, 5)

    assert row.started_at is not None
    assert by_speed == Outlook(None, row.started_at + timedelta(seconds=1000))
    assert by_pace.queue_position is None
    assert by_pace.estimated_finish_at is not None
    # 15 of 20 steps are left, three times as long as the five have taken; both grow as the test goes on.
    assert by_pace.estimated_finish_at >= begun + 3 * elapsed
    assert by_pace.estimated_finish_at <= now() + 3 * (now() - row.started_at)


async def test_what_has_ended_has_no_outlook_and_asks_nothing(
    new_account: NewAccount, new_generation: NewGeneration, queue: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    account = await new_account()
    ended = [
        await new_generation(account, state=state, started_at=now())
        for state in GenerationState
        if state not in OPEN_STATES
    ]
    caplog.set_level(logging.DEBUG, "tortoise.db_client")
    caplog.clear()

    assert await Outlooks(workers=Workers(queue=queue)).of(ended) == [Outlook()] * len(ended)

    assert caplog.messages == []


async def test_without_workers_a_place_is_known_and_no_time(
    queue: Queue, new_account: NewAccount, new_generation: NewGeneration
) -> None:
    account = await new_account()
    await windows.set_clock("0 */30 * * * *", next_at=now() + timedelta(minutes=20))
    rows = [await new_generation(account, tier=tier) for tier in Tier]
    assert await Outlooks(workers=Workers(queue=queue)).of(rows) == [Outlook(1, None)] * 2
