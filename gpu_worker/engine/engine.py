"""The loop: admit what arrived, take one step of the slots whose turn it is, hand over what is finished."""

import itertools
import queue
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Protocol
from uuid import UUID, uuid4

import structlog
import torch
from PIL import Image

from core.catalogue import ModelEntry
from core.errors import ConfigurationError, DarkroomError, GenerationFailedError
from core.lifecycle import Tier
from core.telemetry import SLOTS, TICK_PICTURES, TICK_SECONDS
from gpu_worker.engine.model import Model, Pixels
from gpu_worker.engine.policy import Policy
from gpu_worker.engine.slots import Picture, Shape, Slot
from gpu_worker.pipeline import Placement

WARM_UP_STEPS: Final = 2
_RATE_MEMORY: Final = 0.9

log = structlog.get_logger(__name__)


class Listener(Protocol):
    """Who asked for a picture. Called on the engine's thread, so it must be quick and must not raise."""

    def stepped(self, picture: Picture, step: int) -> None:
        """``step`` of the picture's steps are done."""

    def ended(self, picture: Picture, made: Image.Image | Exception) -> None:
        """The picture, RGB, or why there is none; nothing follows. Not called for what was canceled."""


class Engine:
    """The models of this process on one device, and every picture under way on it.

    ``submit`` and ``cancel`` are for any thread, ``turn`` for one: ``serve`` calls it over and over.

    Args:
        placement: where and in which precision.
        policy: who takes part in a tick.
    """

    def __init__(self, *, placement: Placement, policy: Policy) -> None:
        self._placement = placement
        self._policy = policy
        self._models: dict[str, Model] = {}
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._slots: list[Slot] = []
        self._listeners: dict[Slot, Listener] = {}
        self._fits: dict[Shape, int] = {}
        self._arrivals = itertools.count()
        self._tick = 0
        self._rate = _Rate()

    @property
    def models(self) -> tuple[str, ...]:
        """Ids of the loaded models, in the order of loading."""
        return tuple(self._models)

    @property
    def images_per_second(self) -> float:
        """The recent rate while there was something to do; 0 before the first picture."""
        return self._rate.value

    def load(self, entry: ModelEntry, folder: Path) -> None:
        """Load ``entry`` from its weights in ``folder`` onto the device.

        Raises:
            WeightsError: the files do not fit together.
        """
        began = time.monotonic()
        self._models[entry.id] = Model(entry, folder, self._placement)
        log.info(
            "engine.loaded",
            model=entry.id,
            device=self._placement.name,
            dtype=str(self._placement.dtype),
            seconds=round(time.monotonic() - began, 2),
        )

    def warm_up(self) -> None:
        """Make a picture of the default size with every model and throw it away.

        What the first picture alone pays for is then paid before a customer waits for it.

        Raises:
            GenerationFailedError: a model gives no usable picture on this device.
        """
        for model in self._models.values():
            began = time.monotonic()
            trial = _Trial()
            self.submit(_warm_up_picture(model.entry), trial)
            while trial.made is None:
                self.turn()
            if isinstance(trial.made, Exception):
                raise GenerationFailedError(
                    f"model {model.entry.id} does not warm up: {trial.made}"
                ) from trial.made
            log.info("engine.warm", model=model.entry.id, seconds=round(time.monotonic() - began, 2))

    def submit(self, picture: Picture, listener: Listener) -> None:
        """Have ``picture`` made; ``listener`` hears of it from then on.

        Raises:
            ConfigurationError: its model is not loaded.
        """
        if picture.model not in self._models:
            raise ConfigurationError(f"model {picture.model} is not loaded, only {', '.join(self._models)}")
        self._inbox.put(lambda: self._admit(picture, listener))

    def cancel(self, job: UUID) -> None:
        """Forget the pictures of ``job`` before the next tick; their listener hears nothing more of them."""
        self._inbox.put(lambda: self._forget(job))

    def serve(self, closing: threading.Event) -> None:
        """Work on the calling thread until ``closing`` is set; pictures under way then stay as they are."""
        while not closing.is_set():
            self.turn()

    def wake(self) -> None:
        """Have ``serve`` look whether it should end, even when there is nothing to do."""
        self._inbox.put(lambda: None)

    def turn(self) -> None:
        """Admit what has arrived, waiting for something when there is nothing to do, and take one tick."""
        if not self._slots:
            self._inbox.get()()
        while not self._inbox.empty():
            self._inbox.get()()
        self._take_tick()

    def _admit(self, picture: Picture, listener: Listener) -> None:
        model = self._models[picture.model]
        try:
            slot = model.slot(picture, arrived=next(self._arrivals), tick=self._tick)
        except Exception as error:
            log.exception("engine.not_admitted", job=str(picture.job))
            listener.ended(picture, error)
            return
        self._slots.append(slot)
        self._listeners[slot] = listener
        self._tell_slots()

    def _forget(self, job: UUID) -> None:
        for slot in [slot for slot in self._slots if slot.picture.job == job]:
            self._remove(slot)

    def _remove(self, slot: Slot) -> Listener:
        self._slots.remove(slot)
        self._tell_slots()
        return self._listeners.pop(slot)

    def _take_tick(self) -> None:
        self._tick += 1
        chosen = self._policy.choose(self._slots, tick=self._tick, fits=self._fits)
        if not chosen:
            return
        began = time.monotonic()
        self._advance(chosen)
        TICK_SECONDS.observe(time.monotonic() - began)
        TICK_PICTURES.observe(len(chosen))
        finished = [slot for slot in chosen if slot.finished and slot in self._listeners]
        if finished:
            self._hand_over(finished)
        self._rate.note(pictures=len(finished), seconds=time.monotonic() - began)

    def _advance(self, slots: Sequence[Slot]) -> None:
        """One step of each slot; where that fails, of as many as can take it."""
        model = self._models[slots[0].picture.model]
        try:
            model.advance(slots)
        except torch.OutOfMemoryError as error:
            self._shrink(slots, error)
        except Exception as error:
            log.exception("engine.tick_failed", pictures=len(slots))
            if len(slots) == 1:
                self._end(slots[0], error)
                return
            # One of them may be to blame: alone, it fails alone.
            for slot in slots:
                self._advance([slot])
        else:
            for slot in slots:
                slot.ticked = self._tick
                self._listeners[slot].stepped(slot.picture, slot.position)

    def _shrink(self, slots: Sequence[Slot], error: torch.OutOfMemoryError) -> None:
        torch.cuda.empty_cache()
        if len(slots) == 1:
            self._end(slots[0], error)
            return
        self._fits[slots[0].shape] = len(slots) // 2
        log.warning("engine.out_of_memory", pictures=len(slots), from_now_on=len(slots) // 2)

    def _hand_over(self, slots: Sequence[Slot]) -> None:
        model = self._models[slots[0].picture.model]
        try:
            made: Sequence[Pixels | DarkroomError] = model.decode(slots)
        except Exception as error:
            log.exception("engine.decode_failed", pictures=len(slots))
            if len(slots) == 1:
                self._end(slots[0], error)
                return
            torch.cuda.empty_cache()
            for slot in slots:
                self._hand_over([slot])
            return
        for slot, one in zip(slots, made, strict=True):
            self._end(slot, one if isinstance(one, DarkroomError) else Image.fromarray(one))

    def _end(self, slot: Slot, made: Image.Image | Exception) -> None:
        self._remove(slot).ended(slot.picture, made)

    def _tell_slots(self) -> None:
        premium = sum(slot.premium for slot in self._slots)
        SLOTS.labels(tier=Tier.PREMIUM.value).set(premium)
        SLOTS.labels(tier=Tier.NORMAL.value).set(len(self._slots) - premium)


class _Rate:
    """Pictures per second of work, the recent ones counting more."""

    def __init__(self) -> None:
        self.value = 0.0
        self._seconds = 0.0

    def note(self, *, pictures: int, seconds: float) -> None:
        self._seconds += seconds
        if not pictures:
            return
        rate = pictures / self._seconds
        self.value = rate if not self.value else _RATE_MEMORY * self.value + (1 - _RATE_MEMORY) * rate
        self._seconds = 0.0


class _Trial:
    """Listens to a picture that nobody asked for."""

    def __init__(self) -> None:
        self.made: Image.Image | Exception | None = None

    def stepped(self, picture: Picture, step: int) -> None: ...

    def ended(self, picture: Picture, made: Image.Image | Exception) -> None:  # noqa: ARG002 - a listener
        self.made = made


def _warm_up_picture(entry: ModelEntry) -> Picture:
    defaults = entry.defaults
    return Picture(
        job=uuid4(),
        index=0,
        tier=Tier.NORMAL,
        model=entry.id,
        prompt="",
        negative_prompt="",
        seed=0,
        width=defaults.width,
        height=defaults.height,
        steps=min(WARM_UP_STEPS, defaults.steps),
        guidance_scale=defaults.guidance_scale,
        scheduler=defaults.scheduler,
    )
