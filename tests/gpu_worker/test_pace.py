"""When the next tick is chosen, with a device whose time is made up."""

import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import pytest

from gpu_worker.engine.pace import Graph, Pace

_CHOOSING = 0.003
_TELLING = 0.001
_LATE = 0.0015
"""By how much a thread wakes up later than it wanted to."""


@dataclass
class Device:
    """Does what is launched one after the other, and counts for how long it had nothing to do."""

    now: float = 100.0
    done: float = 100.0
    idle: float = 0.0
    chosen: list[float] = field(default_factory=list)

    def work(self, seconds: float) -> None:
        self.idle += max(0.0, self.now - self.done)
        self.done = max(self.now, self.done) + seconds

    def event(self) -> "Place":
        return Place(self)


@dataclass
class Place:
    """A place in the device's work."""

    device: Device
    at: float = 0.0

    def record(self) -> None:
        self.at = self.device.done

    def query(self) -> bool:
        return self.device.now >= self.at

    def synchronize(self) -> None:
        self.device.now = max(self.device.now, self.at)


@dataclass
class Engine:
    """Takes ticks as :class:`gpu_worker.engine.Engine` does, the device's seconds of each as given."""

    device: Device = field(default_factory=Device)
    pace: Pace = field(init=False)
    early: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.pace = Pace(self.device.event, lambda: self.device.now)

    def graph(self, seconds: Callable[[], float]) -> Graph:
        return Graph(lambda: self.device.work(seconds()))

    def tick(self, launch: Callable[[], None]) -> float:
        """Take one; how long before the end of the one before it was chosen."""
        self.pace.linger(self._wait)
        before = self.device.done - self.device.now
        self.device.now += _CHOOSING
        launch()
        self.pace.keep()
        self.device.now += _TELLING
        return before

    def ticks(self, *graphs: Graph) -> list[float]:
        """Take a tick with each; how long before the end of the one before it each was chosen."""
        return [self.tick(partial(self.pace.launch, graph)) for graph in graphs]

    def _wait(self, seconds: float) -> None:
        self.device.now += seconds + _LATE


def test_the_next_tick_is_chosen_when_the_one_before_is_nearly_done_and_the_device_never_waits() -> None:
    engine = Engine()
    long, short = engine.graph(lambda: 0.034), engine.graph(lambda: 0.0065)
    engine.ticks(long, short, long, short, long)
    stood_still = engine.device.idle
    before = engine.ticks(*[long, short] * 20)
    assert engine.device.idle == stood_still
    assert max(before) < 0.006
    assert min(before) >= _CHOOSING


def test_ticks_that_become_shorter_are_soon_chosen_in_time_again() -> None:
    engine = Engine()
    seconds = 0.034
    graph = engine.graph(lambda: seconds)
    engine.ticks(*[graph] * 20)
    seconds = 0.024
    engine.ticks(*[graph] * 10)
    stood_still = engine.device.idle
    engine.ticks(*[graph] * 20)
    assert engine.device.idle == stood_still


def test_ticks_that_become_longer_are_chosen_later() -> None:
    engine = Engine()
    seconds = 0.024
    graph = engine.graph(lambda: seconds)
    engine.ticks(*[graph] * 20)
    seconds = 0.034
    assert engine.ticks(graph) == [pytest.approx(0.0035)]
    assert engine.ticks(*[graph] * 20)[-1] < 0.006


def test_having_had_nothing_to_do_does_not_change_when_ticks_are_chosen() -> None:
    engine = Engine()
    graph = engine.graph(lambda: 0.034)
    for _ in range(100):
        *_, before = engine.ticks(graph, graph, graph)
        assert _CHOOSING <= before < 0.006 or engine.device.now < 101
        engine.device.now += 1


def test_without_graphs_a_tick_is_launched_while_the_one_before_runs_and_no_earlier() -> None:
    engine = Engine()
    graph = engine.graph(lambda: 0.034)
    engine.ticks(*[graph] * 5)
    ends: list[float] = []
    for _ in range(5):
        began = engine.device.now
        engine.tick(lambda: engine.device.work(0.05))
        assert not ends or engine.device.now >= ends[-1]
        ends.append(engine.device.done)
        assert engine.device.now - began <= 0.05 + _CHOOSING + _TELLING
        assert engine.device.now < ends[-1]


def test_a_graph_that_is_forgotten_is_done_and_gone() -> None:
    engine = Engine()
    graph = engine.graph(lambda: 0.034)
    engine.ticks(graph)
    engine.pace.forget()
    assert engine.device.now >= engine.device.done
    gone = weakref.ref(graph)
    del graph
    assert gone() is None
    other = engine.graph(lambda: 0.034)
    engine.ticks(other)


def test_on_the_cpu_there_is_nothing_to_wait_for() -> None:
    pace = Pace(None)
    for _ in range(3):
        pace.linger(lambda _: pytest.fail("a tick is done when its call returns"))
        pace.keep()
