from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from gpu_worker.engine.residency import Residency, Resident

RESIDENCY = Residency(budget=100, patience=10)
IDLE = Resident(model="idle", size=40, since=0, used=5, premium=False, batch=False, held=False)
BATCH = replace(IDLE, model="batch", batch=True)
PREMIUM = replace(IDLE, model="premium", premium=True)


def test_without_a_budget_nothing_leaves() -> None:
    residency = Residency(budget=None, patience=10)
    assert residency.leavers([BATCH, PREMIUM], size=10**12, premium=True, tick=6) == []


def test_where_there_is_room_nothing_leaves() -> None:
    assert RESIDENCY.leavers([IDLE], size=60, premium=True, tick=6) == []


def test_the_least_recently_used_idle_model_leaves_first() -> None:
    older = replace(IDLE, model="older", used=2)
    assert RESIDENCY.leavers([IDLE, older], size=40, premium=False, tick=6) == ["older"]
    assert RESIDENCY.leavers([IDLE, older], size=90, premium=False, tick=6) == ["older", "idle"]


def test_a_model_with_batch_pictures_leaves_for_premium_ones_at_once_and_for_batch_ones_later() -> None:
    others = [BATCH, replace(IDLE, size=30)]
    assert RESIDENCY.leavers(others, size=70, premium=True, tick=6) == ["idle", "batch"]
    assert RESIDENCY.leavers(others, size=70, premium=False, tick=6) is None
    assert RESIDENCY.leavers(others, size=70, premium=False, tick=11) == ["idle", "batch"]


def test_a_model_that_has_not_worked_since_it_came_is_let_work_first() -> None:
    fresh = replace(BATCH, size=100, since=5, used=5)
    assert RESIDENCY.leavers([fresh], size=10, premium=True, tick=6) is None
    assert RESIDENCY.leavers([replace(fresh, used=6)], size=10, premium=True, tick=7) == ["batch"]


def test_a_model_with_premium_pictures_leaves_only_when_its_time_is_up() -> None:
    full = replace(PREMIUM, size=100)
    assert RESIDENCY.leavers([full], size=10, premium=True, tick=10) is None
    assert RESIDENCY.leavers([full], size=10, premium=False, tick=11) == ["premium"]


def test_what_is_in_use_beside_the_ticks_stays() -> None:
    assert RESIDENCY.leavers([replace(IDLE, size=100, held=True)], size=10, premium=True, tick=99) is None


residents = st.lists(
    st.builds(
        Resident,
        model=st.uuids().map(str),
        size=st.integers(1, 60),
        since=st.integers(0, 20),
        used=st.integers(20, 40),
        premium=st.booleans(),
        batch=st.booleans(),
        held=st.booleans(),
    ),
    max_size=6,
)


@given(residents, st.integers(1, 100), st.booleans(), st.integers(40, 80))
def test_what_leaves_makes_room_and_is_never_held(
    there: list[Resident], size: int, premium: bool, tick: int
) -> None:
    leaving = RESIDENCY.leavers(there, size=size, premium=premium, tick=tick)
    if leaving is None:
        # Then those that have to stay leave no room.
        assert sum(one.size for one in there if one.held) + size > 100 or tick - 20 <= 10
        return
    staying = [one for one in there if one.model not in leaving]
    assert sum(one.size for one in staying) + size <= 100 or not leaving
    assert not any(one.held for one in there if one.model in leaving)


@given(residents, st.integers(1, 100), st.booleans())
def test_nobody_waits_longer_than_the_patience(there: list[Resident], size: int, premium: bool) -> None:
    free = [replace(one, held=False) for one in there]
    assert RESIDENCY.leavers(free, size=size, premium=premium, tick=31) is not None
