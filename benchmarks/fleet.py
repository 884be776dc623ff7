"""A model of the service in simulated time: customers, windows, workers that come and go.

Pure: the same plan gives the same figures. What takes time is measured elsewhere and handed in. Left out is
what was measured to be small beside it: the api, the database and the broker take milliseconds, and the
batch tier's one tick in a hundred over premium (``DARKROOM_WORKER_PATIENCE``) one per cent.
"""

import math
import random
from collections import deque
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import simpy

from benchmarks.jobs import Job, Lane, Outcome
from benchmarks.pace import Pace

_Process = Generator[simpy.Event, Any, None]

HOUR: Final = 3600.0
RETURN_SECONDS: Final = 15.0
"""After which the broker gives a dead worker's jobs to another one: ``DARKROOM_NATS_ACK_WAIT_SECONDS``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """One Deployment of workers, and what scales it. Times in seconds.

    Attributes:
        least: workers that are always there.
        most: workers at the most.
        jobs_per_worker: that wait or run, from which on there is another worker.
        poll: how often the scaler looks.
        cooldown: for how long fewer must have been enough before any is stopped.
        cold_start: from the decision to the first tick: node, image, weights and warm-up.
        losses_per_hour: how often a worker is taken away, as on spot nodes.
    """

    least: int
    most: int
    jobs_per_worker: float
    poll: float = 15.0
    cooldown: float = 300.0
    cold_start: float = 180.0
    losses_per_hour: float = 0.0


class Fleet:
    """Queues and the workers that read them.

    Args:
        pace: of every worker.
        pools: by the lane that each is scaled by; that of premium takes batch jobs into what it has left.
        seed: for losses.
    """

    def __init__(self, pace: Pace, pools: Mapping[Lane, Pool], *, seed: int = 0) -> None:
        self.env = simpy.Environment()
        self.pace = pace
        self.pools = pools
        self.outcome = Outcome()
        self.chance = random.Random(seed)  # noqa: S311 - repeatable, not secret
        self.waiting: dict[Lane, deque[Job]] = {lane: deque() for lane in Lane}
        self.open: dict[Lane, int] = dict.fromkeys(Lane, 0)
        self.workers: dict[Lane, list[_Worker]] = {lane: [] for lane in pools}
        self._hungry: dict[Lane, dict[_Worker, None]] = {lane: {} for lane in Lane}
        self._window: dict[Job, tuple[float, list[int]]] = {}
        for lane, pool in pools.items():
            self.env.process(_Scaler(self, lane, pool).run())

    def run(self, premium: Iterable[float], normal: Iterable[float], *, window: float = 1800.0) -> Outcome:
        """Serve customers who come at these moments, the normal ones at the next window, to the last.

        Args:
            premium: moments, in order.
            normal: moments, in order.
            window: seconds between two windows.
        """
        arriving = [
            self.env.process(self._accept(premium)),
            self.env.process(self._open_windows(normal, window)),
        ]
        everything = self.env.process(self._until_served(arriving))
        self.env.run(until=everything)
        self.outcome.jobs.sort(key=lambda job: job.accepted)
        return self.outcome

    def give(self, job: Job) -> None:
        """Hand a job to the worker that has waited longest, or let it wait."""
        if hungry := self._hungry[job.lane]:
            worker = next(iter(hungry))
            del hungry[worker]
            worker.take(job)
        else:
            self.waiting[job.lane].append(job)

    def hunger(self, worker: "_Worker", lane: Lane, *, room: bool) -> None:
        """Note whether a worker waits for jobs of a lane."""
        if room:
            self._hungry[lane].setdefault(worker)
        else:
            self._hungry[lane].pop(worker, None)

    def end(self, job: Job, *, at: float) -> None:
        """Note that a job was recorded."""
        job.ended = at
        self.open[job.lane] -= 1
        if job in self._window:
            opened, remaining = self._window.pop(job)
            remaining[0] -= 1
            if not remaining[0]:
                self.outcome.windows.append(at - opened)

    def _accept(self, moments: Iterable[float]) -> _Process:
        for moment in moments:
            yield self.env.timeout(max(0.0, moment + self.pace.before - self.env.now))
            job = self._new(Lane.PREMIUM, moment)
            self.give(job)

    def _open_windows(self, moments: Iterable[float], window: float) -> _Process:
        collected: list[float] = []
        opens = window
        for moment in (*moments, math.inf):
            while moment >= opens and (collected or moment < math.inf):
                yield self.env.timeout(opens - self.env.now)
                self._release(collected)
                collected = []
                opens += window
            collected.append(moment)

    def _release(self, moments: list[float]) -> None:
        remaining = [len(moments)]
        jobs = [self._new(Lane.BATCH, moment) for moment in moments]
        for job in jobs:
            self._window[job] = (self.env.now, remaining)
            self.give(job)

    def _new(self, lane: Lane, accepted: float) -> Job:
        job = Job(lane, accepted, self.pace.steps)
        self.outcome.jobs.append(job)
        self.open[lane] += 1
        return job

    def _until_served(self, arriving: list[simpy.Process]) -> _Process:
        yield from arriving
        while any(self.open.values()):
            yield self.env.timeout(1.0)


class _Worker:
    """One worker: everything that has a slot takes a step with the others, premium first.

    As long as nobody joins or leaves, many steps are one event.
    """

    def __init__(self, fleet: Fleet, lanes: tuple[Lane, ...]) -> None:
        self._fleet = fleet
        self._lanes = lanes
        self._held: dict[Lane, list[Job]] = {lane: [] for lane in lanes}
        self._ticking = False
        self._leaving = False
        self._idle: simpy.Event | None = None
        self._process = fleet.env.process(self._run())

    def take(self, job: Job) -> None:
        """Have a job more."""
        self._held[job.lane].append(job)
        if self._idle is not None:
            self._idle.succeed()
            self._idle = None
        elif self._ticking and (job.lane is Lane.PREMIUM or not self._held.get(Lane.PREMIUM)):
            self._ticking = False
            self._process.interrupt()

    def leave(self) -> None:
        """Finish what is held and take nothing more."""
        self._leaving = True
        for lane in self._lanes:
            self._fleet.hunger(self, lane, room=False)
        if self._idle is not None:
            self._idle.succeed()
            self._idle = None

    def lose(self) -> _Process:
        """Be taken away; what is held is given to others once the broker has noticed."""
        self.leave()
        lost = [job for jobs in self._held.values() for job in jobs]
        self._held = {lane: [] for lane in self._lanes}
        if self._ticking:
            self._ticking = False
            self._process.interrupt()
        yield self._fleet.env.timeout(RETURN_SECONDS)
        for job in lost:
            job.left = self._fleet.pace.steps
            self._fleet.give(job)

    def _run(self) -> _Process:
        env = self._fleet.env
        while True:
            self._fetch()
            chosen = self._chosen()
            if chosen:
                yield from self._step(chosen)
            elif self._leaving:
                return
            else:
                self._idle = env.event()
                yield self._idle

    def _fetch(self) -> None:
        if self._leaving:
            return
        slots = self._fleet.pace.slots
        for lane in self._lanes:
            held, waiting = self._held[lane], self._fleet.waiting[lane]
            room = slots if lane is Lane.PREMIUM else slots + math.ceil(slots / 2)
            while waiting and len(held) < room:
                held.append(waiting.popleft())
            self._fleet.hunger(self, lane, room=len(held) < room)

    def _chosen(self) -> list[Job]:
        for lane in self._lanes:
            if self._held[lane]:
                return self._held[lane][: self._fleet.pace.slots]
        return []

    def _step(self, chosen: list[Job]) -> _Process:
        """As many steps as nothing changes for."""
        env, pace = self._fleet.env, self._fleet.pace
        tick, begun = pace.tick(len(chosen)), env.now
        steps = min(job.left for job in chosen)
        for job in chosen:
            if math.isnan(job.began):
                job.began = begun + tick
        self._ticking = True
        try:
            yield env.timeout(steps * tick)
        except simpy.Interrupt:
            steps = min(steps, math.ceil((env.now - begun) / tick - 1e-9))
            yield env.timeout(max(0.0, begun + steps * tick - env.now))
        self._ticking = False
        self._fleet.outcome.busy += steps * tick
        held = self._held[chosen[0].lane]
        finished = []
        for job in chosen:
            job.left -= steps
            if job.left <= 0 and job in held:
                held.remove(job)
                finished.append(job)
        if finished:
            yield env.timeout(pace.aside * len(finished))
            if any(self._held.values()):
                self._fleet.outcome.busy += pace.aside * len(finished)
            for job in finished:
                self._fleet.end(job, at=env.now + pace.after)


class _Scaler:
    """Adds and stops workers as KEDA and the autoscaler behind it do, by what waits and runs."""

    def __init__(self, fleet: Fleet, lane: Lane, pool: Pool) -> None:
        self._fleet = fleet
        self._lane = lane
        self._pool = pool
        # What no premium worker has room for is the batch pool's alone.
        self._lanes = (Lane.PREMIUM, Lane.BATCH) if lane is Lane.PREMIUM else (Lane.BATCH,)
        self._workers = fleet.workers[lane]
        self._starting = 0
        self._wanted: deque[tuple[float, int]] = deque()

    def run(self) -> _Process:
        env, pool = self._fleet.env, self._pool
        for _ in range(pool.least):
            self._begin()
        while True:
            self._wanted.append((env.now, self._desired()))
            while self._wanted[0][0] < env.now - pool.cooldown:
                self._wanted.popleft()
            self._adjust()
            yield env.timeout(pool.poll)
            self._count()

    def _desired(self) -> int:
        wanted = math.ceil(self._fleet.open[self._lane] / self._pool.jobs_per_worker)
        return max(self._pool.least, min(self._pool.most, wanted))

    def _adjust(self) -> None:
        there = len(self._workers) + self._starting
        for _ in range(self._wanted[-1][1] - there):
            self._starting += 1
            self._fleet.env.process(self._start())
        for _ in range(there - max(wanted for _, wanted in self._wanted)):
            if self._workers:
                self._workers.pop().leave()

    def _start(self) -> _Process:
        yield self._fleet.env.timeout(self._pool.cold_start)
        self._starting -= 1
        self._begin()

    def _begin(self) -> None:
        worker = _Worker(self._fleet, self._lanes)
        self._workers.append(worker)
        if self._pool.losses_per_hour:
            self._fleet.env.process(self._lose(worker))

    def _lose(self, worker: _Worker) -> _Process:
        hours = self._fleet.chance.expovariate(self._pool.losses_per_hour)
        yield self._fleet.env.timeout(hours * HOUR)
        if worker in self._workers:
            self._workers.remove(worker)
            self._fleet.outcome.losses += 1
            yield from worker.lose()

    def _count(self) -> None:
        there, outcome = len(self._workers) + self._starting, self._fleet.outcome
        outcome.worker_seconds[self._lane] += there * self._pool.poll
        outcome.most_workers[self._lane] = max(outcome.most_workers[self._lane], there)
