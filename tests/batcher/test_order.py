"""In which order a window's jobs are released: pure, so by properties."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from random import Random
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batcher.order import release_order, round_size

EPOCH = datetime(2026, 3, 1, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Waiting:
    """A job as far as ordering looks at it."""

    id: UUID
    account_id: UUID
    model: str
    width: int
    height: int
    created_at: datetime


Shape = tuple[str, int, int]
SHAPES: list[Shape] = [("one", 64, 64), ("one", 128, 64), ("two", 64, 64), ("two", 64, 128)]


def shape(job: Waiting) -> Shape:
    return job.model, job.width, job.height


def customer(number: int) -> UUID:
    return UUID(int=number)


@st.composite
def windows(draw: st.DrawFn) -> list[Waiting]:
    """Some customers with a few jobs each, and sometimes one with many; several of the same moment."""
    backlogs = draw(st.lists(st.integers(1, 8), max_size=8))
    backlogs += draw(st.sampled_from([[], [], [60]]))
    chance = draw(st.randoms(use_true_random=False))
    shapes = SHAPES[: draw(st.integers(1, len(SHAPES)))]
    return jobs(backlogs, shapes=shapes, chance=chance)


def jobs(backlogs: Sequence[int], *, shapes: Sequence[Shape] = SHAPES, chance: Random) -> list[Waiting]:
    owners = [customer(number) for number, count in enumerate(backlogs) for _ in range(count)]
    return [
        Waiting(
            UUID(int=chance.getrandbits(64) << 64 | number),
            owner,
            *chance.choice(shapes),
            EPOCH + timedelta(seconds=chance.randint(0, 50)),
        )
        for number, owner in enumerate(owners)
    ]


def backlogs_of(waiting: Sequence[Waiting]) -> Counter[UUID]:
    return Counter(job.account_id for job in waiting)


def changes(order: Sequence[Waiting]) -> int:
    return max(0, len(list(groupby(order, key=shape))) - 1)


@given(waiting=windows())
def test_every_job_is_released_once(waiting: list[Waiting]) -> None:
    assert Counter(release_order(waiting)) == Counter(waiting)


@given(waiting=windows())
def test_no_customer_gets_further_ahead_than_a_round_of_one_who_still_waits(waiting: list[Waiting]) -> None:
    backlogs = backlogs_of(waiting)
    size = round_size(backlogs.values())
    had: Counter[UUID] = Counter()
    for job in release_order(waiting):
        had[job.account_id] += 1
        waits = [had[owner] for owner in backlogs if had[owner] < backlogs[owner]]
        assert had[job.account_id] - min(waits, default=had[job.account_id]) <= size


@given(waiting=windows())
def test_a_job_waits_for_no_more_of_each_other_customer_than_for_its_own_up_to_a_round(
    waiting: list[Waiting],
) -> None:
    backlogs = backlogs_of(waiting)
    size = round_size(backlogs.values())
    had: Counter[UUID] = Counter()
    for place, job in enumerate(release_order(waiting), 1):
        had[job.account_id] += 1
        upper = had[job.account_id] + size
        others = sum(min(count, upper) for owner, count in backlogs.items() if owner != job.account_id)
        assert place <= had[job.account_id] + others


@given(waiting=windows())
def test_customers_with_a_backlog_differ_by_a_tenth_at_most_in_mid_window(waiting: list[Waiting]) -> None:
    backlogs = backlogs_of(waiting)
    had = backlogs_of(release_order(waiting)[: len(waiting) // 2])
    waits = [had[owner] for owner in backlogs if had[owner] < backlogs[owner]]
    # One job is the least by which they can differ.
    assert max(waits, default=0) - min(waits, default=0) <= max(1, max(waits, default=0) / 10)


@given(waiting=windows())
def test_a_round_has_each_shape_once_and_begins_with_the_last_one_before_it(waiting: list[Waiting]) -> None:
    lines: defaultdict[UUID, int] = defaultdict(int)
    backlogs = sorted(backlogs_of(waiting).values())
    size = round_size(backlogs)
    contested = backlogs[-2] if len(backlogs) > 1 else 0
    rounds: defaultdict[int, list[Waiting]] = defaultdict(list)
    for job in release_order(waiting):
        turn = lines[job.account_id]
        lines[job.account_id] += 1
        rounds[turn // size if turn < contested else -1].append(job)
    for jobs_of_round in rounds.values():
        assert changes(jobs_of_round) == len(set(map(shape, jobs_of_round))) - 1
        models = [model for model, _ in groupby(jobs_of_round, key=lambda job: job.model)]
        assert len(models) == len(set(models))
    everywhere = set(map(shape, waiting))
    if all(set(map(shape, each)) == everywhere for each in rounds.values()):
        assert changes(release_order(waiting)) == len(rounds) * (len(everywhere) - 1)


@given(waiting=windows())
def test_of_one_customer_and_shape_the_earlier_accepted_comes_first_within_a_round(
    waiting: list[Waiting],
) -> None:
    one = [job for job in waiting if job.account_id == customer(0)]
    for _, run in groupby(release_order(one), key=shape):
        moments = [job.created_at for job in run]
        assert moments == sorted(moments)


@given(waiting=windows(), chance=st.randoms(use_true_random=False))
def test_the_order_does_not_depend_on_how_the_jobs_came(waiting: list[Waiting], chance: Random) -> None:
    shuffled = list(waiting)
    chance.shuffle(shuffled)
    assert release_order(shuffled) == release_order(waiting)


def test_one_customers_window_has_every_shape_once() -> None:
    waiting = jobs([200], chance=Random(1))  # noqa: S311 - a scenario, not a secret
    assert changes(release_order(waiting)) == len(SHAPES) - 1


def test_one_with_500_jobs_keeps_nobody_waiting_and_is_not_torn_apart_once_alone() -> None:
    waiting = jobs([500, *99 * [5]], chance=Random(1))  # noqa: S311 - a scenario, not a secret
    order = release_order(waiting)
    places: dict[UUID, int] = {job.account_id: place for place, job in enumerate(order, 1)}
    assert max(places[customer(number)] for number in range(1, 100)) <= 100 * 5
    assert changes(order) <= 6 * (len(SHAPES) - 1)


@pytest.mark.parametrize(
    ("backlogs", "size"),
    [([], 1), ([5], 1), ([30] * 100, 1), ([100] * 10, 2), ([500, 5], 12), ([500] * 2, 12)],
)
def test_a_round_is_a_twentieth_of_what_each_has_had_in_mid_window(backlogs: list[int], size: int) -> None:
    assert round_size(backlogs) == size


@given(backlogs=st.lists(st.integers(1, 500), min_size=1, max_size=20))
def test_half_of_the_jobs_are_done_when_each_has_had_its_share(backlogs: list[int]) -> None:
    # Straight from the words: the smallest share at which half is done, give or take a job of each.
    shares = range(max(backlogs) + 1)
    done = [sum(min(count, share) for count in backlogs) for share in shares]
    share = next(
        share for share, jobs_done in zip(shares, done, strict=True) if jobs_done >= sum(backlogs) / 2
    )
    assert max(1, (share - 1) // 20) <= round_size(backlogs) <= max(1, share // 20)
