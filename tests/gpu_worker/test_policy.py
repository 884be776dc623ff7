"""Who takes part in a tick, on slots that are nothing but what choosing looks at."""

from dataclasses import dataclass, replace

from hypothesis import given
from hypothesis import strategies as st

from gpu_worker.engine.policy import Policy
from gpu_worker.engine.slots import Shape

SQUARE = Shape("m", 64, 64, 77)
WIDE = Shape("m", 128, 64, 77)
LONG = Shape("m", 64, 64, 154)


@dataclass(frozen=True)
class Slot:
    name: str
    shape: Shape = SQUARE
    premium: bool = False
    arrived: int = 0
    ticked: int = 0


def names(slots: list[Slot]) -> str:
    return "".join(slot.name for slot in slots)


def slots(count: int, *, premium: bool = False, shape: Shape = SQUARE) -> list[Slot]:
    letters = "abcdefgh" if premium else "ijklmnop"
    return [Slot(letters[index], shape, premium, arrived=index) for index in range(count)]


def test_nothing_is_chosen_of_nothing() -> None:
    assert Policy(capacity=4, fill=0, patience=9).choose([], tick=1) == []


def test_premium_leaves_no_room_to_batch_unless_a_share_is_allowed() -> None:
    waiting = [*slots(3), *slots(2, premium=True)]
    assert names(Policy(capacity=4, fill=0, patience=9).choose(waiting, tick=1)) == "ab"
    assert names(Policy(capacity=4, fill=2, patience=9).choose(waiting, tick=1)) == "ab"
    assert names(Policy(capacity=4, fill=3, patience=9).choose(waiting, tick=1)) == "abi"
    assert names(Policy(capacity=4, fill=8, patience=9).choose(waiting, tick=1)) == "abij"


def test_without_premium_the_batch_tier_has_it_all() -> None:
    assert names(Policy(capacity=4, fill=0, patience=9).choose(slots(6), tick=1)) == "ijkl"


def test_a_tick_has_one_shape_and_the_capacity_at_most() -> None:
    mixed = [*slots(3, premium=True), Slot("w", WIDE, premium=True, arrived=9)]
    policy = Policy(capacity=2, fill=0, patience=9)
    assert names(policy.choose(mixed, tick=1)) == "ab"
    assert names(policy.choose(mixed, tick=1, fits={SQUARE: 1, WIDE: 2})) == "a"


def test_of_several_shapes_the_one_that_has_waited_longest_goes_first() -> None:
    mixed = [Slot("s", premium=True, ticked=5), Slot("w", WIDE, premium=True, arrived=1, ticked=3)]
    assert names(Policy(capacity=4, fill=0, patience=99).choose(mixed, tick=6)) == "w"


def test_prompts_of_other_lengths_do_not_share_a_tick() -> None:
    mixed = [Slot("s", SQUARE), Slot("l", LONG, arrived=1)]
    assert names(Policy(capacity=4, fill=0, patience=9).choose(mixed, tick=1)) == "s"


def test_a_batch_picture_that_stood_still_too_long_gets_its_tick() -> None:
    policy = Policy(capacity=2, fill=0, patience=10)
    mixed = [*slots(3), *(replace(slot, ticked=10) for slot in slots(2, premium=True))]
    assert names(policy.choose(mixed, tick=10)) == "ab"
    assert names(policy.choose(mixed, tick=11)) == "ij"


def test_premium_of_the_shape_takes_what_an_overdue_batch_leaves() -> None:
    policy = Policy(capacity=4, fill=0, patience=10)
    assert names(policy.choose([*slots(1), *slots(2, premium=True)], tick=11)) == "abi"


def test_an_overdue_batch_has_its_tick_where_the_device_holds_less_too() -> None:
    policy = Policy(capacity=4, fill=0, patience=10)
    waiting = [*slots(1), *slots(2, premium=True)]
    assert names(policy.choose(waiting, tick=11, fits={SQUARE: 1})) == "i"


@given(
    shapes=st.lists(st.sampled_from([SQUARE, WIDE, LONG]), min_size=1, max_size=12),
    premium=st.lists(st.booleans(), min_size=12, max_size=12),
    capacity=st.integers(1, 4),
    patience=st.integers(1, 8),
)
def test_nobody_starves(shapes: list[Shape], premium: list[bool], capacity: int, patience: int) -> None:
    # Endless work: who is chosen stays. The oldest of each shape and tier must be chosen again and again.
    policy = Policy(capacity=capacity, fill=0, patience=patience)
    waiting = [Slot(str(n), shape, premium[n], arrived=n) for n, shape in enumerate(shapes)]
    bound = patience + len(set(shapes)) * 2 + 1
    for tick in range(1, 80):
        chosen = policy.choose(waiting, tick=tick)
        assert 1 <= len(chosen) <= capacity
        assert len({slot.shape for slot in chosen}) == 1
        waiting = [replace(slot, ticked=tick) if slot in chosen else slot for slot in waiting]
        for shape in set(shapes):
            batch = [slot for slot in waiting if slot.shape == shape and not slot.premium]
            if batch:
                assert tick - batch[0].ticked <= bound
