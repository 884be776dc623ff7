"""The day of windows in a small form, and what it reckons with."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from benchmarks.batch_tier import Pace
from benchmarks.day import FULL, Plan, measure, requests
from benchmarks.day_figures import differences, window_figures
from core.models import Generation, Window

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
PACE = Pace(workers=2, slots=4, seconds=0.02)


def plan(**changes: int) -> Plan:
    usual = {"windows": 2, "window_seconds": 2, "customers": 10, "jobs": 20}
    return Plan(
        **{**usual, **changes}, rushes=(1,), rush_customers=2, rush_jobs=5, pace=PACE, premium_seconds=None
    )


def at(second: float) -> datetime:
    return NOON + timedelta(seconds=second)


def test_the_day_has_three_thousand_jobs_the_same_each_time() -> None:
    coming = requests(FULL)
    assert coming == requests(FULL)
    assert len(coming) >= 3000
    assert {request.customer for request in coming} == set(range(FULL.customers))
    assert 0 <= coming[0].second <= coming[-1].second < FULL.seconds


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize(
    ("turns", "expected"),
    [("ab" * 20, [0]), ("aab" * 7 + "b" * 7, [6 / 10]), ("a" * 10 + "b" * 10, []), ("ab" * 9, [])],
)
async def test_customers_are_compared_where_both_have_more_in_mid_window(
    turns: str, expected: list[float]
) -> None:
    # Where a is all done in mid-window nobody is compared, nor where they have had fewer than ten.
    owners, window = {"a": uuid4(), "b": uuid4()}, uuid4()
    rows = [
        Generation(account_id=owners[owner], window_id=window, finished_at=at(number), created_at=NOON)
        for number, owner in enumerate(turns)
    ]
    assert list(differences(rows)) == pytest.approx(expected)


@pytest.mark.usefixtures("database")
async def test_a_job_belongs_into_the_first_window_that_can_have_it() -> None:
    found = [
        Window(
            id=UUID(int=number),
            tick_at=at(10 * number),
            opened_at=at(10 * number + 0.1),
            deadline=at(10 * number + 10),
            finished_at=at(10 * number + 5),
            put_off=0,
        )
        for number in (1, 2, 3)
    ]

    def astray(window: int, accepted: float, published: float) -> float:
        row = Generation(
            account_id=uuid4(),
            window_id=UUID(int=window),
            created_at=at(accepted),
            published_at=at(published),
            finished_at=at(35),
        )
        figures = {figure.name: figure for figure in window_figures([row], found, due=1)}
        return figures["jobs outside their window"].value

    assert [astray(window, 4, 4.01) for window in (1, 2)] == [0, 1]
    assert [astray(window, 9.99, 10.05) for window in (1, 2, 3)] == [0, 0, 1]
    assert [astray(window, 10.05, 10.06) for window in (1, 2, 3)] == [0, 0, 1]
    assert [astray(window, 10.2, 10.3) for window in (1, 2)] == [1, 0]


async def test_a_short_day_leaves_nothing_behind(tmp_path: Path) -> None:
    figures = {figure.name: figure for figure in await measure(tmp_path, plan())}
    assert figures["jobs"].value >= 25
    assert figures["letters"].value > 0
    for name in ("jobs outside their window", "letters that never arrived", "letters too many"):
        assert figures[name].value == 0, figures[name]
