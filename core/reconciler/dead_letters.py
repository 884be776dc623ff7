"""Jobs that our side gives up: failed with a word to the customer, and kept with another for the operator."""

from typing import Literal
from uuid import UUID

import structlog

from core.clock import now
from core.errors import AlreadyFinishedError, NotFoundError
from core.lifecycle import GenerationState
from core.models import Generation
from core.queue import Lane, Queue
from core.recording import Recorder
from core.repository import accounts, generations, jobs
from core.repository.database import in_transaction
from core.telemetry import JOBS_DEAD

log = structlog.get_logger(__name__)


async def retry(generation_id: UUID) -> Generation:
    """Accept the request of a failed generation once more, for its account, whatever its limits.

    The failed one stays what it is. The relay publishes the new one's job.

    Raises:
        NotFoundError: there is no failed generation of this id, or its account is closed.
        AlreadyFinishedError: it was retried before.
    """
    async with in_transaction():
        failed = await generations.failed(generation_id)
        if failed is None:
            raise NotFoundError(f"there is no open or failed generation {generation_id}")
        await accounts.lock(failed.account_id)
        if await jobs.is_closed(failed.account_id):
            raise NotFoundError(f"the account of generation {generation_id} is closed")
        if (before := await jobs.retry_of(generation_id)) is not None:
            raise AlreadyFinishedError(f"generation {generation_id} was retried as {before}")
        made = await jobs.retry(failed)
    log.info("job_retried", generation=str(made.id), failed=str(generation_id))
    return made


class DeadLetters:
    """Fails jobs for good and takes them off the queue."""

    def __init__(self, *, queue: Queue, recorder: Recorder) -> None:
        self._queue = queue
        self._recorder = recorder

    async def bury(
        self, job_id: UUID, lane: Lane, *, why: Literal["exhausted", "lost"], error: str, cause: str
    ) -> None:
        """Fail a job; where its generation has ended already, that end stands.

        Args:
            job_id: which.
            lane: where the broker holds it, if it does.
            why: for the metrics.
            error: what the customer is told.
            cause: what the operator is told.

        Raises:
            ServiceUnavailableError: database or broker do not answer; doing it again does no harm.
        """
        failed = await self._recorder.finish(
            job_id, GenerationState.FAILED, at=now(), error=error, cause=cause
        )
        await self._queue.purge_job(lane, job_id)
        if failed:
            JOBS_DEAD.labels(why=why).inc()
        log.error(
            "job_dead", generation=str(job_id), why=why, cause=cause, recorded=bool(failed), lane=lane.value
        )

    async def exhausted(self, job_id: UUID, lane: Lane, *, deliveries: int) -> None:
        """Bury a job that was delivered as often as it may be, as :meth:`bury`."""
        tries = "one attempt" if deliveries == 1 else f"{deliveries} attempts"
        await self.bury(
            job_id,
            lane,
            why="exhausted",
            error=f"The pictures could not be made after {tries}. Please ask for them again.",
            cause=f"delivered {deliveries} times, and no worker reported an end",
        )
