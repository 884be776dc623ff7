from uuid import uuid4

from gpu_worker.watching import LEASE_SECONDS, Watched


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_job_is_watched_from_the_request_until_its_lease_ends() -> None:
    clock, job = Clock(), uuid4()
    watched = Watched(clock=clock)
    assert job not in watched
    watched.note(job)
    assert job in watched
    clock.now += LEASE_SECONDS - 0.1
    assert job in watched
    clock.now += 0.1
    assert job not in watched


def test_each_request_renews_the_lease() -> None:
    clock, job = Clock(), uuid4()
    watched = Watched(clock=clock)
    for _ in range(5):
        watched.note(job)
        clock.now += LEASE_SECONDS - 1
        assert job in watched


def test_jobs_are_watched_apart() -> None:
    clock, first, second = Clock(), uuid4(), uuid4()
    watched = Watched(clock=clock)
    watched.note(first)
    clock.now += LEASE_SECONDS / 2
    watched.note(second)
    clock.now += LEASE_SECONDS / 2
    assert first not in watched
    assert second in watched


def test_of_too_many_the_one_asked_for_longest_ago_is_forgotten() -> None:
    watched = Watched(clock=Clock(), most=2)
    first, second, third = uuid4(), uuid4(), uuid4()
    for job in (first, second, first, third):
        watched.note(job)
    assert second not in watched
    assert first in watched
    assert third in watched


def test_leases_that_have_ended_take_no_room() -> None:
    clock = Clock()
    watched = Watched(clock=clock)
    for _ in range(100):
        watched.note(uuid4())
        clock.now += 1
    assert len(watched._until) == LEASE_SECONDS
