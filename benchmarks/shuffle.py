"""Part ``random``: jobs that join, pause and are canceled at random, each picture compared with its own."""

import asyncio
import math
import queue
import random
import resource
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final
from uuid import UUID, uuid4

import numpy as np
from PIL import Image
from prometheus_client import REGISTRY

from benchmarks.orders import DEMO, Orders
from benchmarks.processes import BenchmarkError
from benchmarks.report import Figure, at_least, at_most
from benchmarks.rig import SLOTS
from benchmarks.stock import StockPipeline
from core.clock import now
from core.lifecycle import Delivery, Scheduler, Tier
from core.messages import Job, Parameters
from gpu_worker.demo_model import WEIGHTS
from gpu_worker.engine import Engine, Picture, Policy, pictures_of
from gpu_worker.pipeline import best_placement

KINDS: Final = 24
"""Different pictures; each is made alone once."""

STEPS: Final = (2, 8)
SIZES: Final = (64, 128, 128)
GUIDANCE: Final = (1.0, 4.0, 9.0)
CANCELED_SHARE: Final = 0.1
IDLE_SHARE: Final = 0.2
"""How often nobody comes for up to :data:`_PAUSE_SECONDS`."""

UNDER_WAY: Final = 3 * SLOTS
"""Jobs at the most that are neither ended nor canceled at one time."""

SAME_DB: Final = 50
"""Peak signal-to-noise ratio, in dB, from which two pictures count as the same."""

MEMORY_GROWTH: Final = 1.1
_IDENTICAL_DB: Final = 99.0
"""Stands for the infinite ratio of two pictures that are equal in every byte."""

_PAUSE_SECONDS: Final = 0.4
_LONGEST: Final = 900.0
_LAST_SECONDS: Final = 30.0
_GLANCE: Final = 0.005


class Ears:
    """Hears of every picture, on the engine's thread, and passes on what became of it."""

    def __init__(self) -> None:
        self.made: queue.SimpleQueue[tuple[UUID, Image.Image | Exception]] = queue.SimpleQueue()

    def stepped(self, picture: Picture, step: int) -> None:
        """See :class:`gpu_worker.engine.Listener`."""

    def ended(self, picture: Picture, made: Image.Image | Exception) -> None:
        """See :class:`gpu_worker.engine.Listener`."""
        self.made.put((picture.job, made))


class Shuffle:
    """Jobs in a random order, at random moments, for one engine that serves on a thread of its own.

    Args:
        engine: with the bundled model.
        kinds: what to ask for.
        alone: each of ``kinds`` as the stock pipeline makes it.
        seed: decides everything but the moments.
    """

    def __init__(
        self, engine: Engine, kinds: Sequence[Parameters], alone: Sequence[Image.Image], *, seed: int
    ) -> None:
        self._engine = engine
        self._kinds = kinds
        self._alone = alone
        self._chance = random.Random(seed)  # noqa: S311 - repeatable, not secret
        self._ears = Ears()
        self._under_way: dict[UUID, int] = {}
        self.submitted = 0
        self.likeness: list[float] = []
        """Of every finished picture to the one made alone, in dB."""
        self.canceled = 0
        self.resident: list[int] = []
        """Bytes of this process that are in memory, each time that a job was submitted."""

    def run(self, count: int) -> None:
        """Submit ``count`` jobs, about a tenth of which are canceled, and wait until nothing is under way."""
        closing = threading.Event()
        serving = threading.Thread(target=self._engine.serve, args=(closing,))
        serving.start()
        deadline = time.monotonic() + _LONGEST
        try:
            while self.submitted < count and time.monotonic() < deadline:
                self._submit(min(self._chance.randint(1, 4), count - self.submitted))
                self.resident.append(_resident())
                if self._chance.random() < IDLE_SHARE:
                    time.sleep(self._chance.uniform(0, _PAUSE_SECONDS))
                while len(self._under_way) >= UNDER_WAY and time.monotonic() < deadline:
                    self._cancel_some()
                    self._compare()
            deadline = time.monotonic() + _LAST_SECONDS
            while self._under_way and time.monotonic() < deadline:
                self._compare()
            self.resident.append(_resident())
        finally:
            closing.set()
            self._engine.wake()
            serving.join()

    @property
    def lost(self) -> int:
        """Jobs that have neither ended nor been canceled."""
        return len(self._under_way)

    def _submit(self, count: int) -> None:
        for _ in range(count):
            kind = self._chance.randrange(len(self._kinds))
            tier = self._chance.choice((Tier.NORMAL, Tier.NORMAL, Tier.PREMIUM))
            job = Job(
                id=uuid4(),
                tier=tier,
                delivery=Delivery.DOWNLOAD,
                parameters=self._kinds[kind],
                accepted_at=now(),
            )
            self._under_way[job.id] = kind
            self.submitted += 1
            for picture in pictures_of(job):
                self._engine.submit(picture, self._ears)

    def _cancel_some(self) -> None:
        if self.canceled < CANCELED_SHARE * self.submitted:
            victim = self._chance.choice(list(self._under_way))
            del self._under_way[victim]
            self.canceled += 1
            self._engine.cancel(victim)

    def _compare(self) -> None:
        """Wait a moment for a picture, and hold it against the one made alone."""
        with suppress(queue.Empty):
            job, made = self._ears.made.get(timeout=_GLANCE)
            if isinstance(made, Exception):
                raise BenchmarkError(f"a picture failed: {made!r}") from made
            # One that was canceled may have been finished at that very moment.
            if (kind := self._under_way.pop(job, None)) is not None:
                self.likeness.append(_psnr(made, self._alone[kind]))


async def measure(_: Path, *, jobs: int) -> list[Figure]:
    """Make every kind alone with the stock pipeline, then shuffle ``jobs`` through an engine."""
    return await asyncio.to_thread(_measure, jobs)


def _measure(jobs: int) -> list[Figure]:
    kinds = _kinds()
    stock = StockPipeline()
    alone = [stock.make([kind])[0] for kind in kinds]
    engine = Engine(placement=best_placement(), policy=Policy(capacity=SLOTS, batch_share=2, patience=20))
    engine.load(DEMO, WEIGHTS)
    shuffle = Shuffle(engine, kinds, alone, seed=5)
    shuffle.run(jobs)
    quarter = shuffle.resident[len(shuffle.resident) // 4]
    note = f"{len(shuffle.likeness)} pictures, {shuffle.canceled} jobs canceled, {KINDS} kinds"
    return [
        Figure(
            name="likeness to the picture made alone, worst",
            value=min(shuffle.likeness),
            unit="dB",
            bar=at_least(SAME_DB),
            note=note,
        ),
        Figure(name="jobs neither ended nor canceled", value=shuffle.lost, unit="jobs", bar=at_most(0)),
        Figure(name="slots left at the end", value=_slots(), unit="slots", bar=at_most(0)),
        Figure(
            name="resident memory at the end ÷ after the first quarter",
            value=shuffle.resident[-1] / quarter,
            bar=at_most(MEMORY_GROWTH),
            note=f"{shuffle.resident[-1] / 2**20:.0f} MiB",
        ),
    ]


def _kinds() -> list[Parameters]:
    chance = random.Random(6)  # noqa: S311 - repeatable, not secret
    kinds = []
    for asked in Orders(4).parameters(KINDS, steps=STEPS):
        size = chance.choice(SIZES)
        kinds.append(
            asked.model_copy(
                update={
                    "width": size,
                    "height": size,
                    "guidance_scale": chance.choice(GUIDANCE),
                    "scheduler": chance.choice(list(Scheduler)),
                    "negative_prompt": chance.choice(("", "", "snow")),
                }
            )
        )
    return kinds


def _psnr(first: Image.Image, second: Image.Image) -> float:
    """Peak signal-to-noise ratio, 10 log10(255² / mean squared error), in dB."""
    error = np.mean((np.asarray(first, dtype=float) - np.asarray(second, dtype=float)) ** 2)
    return _IDENTICAL_DB if error == 0 else 10 * math.log10(255**2 / error)


def _resident() -> int:
    """Bytes of this process that are in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def _slots() -> float:
    return sum(REGISTRY.get_sample_value("darkroom_slots", {"tier": tier.value}) or 0 for tier in Tier)
