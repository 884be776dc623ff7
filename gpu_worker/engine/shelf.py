"""The models that this process offers, and those of them that are on the device."""

import gc
import json
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog
import torch

from core.catalogue import ModelEntry
from core.errors import ConfigurationError
from core.telemetry import MODEL_BYTES
from gpu_worker.engine.model import Model
from gpu_worker.engine.pace import Pace
from gpu_worker.engine.residency import Residency, Resident
from gpu_worker.engine.slots import Demand
from gpu_worker.pipeline import Placement

_GIB: Final = 2**30
_HEADER_LENGTH_BYTES: Final = 8

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Placed:
    model: Model
    since: int
    used: int
    held: int = 0


class Shelf:
    """Keeps models within the device's memory. For the engine's thread, but for ``load``."""

    def __init__(
        self, *, placement: Placement, pace: Pace, residency: Residency, buckets: Sequence[int]
    ) -> None:
        self._placement = placement
        self._pace = pace
        self._residency = residency
        self._buckets = buckets
        self._offered: dict[str, tuple[ModelEntry, Path]] = {}
        self._sizes: dict[str, int] = {}
        self._placed: dict[str, _Placed] = {}

    @property
    def offered(self) -> tuple[str, ...]:
        """Ids of all models, on the device or not."""
        return tuple(self._offered)

    def offer(self, entry: ModelEntry, folder: Path) -> None:
        """Have ``entry`` made from its weights in ``folder`` whenever it is needed.

        Raises:
            ConfigurationError: it alone is larger than the budget.
        """
        size = sum(
            _parameters(file) * self._placement.dtype.itemsize for file in folder.rglob("*.safetensors")
        )
        budget = self._residency.budget
        if budget is not None and size > budget:
            raise ConfigurationError(
                f"model {entry.id} takes {size / _GIB:.2f} GiB, "
                f"and DARKROOM_WORKER_MODEL_MEMORY allows {budget / _GIB:.2f} GiB for all models together"
            )
        self._offered[entry.id] = entry, folder
        self._sizes[entry.id] = size

    def entry(self, model: str) -> ModelEntry:
        """What the catalogue says of an offered model."""
        return self._offered[model][0]

    def get(self, model: str) -> Model | None:
        """The model, if it is on the device."""
        placed = self._placed.get(model)
        return placed.model if placed else None

    def use(self, model: str, *, tick: int) -> Model:
        """The model, which is on the device, for this tick."""
        self._placed[model].used = tick
        return self._placed[model].model

    def hold(self, model: str) -> Model:
        """The model, which stays on the device until it is released as often as it was held."""
        self._placed[model].held += 1
        return self._placed[model].model

    def release(self, model: str) -> None:
        """Undo one ``hold``."""
        self._placed[model].held -= 1

    def make_room(self, model: str, *, demands: Iterable[Demand], premium: bool, tick: int) -> bool:
        """Send away what has to leave for ``model``; false when it has to wait.

        Args:
            model: an offered model that is not on the device.
            demands: every picture under way.
            premium: whether premium pictures wait for the model.
            tick: the number of the tick to come.
        """
        wanted = {(one.picture.model, one.premium) for one in demands}
        residents = [
            Resident(
                model=name,
                size=self._sizes[name],
                since=placed.since,
                used=placed.used,
                premium=(name, True) in wanted,
                batch=(name, False) in wanted,
                held=placed.held > 0,
            )
            for name, placed in self._placed.items()
        ]
        leavers = self._residency.leavers(residents, size=self._sizes[model], premium=premium, tick=tick)
        if leavers is None:
            return False
        if leavers:
            self._pace.forget()
            for name in leavers:
                del self._placed[name]
                MODEL_BYTES.remove(name)
                log.info("engine.unloaded", model=name, to_load=model)
            gc.collect()
            torch.cuda.empty_cache()
        return True

    def load(self, model: str) -> Model:
        """Read an offered model onto the device; on any thread.

        Raises:
            WeightsError: the files do not fit together.
        """
        began = time.monotonic()
        entry, folder = self._offered[model]
        loaded = Model(entry, folder, self._placement, pace=self._pace, buckets=self._buckets)
        log.info(
            "engine.loaded",
            model=model,
            device=self._placement.name,
            dtype=str(self._placement.dtype),
            seconds=round(time.monotonic() - began, 2),
        )
        return loaded

    def place(self, model: Model, *, tick: int) -> None:
        """Have a loaded model at hand from now on."""
        self._placed[model.entry.id] = _Placed(model, since=tick, used=tick)
        MODEL_BYTES.labels(model=model.entry.id).set(self._sizes[model.entry.id])


def _parameters(file: Path) -> int:
    """How many numbers a safetensors file holds, as its header says."""
    with file.open("rb") as source:
        length = int.from_bytes(source.read(_HEADER_LENGTH_BYTES), "little")
        header = json.loads(source.read(length))
    return sum(math.prod(one["shape"]) for name, one in header.items() if name != "__metadata__")
