"""The loop: admit what arrived, take one step of the slots whose turn it is, send what is finished aside."""

import itertools
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final
from uuid import UUID

import structlog
import torch
from PIL import Image

from core.catalogue import ModelEntry
from core.errors import ConfigurationError, DarkroomError, GenerationFailedError
from core.failpoints import Failpoint, reach
from core.lifecycle import Tier
from core.messages import Speed
from core.telemetry import SLOTS, TICK_PICTURES, TICK_SECONDS
from gpu_worker.engine.aside import aside_on
from gpu_worker.engine.model import Model, Pixels
from gpu_worker.engine.pace import pace_on
from gpu_worker.engine.policy import Policy
from gpu_worker.engine.residency import Residency
from gpu_worker.engine.shelf import Shelf
from gpu_worker.engine.slots import Demand, Listener, Picture, Shape, Slot
from gpu_worker.engine.speed import Speedometer
from gpu_worker.engine.trial import Trial, trial_picture
from gpu_worker.pipeline import Placement

_SHRUNK_TICKS: Final = 1_000
"""After so many ticks shapes that there was no memory for are tried whole again: another model or picture may
have had it. Where there still is none, one tick of a thousand is lost."""

log = structlog.get_logger(__name__)


class Engine:
    """The models of this process on one device, and every picture under way on it.

    ``submit`` and ``cancel`` are for any thread; ``warm_up``, ``turn`` and ``serve``, which calls it over and
    over, for one and the same, such as :attr:`thread`. On CUDA text is embedded and pictures are decoded on
    another, on the CPU between ticks.

    Args:
        placement: where and in which precision.
        policy: who takes part in a tick.
        model_memory: bytes that the models may take on the device together; none is no limit.
        buckets: see :class:`gpu_worker.engine.model.Model`.
    """

    def __init__(
        self,
        *,
        placement: Placement,
        policy: Policy,
        model_memory: int | None = None,
        buckets: Sequence[int] = (),
    ) -> None:
        # CUDA graphs are replayed on the thread that recorded them.
        self.thread: Final = ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine")
        self._policy = policy
        self._pace = pace_on(placement.device)
        self._shelf = Shelf(
            placement=placement,
            pace=self._pace,
            residency=Residency(budget=model_memory, patience=policy.patience),
            buckets=buckets,
        )
        self._aside = aside_on(placement.device)
        # Reading a large model takes seconds, and nobody's decoding is to wait for that.
        self._loader = aside_on(placement.device)
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._premium_came = threading.Event()
        self._unsettled = False
        self._holding = False
        self._waiting: list[Demand] = []
        self._slots: list[Slot] = []
        self._decoding: list[Slot] = []
        self._loading: str | None = None
        self._fits: dict[Shape, int] = {}
        self._shrunk = 0
        self._arrivals = itertools.count()
        self._tick = 0
        self._turns = 0
        self._speedometer = Speedometer()
        self._worked_until = 0.0

    @property
    def models(self) -> tuple[str, ...]:
        """Ids of the models that it makes pictures with, the default first."""
        return self._shelf.offered

    @property
    def images_per_second(self) -> float:
        """The recent rate while there was something to do; 0 before the first picture."""
        return self._speedometer.images_per_second

    @property
    def speeds(self) -> Sequence[Speed]:
        """The recent speed of each model that has worked yet."""
        return self._speedometer.speeds

    @property
    def progress(self) -> int | None:
        """Another number after each turn while it has or gets something to do, otherwise none."""
        if self._inbox.empty() and not self._under_way:
            return None
        return self._turns

    def offer(self, entry: ModelEntry, folder: Path) -> None:
        """Make pictures with ``entry`` from its weights in ``folder``. It is loaded when it is needed.

        Raises:
            ConfigurationError: it is larger than the models' memory.
        """
        self._shelf.offer(entry, folder)

    def warm_up(self) -> None:
        """Make a picture of the default size with every model and throw it away.

        What the first picture alone pays for is then paid before a customer waits for it. The first model
        comes last, and so is at hand where there is not room for all.

        Raises:
            WeightsError: a model does not load.
            GenerationFailedError: a model gives no usable picture on this device.
        """
        for model in reversed(self._shelf.offered):
            began = time.monotonic()
            trial = Trial(self.wake)
            self.submit(trial_picture(self._shelf.entry(model)), trial)
            while trial.made is None:
                self.turn()
            if isinstance(trial.made, DarkroomError) and not isinstance(trial.made, GenerationFailedError):
                raise trial.made
            if isinstance(trial.made, Exception):
                raise GenerationFailedError(f"model {model} does not warm up: {trial.made}") from trial.made
            log.info("engine.warm", model=model, seconds=round(time.monotonic() - began, 2))

    def submit(self, picture: Picture, listener: Listener) -> None:
        """Have ``picture`` made; ``listener`` hears of it from then on.

        Raises:
            ConfigurationError: its model is not offered here.
        """
        if picture.model not in self.models:
            raise ConfigurationError(f"model {picture.model} is not loaded, only {', '.join(self.models)}")
        demand = Demand(picture=picture, listener=listener, arrived=next(self._arrivals))
        self._inbox.put(lambda: self._waiting.append(demand))
        if demand.premium:
            self._premium_came.set()

    def cancel(self, job: UUID, listener: Listener) -> None:
        """Forget the pictures of ``job`` before the next tick; ``listener`` hears nothing more of them.

        Only those that ``listener`` asked for: a job that is delivered again may be here a second time.
        """
        self._inbox.put(lambda: self._forget(job, listener))

    def serve(self, closing: threading.Event) -> None:
        """Work on the calling thread until ``closing`` is set; pictures under way then stay as they are."""
        while not closing.is_set():
            self.turn()

    def wake(self) -> None:
        """Have ``serve`` look whether it should end, even when there is nothing to do."""
        self._inbox.put(lambda: None)

    def turn(self) -> None:
        """Take in what has arrived, waiting for something when there is nothing to do, and take one tick."""
        idle = not self._under_way
        able = self._able and not self._holding
        if not (able or self._unsettled or self._aside.waiting or self._loader.waiting):
            self._inbox.get()()
        if idle:
            self._worked_until = time.monotonic()
        self._premium_came.clear()
        self._take_in()
        self._prepare()
        self._fetch_model()
        for aside in (self._aside, self._loader):
            aside.between_ticks(self._hurried)
        self._pace.linger(self._take_in_within)
        # What is ready now takes part in this tick, and may be what others have waited for.
        self._unsettled = self._take_in()
        self._take_tick()
        self._tell_slots()
        self._turns += 1

    @property
    def _under_way(self) -> bool:
        return bool(self._slots or self._waiting or self._decoding)

    def _take_in(self) -> bool:
        """Do what the inbox says; whether it said anything."""
        found = not self._inbox.empty()
        while not self._inbox.empty():
            self._inbox.get()()
        return found

    def _take_in_within(self, seconds: float) -> None:
        """Do one thing that the inbox says within ``seconds``, if it says anything."""
        try:
            self._inbox.get(timeout=seconds)()
        except queue.Empty:
            return
        self._prepare()

    def _hurried(self) -> bool:
        """Whether premium waits for a tick; now and then the batch tier's texts and pictures go before it."""
        if self._tick % self._policy.patience == 0:
            return False
        return self._premium_came.is_set() or any(slot.premium for slot in self._able)

    @property
    def _able(self) -> list[Slot]:
        """The slots whose models are on the device."""
        return [slot for slot in self._slots if self._shelf.get(slot.picture.model)]

    def _forget(self, job: UUID, listener: Listener) -> None:
        for demand in [*self._waiting, *self._slots, *self._decoding]:
            if demand.picture.job == job and demand.listener is listener:
                demand.canceled = True
        self._waiting = [one for one in self._waiting if one.preparing or not one.canceled]
        self._slots = [slot for slot in self._slots if not slot.canceled]

    # Text

    def _prepare(self) -> None:
        """Have the prompts embedded of those that wait with their model at hand."""
        for demand in self._waiting:
            if not demand.preparing and self._shelf.get(demand.picture.model):
                demand.preparing = True
                self._prepare_one(demand)

    def _prepare_one(self, demand: Demand) -> None:
        model = self._shelf.hold(demand.picture.model)

        def admit(slot: Slot | Exception) -> None:
            self._inbox.put(lambda: self._admit(demand, slot))

        self._aside.submit(lambda: model.slot(demand), admit, premium=demand.premium, feeds=True)

    def _admit(self, demand: Demand, slot: Slot | Exception) -> None:
        self._shelf.release(demand.picture.model)
        self._waiting.remove(demand)
        if demand.canceled:
            return
        if isinstance(slot, Exception):
            log.error("engine.not_admitted", job=str(demand.picture.job), exc_info=slot)
            demand.end(slot)
            return
        slot.join(tick=self._tick)
        self._slots.append(slot)
        slot.listener.joined(slot.picture)

    # Models

    def _fetch_model(self) -> None:
        """Begin to load the model that is missed most, if it can have room."""
        missed = [one for one in (*self._waiting, *self._slots) if not self._shelf.get(one.picture.model)]
        if self._loading or not missed:
            return
        first = min(missed, key=lambda one: (not one.premium, one.arrived))
        name = first.picture.model
        demands = [*self._waiting, *self._slots]
        if not self._shelf.make_room(name, demands=demands, premium=first.premium, tick=self._tick):
            return
        self._loading = name

        def place(model: Model | Exception) -> None:
            self._inbox.put(lambda: self._place(name, model))

        self._loader.submit(lambda: self._shelf.load(name), place, premium=first.premium)

    def _place(self, name: str, model: Model | Exception) -> None:
        self._loading = None
        if isinstance(model, Model):
            try:
                # On this thread: what is recorded here is replayed here.
                trial = Demand(picture=trial_picture(model.entry), listener=Trial(self.wake), arrived=0)
                model.warm_up(model.slot(trial))
            except Exception as error:  # noqa: BLE001 - whatever it is, those who wait have to hear of it
                model = error
        if isinstance(model, Model):
            self._shelf.place(model, tick=self._tick)
            if name not in {speed.model for speed in self.speeds}:
                # Loaded and recorded before anybody waits for it; later that is a part of what it costs.
                self._worked_until = time.monotonic()
            return
        log.error("engine.not_loaded", model=name, exc_info=model)
        # The error's frames hold the model's tensors, and this one, which is among them, holds the error.
        model.with_traceback(None)
        lost = [one for one in (*self._waiting, *self._slots) if one.picture.model == name]
        self._waiting = [one for one in self._waiting if one not in lost]
        self._slots = [slot for slot in self._slots if slot not in lost]
        for one in lost:
            one.end(model)

    # Ticks

    def _take_tick(self) -> None:
        able = self._able
        # Not while pictures are decoded: for those there might not be memory enough at the same time.
        if self._tick - self._shrunk >= _SHRUNK_TICKS and not self._decoding:
            self._fits.clear()
        chosen = self._policy.choose(able, tick=self._tick + 1, fits=self._fits)
        # With premium among the able the batch tier's turn has come, and is not to be put off.
        self._holding = not any(slot.premium for slot in able) and self._premium_aside
        if self._holding or not chosen:
            return
        reach(Failpoint.TICK_BEFORE_STEP)
        self._tick += 1
        name = chosen[0].picture.model
        model = self._shelf.use(name, tick=self._tick)
        self._advance(model, chosen)
        self._pace.keep()
        now = time.monotonic()
        seconds, self._worked_until = now - self._worked_until, now
        TICK_SECONDS.observe(seconds)
        TICK_PICTURES.observe(len(chosen))
        finished = [slot for slot in chosen if slot.finished and slot in self._slots]
        self._speedometer.note(
            name,
            seconds=seconds,
            megapixels=sum(slot.picture.megapixels for slot in chosen),
            finished=len(finished),
        )
        if finished:
            self._send_aside(model, finished)

    def _advance(self, model: Model, slots: Sequence[Slot]) -> None:
        """One step of each slot; where that fails, of as many as can take it."""
        try:
            self._preview(model, model.advance(slots, estimate=self._watched(model, slots)))
        except torch.OutOfMemoryError as error:
            self._shrink(slots, error)
            return
        except Exception as error:
            log.exception("engine.tick_failed", pictures=len(slots))
            if len(slots) == 1:
                self._fail(slots[0], error)
                return
        else:
            for slot in slots:
                slot.ticked = self._tick
                slot.listener.stepped(slot.picture, slot.position)
            return
        # One of them may be to blame: alone, it fails alone. Not while the error is at hand, which has the
        # tensors of the step that failed.
        for slot in slots:
            self._advance(model, [slot])

    @property
    def _premium_aside(self) -> bool:
        """Whether a premium picture is on its way into a slot or out of one.

        That takes less time than most steps of the batch tier, which it would wait for or be slowed down by.
        """
        entering = (one for one in self._waiting if self._shelf.get(one.picture.model))
        return any(one.premium for one in (*entering, *self._decoding))

    def _watched(self, model: Model, slots: Sequence[Slot]) -> Sequence[Slot]:
        """Those of ``slots`` whose listeners want a preview now."""
        if not model.previews:
            return []
        return [slot for slot in slots if not slot.previewing and slot.listener.wants_preview(slot.picture)]

    def _preview(self, model: Model, estimates: Mapping[Slot, torch.Tensor]) -> None:
        for slot, estimate in estimates.items():
            slot.previewing = True
            self._aside.submit(
                partial(model.preview, estimate), partial(_previewed, slot), premium=slot.premium
            )

    def _shrink(self, slots: Sequence[Slot], error: torch.OutOfMemoryError) -> None:
        # The step's own tensors are in its frames, and only what nobody holds is given back.
        error.with_traceback(None)
        torch.cuda.empty_cache()
        if len(slots) == 1:
            self._fail(slots[0], error)
            return
        self._fits[slots[0].shape] = len(slots) // 2
        self._shrunk = self._tick
        log.warning("engine.out_of_memory", pictures=len(slots), from_now_on=len(slots) // 2)

    def _fail(self, slot: Slot, error: Exception) -> None:
        self._slots.remove(slot)
        slot.end(error)

    # Pictures

    def _send_aside(self, model: Model, finished: Sequence[Slot]) -> None:
        """Have the finished slots decoded, as many at once as the device likes, while the ticks go on."""
        for slot in finished:
            self._slots.remove(slot)
            self._decoding.append(slot)
        at_once = model.decodes_at_once(finished[0].picture)
        ordered = sorted(finished, key=lambda slot: (not slot.premium, slot.arrived))
        for start in range(0, len(ordered), at_once):
            self._decode(ordered[start : start + at_once])

    def _decode(self, slots: Sequence[Slot]) -> None:
        model = self._shelf.hold(slots[0].picture.model)

        def hand_over(made: Sequence[Pixels | Exception] | Exception) -> None:
            each = [made] * len(slots) if isinstance(made, Exception) else made
            for slot, one in zip(slots, each, strict=True):
                if not slot.canceled:
                    slot.end(one if isinstance(one, Exception) else Image.fromarray(one))
            self._inbox.put(lambda: self._decoded(slots))

        self._aside.submit(lambda: model.decode_each(slots), hand_over, premium=slots[0].premium)

    def _decoded(self, slots: Sequence[Slot]) -> None:
        self._shelf.release(slots[0].picture.model)
        for slot in slots:
            self._decoding.remove(slot)

    def _tell_slots(self) -> None:
        premium = sum(slot.premium for slot in self._slots)
        SLOTS.labels(tier=Tier.PREMIUM.value).set(premium)
        SLOTS.labels(tier=Tier.NORMAL.value).set(len(self._slots) - premium)


def _previewed(slot: Slot, preview: Image.Image | Exception | None) -> None:
    slot.previewing = False
    if isinstance(preview, Exception):
        log.error("engine.preview_failed", exc_info=preview)
    elif preview is not None and not (slot.canceled or slot.finished):
        slot.listener.previewed(slot.picture, preview)
