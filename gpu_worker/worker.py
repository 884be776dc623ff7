"""The worker's loop: pull, make, store, report, acknowledge, in that order."""

import asyncio
import hashlib
import secrets
import time
from collections.abc import Sequence
from uuid import UUID

import structlog
from PIL import Image

from core.clock import now
from core.errors import DarkroomError, GenerationFailedError, ServiceUnavailableError
from core.lifecycle import GenerationState, Tier
from core.messages import Heartbeat, Outcome, Progress, Started, StoredImage
from core.queue import Delivery, Queue
from core.queue.topology import BATCH_JOBS, MAX_DELIVER, PREMIUM_JOBS
from core.storage import Storage
from core.telemetry import BATCH_SIZE, BUSY_SLOTS, IMAGES
from gpu_worker.engine import Engine, pictures_of
from gpu_worker.images import encode
from gpu_worker.intake import Held, Intake, choose_batch
from gpu_worker.settings import WorkerSettings

_PROGRESS_SECONDS = 0.25
_SIGN_OF_LIFE_SECONDS = 5.0
_HEARTBEAT_SECONDS = 3.0
_RETRY_SECONDS = 2.0
_RATE_MEMORY = 0.8
_APOLOGY = "The picture could not be made; our side is at fault. Please try again."

log = structlog.get_logger(__name__)


class _HandedBackError(DarkroomError):
    """The worker has to leave before the pictures are done."""

    retryable = True


class Worker:
    """Makes the pictures of the jobs that it pulls, several of equal shape at a time."""

    def __init__(
        self, *, settings: WorkerSettings, queue: Queue, storage: Storage, engine: Engine, device: str
    ) -> None:
        self._settings = settings
        self._queue = queue
        self._storage = storage
        self._engine = engine
        self._device = device
        self._intake = Intake(
            premium=queue.consumer(PREMIUM_JOBS),
            batch=queue.consumer(BATCH_JOBS),
            slots=settings.worker_slots,
            refuse=self._refuse_unreadable,
        )
        self._started_at = now()
        self._busy = 0
        self._images_per_second = 0.0
        self._leave_at = float("inf")
        self._step = 0

    async def run(self, *, stop: asyncio.Event) -> None:
        """Work until ``stop`` is set; then finish what is under way, or hand it back when time is up."""
        background = [
            asyncio.create_task(self._beat()),
            asyncio.create_task(self._stay_alive()),
            asyncio.create_task(self._watch_for(stop)),
        ]
        try:
            while not stop.is_set():
                await self._intake.refill()
                if batch := choose_batch(self._intake.held, slots=self._settings.worker_slots):
                    await self._process(batch)
        finally:
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            await self._hand_back(self._intake.held)
            await self._leave()

    async def _process(self, batch: Sequence[Held]) -> None:
        live = [one for one in batch if not await self._refuse_late(one)]
        if not live:
            return
        try:
            for one in live:
                await self._report_start(one)
            made = await self._make(live)
        except _HandedBackError:
            await self._hand_back(live)
        except Exception as error:
            log.exception("batch_failed", jobs=len(live))
            if len(live) == 1:
                await self._retry_or_fail(live[0], error)
                return
            # One of them may be to blame: alone, it fails alone.
            for one in live:
                await self._process([one])
        else:
            for one, images in zip(live, made, strict=True):
                await self._deliver(one, images)

    async def _make(self, batch: Sequence[Held]) -> list[list[Image.Image | GenerationFailedError]]:
        """The pictures of each job, made in one call while the others hear of its steps."""
        pictures = [picture for one in batch for picture in pictures_of(one.job)]
        self._busy, self._step = len(pictures), 0
        BUSY_SLOTS.set(self._busy)
        BATCH_SIZE.observe(len(pictures))
        begun = time.monotonic()
        run = asyncio.create_task(
            asyncio.to_thread(self._engine.run, batch[0].shape, pictures, self._on_step)
        )
        try:
            await self._tell_steps(run, batch)
            made = iter(await run)
        finally:
            self._busy = 0
            BUSY_SLOTS.set(0)
        self._note_rate(len(pictures) / (time.monotonic() - begun))
        IMAGES.labels(model=batch[0].shape.model).inc(len(pictures))
        return [[next(made) for _ in range(one.job.parameters.count)] for one in batch]

    def _on_step(self, step: int, total: int) -> None:  # noqa: ARG002 - the engine's callback
        """Called by the engine on its thread."""
        if time.monotonic() > self._leave_at:
            raise _HandedBackError("told to stop")
        self._step = step

    async def _tell_steps(self, run: asyncio.Task[object], batch: Sequence[Held]) -> None:
        told = 0
        while not run.done():
            await asyncio.wait({run}, timeout=_PROGRESS_SECONDS)
            if self._step == told or run.done():
                continue
            told = self._step
            for one in batch:
                progress = Progress(
                    id=one.id,
                    state=GenerationState.RUNNING,
                    step=told,
                    total_steps=one.job.parameters.steps,
                )
                try:
                    await self._queue.publish_progress(progress)
                except ServiceUnavailableError as error:
                    log.warning("progress_lost", generation=str(one.id), error=str(error))

    async def _deliver(self, one: Held, made: Sequence[Image.Image | GenerationFailedError]) -> None:
        with structlog.contextvars.bound_contextvars(generation=str(one.id), request_id=one.job.request_id):
            failures = [picture for picture in made if isinstance(picture, GenerationFailedError)]
            if failures:
                await self._report_end(one, GenerationState.FAILED, reason=str(failures[0]))
                return
            try:
                images = await self._store(one, [image for image in made if isinstance(image, Image.Image)])
            except ServiceUnavailableError as error:
                await self._retry_or_fail(one, error)
                return
            await self._report_end(one, GenerationState.SUCCEEDED, images=images)

    async def _store(self, one: Held, pictures: Sequence[Image.Image]) -> list[StoredImage]:
        # Each attempt has keys of its own: a late twin never overwrites a recorded picture.
        folder = f"generations/{one.id}/{one.delivery.attempt}-{secrets.token_hex(4)}"
        stored = []
        for index, picture in enumerate(pictures):
            parameters = one.job.parameters
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
            await self._storage.put(image.key, data, content_type=image.content_type)
            stored.append(image)
        return stored

    async def _report_start(self, one: Held) -> None:
        await self._queue.publish_result(
            one.job.tier,
            Started(
                id=one.id,
                worker=self._settings.worker_name,
                attempt=one.delivery.attempt,
                started_at=now(),
                request_id=one.job.request_id,
            ),
        )

    async def _report_end(
        self,
        one: Held,
        state: GenerationState,
        *,
        images: Sequence[StoredImage] = (),
        reason: str | None = None,
    ) -> None:
        """Report, and only then acknowledge: a crash in between makes the job run twice, never not at all."""
        outcome = Outcome(
            id=one.id,
            worker=self._settings.worker_name,
            attempt=one.delivery.attempt,
            state=state,
            images=tuple(images),
            reason=reason,
            finished_at=now(),
            request_id=one.job.request_id,
        )
        try:
            await self._queue.publish_result(one.job.tier, outcome)
        except ServiceUnavailableError as error:
            log.warning("outcome_not_reported", error=str(error))
            await self._hand_back([one])
            return
        self._intake.release(one)
        await one.delivery.ack()
        log.info("job_done", state=state.value, images=len(images), attempt=one.delivery.attempt)

    async def _retry_or_fail(self, one: Held, error: Exception) -> None:
        if one.delivery.attempt >= MAX_DELIVER:
            log.error("job_given_up", generation=str(one.id), error=repr(error))
            await self._report_end(one, GenerationState.FAILED, reason=_APOLOGY)
            return
        log.warning("job_postponed", generation=str(one.id), attempt=one.delivery.attempt, error=repr(error))
        await self._hand_back([one])

    async def _refuse_late(self, one: Held) -> bool:
        """End a job whose result nobody waits for any more."""
        if one.job.deadline is None or now() <= one.job.deadline:
            return False
        await self._report_end(
            one, GenerationState.FAILED, reason="The batch window ended before the picture's turn came."
        )
        return True

    async def _refuse_unreadable(self, delivery: Delivery) -> None:
        """End a job whose message no worker can read; lane and id are in its subject."""
        _, lane, job_id = delivery.subject.split(".", 2)
        outcome = Outcome(
            id=UUID(job_id),
            worker=self._settings.worker_name,
            attempt=delivery.attempt,
            state=GenerationState.FAILED,
            reason=_APOLOGY,
            finished_at=now(),
        )
        tier = Tier.PREMIUM if lane == "premium" else Tier.NORMAL
        await self._queue.publish_result(tier, outcome)
        await delivery.ack()

    async def _hand_back(self, jobs: Sequence[Held]) -> None:
        for one in list(jobs):
            self._intake.release(one)
            await one.delivery.nak(delay=_RETRY_SECONDS)

    async def _stay_alive(self) -> None:
        """Keep the broker from giving our jobs to another worker."""
        while True:
            await asyncio.sleep(_SIGN_OF_LIFE_SECONDS)
            for one in list(self._intake.held):
                await one.delivery.in_progress()

    async def _watch_for(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._leave_at = time.monotonic() + self._settings.worker_drain_seconds

    async def _beat(self) -> None:
        while True:
            try:
                await self._queue.put_heartbeat(self._heartbeat())
            except ServiceUnavailableError as error:
                log.warning("heartbeat_lost", error=str(error))
            await asyncio.sleep(_HEARTBEAT_SECONDS)

    async def _leave(self) -> None:
        try:
            await self._queue.remove_heartbeat(self._settings.worker_name)
        except ServiceUnavailableError as error:
            # It expires by itself.
            log.warning("heartbeat_left_behind", error=str(error))

    def _heartbeat(self) -> Heartbeat:
        return Heartbeat(
            worker=self._settings.worker_name,
            models=self._engine.models,
            device=self._device,
            slots=self._settings.worker_slots,
            busy=self._busy,
            images_per_second=round(self._images_per_second, 3),
            started_at=self._started_at,
            beat_at=now(),
        )

    def _note_rate(self, rate: float) -> None:
        before = self._images_per_second
        self._images_per_second = rate if not before else _RATE_MEMORY * before + (1 - _RATE_MEMORY) * rate
