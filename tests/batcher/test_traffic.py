"""Which letters may set out."""

from datetime import datetime, timedelta

import pytest

from batcher.letters.traffic import FIRST_REST, LONGEST_REST, PROMPT, SPARE, Journey, Traffic
from core.clock import now


class Clock:
    """Stands still until it is told otherwise."""

    def __init__(self) -> None:
        self.moment = now()

    def __call__(self) -> datetime:
        return self.moment


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("batcher.letters.traffic.now", clock)
    return clock


def set_out(traffic: Traffic, *domains: str) -> list[Journey]:
    return [traffic.enter(f"somebody@{domain}") for domain in domains]


def test_one_domain_gets_half_of_the_connections() -> None:
    traffic = Traffic(connections=4)
    first, _ = set_out(traffic, "busy.example", "Busy.Example")

    assert traffic.full_domains() == {"busy.example"}
    assert traffic.has_room
    traffic.leave(first)
    assert traffic.full_domains() == frozenset()
    set_out(traffic, "busy.example", "a.example", "b.example")
    assert not traffic.has_room


def test_a_single_connection_is_for_everybody() -> None:
    traffic = Traffic(connections=1)
    [only] = set_out(traffic, "busy.example")
    assert not traffic.has_room
    traffic.leave(only)
    assert traffic.has_room


def test_a_domain_that_did_not_take_a_letter_gets_one_connection_until_it_takes_one() -> None:
    traffic = Traffic(connections=8)
    set_out(traffic, "slow.example")
    traffic.hung("somebody@slow.example")
    assert traffic.full_domains() == {"slow.example"}
    traffic.answered("somebody.else@slow.example")
    assert traffic.full_domains() == frozenset()


def test_letters_that_take_long_give_their_places_to_others_up_to_a_bound(clock: Clock) -> None:
    traffic = Traffic(connections=2)
    rooms = []
    for number in range(SPARE):
        rooms.append(traffic.has_room)
        set_out(traffic, f"a{number}.example", f"b{number}.example")
        rooms.append(traffic.has_room)
        clock.moment += PROMPT
    assert rooms == [True, False] * SPARE
    assert not traffic.has_room


def test_while_the_server_is_away_one_letter_at_a_time_looks_after_pauses_that_grow(
    clock: Clock,
) -> None:
    traffic = Traffic(connections=8)
    pauses = []
    for _ in range(8):
        pause = traffic.lost_server()
        # Those that fail together tell the same.
        assert traffic.lost_server() == pause == traffic.closed_for
        pauses.append(pause)
        clock.moment += pause
        assert not traffic.closed_for
        [looking] = set_out(traffic, "a.example")
        assert not traffic.has_room
        traffic.leave(looking)

    for number, pause in enumerate(pauses):
        exact = min(FIRST_REST * 2**number, LONGEST_REST)
        assert exact * 0.75 <= pause <= exact * 1.25
    traffic.answered("somebody@a.example")
    set_out(traffic, "a.example")
    assert traffic.has_room
    assert traffic.closed_for == timedelta(0)


def test_a_server_that_stays_away_is_looked_after_for_ever(clock: Clock) -> None:
    traffic = Traffic(connections=8)
    for _ in range(2000):
        clock.moment += traffic.lost_server()
    assert LONGEST_REST * 0.75 <= traffic.lost_server() <= LONGEST_REST * 1.25
