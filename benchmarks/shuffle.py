"""Part ``random``: jobs that join, pause and are canceled at random, each picture compared with its own."""

import asyncio
import random
import resource
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from uuid import UUID

from PIL import Image
from prometheus_client import REGISTRY

from benchmarks.likeness import SAME_DB, psnr
from benchmarks.orders import DEMO, Orders
from benchmarks.report import Figure, at_least, at_most
from benchmarks.rig import SLOTS
from benchmarks.stock import StockPipeline
from benchmarks.studio import Studio, open_studio
from core.lifecycle import Scheduler, Tier
from core.messages import Parameters
from gpu_worker.demo_model import WEIGHTS
from gpu_worker.engine import Policy
from gpu_worker.pipeline import best_placement
from gpu_worker.settings import WorkerSettings

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

MEMORY_GROWTH: Final = 1.1
_PAUSE_SECONDS: Final = 0.4
_LONGEST: Final = 900.0
_LAST_SECONDS: Final = 30.0
_GLANCE: Final = 0.005


class Shuffle:
    """Jobs in a random order, at random moments.

    Args:
        studio: an engine with the bundled model.
        kinds: what to ask for.
        alone: each of ``kinds`` as the stock pipeline makes it.
        seed: decides everything but the moments.
    """

    def __init__(
        self, studio: Studio, kinds: Sequence[Parameters], alone: Sequence[Image.Image], *, seed: int
    ) -> None:
        self._studio = studio
        self._kinds = kinds
        self._alone = alone
        self._chance = random.Random(seed)  # noqa: S311 - repeatable, not secret
        self._under_way: dict[UUID, int] = {}
        self.submitted = 0
        self.likeness: list[float] = []
        """Of every finished picture to the one made alone, in dB."""
        self.canceled = 0
        self.resident: list[int] = []
        """Bytes of this process that are in memory, each time that jobs were submitted, and at the end."""

    def run(self, count: int) -> None:
        """Submit ``count`` jobs, about a tenth of which are canceled, and wait until nothing is under way."""
        deadline = time.monotonic() + _LONGEST
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

    @property
    def lost(self) -> int:
        """Jobs that have neither ended nor been canceled."""
        return len(self._under_way)

    def _submit(self, count: int) -> None:
        for _ in range(count):
            kind = self._chance.randrange(len(self._kinds))
            tier = self._chance.choice((Tier.NORMAL, Tier.NORMAL, Tier.PREMIUM))
            self._under_way[self._studio.submit(self._kinds[kind], tier=tier)] = kind
            self.submitted += 1

    def _cancel_some(self) -> None:
        if self.canceled < CANCELED_SHARE * self.submitted:
            victim = self._chance.choice(list(self._under_way))
            del self._under_way[victim]
            self.canceled += 1
            self._studio.cancel(victim)

    def _compare(self) -> None:
        """Wait a moment for a picture, and hold it against the one made alone."""
        if (found := self._studio.ears.next(seconds=_GLANCE)) is None:
            return
        job, made = found
        # One that was canceled may have been finished at that very moment.
        if (kind := self._under_way.pop(job, None)) is not None:
            self.likeness.append(psnr(made, self._alone[kind]))


async def measure(_: Path, *, jobs: int) -> list[Figure]:
    """Make every kind alone with the stock pipeline, then shuffle ``jobs`` through an engine."""
    return await asyncio.to_thread(_measure, jobs)


def _measure(jobs: int) -> list[Figure]:
    kinds = _kinds()
    stock = StockPipeline()
    alone = [stock.make([kind])[0] for kind in kinds]
    policy = Policy(capacity=SLOTS, fill=4, patience=20)
    buckets = WorkerSettings(worker_slots=policy.capacity).buckets
    with open_studio(DEMO, WEIGHTS, placement=best_placement(), policy=policy, buckets=buckets) as studio:
        shuffle = Shuffle(studio, kinds, alone, seed=5)
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


def _resident() -> int:
    """Bytes of this process that are in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def _slots() -> float:
    return sum(REGISTRY.get_sample_value("darkroom_slots", {"tier": tier.value}) or 0 for tier in Tier)
