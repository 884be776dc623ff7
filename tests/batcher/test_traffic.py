"""Which letters may set out."""

from datetime import timedelta

import pytest

from batcher.letters.traffic import FIRST_REST, LONGEST_REST, Traffic


def set_out(traffic: Traffic, *domains: str) -> list[str]:
    addresses = [f"somebody@{domain}" for domain in domains]
    for address in addresses:
        traffic.enter(address)
    return addresses


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
    [stuck] = set_out(traffic, "slow.example")
    traffic.hung(stuck)
    assert traffic.full_domains() == {"slow.example"}
    traffic.answered(stuck)
    assert traffic.full_domains() == frozenset()


def test_while_the_server_is_away_one_letter_at_a_time_looks_after_pauses_that_grow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    moment = Traffic(connections=8)._open_at
    monkeypatch.setattr("batcher.letters.traffic.now", lambda: moment)
    traffic = Traffic(connections=8)
    pauses = []
    for _ in range(8):
        pause = traffic.lost_server()
        # Those that fail together tell the same.
        assert traffic.lost_server() == pause == traffic.closed_for
        pauses.append(pause)
        moment += pause
        assert not traffic.closed_for
        [looking] = set_out(traffic, "a.example")
        assert not traffic.has_room
        traffic.leave(looking)

    for number, pause in enumerate(pauses):
        exact = min(FIRST_REST * 2**number, LONGEST_REST)
        assert exact * 0.75 <= pause <= exact * 1.25
    traffic.answered(looking)
    set_out(traffic, "a.example")
    assert traffic.has_room
    assert traffic.closed_for == timedelta(0)
