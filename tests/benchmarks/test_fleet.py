"""The model of the fleet keeps to what queueing theory knows, and loses nobody."""

import heapq
import math
import statistics
from collections.abc import Mapping
from typing import Any

import pytest

from benchmarks.arrivals import DAY, daily_arrivals, poisson_arrivals
from benchmarks.fleet import RETURN_SECONDS, Fleet, Pool
from benchmarks.jobs import Lane
from benchmarks.one_machine import Served
from benchmarks.pace import Pace
from benchmarks.simulate import PACES, Market, Operation, day, warm_minimum
from benchmarks.validation import at_own_speed, pace_of

SINGLE = Pace(ticks={1: 0.05}, steps=20, slots=1)
"""One picture at a time, a second each."""

BATCHED = Pace(ticks={1: 0.05, 4: 0.1}, steps=20, slots=4, aside=0.1, before=0.2, after=0.3)


def fixed(workers: int) -> Mapping[Lane, Pool]:
    return {Lane.PREMIUM: Pool(least=workers, most=workers, jobs_per_worker=1)}


@pytest.mark.parametrize("load", [0.3, 0.6])
def test_one_worker_with_one_slot_is_a_queue_with_one_server_and_equal_service(load: float) -> None:
    # M/D/1, Pollaczek and Khinchine.
    outcome = Fleet(SINGLE, fixed(1)).run(poisson_arrivals(rate=load, count=40_000, seed=1), [])
    wait = statistics.mean(outcome.latencies(Lane.PREMIUM)) - 1
    assert wait == pytest.approx(load / (2 * (1 - load)), rel=0.05)


@pytest.mark.parametrize(("workers", "load"), [(2, 0.7), (4, 0.9)])
def test_several_workers_with_one_slot_serve_in_order_as_several_servers_do(
    workers: int, load: float
) -> None:
    # M/D/c, customer by customer: each begins when it is there and the server that is free first is.
    moments = poisson_arrivals(rate=load * workers, count=5_000, seed=workers)
    free_at = [0.0] * workers
    ends = []
    for moment in moments:
        begins = max(moment, heapq.heappop(free_at))
        heapq.heappush(free_at, begins + 1)
        ends.append(begins + 1)
    outcome = Fleet(SINGLE, fixed(workers)).run(moments, [])
    assert [job.ended for job in outcome.jobs] == pytest.approx(ends)


def test_as_many_are_there_as_come_in_the_time_that_each_stays() -> None:
    # Little's law, with the number there looked up and not reckoned.
    fleet = Fleet(BATCHED, fixed(2))
    seen: list[int] = []

    def look() -> Any:
        while True:
            yield fleet.env.timeout(0.7)
            seen.append(fleet.open[Lane.PREMIUM])

    fleet.env.process(look())
    moments = poisson_arrivals(rate=2.0, count=20_000, seed=3)
    outcome = fleet.run(moments, [])
    # Neither the way to a worker nor the one back is spent in its queue or slots.
    inside = statistics.mean(outcome.latencies(Lane.PREMIUM)) - BATCHED.before - BATCHED.after
    assert statistics.mean(seen) == pytest.approx(2.0 * inside, rel=0.03)


def test_whoever_comes_is_served_even_where_workers_are_lost_all_the_time() -> None:
    pools = {
        Lane.PREMIUM: Pool(least=1, most=4, jobs_per_worker=4, cold_start=20, losses_per_hour=60),
        Lane.BATCH: Pool(least=0, most=20, jobs_per_worker=50, cold_start=20, losses_per_hour=60),
    }
    premium = poisson_arrivals(rate=1.0, count=2_000, seed=1)
    normal = poisson_arrivals(rate=2.0, count=4_000, seed=2)
    outcome = Fleet(BATCHED, pools, seed=7).run(premium, normal, window=300)
    assert outcome.losses > 20
    assert len(outcome.jobs) == 6_000
    shortest = BATCHED.steps * 0.05
    assert all(job.accepted + shortest <= job.ended < math.inf for job in outcome.jobs)
    assert sum(job.lane is Lane.PREMIUM for job in outcome.jobs) == 2_000
    assert len(outcome.windows) == len({int(moment // 300) for moment in normal})


def test_what_a_lost_worker_held_begins_anew_once_the_broker_has_noticed() -> None:
    fleet = Fleet(SINGLE, {Lane.PREMIUM: Pool(least=1, most=1, jobs_per_worker=1, poll=1, cold_start=2)})

    def take_away() -> Any:
        yield fleet.env.timeout(0.5)
        [worker] = fleet.workers[Lane.PREMIUM]
        fleet.workers[Lane.PREMIUM].remove(worker)
        yield from worker.lose()

    fleet.env.process(take_away())
    [job] = fleet.run([0.0], []).jobs
    assert job.ended == pytest.approx(0.5 + RETURN_SECONDS + 1.0)


def test_a_worker_that_never_lacks_work_makes_what_its_pace_says() -> None:
    outcome = Fleet(BATCHED, fixed(1)).run([0.0] * 400, [])
    last = max(job.ended for job in outcome.jobs) - BATCHED.before - BATCHED.after
    assert 400 / last == pytest.approx(BATCHED.pictures_per_second, rel=0.01)


def test_premium_waits_for_a_step_of_a_window_and_not_for_the_window() -> None:
    premium = [100.0 + 7 * number for number in range(20)]
    alone = Fleet(BATCHED, fixed(1)).run(premium, [])
    over = Fleet(BATCHED, fixed(1)).run(premium, [0.0] * 2_000, window=50)
    step = BATCHED.tick(4)
    for without, with_window in zip(alone.starts(Lane.PREMIUM), over.starts(Lane.PREMIUM), strict=True):
        assert without - 1e-9 <= with_window <= without + step + 4 * BATCHED.aside + 1e-9


def test_the_batch_pool_is_empty_between_windows_and_a_window_waits_for_its_cold_start() -> None:
    pools = {Lane.BATCH: Pool(least=0, most=2, jobs_per_worker=40, poll=10, cooldown=60, cold_start=120)}
    outcome = Fleet(BATCHED, pools).run([], [5.0] * 80 + [3700.0] * 80, window=1800)
    work = 40 / BATCHED.pictures_per_second
    for length in outcome.windows:
        assert 120 + work <= length <= 120 + 10 + work + 5
    # Two workers for two windows, each with its start, its work and its cooldown, and no hour between.
    assert outcome.worker_seconds[Lane.BATCH] < 2 * 2 * (120 + work + 60 + 30)


def test_the_same_seed_gives_the_same_day() -> None:
    def one(seed: int) -> list[float]:
        outcome = day(PACES["sd15"], Market(customers=2_000), Operation(price=1), warm=1, seed=seed)
        return [job.ended for job in outcome.jobs]

    assert one(1) == one(1)
    assert one(1) != one(2)


def test_the_warm_minimum_is_the_smallest_that_begins_in_time() -> None:
    rate = 2.5 * BATCHED.pictures_per_second
    needed = warm_minimum(BATCHED, rate, seed=1)
    assert needed == 3
    assert warm_minimum(BATCHED, 0.01, seed=1) == 1


def test_more_come_by_day_than_by_night() -> None:
    moments = list(daily_arrivals(per_day=40_000, swing=0.8, days=2, seed=1))
    assert moments == sorted(moments)
    assert len(moments) == pytest.approx(80_000, rel=0.02)
    hours = [int(moment % DAY // 3600) for moment in moments]
    assert hours.count(14) / hours.count(2) == pytest.approx(1.8 / 0.2, rel=0.15)


def test_service_times_are_found_in_what_was_measured() -> None:
    ticks = {1: 0.03, 2: 0.04, 4: 0.06, 8: 0.1}
    samples = [
        (size, steps, 0.12 + 0.02 * size + steps * tick + noise)
        for size, tick in ticks.items()
        for steps in (10, 30)
        for noise in (0.4, 0.0, 0.001)
    ]
    pace = pace_of(samples, steps=20)
    assert dict(pace.ticks) == pytest.approx(ticks)
    assert pace.aside == pytest.approx(0.02)
    assert pace.before + pace.after == pytest.approx(0.12)


def test_a_load_that_was_served_more_slowly_is_recognized_by_how_long_the_worker_was_at_work() -> None:
    moments = poisson_arrivals(rate=1.5, count=400, seed=4)
    reality = Fleet(BATCHED.times(1.3), fixed(1)).run(moments, [])
    premium = [(1000 + job.accepted, 1000 + job.ended) for job in reality.jobs]
    outcome, factor = at_own_speed(BATCHED, Served(premium, [], [], reality.busy))
    assert factor == pytest.approx(1.3, rel=0.01)
    assert outcome.latencies(Lane.PREMIUM) == pytest.approx(reality.latencies(Lane.PREMIUM), rel=0.05)
