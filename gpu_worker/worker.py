"""The worker's loops: pull jobs while the engine has room; store, report and acknowledge what it made."""

import asyncio
import hashlib
import itertools
import math
import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, Final

import structlog
from PIL import Image

from core import tracing
from core.clock import now
from core.errors import (
    GenerationFailedError,
    GenerationRejectedError,
    InvalidMessageError,
    ServiceUnavailableError,
)
from core.failpoints import Failpoint, reach
from core.lifecycle import GenerationState, Tier
from core.messages import Control, Job, StoredImage
from core.queue import Consumer, Delivery, Queue
from core.queue.topology import BATCH_JOBS, MAX_DELIVER, PREMIUM_JOBS
from core.storage import Storage
from core.telemetry import IMAGES, QUEUE_SECONDS, SLOT_CAPACITY, UNSTORED_PICTURES
from gpu_worker.assignment import Assignment
from gpu_worker.engine import Engine, pictures_of
from gpu_worker.images import encode
from gpu_worker.presence import Presence
from gpu_worker.reports import APOLOGY, Reports
from gpu_worker.settings import WorkerSettings
from gpu_worker.watchdog import LoopProgress, Progress
from gpu_worker.watching import Watched

_JOBS: Final = {Tier.PREMIUM: PREMIUM_JOBS, Tier.NORMAL: BATCH_JOBS}
_PROGRESS_SECONDS: Final = 0.25
_FETCH_SECONDS: Final = 1.0
_RETRY_SECONDS = 2.0
_LONGEST_CAUSE = 1000
_UNSTORED: Final = 4
"""Pictures of a tier for each slot that may wait for the store: it may take four times as long as making."""

log = structlog.get_logger(__name__)


class Worker:
    """Makes the pictures of the jobs that it pulls, in an engine that they join and leave at any step."""

    def __init__(
        self,
        *,
        settings: WorkerSettings,
        queue: Queue,
        storage: Storage,
        engine: Engine,
        device: str,
    ) -> None:
        self._settings = settings
        self._queue = queue
        self._storage = storage
        self._engine = engine
        self._reports = Reports(queue, settings.worker_name)
        self._watched = Watched()
        self._held: dict[asyncio.Task[None], Assignment] = {}
        self._presence = Presence(
            settings=settings, queue=queue, engine=engine, device=device, held=self._held.values
        )
        self._left = asyncio.Event()
        self._stopping = False
        self._deeds = 0
        self._fetches = itertools.count()
        self._fetching: dict[Tier, int | None] = dict.fromkeys(settings.worker_tiers)
        """The number of each tier's fetch under way; none while it waits for room."""

    @property
    def parts(self) -> Mapping[str, Progress]:
        """What a watchdog has to look at: all that could stand still while the heartbeats go on."""
        return {
            "event loop": LoopProgress(),
            "engine": lambda: self._engine.progress,
            # Such as uploads, which the engine knows nothing of.
            "jobs": lambda: (self._engine.progress or 0) + self._deeds if self._held else None,
            **{
                f"{tier.value.lower()} fetches": partial(self._fetching.get, tier)
                for tier in self._settings.worker_tiers
            },
        }

    async def run(self, *, stop: asyncio.Event, hurry: asyncio.Event | None = None) -> None:
        """Work until ``stop`` is set; then finish what is under way.

        What is not finished is handed back when time is up, ``hurry`` is set or the engine has broken.
        """
        SLOT_CAPACITY.set(self._settings.worker_slots)
        closing = threading.Event()
        engine = asyncio.create_task(self._serve(closing))
        pulls = [
            asyncio.create_task(self._pull(self._queue.consumer(_JOBS[tier]), tier))
            for tier in self._settings.worker_tiers
        ]
        signs = [
            asyncio.create_task(sign()) for sign in (self._presence.beat, self._stay_alive, self._tell_steps)
        ]
        told = asyncio.create_task(stop.wait())
        async with AsyncExitStack() as at_end:
            at_end.push_async_callback(await self._queue.subscribe_control(self._obey))
            try:
                # Without its signs the jobs would be made elsewhere too, and nobody would know why.
                await asyncio.wait({engine, told, *pulls, *signs}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                self._stopping = True
                self._left.set()
                # A fetch that is cancelled swallows what it was given: the short ones end by themselves.
                ends = await asyncio.gather(*pulls, return_exceptions=True)
                await self._drain(hurry or asyncio.Event(), engine)
                closing.set()
                self._engine.wake()
                ends += await asyncio.gather(engine, return_exceptions=True)
                for task in (told, *signs):
                    task.cancel()
                ends += await asyncio.gather(*signs, return_exceptions=True)
                await self._presence.leave()
        for end in ends:
            if isinstance(end, Exception):
                raise end

    async def _serve(self, closing: threading.Event) -> None:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._engine.thread, self._engine.serve, closing)

    async def _pull(self, consumer: Consumer, tier: Tier) -> None:
        """Keep this tier's half of the engine full: batch pictures pause where premium needs the room."""
        while not self._stopping:
            if not self._has_room(tier):
                self._left.clear()
                self._fetching[tier] = None
                await self._left.wait()
                continue
            self._fetching[tier] = next(self._fetches)
            # One at a time: each may ask for several pictures, and what is too much here another worker may
            # have slots for.
            for delivery in await consumer.fetch(1, wait=_FETCH_SECONDS):
                await self._accept(delivery)
        self._fetching[tier] = None

    async def _accept(self, delivery: Delivery) -> None:
        try:
            job = Job.decode(delivery.data)
        except InvalidMessageError:
            log.exception("job_unreadable", subject=delivery.subject)
            await self._refuse(delivery)
            return
        held = next((one for one in self._held.values() if one.id == job.id), None)
        if held is not None:
            # Its wait had passed, or it was lost and published again. What settles the newest delivery
            # settles the job, and its number says how many are left.
            log.warning("job_delivered_again", generation=str(job.id), attempt=delivery.attempt)
            held.delivery = delivery
            return
        one = Assignment(job, delivery, watched=self._watched, freed=self._left.set)
        task = asyncio.create_task(self._carry_out(one))
        self._held[task] = one
        task.add_done_callback(self._forget)

    async def _refuse(self, delivery: Delivery) -> None:
        """End a job that no worker can read; the subject says whose it is."""
        try:
            told = await self._reports.unreadable(delivery)
        except ServiceUnavailableError as error:
            log.warning("job_postponed", attempt=delivery.attempt, error=repr(error))
            await delivery.nak(delay=_RETRY_SECONDS)
            return
        await (delivery.ack() if told else delivery.reject())

    def _forget(self, task: asyncio.Task[None]) -> None:
        tier = self._held.pop(task).job.tier
        self._deeds += 1
        self._note_left(tier)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("job_dropped", error=repr(error))

    def _note_left(self, tier: Tier) -> None:
        UNSTORED_PICTURES.labels(tier=tier.value).set(self._unstored(tier))
        self._left.set()

    async def _carry_out(self, one: Assignment) -> None:
        with (
            structlog.contextvars.bound_contextvars(generation=str(one.id), request_id=one.job.request_id),
            self._span(one) as span,
        ):
            tracing.record("wait in queue", began=one.delivery.stored_at.timestamp(), ended=time.time())
            try:
                if one.job.deadline is not None and now() > one.job.deadline:
                    reason = "The batch window ended before the picture's turn came."
                    await self._settle(one, GenerationState.FAILED, reason=reason)
                    return
                QUEUE_SECONDS.labels(tier=one.job.tier.value).observe(one.age)
                one.timeline.submitted()
                for picture in pictures_of(one.job):
                    self._engine.submit(picture, one)
                with tracing.span("publish started", kind=tracing.Kind.PRODUCER, messaging__system="nats"):
                    await self._reports.started(one)
                made = await one.made()
                one.timeline.tell()
                # Its slots are free while its files are written.
                self._note_left(one.job.tier)
                await self._deliver(one, made)
            except ServiceUnavailableError as error:
                log.warning("job_postponed", attempt=one.delivery.attempt, error=repr(error))
                span.fail(type(error).__name__)
                self._engine.cancel(one.id, one)
                await one.delivery.nak(delay=_RETRY_SECONDS)
            except Exception as error:
                log.exception("job_broken")
                span.fail(type(error).__name__)
                self._engine.cancel(one.id, one)
                await self._retry_or_fail(one, error)

    def _span(self, one: Assignment) -> tracing.Span:
        asked = one.job.parameters
        return tracing.span(
            f"make {one.job.tier.value} pictures",
            kind=tracing.Kind.CONSUMER,
            parent=one.delivery.traceparent,
            messaging__system="nats",
            darkroom__generation=str(one.id),
            darkroom__worker=self._settings.worker_name,
            darkroom__attempt=one.delivery.attempt,
            darkroom__model=asked.model,
            darkroom__width=asked.width,
            darkroom__height=asked.height,
            darkroom__pictures=asked.count,
            darkroom__steps=asked.steps,
        )

    async def _deliver(self, one: Assignment, made: Sequence[Image.Image | Exception]) -> None:
        if one.canceled:
            log.info("job_canceled")
            await one.delivery.ack()
            return
        for picture in made:
            if isinstance(picture, GenerationRejectedError):
                await self._settle(one, GenerationState.REJECTED, reason=str(picture))
                return
            if isinstance(picture, GenerationFailedError):
                await self._settle(one, GenerationState.FAILED, reason=str(picture))
                return
            if isinstance(picture, Exception):
                await self._retry_or_fail(one, picture)
                return
        try:
            images = await self._store(one, [picture for picture in made if isinstance(picture, Image.Image)])
        except ServiceUnavailableError as error:
            await self._retry_or_fail(one, error)
            return
        IMAGES.labels(model=one.job.parameters.model).inc(len(images))
        await self._settle(one, GenerationState.SUCCEEDED, images=images)

    async def _store(self, one: Assignment, pictures: Sequence[Image.Image]) -> list[StoredImage]:
        # Each attempt has keys of its own: a late twin never overwrites a recorded picture.
        folder = f"generations/{one.id}/{one.delivery.attempt}-{secrets.token_hex(4)}"
        parameters = one.job.parameters
        stored = []
        for index, picture in enumerate(pictures):
            with tracing.span("encode picture"):
                data = await asyncio.to_thread(
                    encode, picture, format=parameters.format, parameters=parameters, index=index
                )
            image = StoredImage(
                key=f"{folder}/{index}.{parameters.format.extension}",
                width=picture.width,
                height=picture.height,
                seed=parameters.seed_of(index),
                content_type=parameters.format.content_type,
                byte_size=len(data),
                sha256=hashlib.sha256(data).hexdigest(),
            )
            reach(Failpoint.PICTURE_BEFORE_UPLOAD)
            with tracing.span("upload picture", kind=tracing.Kind.CLIENT, darkroom__bytes=len(data)):
                await self._storage.put(image.key, data, content_type=image.content_type)
            reach(Failpoint.PICTURE_AFTER_UPLOAD)
            stored.append(image)
            self._deeds += 1
        return stored

    async def _settle(
        self,
        one: Assignment,
        state: GenerationState,
        *,
        images: Sequence[StoredImage] = (),
        reason: str | None = None,
        cause: str | None = None,
    ) -> None:
        """Report, and only then acknowledge: a crash in between makes the job run twice, never not at all."""
        reach(Failpoint.OUTCOME_BEFORE_PUBLISH)
        with tracing.span(
            "publish outcome",
            kind=tracing.Kind.PRODUCER,
            messaging__system="nats",
            darkroom__state=state.value,
        ):
            await self._reports.ended(one, state, images=images, reason=reason, cause=cause)
        reach(Failpoint.OUTCOME_AFTER_PUBLISH)
        await one.delivery.ack()
        reach(Failpoint.JOB_AFTER_ACK)
        log.info("job_done", state=state.value, images=len(images), attempt=one.delivery.attempt)

    async def _retry_or_fail(self, one: Assignment, error: Exception) -> None:
        if one.delivery.attempt >= MAX_DELIVER:
            log.error("job_given_up", error=repr(error))
            await self._settle(
                one, GenerationState.FAILED, reason=APOLOGY, cause=repr(error)[:_LONGEST_CAUSE]
            )
            return
        log.warning("job_postponed", attempt=one.delivery.attempt, error=repr(error))
        await one.delivery.nak(delay=_RETRY_SECONDS)

    async def _drain(self, hurry: asyncio.Event, engine: asyncio.Task[None]) -> None:
        """Let the jobs under way end for as long as there is time and an engine, and hand the others back."""
        if self._held:
            hurried = asyncio.create_task(hurry.wait())
            ended = asyncio.gather(*self._held, return_exceptions=True)
            ending: list[asyncio.Future[Any]] = [ended, hurried, engine]
            seconds = self._settings.worker_drain_seconds
            await asyncio.wait(ending, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            hurried.cancel()
        for task, one in list(self._held.items()):
            self._engine.cancel(one.id, one)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await one.delivery.nak(delay=_RETRY_SECONDS)

    def _obey(self, control: Control) -> None:
        if control.action == "preview":
            self._watched.note(control.id)
            return
        for one in self._held.values():
            if one.id == control.id:
                self._engine.cancel(one.id, one)
                one.cancel()

    def _has_room(self, tier: Tier) -> bool:
        """Whether to take another job of ``tier``.

        Of the batch tier some more pictures are held than have slots, which are ready when others end. Not of
        premium: another worker may have a slot for them at once. Pictures that are being decoded have left
        theirs, but where decoding is what takes the time they must not pile up here; nor those that the store
        has yet to take.
        """
        slots = self._settings.worker_slots
        own = [one for one in self._held.values() if one.job.tier is tier]
        in_slots = sum(one.in_slots for one in own)
        decoding = sum(one.under_way for one in own) - in_slots
        held = slots if tier is Tier.PREMIUM else slots + math.ceil(slots / 2)
        return in_slots + max(0, decoding - slots) < held and self._unstored(tier) < _UNSTORED * slots

    def _unstored(self, tier: Tier) -> int:
        """How many pictures of ``tier`` are made and neither stored and reported nor given up."""
        return sum(one.pictures - one.under_way for one in self._held.values() if one.job.tier is tier)

    async def _tell_steps(self) -> None:
        while True:
            await asyncio.sleep(_PROGRESS_SECONDS)
            for one in list(self._held.values()):
                if (news := one.news()) is not None:
                    await self._reports.progress(one, news)

    async def _stay_alive(self) -> None:
        """Keep the broker from giving our jobs to another worker."""
        every = self._queue.ack_wait(PREMIUM_JOBS) / 3
        while True:
            await asyncio.sleep(every)
            for one in list(self._held.values()):
                await one.delivery.in_progress()
