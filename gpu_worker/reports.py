"""What the worker says of its jobs: that they began, how far they are, how they ended."""

import asyncio
from collections.abc import Sequence

import structlog

from core.clock import now
from core.errors import ServiceUnavailableError
from core.lifecycle import GenerationState, Tier
from core.messages import Outcome, Progress, Started, StoredImage
from core.queue import Delivery, Lane, Queue
from core.queue.topology import job_of_subject
from gpu_worker.assignment import Assignment, News
from gpu_worker.engine.preview import data_url

APOLOGY = "The picture could not be made; our side is at fault. Please try again."

log = structlog.get_logger(__name__)


class Reports:
    """The worker's voice on the broker.

    Args:
        queue: the broker.
        worker: this worker's name.
    """

    def __init__(self, queue: Queue, worker: str) -> None:
        self._queue = queue
        self._worker = worker

    async def started(self, one: Assignment) -> None:
        """Say that the job has begun.

        Raises:
            ServiceUnavailableError: the broker does not answer.
        """
        report = Started(
            id=one.id,
            worker=self._worker,
            attempt=one.delivery.attempt,
            started_at=now(),
            request_id=one.job.request_id,
        )
        await self._queue.publish_result(one.job.tier, report)

    async def progress(self, one: Assignment, news: News) -> None:
        """Say how far a job is, and show it where there is a preview; a loss is no harm."""
        report = Progress(
            id=one.id,
            state=GenerationState.RUNNING,
            step=news.step,
            total_steps=one.job.parameters.steps,
            preview=None if news.preview is None else await asyncio.to_thread(data_url, news.preview),
        )
        try:
            await self._queue.publish_progress(report)
        except ServiceUnavailableError as error:
            log.warning("progress_lost", generation=str(one.id), error=str(error))

    async def ended(
        self,
        one: Assignment,
        state: GenerationState,
        *,
        images: Sequence[StoredImage] = (),
        reason: str | None = None,
        cause: str | None = None,
    ) -> None:
        """Say how a job ended; with a cause it is a dead letter.

        Raises:
            ServiceUnavailableError: the broker does not answer.
        """
        outcome = Outcome(
            id=one.id,
            worker=self._worker,
            attempt=one.delivery.attempt,
            state=state,
            images=tuple(images),
            reason=reason,
            cause=cause,
            finished_at=now(),
            request_id=one.job.request_id,
        )
        await self._queue.publish_result(one.job.tier, outcome)

    async def unreadable(self, delivery: Delivery) -> bool:
        """End a job whose message no worker can read; lane and id are in its subject.

        Returns:
            Whether that could be said of anybody: not where the subject has no id.

        Raises:
            ServiceUnavailableError: the broker does not answer.
        """
        job_id = job_of_subject(delivery.subject)
        if job_id is None:
            return False
        outcome = Outcome(
            id=job_id,
            worker=self._worker,
            attempt=delivery.attempt,
            state=GenerationState.FAILED,
            reason=APOLOGY,
            cause="the job's message cannot be read",
            finished_at=now(),
        )
        premium = delivery.subject == Lane.PREMIUM.subject(job_id)
        await self._queue.publish_result(Tier.PREMIUM if premium else Tier.NORMAL, outcome)
        return True
